"""Which profiles and guides are stored, and which packages are not whole.

Read when somebody asks after a conformance resource has changed (``conformance.py``), and kept.
"""

from dataclasses import dataclass
from typing import Any

from fhir_server.store.client import Database
from fhir_server.store.conformance import Conformance
from fhir_server.store.documents import PRESENT
from fhir_server.store.packages import SOURCE, Packages

_LISTED_MAX = 5000  # that the CapabilityStatement names
_PARTS, _GUIDES = "packages that are not whole", "profiles and guides"


@dataclass(frozen=True, slots=True)
class Parts:
    """The keys of the packages of which only a part may be stored."""

    keys: frozenset[str]

    def is_whole(self, resource: dict[str, Any]) -> bool:
        """Whether ``resource`` belongs to none of them."""
        if not self.keys:
            return True
        source = str(resource.get("meta", {}).get("source", ""))
        return source.removeprefix(SOURCE) not in self.keys


@dataclass(frozen=True, slots=True)
class Guides:
    """What a CapabilityStatement names: ``(type, url)`` of profiles, and urls of guides."""

    profiles: tuple[tuple[str, str], ...] = ()
    guides: tuple[str, ...] = ()


async def parts_of(database: Database, conformance: Conformance) -> Parts:
    """Return the packages that are not whole."""
    memory = await conformance.memory()
    found: Parts | None = memory.get(_PARTS)
    return found or memory.put(_PARTS, Parts(await Packages(database).incomplete()))


async def guides_of(database: Database, conformance: Conformance) -> Guides:
    """Return the profiles on resource types and the guides that are stored."""
    memory = await conformance.memory()
    found: Guides | None = memory.get(_GUIDES)
    if found is not None:
        return found
    parts = await parts_of(database, conformance)
    profile = {"resource.derivation": "constraint", "resource.kind": "resource"}
    profiles = await _rows(database, "StructureDefinition", profile, parts)
    guides = await _rows(database, "ImplementationGuide", {}, parts)
    found = Guides(
        tuple(sorted({(one["type"], one["url"]) for one in profiles})),
        tuple(sorted({one["url"] for one in guides})),
    )
    memory.put(_GUIDES, found)
    return found


async def _rows(
    database: Database, type: str, filter: dict[str, Any], parts: Parts
) -> list[dict[str, Any]]:
    wanted = dict.fromkeys(("resource.url", "resource.type", "resource.meta.source"), 1)
    cursor = database[type].find({**PRESENT, **filter}, wanted, limit=_LISTED_MAX)
    return [row["resource"] for row in await cursor.to_list() if parts.is_whole(row["resource"])]
