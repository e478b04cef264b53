"""What a plan wants to know, looked up in the store. The reading half of a message's transaction.

design/hl7v2.md, sections 8 to 10.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from adapters.hl7v2.ack import Fault
from adapters.hl7v2.changes import Json, Stamp
from adapters.hl7v2.plan import Known, Search, Wanted, wanted
from adapters.hl7v2.reading import Item
from fhir_server.context import Context
from fhir_server.messages import Request
from fhir_server.r4.json import decode_stored
from fhir_server.store.documents import Stored

ROUNDS_MAX = 64
"""Look-ups upon look-ups: links of Patients are followed up to 32, other chains are short."""

_FOUND_MAX = 500


class HeldError(Exception):
    """A person must decide before the message is applied."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("held")
        self.faults = faults


@dataclass(slots=True)
class Lookups:
    """What is known, with the versions of what was read."""

    known: Known = field(default_factory=Known)
    versions: dict[tuple[str, str], int] = field(default_factory=dict)

    def take(self, type: str, stored: Stored) -> None:
        """Note ``stored``; what was deleted is not there, but its version counts on."""
        place = (type, stored.id)
        self.versions[place] = stored.version
        self.known.resources[place] = None if stored.deleted else decode_stored(stored.json)

    async def resource(self, type: str, id: str, context: Context) -> Json | None:
        """Return ``type/id`` as it is stored, read if it was not before."""
        if (type, id) not in self.known.resources:
            self.known.resources[type, id] = None
            for one in await context.store.read_all(type, [id]):
                self.take(type, one)
        return self.known.resources[type, id]


async def looked_up(item: Item, drawn: Sequence[str], context: Context) -> Lookups:
    """Return all that is wanted to plan ``item``, whose new Patients get the ids ``drawn``."""
    lookups = Lookups()
    for _ in range(ROUNDS_MAX):
        asked = wanted(item.report, lookups.known, item.profile, drawn)
        if not asked:
            break
        await _look_up(asked, lookups, context)
    else:
        raise HeldError((Fault("207", "The message leads from resource to resource too long."),))
    if item.force:
        lookups.known.origins.clear()
    return lookups


async def _look_up(asked: Wanted, lookups: Lookups, context: Context) -> None:
    known = lookups.known
    for search in sorted(asked.searches, key=repr):
        found = await _found(search, context)
        for one in found:
            if (search.type, one.id) not in known.resources:
                lookups.take(search.type, one)
        known.found[search] = tuple(one.id for one in found)
    by_type: dict[str, list[str]] = defaultdict(list)
    for type, id in sorted(asked.ids - known.resources.keys()):
        by_type[type].append(id)
    for type, ids in by_type.items():
        for one in await context.store.read_all(type, ids):
            lookups.take(type, one)
        for id in ids:
            known.resources.setdefault((type, id), None)
    await _look_up_origins(lookups, context)


async def _look_up_origins(lookups: Lookups, context: Context) -> None:
    """Fetch how old the last statement about each resource is, of those that are there."""
    known = lookups.known
    missing = [
        place
        for place, resource in known.resources.items()
        if resource is not None and place not in known.origins
    ]
    if not missing:
        return
    found = await context.store.inbox.origins(f"{type}/{id}" for type, id in missing)
    for type, id in missing:
        one = found.get(f"{type}/{id}", {})
        known.origins[type, id] = Stamp(one.get("said", ""), one.get("sent", ""))


async def _found(search: Search, context: Context) -> list[Stored]:
    if search.identifiers and not search.patient:
        return await context.store.identified(search.type, search.identifiers)
    parameters = (*search.parameters(), ("_count", str(_FOUND_MAX)), ("_elements", "id"))
    answer = await context.perform(
        Request("search-type", search.type, parameters=parameters), context
    )
    entries = decode_stored(answer.body).get("entry", [])
    ids = [entry["resource"]["id"] for entry in entries]
    return await context.store.read_all(search.type, ids) if ids else []
