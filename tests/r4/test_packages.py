"""FHIR packages, and hostile ones: https://hl7.org/fhir/R4/packages.html"""

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fhir_server.outcome import FhirError
from fhir_server.r4 import packages
from fhir_server.r4.packages import Package, fits, missing, read_package

MANIFEST = {"name": "a.guide", "version": "1.0.0", "fhirVersions": ["4.0.1"]}
PROFILE = {"resourceType": "StructureDefinition", "id": "p", "url": "http://a/p", "version": "1"}

Add = Callable[[tarfile.TarFile], None]


def put(name: str, content: bytes | dict[str, Any], **fields: Any) -> Add:
    """Add the file ``name``; ``fields`` are set on its header."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()

    def add(archive: tarfile.TarFile) -> None:
        header = tarfile.TarInfo(name)
        header.size = len(text)
        for field, value in fields.items():
            setattr(header, field, value)
        archive.addfile(header, io.BytesIO(text))

    return add


def packed(path: Path, *members: Add, manifest: dict[str, Any] | None = None) -> Path:
    """Write a package with ``members`` behind its manifest."""
    with tarfile.open(path, "w:gz") as archive:
        put("package/package.json", MANIFEST if manifest is None else manifest)(archive)
        for add in members:
            add(archive)
    return path


def test_a_package_is_read(tmp_path: Path) -> None:
    """Conformance resources of the package itself are read; examples and the rest are not."""
    path = packed(
        tmp_path / "a.tgz",
        put("package/.index.json", {"files": [{"filename": "../../etc/passwd"}]}),
        put("package/StructureDefinition-p.json", PROFILE),
        put("package/Patient-1.json", {"resourceType": "Patient", "id": "1"}),
        put("package/example/StructureDefinition-q.json", {**PROFILE, "url": "http://a/q"}),
        put("package/other/spec.internals", b"\0\1"),
        manifest={**MANIFEST, "dependencies": {"b.guide": "1.0.x", "hl7.fhir.r4.core": "4.0.1"}},
    )
    found = read_package(path)

    assert (found.key, found.skipped) == ("a.guide#1.0.0", 1)
    assert found.resources == (PROFILE,)
    assert missing(found, {}) == ["b.guide#1.0.x"]
    assert missing(found, {"b.guide": ["1.0.7"]}) == []
    assert missing(found, {"b.guide": ["1.1.0"]}) == ["b.guide#1.0.x"]


def test_a_folder_is_the_same_package(tmp_path: Path) -> None:
    """However it is packed, a package has the same content and the same checksum."""
    archive = packed(tmp_path / "a.tgz", put("package/StructureDefinition-p.json", PROFILE))
    folder = tmp_path / "a"
    (folder / "package").mkdir(parents=True)
    (folder / "package" / "package.json").write_text(json.dumps(MANIFEST))
    (folder / "package" / "StructureDefinition.ndjson").write_text(json.dumps(PROFILE) + "\n")

    def said(one: Package) -> tuple[str, str]:
        return one.key, one.checksum

    assert said(read_package(folder)) == said(read_package(archive))
    assert said(read_package(folder / "package")) == said(read_package(archive))


LINK = b""
HOSTILE: dict[str, tuple[Add, str]] = {
    "a name outside": (put("package/../../evil.json", PROFILE), "outside of the package"),
    "a name from the root": (put("/etc/cron.d/evil", b"x"), "from the root"),
    "a backslash": (put("package\\..\\evil.json", b"x"), "from the root"),
    "a drive": (put("C:/evil.json", b"x"), "from the root"),
    "a symbolic link": (
        put("package/StructureDefinition-p.json", LINK, type=tarfile.SYMTYPE, linkname="/etc"),
        "a link",
    ),
    "a hard link": (
        put("package/other/x", LINK, type=tarfile.LNKTYPE, linkname="package/package.json"),
        "a link",
    ),
    "a device": (put("package/other/null", LINK, type=tarfile.CHRTYPE), "device"),
    "a pipe": (put("package/pipe", LINK, type=tarfile.FIFOTYPE), "device or pipe"),
    "broken JSON": (put("package/ValueSet-x.json", b'{"resourceType":'), "ValueSet-x.json"),
    "no object": (put("package/ValueSet-x.json", b"[1]"), "ValueSet-x.json"),
    "a member twice": (put("package/ValueSet-x.json", b'{"url":"a","url":"b"}'), "twice"),
    "deep nesting": (put("package/ValueSet-x.json", b'{"a":' + b"[" * 90 + b"]" * 90 + b"}"), "60"),
    "very deep nesting": (put("package/ValueSet-x.json", b'{"a":' + b"[" * 200_000), "60"),
    "no UTF-8": (put("package/ValueSet-x.json", b'{"a":"\xff"}'), "UTF-8"),
}


@pytest.mark.parametrize(("member", "said"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_member_refuses_the_package(tmp_path: Path, member: Add, said: str) -> None:
    """Whatever a package holds, it is refused whole, in a sentence that says which file and why."""
    with pytest.raises(FhirError) as refused:
        read_package(packed(tmp_path / "evil.tgz", member))

    text = refused.value.issues[0].diagnostics
    assert said in text
    assert text.startswith("'evil.tgz' cannot be added: ")


MANIFESTS: dict[str, tuple[dict[str, Any], str]] = {
    "another FHIR": ({**MANIFEST, "fhirVersions": ["5.0.0"]}, "'5.0.0'"),
    "R4B": ({**MANIFEST, "fhirVersions": ["4.3.0"]}, "'4.3.0'"),
    "no FHIR version": ({"name": "a", "version": "1"}, "no version of FHIR"),
    "a path as a name": ({**MANIFEST, "name": "../a"}, "name"),
    "no name": ({**MANIFEST, "name": None}, "name"),
    "a version with a slash": ({**MANIFEST, "version": "1/2"}, "version"),
    "dependencies that are none": ({**MANIFEST, "dependencies": {"a": 1}}, "dependencies"),
}


@pytest.mark.parametrize(("manifest", "said"), MANIFESTS.values(), ids=MANIFESTS)
def test_a_package_says_what_it_is(tmp_path: Path, manifest: dict[str, Any], said: str) -> None:
    """A package for another FHIR, or without a proper name and version, is refused."""
    with pytest.raises(FhirError, match=said):
        read_package(packed(tmp_path / "a.tgz", manifest=manifest))


def test_older_packages_say_their_fhir_by_a_dependency(tmp_path: Path) -> None:
    """Without fhirVersions the version of the core package counts."""
    dependencies = {"hl7.fhir.r4.core": "4.0.1"}
    manifest = {"name": "a", "version": "1", "dependencies": dependencies}

    assert read_package(packed(tmp_path / "a.tgz", manifest=manifest)).key == "a#1"


NO_ARCHIVES = {
    "text": b"no archive",
    "nothing": b"",
    "gzip of text": gzip.compress(b"no tar"),
    "a zip": b"PK\3\4" + b"\0" * 40,
    "gzip that ends early": gzip.compress(b"\0" * 4096)[:-12],
}


@pytest.mark.parametrize("content", NO_ARCHIVES.values(), ids=NO_ARCHIVES)
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file that is no package is a refusal, whatever it is."""
    path = tmp_path / "a.tgz"
    path.write_bytes(content)
    with pytest.raises(FhirError):
        read_package(path)
    with pytest.raises(FhirError, match="no such file"):
        read_package(tmp_path / "none.tgz")


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """A megabyte that becomes a gigabyte is refused when it has become too much larger."""
    zeros = put("package/other/zeros", b"\0" * 32_000_000)
    with pytest.raises(FhirError, match="times larger"):
        read_package(packed(tmp_path / "bomb.tgz", *[zeros] * 8))


