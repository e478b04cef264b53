"""What a message must know before it is applied, looked up by one command.

A command costs the driver and the database some 0.2 ms each, whatever it finds, and the commands of
a transaction cannot go beside each other. What may be joined there is ``$lookup``:
https://www.mongodb.com/docs/manual/core/transactions-operations/

The answer is one document, which has a limit. Where much is asked, or what is found is large, each
question is a command of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import OperationFailure

from fhir_server.search.token import token_key
from fhir_server.store.client import Database, codes_of
from fhir_server.store.documents import KEPT_IN_HISTORY, Document
from fhir_server.store.inbox import INBOX, ORIGINS, Row, as_row
from fhir_server.store.keys import KEYS, SERVER
from fhir_server.store.transactions import StaleRead

_IDS_MAX = 200  # some 300 KB of results
_TOO_LARGE = {4568, 10334, 17419}  # the limit of a $lookup, and that of a document
# All that a write over a resource needs as well: it is not read a second time.
_READ = dict.fromkeys(KEPT_IN_HISTORY, 1)


class TooMuchTogether(StaleRead):
    """The answers have more than 16 MiB together; to be asked apart, in another attempt."""


@dataclass(frozen=True, slots=True)
class Named:
    """Those of ``type`` with one of ``ids``, or with one of ``identifiers``: system and value."""

    type: str
    ids: tuple[str, ...] = ()
    identifiers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Answers:
    """What was looked up: the row that has the key; the documents of each question, deletions
    among them; the statements about those, by place (``Patient/1``)."""

    row: Row | None
    documents: Sequence[Sequence[Document]]
    origins: Mapping[str, Document] = field(default_factory=dict)
    keys: Document | None = None


Question = tuple[str, list[Document]]
"""A collection, and the stages that find in it what is asked."""


async def together(
    place: tuple[Database, AsyncClientSession | None],
    named: Sequence[Named],
    key: str,
    field_of: Callable[[str], str],
    *,
    apart: bool = False,
) -> Answers:
    """Return what is ``named``, and the row that has ``key`` if there is one.

    ``field_of`` is the field of the identifiers of a type. ``apart`` asks one by one.

    Raises :class:`TooMuchTogether`, which ends the transaction.
    """
    places = [f"{one.type}/{id}" for one in named for id in one.ids]
    questions: list[Question] = [
        (SERVER, [{"$match": {"_id": KEYS}}, {"$project": {"version": 1}}]),
        (INBOX, [{"$match": {"key": key}}, {"$project": {"raw": 0}}]),
        (ORIGINS, [{"$match": {"_id": {"$in": places}}}]),
        *(_question(one, field_of) for one in named),
    ]
    asked = [one for one, wanted in zip(questions, (True, key, places), strict=False) if wanted]
    asked += questions[3:]
    each = _apart if apart or len(places) > _IDS_MAX else _joined
    found = await each(place, asked)
    rows = found.pop(1) if key else []
    origins = {one["_id"]: one for one in (found.pop(1) if places else [])}
    for one in (document for documents in found[1:] for document in documents):
        origins |= {origin["_id"]: origin for origin in one.pop("origins", ())}
    keys = found[0][0] if found[0] else None
    return Answers(as_row(rows[0]) if rows else None, found[1:], origins, keys)


def _question(named: Named, field_of: Callable[[str], str]) -> Question:
    if not named.identifiers:
        return named.type, [{"$match": {"_id": {"$in": list(named.ids)}}}, {"$project": _READ}]
    keys = [token_key(value, system) for system, value in named.identifiers]
    # The ids, and with them the places of the statements, are known when these are found.
    of_found = {"from": ORIGINS, "localField": "origins", "foreignField": "_id", "as": "origins"}
    return named.type, [
        {"$match": {field_of(named.type): {"$in": keys}}},
        {"$project": {**_READ, "origins": {"$concat": [f"{named.type}/", "$_id"]}}},
        {"$lookup": of_found},
    ]


async def _joined(
    place: tuple[Database, AsyncClientSession | None], questions: Sequence[Question]
) -> list[list[Document]]:
    """Ask for all at once: the first question has one answer at most, and carries the others."""
    (collection, stages), *others = questions
    joins: list[Document] = [
        {"$lookup": {"from": other, "pipeline": pipeline, "as": f"of{number}"}}
        for number, (other, pipeline) in enumerate(others)
    ]
    try:
        found = await _found(place, collection, [*stages, *joins])
    except OperationFailure as error:
        if codes_of(error) & _TOO_LARGE:
            raise TooMuchTogether from error
        raise
    if not found:  # no server has taken up its keys here yet
        return await _apart(place, questions)
    return [found, *(found[0][f"of{number}"] for number in range(len(others)))]


async def _apart(
    place: tuple[Database, AsyncClientSession | None], questions: Sequence[Question]
) -> list[list[Document]]:
    return [await _found(place, collection, stages) for collection, stages in questions]


async def _found(
    place: tuple[Database, AsyncClientSession | None], collection: str, stages: Sequence[Any]
) -> list[Document]:
    database, session = place
    cursor = await database[collection].aggregate(list(stages), session=session)
    found: list[Document] = await cursor.to_list()
    return found
