"""Times that are taken: for each actor and granule of time a document that every contender writes.

Section 4 of design/scheduling.md. Whoever wants a time reads its granules inside a transaction,
decides, and writes each of them: of two decisions about one granule the database lets one through.

============  ==================================================================================
``granules``  ``_id`` is ``Practitioner/p1|2026-12-01T09:05Z``, so that the granules of a time are
              one range of ids. ``s`` is the Schedule that uses the actor, ``k`` how many may be
              there at once, ``h`` who is there: ``a`` the holder, ``x`` the end of a hold or null.
              ``t`` is when it may go, ``n`` grows with every write.
``bookings``  ``_id`` is the holder (``Appointment/8f2c``), ``g`` its granules, ``slots`` the Slots
              that it stands for, ``t`` as above.
============  ==================================================================================
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import IndexModel, ReplaceOne, ReturnDocument
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.operations import DeleteOne

from fhir_server.store.client import Database, Document, UnfitDatabaseError

GRANULES, BOOKINGS = "granules", "bookings"
HOLDERS = ("Appointment", "Slot")
_SERVER = "server"
KEPT = timedelta(days=7)
_MINUTE = "%Y-%m-%dT%H:%MZ"
_AT_ONCE = 5_000


@dataclass(frozen=True, slots=True)
class Taken:
    """What is written of a plan: granules and bookings by their ids, ``None`` for what goes."""

    granules: Mapping[str, Document | None]
    bookings: Mapping[str, Document | None]


def granule_id(actor: str, moment: datetime) -> str:
    """Return the id of the granule of ``actor`` that begins at ``moment``.

    >>> granule_id("Location/1", datetime(2026, 12, 1, 9, 5, tzinfo=UTC))
    'Location/1|2026-12-01T09:05Z'
    """
    return f"{actor}|{moment.astimezone(UTC).strftime(_MINUTE)}"


def moment_of(granule: str) -> datetime:
    """Return when the granule with this id begins (UTC)."""
    return datetime.strptime(granule.rpartition("|")[2], _MINUTE).replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Granules:
    """The granules and bookings of ``database``, in the transaction of ``session`` if there is
    one."""

    database: Database
    session: AsyncClientSession | None = None

    async def ensure(self, minutes: int, now: datetime) -> None:
        """Make the collections and their indexes; what is long past is removed by them.

        Raises :class:`UnfitDatabaseError` where times ahead are taken by granules of another length
        than ``minutes``: those of one grid are not seen on the other.
        """
        mark = await self.database[_SERVER].find_one_and_update(
            {"_id": GRANULES},
            {"$setOnInsert": {"minutes": minutes}},
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
        assert mark is not None  # an upsert returns what it made
        if mark["minutes"] != minutes:
            if await self.database[BOOKINGS].find_one({"t": {"$gt": now}}, {"_id": 1}):
                text = f"Appointments ahead hold times in pieces of {mark['minutes']} minutes."
                text += " Leave FHIR_SCHEDULING_GRANULE_MINUTES at that."
                raise UnfitDatabaseError(text)
            changed = {"$set": {"minutes": minutes}}
            await self.database[_SERVER].update_one({"_id": GRANULES}, changed)
        expiry = IndexModel([("t", 1)], expireAfterSeconds=int(KEPT.total_seconds()))
        await self.database[GRANULES].create_indexes([expiry])
        await self.database[BOOKINGS].create_indexes([expiry, IndexModel([("slots", 1)])])

    def beside(self) -> "Granules":
        """Return the same outside the transaction."""
        return replace(self, session=None)

    async def bookings(self, holders: Collection[str]) -> dict[str, Document]:
        """Return what ``holders`` have, by holder."""
        return await self._by_id(BOOKINGS, holders)

    async def bookings_of_slots(self, slots: Collection[str]) -> list[Document]:
        """Return the bookings that stand for one of ``slots``."""
        if not slots:
            return []
        wanted = {"slots": {"$in": sorted(slots)}}
        return await self.database[BOOKINGS].find(wanted, session=self.session).to_list()

    async def granules(self, ids: Collection[str]) -> dict[str, Document]:
        """Return those of the granules that are there."""
        return await self._by_id(GRANULES, ids)

    async def taken(
        self, actors: Collection[str], start: datetime, end: datetime
    ) -> list[Document]:
        """Return the granules of ``actors`` from ``start`` on that begin before ``end``: of each
        ``_id``, ``s``, ``k`` and ``h``; those of one actor in the order of their ids."""
        if not actors:
            return []
        ranges: list[dict[str, Any]] = [
            {"_id": {"$gte": granule_id(one, start), "$lt": granule_id(one, end)}}
            for one in sorted(set(actors))
        ]
        wanted = ranges[0] if len(ranges) == 1 else {"$or": ranges}
        shown = {"s": 1, "k": 1, "h": 1}  # the rest takes longer to read than to decide on
        cursor = self.database[GRANULES].find(wanted, shown, session=self.session)
        return await cursor.to_list()

    async def write(self, taken: Taken) -> None:
        """Write ``taken``, in the order of the ids, so that two writers do not wait in a circle.

        Every granule that a decision looked at is to be among it.
        """
        assert self.session is not None, "a time is taken together with what takes it"
        for name, documents in ((GRANULES, taken.granules), (BOOKINGS, taken.bookings)):
            orders = [_order(id, documents[id]) for id in sorted(documents)]
            for some in _portions(orders):
                await self.database[name].bulk_write(some, session=self.session)

    async def release(self, holder: str) -> None:
        """Free what ``holder`` has, which goes without a write that a rule would see."""
        assert self.session is not None, "a time is freed together with what had it"
        gone = {"_id": holder}
        booking = await self.database[BOOKINGS].find_one_and_delete(gone, session=self.session)
        granules = self.database[GRANULES]
        for some in _portions(booking["g"] if booking is not None else ()):
            among = {"_id": {"$in": some}}
            without = {"$pull": {"h": {"a": holder}}, "$inc": {"n": 1}}
            await granules.update_many(among, without, session=self.session)
            await granules.delete_many({**among, "h": []}, session=self.session)

    async def _by_id(self, name: str, ids: Collection[str]) -> dict[str, Document]:
        found: dict[str, Document] = {}
        for some in _portions(sorted(ids)):
            wanted = {"_id": {"$in": some}}
            cursor = self.database[name].find(wanted, session=self.session)
            found |= {one["_id"]: one for one in await cursor.to_list()}
        return found


def _order(id: str, document: Document | None) -> ReplaceOne[Document] | DeleteOne:
    if document is None:
        return DeleteOne({"_id": id})
    return ReplaceOne({"_id": id}, document, upsert=True)


def _portions(some: Sequence[Any]) -> list[Sequence[Any]]:
    return [some[start : start + _AT_ONCE] for start in range(0, len(some), _AT_ONCE)]
