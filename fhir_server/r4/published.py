"""The conformance resources in ``profiles/`` and ``terminology/``, found by their canonical.

https://hl7.org/fhir/R4/references.html#canonical

Nothing is read before something is asked for. Then the headers of all files are read once (5 MB in
some 50 ms), and of the resources only those that are asked for.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import msgspec

from fhir_server.r4.definitions import package_folders
from fhir_server.r4.json import decode
from fhir_server.r4.packages import CONFORMANCE

_log = logging.getLogger(__name__)
_NUMBERS = re.compile("[0-9]+")


class _Header(msgspec.Struct, frozen=True):
    """What tells one conformance resource from another."""

    resourceType: str = ""  # noqa: N815 - FHIR's name
    url: str = ""
    version: str = ""
    status: str = ""
    type: Any = ""  # of an OperationDefinition it is a boolean
    derivation: str = ""
    kind: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a resource is: ``size`` bytes of ``file`` from ``offset``."""

    header: _Header
    file: Path
    offset: int
    size: int


@lru_cache(maxsize=1000)
def _read(place: _Place) -> dict[str, Any]:
    """Return the resource at ``place``; the same object each time, so that it is compiled once."""
    with place.file.open("rb") as file:
        file.seek(place.offset)
        return decode(file.read(place.size))


def _rank(place: _Place) -> tuple[bool, list[int], str, str]:
    return rank_of(place.header.status, place.header.version, "")


class Published:
    """What the packages below ``root`` define, of all conformance types. It never changes."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def find(self, type: str, canonical: str) -> Mapping[str, Any] | None:
        """Return the resource of ``type`` that ``canonical`` (``url`` or ``url|version``) means."""
        url, _, version = canonical.partition("|")
        found = [
            one for one in self._index.get((type, url), ()) if version in ("", one.header.version)
        ]
        if not found:
            return None
        return _read(max(found, key=_rank))

    def profiles(self) -> Iterator[tuple[str, str]]:
        """Yield type and url of each profile on a resource type, in the order of the urls."""
        for (type, url), places in sorted(self._index.items()):
            header = places[0].header
            if type == "StructureDefinition" and is_profile(header.kind, header.derivation):
                yield header.type, url

    def guides(self) -> Iterator[str]:
        """Yield the urls of the implementation guides."""
        yield from (url for type, url in self._index if type == "ImplementationGuide")

    def packages(self) -> dict[str, list[str]]:
        """Return the versions of the packages that are there, by name."""
        found: dict[str, list[str]] = {}
        for folder in self._folders():
            manifest = folder / "package.json"
            if manifest.is_file():
                said = decode(manifest.read_bytes())
                versions = found.setdefault(str(said.get("name")), [])
                if str(said.get("version")) not in versions:
                    versions.append(str(said.get("version")))
        return found

    def _folders(self) -> Iterable[Path]:
        for place in ("profiles", "terminology"):
            yield from package_folders(self._root / place)

    @cached_property
    def _index(self) -> dict[tuple[str, str], list[_Place]]:
        found: dict[tuple[str, str], list[_Place]] = {}
        for folder in self._folders():
            for file in sorted(folder.iterdir()):
                for one in _places(file):
                    found.setdefault((one.header.resourceType, one.header.url), []).append(one)
        return found


def is_profile(kind: str, derivation: str) -> bool:
    """Whether a StructureDefinition is a profile on a resource type."""
    return kind == "resource" and derivation == "constraint"


def rank_of(status: str, version: str, updated: str) -> tuple[bool, list[int], str, str]:
    """Return what orders resources of one canonical: active before others, then the newest.

    https://hl7.org/fhir/R4/references.html#canonical
    """
    return status == "active", [*map(int, _NUMBERS.findall(version))], version, updated


def _places(file: Path) -> Iterator[_Place]:
    type = re.split(r"[-.]", file.name, maxsplit=1)[0]
    if type not in (*CONFORMANCE, "Profile") or file.suffix not in (".json", ".ndjson"):
        return
    text = file.read_bytes()
    lines = text.splitlines(keepends=True) if file.suffix == ".ndjson" else [text]
    offset = 0
    for line in lines:
        try:
            header = _decoder.decode(line) if line.strip() else _Header()
        except msgspec.DecodeError:
            _log.warning('"%s in the artifacts is not JSON of FHIR"', file.name)
            header = _Header()
        if header.resourceType in CONFORMANCE and header.url:
            yield _Place(header, file, offset, len(line))
        offset += len(line)


_decoder = msgspec.json.Decoder(_Header)
