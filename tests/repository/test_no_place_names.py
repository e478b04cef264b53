"""No file names a place that only one machine or one network knows."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# In pieces, so that this file does not name them either.
REGISTRY_HOSTS = [
    ".".join(labels)
    for labels in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("yarnpkg", "com"),
        ("deb", "debian", "org"),
        ("security", "debian", "org"),
        ("archive", "ubuntu", "com"),
        ("packages", "fhir", "org"),
        ("packages2", "fhir", "org"),
        ("crates", "io"),
        ("proxy", "golang", "org"),
        ("docker", "io"),
        ("ghcr", "io"),
    )
]
FOLDERS = ["/" + folder + "/" for folder in ("work", "root", "home", "tmp/pk", "tmp/v", "Users")]
# A folder counts at the beginning of a path, not inside of one: `https://x.org/work/` is fine.
FORBIDDEN = re.compile(
    "|".join(
        [re.escape(host) for host in REGISTRY_HOSTS]
        + [rf"(?<![\w.:/~-]){re.escape(folder)}" for folder in FOLDERS]
    ).encode()
)


def test_the_words_are_found() -> None:
    """The search finds a host and a folder, and leaves the path of an address alone."""
    host, folder = f"https://{REGISTRY_HOSTS[0]}/simple", f"cd {FOLDERS[0]}main"

    assert FORBIDDEN.search(host.encode())
    assert FORBIDDEN.search(folder.encode())
    assert not FORBIDDEN.search(b"https://example.org/work/main /workspace/ network/work/")


def test_no_file_names_a_registry_or_a_folder_of_one_machine() -> None:
    """No text file of the repository, committed or about to be, names such a place."""
    found = {
        name: sorted({match.decode() for match in FORBIDDEN.findall(content)})
        for name, content in texts()
        if FORBIDDEN.search(content)
    }

    assert found == {}


def texts() -> list[tuple[str, bytes]]:
    """Return name and content of each text file that git tracks or would add."""
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed")
    listed = subprocess.run(
        [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("this is not a git checkout")
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    contents = [(path, path.read_bytes()) for path in paths if path.is_file()]
    return [
        (path.relative_to(ROOT).as_posix(), content)
        for path, content in contents
        if b"\0" not in content
    ]
