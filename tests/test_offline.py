"""fhir-server validate: files are judged without a database, by profiles and packages."""

import gzip
import json
import tarfile
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from fhir_server import offline
from fhir_server.app import offline_judge
from fhir_server.load import files_of
from fhir_server.offline import Finding, by_rule, findings, lines_of, summary
from tests.faults.serving import command
from tests.test_packages import URL, profile

UUID = "urn:uuid:6f1c3a52-5a67-4c8e-9a6e-0f4b6f0f7a1"
GOOD = {"resourceType": "Patient", "id": "a", "name": [{"family": "Rahman"}]}
BAD = {"resourceType": "Patient", "id": "b", "gender": "mail", "active": True}
CODES = {
    "resourceType": "CodeSystem",
    "id": "c",
    "url": "http://example.org/guide/CodeSystem/c",
    "name": "C",
    "status": "active",
    "content": "complete",
    "concept": [{"code": "red", "display": "Red"}, {"code": "green"}],
}
VALUES = {
    "resourceType": "ValueSet",
    "id": "v",
    "url": "http://example.org/guide/ValueSet/v",
    "name": "V",
    "status": "active",
    "compose": {"include": [{"system": CODES["url"]}]},
}
COLOUR = profile(
    "colour",
    differential={
        "element": [
            {"id": "Patient.name", "path": "Patient.name", "min": 1},
            {
                "id": "Patient.maritalStatus",
                "path": "Patient.maritalStatus",
                "binding": {"strength": "required", "valueSet": VALUES["url"]},
            },
        ]
    },
)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package with a profile, its value set and its codes."""
    manifest = {"name": "a.guide", "version": "1.0.0", "fhirVersions": ["4.0.1"]}
    path = tmp_path / "guide.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, one in {"package": manifest, "C-c": CODES, "V-v": VALUES, "S-p": COLOUR}.items():
            text = json.dumps(one).encode()
            header = tarfile.TarInfo(f"package/{name}.json")
            header.size = len(text)
            archive.addfile(header, BytesIO(text))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of every form, some of them wrong."""
    place = tmp_path / "files"
    place.mkdir()
    (place / "good.json").write_text(json.dumps(GOOD))
    (place / "bad.json").write_text(json.dumps(BAD, indent=2))
    lines = "\n".join(map(json.dumps, (GOOD, BAD, GOOD)))
    (place / "lines.ndjson.gz").write_bytes(gzip.compress(lines.encode()))
    entries = [{"fullUrl": f"{UUID}{n}", "resource": GOOD} for n in range(2)]
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
    (place / "bundle.json").write_text(json.dumps(bundle))
    (place / "patient.xml").write_text(
        '<Patient xmlns="http://hl7.org/fhir">\n  <gender value="mail"/>\n</Patient>'
    )
    (place / "broken.json").write_text('{"resourceType": ')
    (place / "notes.txt").write_text("no resource")
    return place


def judged(paths: list[Path], *packages: Path, profiles: Any = (), jobs: int = 1) -> list[Finding]:
    make = partial(offline_judge)
    return list(findings(files_of(paths), make, packages, profiles, jobs))


def errors(found: list[Finding]) -> Iterator[str]:
    for one in found:
        for line in lines_of(one):
            if ": error:" in line or ": fatal:" in line:
                yield Path(line).name


def test_files_of_every_form(folder: Path) -> None:
    """JSON, XML, NDJSON and bundles, packed or not, each with the place of what is wrong."""
    found = list(errors(judged([folder])))
    begins = [line.partition(": ")[0] for line in found]

    assert begins == ["bad.json:4:3", "broken.json", "lines.ndjson.gz:2:40", "patient.xml:2:3"]
    assert "Patient.gender" in found[0]


def test_a_profile_of_a_package(package: Path, tmp_path: Path) -> None:
    """A profile, its value set and its code system come from a package that nobody has stored."""
    for name, code in {"red": "red", "blue": "blue", "grene": "grene"}.items():
        status = {"coding": [{"system": CODES["url"], "code": code}]}
        (tmp_path / f"{name}.json").write_text(json.dumps({**GOOD, "maritalStatus": status}))
    found = judged(
        [tmp_path / f"{name}.json" for name in ("red", "blue", "grene")],
        package,
        profiles=(URL + "colour",),
    )

    assert [one.is_valid for one in found] == [True, False, False]
    assert "Did you mean green" in " ".join(errors(found))


def test_a_profile_is_held_against_the_entries_that_it_is_for(package: Path, folder: Path) -> None:
    """Of a bundle those entries are held to a profile whose type it is for."""
    nameless = {"resourceType": "Patient", "active": True}
    entries = [
        {"fullUrl": f"{UUID}{number}", "resource": one}
        for number, one in enumerate((GOOD, nameless))
    ]
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
    file = folder / "two.json"
    file.write_text(json.dumps(bundle))
    [found] = judged([file], package, profiles=(URL + "colour",))

    assert [one.expression for one in found.issues if one.severity == "error"] == [
        "Bundle.entry[1].resource"
    ]


def test_several_processes_find_the_same(
    folder: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work that is shared among processes comes back in the order of the files."""
    monkeypatch.setattr(offline, "_APART_BYTES", 0)
    alone = judged([folder], package, profiles=(URL + "colour",))
    together = judged([folder], package, profiles=(URL + "colour",), jobs=2)

    assert list(errors(together)) == list(errors(alone))


def test_a_large_file_is_not_read_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a packed file becomes has a limit."""
    monkeypatch.setattr(offline, "FILE_BYTES_MAX", 1000)
    bomb = folder / "bomb.json.gz"
    bomb.write_bytes(gzip.compress(b" " * 1_000_000))

    assert "over the limit of 1,000 bytes" in next(errors(judged([bomb])))


def test_the_summary_counts_by_file_and_by_rule(folder: Path) -> None:
    """What is wrong most often stands first."""
    found = judged([folder])
    text = "\n".join(summary(found, 1.0))

    assert [count for (*_, where), count in by_rule(found).items() if where == "Patient.gender"]
    assert "Patient.gender" in text
    assert text.endswith("6 files, 8 resources in 1.0 s; 4 with errors in 4 files.")


def test_the_command(folder: Path, package: Path, tmp_path: Path) -> None:
    """Exit code 0 where nothing is wrong, 1 where something is, 2 where it cannot begin."""
    good = command("validate", str(folder / "good.json"), folder=tmp_path)
    wrong = command(
        *("validate", str(folder), "--profile", URL + "colour", "--package", str(package)),
        *("--output", "json", "--jobs", "1"),
        folder=tmp_path,
    )
    rows = {Path(one["file"]).name: one for one in json.loads(wrong.stdout)}

    assert (good.returncode, good.stdout) == (0, "")
    assert wrong.returncode == 1
    assert rows["good.json"]["valid"] is True
    assert rows["bad.json"]["issues"][-1]["line"] == 4
    assert "4 with errors" not in good.stderr
    assert command("validate", "none.json", folder=tmp_path).returncode == 2
    assert command("validate", str(folder), "--package", "x", folder=tmp_path).returncode == 2
