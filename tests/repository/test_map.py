"""The map in ARCHITECTURE.md, section 1, is the tree of this repository.

The map is the first fenced block below the heading "The map". How it is read:

- A line is cut where two or more spaces are. A piece that consists of names only, like
  ``token.py`` or ``search/``, is entries; every other piece says something about them.
- An entry belongs to the folder above it that is indented less.
- A line that does not begin with an entry continues the text of the line above.
- A line that says ``(planned)`` names what need not exist yet.
"""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENTRY = re.compile(r"(?:[\w.-]+/)*[\w.-]+(?:\.\w+|/)")
PLANNED = "(planned)"


@dataclass(frozen=True, slots=True)
class Map:
    """What the map names: files and folders, as paths from the root of the repository."""

    files: frozenset[PurePosixPath]
    folders: frozenset[PurePosixPath]
    planned: frozenset[PurePosixPath] = frozenset()

    def covers(self, module: PurePosixPath) -> bool:
        """Tell whether ``module`` is named, or lies in a folder that the map leaves open.

        A folder is open for its own modules when the map lists no file of it, and for folders
        inside it when the map lists nothing of it. An ``__init__.py`` goes with its folder.
        """
        if module in self.files or (module.name == "__init__.py" and module.parent in self.folders):
            return True
        nearest = next((folder for folder in module.parents if folder in self.folders), None)
        if nearest is None:
            return False
        listed = self.files if nearest == module.parent else self.files | self.folders
        return all(nearest not in entry.parents for entry in listed)


def read_map(text: str) -> Map:
    """Return what the lines of ``text`` name."""
    files: set[PurePosixPath] = set()
    folders: set[PurePosixPath] = set()
    planned: set[PurePosixPath] = set()
    inside: list[tuple[int, PurePosixPath]] = []  # the folders that a line may belong to
    for line in text.splitlines():
        pieces = re.split(r"\s{2,}", line.strip())
        if not names_only(pieces[0]):
            continue
        indent = len(line) - len(line.lstrip())
        while inside and inside[-1][0] >= indent:
            inside.pop()
        parent = inside[-1][1] if inside else PurePosixPath()
        names = [name for piece in pieces if names_only(piece) for name in piece.split()]
        for name in names:
            (folders if name.endswith("/") else files).add(parent / name)
            if PLANNED in line:
                planned.add(parent / name)
        if names[0].endswith("/"):
            inside.append((indent, parent / names[0]))
    return Map(frozenset(files), frozenset(folders), frozenset(planned))


def names_only(piece: str) -> bool:
    """Tell whether ``piece`` is names of files and folders, and nothing else."""
    words = piece.split()
    return bool(words) and all(ENTRY.fullmatch(word) for word in words)


@pytest.fixture(scope="module")
def real_map() -> Map:
    """The map of this repository."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    block = re.search(r"^## [^\n]*The map$.*?^```\w*$(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert block, "ARCHITECTURE.md has no heading 'The map' with a fenced block below it."
    return read_map(block[1])


def holds_a_file(folder: Path) -> bool:
    """Tell whether git would keep ``folder``; it keeps no empty one."""
    found = (path for path in folder.rglob("*") if "__pycache__" not in path.parts)
    return any(path.is_file() for path in found)


def modules() -> list[PurePosixPath]:
    """Return every module of the server, as a path from the root of the repository."""
    found = (ROOT / "fhir_server").rglob("*.py")
    return sorted(PurePosixPath(path.relative_to(ROOT).as_posix()) for path in found)


def test_what_the_map_names_is_there(real_map: Map) -> None:
    """Every file on the map exists, and every folder has something in it."""
    files = {name for name in real_map.files if (ROOT / name).is_file()}
    folders = {name for name in real_map.folders if holds_a_file(ROOT / name)}

    missing = (real_map.files - files) | (real_map.folders - folders)
    assert sorted(map(str, missing - real_map.planned)) == [], "Correct it, or write (planned)."


def test_no_module_is_missing_from_the_map(real_map: Map) -> None:
    """Every module of the server is on the map, or in a folder that the map leaves open."""
    assert [str(module) for module in modules() if not real_map.covers(module)] == []


def test_every_folder_with_modules_is_a_package() -> None:
    """A folder of the server has an ``__init__.py``; the floors are not checked without one."""
    folders = {module.parent for module in modules()}

    assert [str(one) for one in sorted(folders) if not (ROOT / one / "__init__.py").exists()] == []


EXAMPLE = """
fhir_server/
    app.py           settings -> store -> registry -> application
    r4/              what R4 says
        json.py          text <-> resource       dates.py    partial dates
                         and back, see the notes
        token.py  string.py  uri.py
    search/          what is written beside a resource. See r4/ for dates
    features/        beyond plain FHIR REST
        cds/  bulk/
    patch/           (planned) JSON Patch
tests/               the same folders again, plus conformance/ bench/
"""


def test_the_map_is_read_as_it_is_written() -> None:
    """Several entries a line, text between them, lines that continue, and words that look alike."""
    found = read_map(EXAMPLE)
    r4 = ("json.py", "dates.py", "token.py", "string.py", "uri.py")
    folders = ("r4", "search", "features", "features/cds", "features/bulk", "patch")

    assert set(map(str, found.files)) == {
        "fhir_server/app.py",
        *(f"fhir_server/r4/{n}" for n in r4),
    }
    assert set(map(str, found.folders)) == {
        *("fhir_server", "tests"),
        *(f"fhir_server/{name}" for name in folders),
    }
    assert set(map(str, found.planned)) == {"fhir_server/patch"}


@pytest.mark.parametrize(
    ("module", "covered"),
    {
        "fhir_server/app.py": True,
        "fhir_server/other.py": False,
        "fhir_server/__init__.py": True,
        "fhir_server/r4/json.py": True,
        "fhir_server/r4/__init__.py": True,
        "fhir_server/r4/other.py": False,
        "fhir_server/search/anything.py": True,
        "fhir_server/search/deeper/anything.py": True,
        "fhir_server/features/cds/rule.py": True,
        "fhir_server/features/other/rule.py": False,
        "fhir_server/other/rule.py": False,
    }.items(),
)
def test_a_module_is_covered_by_its_name_or_by_an_open_folder(module: str, covered: bool) -> None:
    """A folder without a list covers what is in it; one with a list covers what is listed."""
    assert read_map(EXAMPLE).covers(PurePosixPath(module)) is covered
