"""The wheel holds the server, the adapters and the data (ARCHITECTURE.md, section 7)."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = "fhir_server/_artifacts"


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names of the files in a wheel that was built from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(folder)]
    built = subprocess.run([*command, str(ROOT)], check=False, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.mark.slow
def test_the_wheel_holds_every_module(names: list[str]) -> None:
    """Every module of the server and of the adapters is in the wheel."""
    modules = [path for folder in ("fhir_server", "adapters") for path in of(folder, "*.py")]

    assert sorted(set(modules) - set(names)) == []


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["profiles", "terminology"])
def test_the_wheel_holds_the_data(names: list[str], folder: str) -> None:
    """Every file of ``profiles/`` and ``terminology/`` is in the wheel, below the package."""
    data = [f"{DATA}/{name}" for name in of(folder, "*")]

    assert data
    assert sorted(set(data) - set(names)) == []


@pytest.mark.slow
def test_the_wheel_holds_nothing_else(names: list[str]) -> None:
    """At the top are the server, the adapters and the description; ``adapters`` is a namespace."""
    top = {name.partition("/")[0] for name in names}

    assert {name for name in top if not name.endswith(".dist-info")} <= {"fhir_server", "adapters"}
    assert "adapters/__init__.py" not in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def of(folder: str, pattern: str) -> list[str]:
    """Return the files of ``folder`` that match ``pattern``, as seen from the root."""
    found = [path for path in (ROOT / folder).rglob(pattern) if path.is_file()]
    return [path.relative_to(ROOT).as_posix() for path in found if "__pycache__" not in path.parts]
