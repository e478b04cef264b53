"""The StructureDefinitions of the packages, as resources, read when one is first asked for.

https://hl7.org/fhir/R4/structuredefinition.html

``StructureDefinition.ndjson`` holds types with their snapshots, ``Profile.ndjson`` profiles and
extensions with what each demands beyond its base. A site may put its own
``StructureDefinition-*.json`` into a package of its own.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

Structure = Mapping[str, Any]
TYPE_URL = "http://hl7.org/fhir/StructureDefinition/"
# One resource a line, the url near the front: a line is decoded when somebody asks for its url.
_URL = b'"url":"'


class Structures:
    """The StructureDefinitions below ``root``: ``profiles/*/``; nothing is read before it must."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._decoded: dict[str, Structure] = {}

    def get(self, canonical: str) -> Structure | None:
        """Return the StructureDefinition ``canonical`` (a url, perhaps with ``|version``).

        ``None`` where it is not in the packages, or not in that version.
        """
        url, _, version = canonical.partition("|")
        found = self._decoded.get(url)
        if found is None:
            line = self._lines.get(url)
            if line is None:
                return None
            found = self._decoded[url] = msgspec.json.decode(line)
        return found if version in ("", found.get("version")) else None

    def type(self, name: str) -> Structure | None:
        """Return the definition of a resource type or a data type, such as ``Quantity``."""
        return self.get(TYPE_URL + name)

    @property
    def urls(self) -> tuple[str, ...]:
        """The urls of all, in the order in which they were read."""
        return tuple(self._lines)

    @cached_property
    def _lines(self) -> dict[str, bytes]:
        lines: dict[str, bytes] = {}
        folder = self._root / "profiles"
        for file in sorted(folder.glob("*/*")):
            if not file.name.startswith(("StructureDefinition", "Profile")):
                continue
            if file.suffix == ".ndjson":
                lines |= {_url(line): line for line in file.read_bytes().splitlines() if line}
            elif file.suffix == ".json":
                text = file.read_bytes()
                lines[msgspec.json.decode(text, type=_Named).url] = text
        return lines


class _Named(msgspec.Struct):
    url: str


def _url(line: bytes) -> str:
    start = line.index(_URL) + len(_URL)
    return line[start : line.index(b'"', start)].decode()
