"""Times that became free, and who was asked for them already. Section 6 of design/scheduling.md.

==========  ====================================================================================
``freed``   An event, written in the transaction that frees a time; ``kind`` is ``freed``, or
            ``hold`` for a time that may become free at the end of a hold. Other kinds are of blocks
            and hours (``conflicts.py``). ``due`` is when it may be
            taken: of one that is being worked off, when its lease ends. ``by`` is who has it,
            ``tried`` how often it was taken. ``end`` is when nobody can use the time any more.
``offers``  ``_id`` is ``freed time|entry``: who was asked for a time is not asked again. ``end`` as
            above.
==========  ====================================================================================
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymongo import ASCENDING, IndexModel, ReplaceOne, ReturnDocument
from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.store.client import Database, Document, deadline

FREED, OFFERS = "freed", "offers"
_ADVICE = "Try again."
_ASKED_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Freed:
    """An event. ``start`` and ``end`` are UTC, ``actors`` and ``slots`` as ``Practitioner/1``;
    ``subject`` is what had the time, ``types`` what it was for (``system|code``)."""

    id: str
    kind: str
    due: datetime
    start: datetime
    end: datetime
    subject: str
    actors: Sequence[str] = ()
    slots: Sequence[str] = ()
    types: Sequence[str] = ()
    by: str = ""
    tried: int = 0


def as_document(event: Freed) -> Document:
    """Return ``event`` as it is stored."""
    return {
        "_id": event.id,
        "kind": event.kind,
        "due": event.due,
        "start": event.start,
        "end": event.end,
        "subject": event.subject,
        "actors": list(event.actors),
        "slots": list(event.slots),
        "types": list(event.types),
        "by": event.by,
        "tried": event.tried,
    }


def as_event(found: Mapping[str, Any]) -> Freed:
    """Return the event that a document is."""
    return Freed(**{("id" if name == "_id" else name): value for name, value in found.items()})


@dataclass(frozen=True, slots=True)
class Offers:
    """The events and offers of ``database``, in the transaction of ``session`` if there is one."""

    database: Database
    session: AsyncClientSession | None = None
    seconds: float = 10.0

    async def ensure(self) -> None:
        """Make the collections and their indexes; what is past is removed by them."""
        past = IndexModel([("end", ASCENDING)], expireAfterSeconds=0)
        await self.database[FREED].create_indexes([past, IndexModel([("due", ASCENDING)])])
        await self.database[OFFERS].create_indexes([past])

    async def put(self, events: Sequence[Freed]) -> None:
        """Write ``events``, each in the place of one with its id."""
        if events:
            writes = [ReplaceOne({"_id": one.id}, as_document(one), upsert=True) for one in events]
            await self.database[FREED].bulk_write(writes, session=self.session)

    async def take(self, by: str, now: datetime, until: datetime) -> Freed | None:
        """Take the event that is due longest, until ``until``; ``None`` where none is due.

        One step: whoever asks at the same time takes another. ``by`` is a new name each time.
        """
        async with deadline(self.seconds, _ADVICE):
            found = await self.database[FREED].find_one_and_update(
                {"due": {"$lte": now}},
                {"$set": {"due": until, "by": by}, "$inc": {"tried": 1}},
                sort=[("due", ASCENDING)],
                return_document=ReturnDocument.AFTER,
            )
        return as_event(found) if found else None

    async def drop(self, event: Freed) -> None:
        """Remove ``event``, if it is still taken by who says so."""
        async with deadline(self.seconds, _ADVICE):
            await self.database[FREED].delete_one({"_id": event.id, "by": event.by})

    async def ask(self, time: str, entry: str, end: datetime) -> None:
        """Note that ``entry`` is asked whether it wants the time that is called ``time``."""
        id = f"{time}|{entry}"
        await self.database[OFFERS].replace_one(
            {"_id": id}, {"_id": id, "end": end}, upsert=True, session=self.session
        )

    async def asked(self, time: str) -> set[str]:
        """Return which entries were asked for the time that is called ``time``."""
        async with deadline(self.seconds, _ADVICE):
            ids = {"_id": {"$gte": time + "|", "$lt": time + "}"}}  # which comes after it
            found = await self.database[OFFERS].find(ids).limit(_ASKED_MAX).to_list()
        return {str(one["_id"]).rpartition("|")[2] for one in found}
