"""To which patients a Provenance belongs: to those that all of its targets share.

design/security.md, section 3.1. What it says of one patient's data must not be opened by a second
target of another's. Its other compartments are those of the definition. Where its targets belong is
looked up when it is written, and when it is indexed again; what is not here, is no reference, or
belongs to nobody shares nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.messages import Resource
from fhir_server.r4.references import target
from fhir_server.search.index import Indexed
from fhir_server.store.client import Database
from fhir_server.store.documents import Document

PROVENANCE = "Provenance"
_PATIENT = "Patient/"

Compartments = Mapping[str, Sequence[str]]
"""``Type/id`` -> the compartments that it is in; none for what is not there."""


class Unlooked(Exception):
    """Where ``places`` belong is to be looked up first."""

    def __init__(self, places: Iterable[str]) -> None:
        """Name the places, such as ``Observation/1``."""
        super().__init__()
        self.places = frozenset(places)


@dataclass(frozen=True, slots=True)
class Belonging:
    """What is known of where targets belong. ``base_urls`` are what this server is called."""

    base_urls: Sequence[str] = ()
    known: Compartments = field(default_factory=dict)

    def of(self, resource: Resource, indexed: Indexed) -> Indexed:
        """Return ``indexed`` with the compartments that ``resource`` is in for access.

        Raises :class:`Unlooked` where that is not known yet.
        """
        if resource["resourceType"] != PROVENANCE:
            return indexed
        if missing := self.unknown(resource):
            raise Unlooked(missing)
        places = _targets(resource, self.base_urls)
        each = [frozenset(self.known.get(one, ())) for one in places]
        shared = frozenset.intersection(*each) if each else frozenset()
        patients = {one for one in shared if one.startswith(_PATIENT)}
        others = {one for one in indexed.compartments if not one.startswith(_PATIENT)}
        return replace(indexed, compartments=tuple(sorted(patients | others)))

    def unknown(self, resource: Resource) -> frozenset[str]:
        """Return the targets of the Provenance ``resource`` of which nothing is known."""
        places = _targets(resource, self.base_urls)
        return frozenset(one for one in places if one and one not in self.known)

    def learned(self, more: Compartments) -> "Belonging":
        """Return this with what ``more`` says."""
        return replace(self, known={**self.known, **more})


def _targets(resource: Resource, base_urls: Sequence[str]) -> list[str]:
    """Return what the targets of ``resource`` are here: ``Type/id``, or ``""`` for what is not."""
    found = []
    targets = resource.get("target")
    for one in targets if isinstance(targets, list) else ():
        text = one.get("reference") if isinstance(one, dict) else None
        meant = target(text, base_urls) if isinstance(text, str) else None
        found.append(meant.key if meant and meant.id else "")
    return list(dict.fromkeys(found))


NOWHERE = Belonging()
"""Nothing is known yet."""


async def looked_up(
    database: Database, session: AsyncClientSession | None, places: Iterable[str]
) -> Compartments:
    """Return the compartments of all ``places``, of those that were deleted the last ones."""
    found: dict[str, Sequence[str]] = dict.fromkeys(places, ())
    by_type: dict[str, list[str]] = {}
    for one in sorted(found):
        type, _, id = one.partition("/")
        by_type.setdefault(type, []).append(id)
    for type, ids in by_type.items():
        filter: Document = {"_id": {"$in": ids}}
        cursor = database[type].find(filter, {"compartments": 1}, session=session)
        for row in await cursor.to_list():
            found[f"{type}/{row['_id']}"] = row.get("compartments", ())
    return found
