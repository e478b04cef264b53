"""What a plan wants to know, looked up in the store. The reading half of a message's transaction.

design/hl7v2.md, sections 8 to 10.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from adapters.hl7v2.ack import Fault
from adapters.hl7v2.changes import Json, Stamp
from adapters.hl7v2.plan import Known, Search, Wanted, wanted
from adapters.hl7v2.reading import Item
from fhir_server.context import Context
from fhir_server.messages import Request
from fhir_server.r4.json import decode_stored
from fhir_server.store.documents import Document, Stored, stored
from fhir_server.store.inbox import Row
from fhir_server.store.together import Named

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
    """What is known, with the versions of what was read, and the documents as they were read."""

    known: Known = field(default_factory=Known)
    versions: dict[tuple[str, str], int] = field(default_factory=dict)
    documents: dict[tuple[str, str], Document] = field(default_factory=dict)

    def take(self, type: str, stored: Stored) -> None:
        """Note ``stored``; what was deleted is not there, but its version counts on."""
        place = (type, stored.id)
        self.versions[place] = stored.version
        self.known.resources[place] = None if stored.deleted else decode_stored(stored.json)

    def take_document(self, type: str, document: Document) -> None:
        """Note ``document``, which has all that a write over it needs."""
        place = (type, document["_id"])
        if place not in self.known.resources:
            self.documents[place] = document
            self.take(type, stored(type, document))

    async def resource(self, type: str, id: str, context: Context) -> Json | None:
        """Return ``type/id`` as it is stored, read if it was not before."""
        if (type, id) not in self.known.resources:
            self.known.resources[type, id] = None
            for one in await context.store.read_all(type, [id]):
                self.take(type, one)
        return self.known.resources[type, id]


Judge = Callable[[Row | None], Awaitable[None]]
"""What is to be done about the row that has the key of the message, or where there is none."""


@dataclass(frozen=True, slots=True)
class Round:
    """How a round of look-ups is made: with the row that has ``key``, which ``judge`` is told of
    before all else; each question ``apart``."""

    key: str = ""
    judge: Judge | None = None
    apart: bool = False


async def looked_up(
    item: Item, drawn: Sequence[str], context: Context, first: Round | None = None
) -> Lookups:
    """Return all that is wanted to plan ``item``, whose new Patients get the ids ``drawn``.

    Raises what the store's ``together`` does, and what the judge of the ``first`` round does.
    """
    lookups = Lookups()
    round = first = first or Round()
    for _ in range(ROUNDS_MAX):
        asked = wanted(item.report, lookups.known, item.profile, drawn)
        if not asked and not round.key:
            break
        await _look_up(asked, lookups, context, round)
        round = Round(apart=first.apart)
    else:
        raise HeldError((Fault("207", "The message leads from resource to resource too long."),))
    if item.force:
        lookups.known.origins.clear()
    return lookups


async def _look_up(asked: Wanted, lookups: Lookups, context: Context, round: Round) -> None:
    """Look up what is ``asked``, nearly always by one command."""
    known = lookups.known
    by_number = [one for one in sorted(asked.searches, key=repr) if not one.patient]
    by_type: dict[str, list[str]] = defaultdict(list)
    for type, id in sorted(asked.ids - known.resources.keys()):
        by_type[type].append(id)
    named = [Named(one.type, identifiers=one.identifiers) for one in by_number]
    named += [Named(type, tuple(ids)) for type, ids in by_type.items()]
    answers = await context.store.together(named, round.key, apart=round.apart)
    if round.judge is not None:
        await round.judge(answers.row)
    for one, documents in zip(named, answers.documents, strict=True):
        for document in documents:
            lookups.take_document(one.type, document)
    for search, documents in zip(by_number, answers.documents, strict=False):
        known.found[search] = tuple(document["_id"] for document in documents)
    for type, ids in by_type.items():
        for id in ids:
            known.resources.setdefault((type, id), None)
    for search in asked.searches - known.found.keys():
        await _search(search, lookups, context)
    await _look_up_origins(lookups, answers.origins, context)


async def _look_up_origins(
    lookups: Lookups, found: Mapping[str, Document], context: Context
) -> None:
    """Note how old the last statement about each resource is, of those that are there."""
    known = lookups.known
    places = {
        f"{type}/{id}": (type, id)
        for (type, id), resource in known.resources.items()
        if resource is not None and (type, id) not in known.origins
    }
    asked = [
        place for place in places if place not in found and places[place] not in lookups.documents
    ]
    if asked:  # what was found by a search
        found = {**found, **await context.store.inbox.origins(asked)}
    for name, place in places.items():
        one = found.get(name, {})
        known.origins[place] = Stamp(one.get("said", ""), one.get("sent", ""))


async def _search(search: Search, lookups: Lookups, context: Context) -> None:
    parameters = (*search.parameters(), ("_count", str(_FOUND_MAX)), ("_elements", "id"))
    answer = await context.perform(
        Request("search-type", search.type, parameters=parameters), context
    )
    ids = [entry["resource"]["id"] for entry in decode_stored(answer.body).get("entry", [])]
    found = await context.store.read_all(search.type, ids) if ids else []
    for one in found:
        if (search.type, one.id) not in lookups.known.resources:
            lookups.take(search.type, one)
    lookups.known.found[search] = tuple(one.id for one in found)