def test_limits_stand_in_the_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes of a file and of all, and the number of files, have limits that are named."""
    path = packed(tmp_path / "a.tgz", *(put(f"package/other/{n}", b"x" * 4000) for n in range(20)))
    large = packed(tmp_path / "b.tgz", put("package/ValueSet-x.json", b" " * 3000))
    monkeypatch.setattr(packages, "FILE_BYTES_MAX", 2000)
    with pytest.raises(FhirError, match="2,000 bytes for a file"):
        read_package(large)
    monkeypatch.setattr(packages, "FILES_MAX", 10)
    with pytest.raises(FhirError, match="10 files"):
        read_package(path)
    monkeypatch.setattr(packages, "BYTES_MAX", 20_000)
    with pytest.raises(FhirError, match="20,000 bytes"):
        read_package(path)


def test_a_long_header_is_not_read_into_memory(tmp_path: Path) -> None:
    """The name of a member is read before anybody can look at it; a long one ends the reading."""
    long = put("././@LongLink", b"a" * 1_000_000, type=tarfile.GNUTYPE_LONGNAME)
    with pytest.raises(FhirError, match="cannot be read"):
        read_package(packed(tmp_path / "a.tgz", long))


def test_a_folder_with_a_link_is_refused(tmp_path: Path) -> None:
    """A link in a folder leads to what is not in the package."""
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps(PROFILE))
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "package.json").write_text(json.dumps(MANIFEST))
    (folder / "ValueSet-x.json").symlink_to(secret)
    with pytest.raises(FhirError, match="a link"):
        read_package(folder)


@pytest.mark.parametrize(
    ("wanted", "version", "expected"),
    [
        ("1.0.0", "1.0.0", True),
        ("1.0.0", "1.0.1", False),
        ("1.0.x", "1.0.1", True),
        ("1.0.x", "1.1.0", False),
        ("latest", "3.0.0", True),
    ],
)
def test_versions_of_dependencies(wanted: str, version: str, expected: bool) -> None:
    """A dependency names a version, a series, or any."""
    assert fits(wanted, version) is expected
