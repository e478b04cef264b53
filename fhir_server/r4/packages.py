"""FHIR packages: a ``.tgz`` or a folder -> its conformance resources. Nothing is unpacked to disk.

https://hl7.org/fhir/R4/references.html#canonical and the package format that the registries use:
``package/package.json`` with name, version, fhirVersions and dependencies, and the conformance
resources beside it, one a file. What lies deeper (``package/example/``, ``package/other/``) is not
read. A distillate of ours has ``ResourceType.ndjson`` files instead.

Whoever wrote the package is not trusted. A name that leads outside, a link or a device refuses the
whole package; every size has a limit, and the limit stands in the sentence.
"""

import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import IO, Any

import re2 as re

from fhir_server.outcome import FhirError, Issue, shown
from fhir_server.r4.json import canonical, decode

FILES_MAX = 30_000
"""Files of one package; the largest that are published have some 10,000."""
FILE_BYTES_MAX = 33_554_432
"""Bytes of one file that is read."""
BYTES_MAX = 536_870_912
"""Bytes of everything in one package, unpacked."""
RATIO_MAX = 200
"""How many times larger a package may become by unpacking; published ones become 10 to 30 times."""
_RATIO_FROM_BYTES = 8_388_608  # below that nobody is hurt
_DEPTH_MAX = 60
_PIECE_BYTES = 65_536
_EXTENSIONS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
_EXTENSION_BYTES_MAX = 65_536

CONFORMANCE = frozenset(
    """ActivityDefinition CapabilityStatement CodeSystem CompartmentDefinition ConceptMap
    EventDefinition ExampleScenario GraphDefinition ImplementationGuide Library Measure
    MessageDefinition NamingSystem OperationDefinition PlanDefinition Questionnaire SearchParameter
    StructureDefinition StructureMap TerminologyCapabilities TestScript ValueSet""".split()
)
"""The types that a package is added for; others in it are examples."""

R4 = "4.0"
BUILT_IN = ("hl7.fhir.r4.core", "hl7.fhir.r4.examples", "hl7.fhir.r4.expansions", "hl7.fhir.core")
"""Packages that every server has, as far as it needs them."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,127}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_\-]{0,63}")
_ANY_VERSION = ("latest", "current", "dev", "*", "x", "")
_UNREADABLE = (
    *(tarfile.TarError, zlib.error, EOFError, OSError),
    *(ValueError, OverflowError, RecursionError),
)
_DRIVE = re.compile(r"[A-Za-z]:.*")


@dataclass(frozen=True, slots=True)
class Package:
    """What a package is called, needs and holds.

    ``resources`` are in the order of their type, url and version. ``skipped`` counts what is no
    conformance resource. ``checksum`` is of name, version and resources, however they were packed.
    """

    name: str
    version: str
    dependencies: Mapping[str, str]
    resources: tuple[dict[str, Any], ...] = field(repr=False)
    skipped: int = 0

    @property
    def key(self) -> str:
        """``name#version``, as packages are spoken of."""
        return f"{self.name}#{self.version}"

    @property
    def checksum(self) -> str:
        """A SHA-256 of what it says."""
        said = sha256(self.key.encode())
        for one in self.resources:
            said.update(canonical(one))
        return said.hexdigest()


def read_package(path: Path) -> Package:
    """Return the package that ``path`` is: a ``.tgz``, or a folder as one unpacks it.

    Raises ``structure`` for what is no package of R4, ``forbidden`` for one that reaches outside of
    itself, ``too-long`` for one above a limit; each says which file and why.
    """
    name = path.name
    if path.is_dir():
        return _package(name, _files_of_folder(path))
    if not path.is_file():
        raise _refused(name, "there is no such file or folder")
    try:
        with path.open("rb") as file:
            return _package(name, _files_of_archive(name, file))
    except _UNREADABLE as error:
        raise _refused(name, "it cannot be read as a .tgz archive") from error


def fits(wanted: str, version: str) -> bool:
    """Whether ``version`` is one that the dependency ``wanted`` means: ``1.0.x`` is any ``1.0``."""
    if wanted in _ANY_VERSION or wanted == version:
        return True
    return wanted.endswith((".x", ".*")) and version.startswith(wanted[:-1])


def missing(package: Package, there: Mapping[str, list[str]]) -> list[str]:
    """Return the dependencies, as ``name#version``, that are not among ``there``: name -> versions.

    What every server has is never missing.
    """
    return [
        f"{name}#{wanted}"
        for name, wanted in sorted(package.dependencies.items())
        if name not in BUILT_IN and not any(fits(wanted, one) for one in there.get(name, ()))
    ]


def _package(source: str, files: Iterator[tuple[str, bytes]]) -> Package:
    manifest: dict[str, Any] | None = None
    found: dict[tuple[str, str, str, str], dict[str, Any]] = {}
    skipped = 0
    for name, text in files:
        if name == "package.json":
            manifest = _decoded(source, name, text)
            continue
        for resource in _resources(source, name, text):
            type, url = resource.get("resourceType"), resource.get("url")
            if type not in CONFORMANCE or not (isinstance(url, str) or type == "NamingSystem"):
                skipped += 1
                continue
            parts = (type, str(url), str(resource.get("version", "")), str(resource.get("id", "")))
            found[parts] = resource
    if manifest is None:
        raise _refused(source, "it has no package/package.json")
    id, version, dependencies = _described(source, manifest)
    ordered = tuple(found[key] for key in sorted(found))
    return Package(id, version, dependencies, ordered, skipped)


def _resources(source: str, name: str, text: bytes) -> Iterator[dict[str, Any]]:
    if name.endswith(".ndjson"):
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield _decoded(source, f"{name}, line {number}", line)
    else:
        yield _decoded(source, name, text)


def _described(source: str, manifest: dict[str, Any]) -> tuple[str, str, dict[str, str]]:
    """Return name, version and dependencies of ``package.json``."""
    name, version = manifest.get("name"), manifest.get("version")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _refused(source, f"package.json has the name {shown(name)}, which is none")
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise _refused(source, f"package.json has the version {shown(version)}, which is none")
    dependencies = manifest.get("dependencies", {})
    if not isinstance(dependencies, dict) or not all(
        isinstance(one, str) for one in dependencies.values()
    ):
        raise _refused(source, "the dependencies in package.json are not names with versions")
    stated = manifest.get("fhirVersions", manifest.get("fhir-version-list", ()))
    if not isinstance(stated, list) or not stated:
        stated = [one for core, one in dependencies.items() if core.endswith(".core")][:1]
    if not any(str(one).startswith(R4) for one in stated):
        said = ", ".join(map(shown, stated[:5])) or "no version of FHIR"
        raise _refused(source, f"it is for {said}; this server has R4, 4.0.1")
    return name, version, dict(dependencies)


def _decoded(source: str, name: str, text: bytes) -> dict[str, Any]:
    try:
        return decode(text, depth_max=_DEPTH_MAX)
    except FhirError as error:
        raise _refused(source, f"{shown(name)}: {error}") from error


def _wanted(name: str) -> bool:
    """Whether the file ``name``, directly in the package, is one that is read."""
    if name == "package.json":
        return True
    return name[:1].isupper() and name.endswith((".json", ".ndjson"))


def _files_of_folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    inside = folder / "package"
    root = inside if inside.is_dir() else folder
    count = total = 0
    if root.is_symlink():
        raise _outside(folder.name, "package", "a link")
    for path in sorted(root.iterdir()):
        count += 1
        _check_count(folder.name, count)
        if path.is_symlink():
            raise _outside(folder.name, path.name, "a link")
        if not path.is_file() or not _wanted(path.name):
            continue
        size = path.stat().st_size
        total += size
        _check_sizes(folder.name, path.name, size, total)
        yield path.name, path.read_bytes()


def _files_of_archive(source: str, packed: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    unpacked = _Unpacking(source, packed)
    with tarfile.open(  # type: ignore[call-overload]
        fileobj=unpacked, mode="r|", errorlevel=2, tarinfo=_Header
    ) as archive:
        for count, member in enumerate(archive, 1):
            _check_count(source, count)
            place = _place(source, member)
            archive.members = []  # what was read is not kept
            if place is None:
                continue
            _check_sizes(source, place, member.size, 0)
            content = archive.extractfile(member)
            assert content is not None  # it is a regular file
            yield place, content.read(FILE_BYTES_MAX + 1)


def _place(source: str, member: tarfile.TarInfo) -> str | None:
    """Return the name of ``member`` in the folder ``package``, or ``None`` for one not read.

    Raises ``forbidden`` for what a careful unpacker would have to refuse, read or not.
    """
    name = member.name
    parts = PurePosixPath(name).parts
    if name.startswith("/") or "\\" in name or "\0" in name or _DRIVE.fullmatch(name):
        raise _outside(source, name, "a name from the root of a machine")
    if ".." in parts:
        raise _outside(source, name, "a name outside of the package")
    if member.issym() or member.islnk():
        raise _outside(source, name, "a link")
    if not (member.isreg() or member.isdir()):
        raise _outside(source, name, "a device or pipe")
    if member.size < 0:
        raise _refused(source, f"{shown(name)} says that its size is below 0")
    inside = parts[1:] if parts and parts[0] == "." else parts
    is_read = member.isreg() and len(inside) == 2 and inside[0] == "package" and _wanted(inside[1])
    return inside[1] if is_read else None


class _Header(tarfile.TarInfo):
    """A header whose extensions are short: they are read whole, before anybody can look at them."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        """Return the header in ``buf``. Raises ``ReadError`` for a name or extension too long."""
        found = super().frombuf(buf, encoding, errors)
        if found.type in _EXTENSIONS and found.size > _EXTENSION_BYTES_MAX:
            raise tarfile.ReadError
        return found


class _Unpacking:
    """A gzip stream to read from, which ends with a refusal where it becomes too large."""

    def __init__(self, source: str, packed: IO[bytes]) -> None:
        self._source = source
        self._packed = packed
        self._unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._rest = b""
        self._read = self._given = 0

    def read(self, size: int) -> bytes:
        """Return ``size`` bytes, fewer at the end."""
        parts: list[bytes] = []
        while size > 0:
            part = self._part(size)
            if not part:
                break
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _part(self, size: int) -> bytes:
        while not self._unpacker.eof:
            if not self._rest:
                self._rest = self._packed.read(_PIECE_BYTES)
                self._read += len(self._rest)
                if not self._rest:
                    raise EOFError
            part = self._unpacker.decompress(self._rest, size)
            self._rest = self._unpacker.unconsumed_tail
            self._given += len(part)
            self._check()
            if part:
                return part
        return b""

    def _check(self) -> None:
        if self._given > BYTES_MAX:
            raise _too_long(self._source, f"unpacked it is over the limit of {BYTES_MAX:,} bytes")
        if self._given > _RATIO_FROM_BYTES and self._given > RATIO_MAX * max(self._read, 1):
            text = f"it becomes more than {RATIO_MAX} times larger by unpacking"
            raise _too_long(self._source, text)


def _check_count(source: str, count: int) -> None:
    if count > FILES_MAX:
        raise _too_long(source, f"it has more than {FILES_MAX:,} files")


def _check_sizes(source: str, name: str, size: int, total: int) -> None:
    if size > FILE_BYTES_MAX:
        text = f"{shown(name)} is over the limit of {FILE_BYTES_MAX:,} bytes for a file"
        raise _too_long(source, text)
    if total > BYTES_MAX:
        raise _too_long(source, f"it is over the limit of {BYTES_MAX:,} bytes")


def _refused(source: str, why: str) -> FhirError:
    text = f"{shown(source)} cannot be added: {why.removesuffix('.')}."
    return FhirError(Issue("structure", text))


def _outside(source: str, name: str, what: str) -> FhirError:
    text = f"{shown(source)} cannot be added: {shown(name)} in it is {what}."
    return FhirError(Issue("forbidden", text))


def _too_long(source: str, why: str) -> FhirError:
    return FhirError(Issue("too-long", f"{shown(source)} cannot be added: {why}."))
