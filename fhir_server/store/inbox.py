"""Documents received from senders: kept once, worked off in order, finished with what they became.

One document for each message that is not a repetition: queue, log, and the memory of what was
answered. Bound to a session, like :class:`ResourceStore`, inside a transaction.

=============  ===========================================================================
``inbox``      the rows; ``key`` is unique among those that have one
``inbox.raw``  the bytes of rows above 256 KiB, in parts
``inbox.led``  who works off the rows that wait: one process at a time
``origins``    beside a resource: which message spoke of it last, and how old its words were
``senders``    profiles of senders, every version
=============  ===========================================================================
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any

from pymongo import (
    ASCENDING,
    DESCENDING,
    IndexModel,
    InsertOne,
    ReplaceOne,
    ReturnDocument,
    UpdateOne,
)
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import BulkWriteError, DuplicateKeyError

from fhir_server.store.client import Database, Document, deadline, make_collection

INBOX, RAW, LED, ORIGINS, SENDERS = "inbox", "inbox.raw", "inbox.led", "origins", "senders"
RAW_BYTES_MAX = 262_144
_PART_BYTES = 8_388_608  # a document has a limit of 16 MiB
_ATTEMPTS_MAX = 10
_ADVICE = "Nothing was written; try again."


@dataclass(frozen=True, slots=True)
class Row:
    """A message received. ``id`` and ``sequence`` tell the order of arrival.

    ``key`` names it among the messages of its sender and ``digest`` what it says; ``patients`` are
    the keys in whose order it is applied; ``raw`` is what arrived, until ``binary`` (an id) holds
    it. ``code`` and ``answer`` are what was answered. ``issues``, ``unmapped`` and ``made`` are
    lists of plain members, ``attempts`` the last ten. ``until`` is when a finished row goes.
    """

    id: str
    sequence: int
    state: str
    received: datetime
    key: str = ""
    digest: bytes = b""
    sender: str = ""
    peer: str = ""
    transport: str = ""
    type: str = ""
    version: str = ""
    control_id: str = ""
    charset: str = ""
    size: int = 0
    parts: int = 0
    patients: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    raw: bytes = b""
    binary: str = ""
    code: str = ""
    answer: bytes = b""
    late_answer: bytes = b""
    issues: tuple[Mapping[str, Any], ...] = ()
    unmapped: tuple[Mapping[str, Any], ...] = ()
    made: tuple[Mapping[str, Any], ...] = ()
    attempts: tuple[Mapping[str, Any], ...] = ()
    next: datetime | None = None
    lease: datetime | None = None
    owner: str = ""
    first_failed: datetime | None = None
    replay_of: str = ""
    replaced_by: str = ""
    force: bool = False
    reason: str = ""
    copies: int = 0
    until: datetime | None = None


_FIELDS = tuple(one.name for one in fields(Row) if one.name != "id")
_TUPLES = frozenset(
    ("patients", "subjects", "issues", "unmapped", "made", "attempts")  # lists in the database
)
_EMPTY: tuple[Any, ...] = ("", b"", 0, (), None, False)


def as_document(row: Row) -> Document:
    """Return ``row`` as it is stored: what is empty is absent."""
    found = {name: getattr(row, name) for name in _FIELDS}
    return {"_id": row.id} | {
        name: list(value) if name in _TUPLES else value
        for name, value in found.items()
        if value not in _EMPTY
    }


def as_row(document: Mapping[str, Any]) -> Row:
    """Return the row that ``document`` is; members of a later release are left out."""
    known: dict[str, Any] = {
        name: tuple(value) if name in _TUPLES else value
        for name, value in document.items()
        if name in _FIELDS
    }
    return Row(id=document["_id"], **known)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows are meant; what is empty does not narrow. ``after`` is a sequence: the page
    begins below it, or above it where ``ascending``, and then ends before ``below``."""

    ids: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    sender: str = ""
    type: str = ""
    patient: str = ""
    issue: str = ""
    since: datetime | None = None
    before: datetime | None = None
    after: int = 0
    below: int = 0
    ascending: bool = False
    count: int = 50


@dataclass(frozen=True, slots=True)
class Inbox:
    """The rows in MongoDB, bound to a session inside a transaction, else to none."""

    database: Database
    session: AsyncClientSession | None
    seconds: float

    async def ensure(self) -> None:
        """Make the indexes, and with them the collections: a transaction makes none."""
        present = {"key": {"$exists": True}}
        await self.database[INBOX].create_indexes(
            [
                IndexModel([("key", ASCENDING)], unique=True, partialFilterExpression=present),
                IndexModel([("state", ASCENDING), ("sequence", ASCENDING)]),
                IndexModel([("sequence", DESCENDING)]),
                IndexModel([("until", ASCENDING)], expireAfterSeconds=0),
            ]
        )
        await self.database[RAW].create_indexes([IndexModel([("row", ASCENDING)])])
        await self.database[SENDERS].create_indexes([IndexModel([("name", ASCENDING)])])
        there = await self.database.list_collection_names()
        for name in {LED, ORIGINS} - set(there):
            await make_collection(self.database, name)

    async def with_key(self, key: str) -> Row | None:
        """Return the row that has ``key``, without its bytes."""
        found = await self._rows().find_one({"key": key}, {"raw": 0}, session=self.session)
        return as_row(found) if found else None

    async def row(self, id: str) -> Row | None:
        """Return the row ``id``, with its bytes wherever they are kept beside it."""
        async with deadline(self.seconds, "Try again."):
            found = await self._rows().find_one({"_id": id}, session=self.session)
            if found is None:
                return None
            row = as_row(found)
            return replace(row, raw=await self._parts(row)) if row.parts else row

    async def insert(self, row: Row) -> None:
        """Keep ``row``.

        Raises :class:`KeyTakenError` where another row has its key; inside a transaction the
        database's own error, upon which the transaction begins again.
        """
        if len(row.raw) > RAW_BYTES_MAX:
            row = await self._apart(row)
        if self.session is not None:
            await self._rows().insert_one(as_document(row), session=self.session)
            return
        async with deadline(self.seconds, _ADVICE):
            try:
                await self._rows().insert_one(as_document(row))
            except DuplicateKeyError as error:
                raise KeyTakenError(row.key) from error

    async def insert_all(self, rows: Sequence[Row]) -> set[int]:
        """Keep ``rows``, none of them above 256 KiB; return the places of those whose key another
        row has. Outside of transactions."""
        async with deadline(self.seconds, _ADVICE):
            try:
                await self._rows().bulk_write([InsertOne(as_document(row)) for row in rows], False)
            except BulkWriteError as error:
                failed = error.details.get("writeErrors", ())
                if any(one["code"] != 11000 for one in failed) or error.details.get(
                    "writeConcernErrors"
                ):
                    raise
                return {one["index"] for one in failed}
        return set()

    async def change(
        self, id: str, states: Iterable[str], set: Mapping[str, Any], owner: str = ""
    ) -> Row | None:
        """Set members of the row ``id`` if its state is one of ``states`` and, where it is given,
        its ``owner`` is that; return it as it is then, without its bytes, else ``None``.

        A value that is empty removes the member. ``attempt`` is put behind the last ten.
        """
        filter: Document = {"_id": id, "state": {"$in": list(states)}}
        if owner:
            filter["owner"] = owner
        attempt = set.get("attempt")
        kept = {name: value for name, value in set.items() if name != "attempt"}
        update: Document = {}
        if added := {name: value for name, value in kept.items() if value not in _EMPTY}:
            update["$set"] = {
                name: list(value) if name in _TUPLES else value for name, value in added.items()
            }
        if gone := [name for name, value in kept.items() if value in _EMPTY]:
            update["$unset"] = dict.fromkeys(gone, "")
        if attempt:
            update["$push"] = {"attempts": {"$each": [attempt], "$slice": -_ATTEMPTS_MAX}}
        async with deadline(self.seconds, _ADVICE):
            found = await self._rows().find_one_and_update(
                filter,
                update,
                projection={"raw": 0},
                return_document=ReturnDocument.AFTER,
                session=self.session,
            )
        return as_row(found) if found else None

    async def copied(self, id: str) -> None:
        """Note that the row ``id`` was sent once more."""
        async with deadline(self.seconds, _ADVICE):
            await self._rows().update_one({"_id": id}, {"$inc": {"copies": 1}})

    async def copied_again(self, key: str, digest: bytes, states: Iterable[str]) -> Row | None:
        """The same for the row with ``key``, if it has ``digest`` and one of ``states``; return it,
        without its bytes, or ``None``."""
        filter = {"key": key, "digest": digest, "state": {"$in": list(states)}}
        async with deadline(self.seconds, _ADVICE):
            found = await self._rows().find_one_and_update(
                filter, {"$inc": {"copies": 1}}, projection={"raw": 0}
            )
        return as_row(found) if found else None

    async def lease(self, id: str, owner: str, now: datetime, until: datetime) -> Row | None:
        """Take the row ``id`` to be applied, if it waits or nobody holds it any more; return it
        with its bytes, or ``None``."""
        waiting: Document = {
            "_id": id,
            "$or": [
                {"state": {"$in": ["received", "retry"]}},
                {"state": "applying", "lease": {"$lt": now}},
            ],
        }
        update = {"$set": {"state": "applying", "owner": owner, "lease": until}}
        async with deadline(self.seconds, _ADVICE):
            found = await self._rows().find_one_and_update(
                waiting, update, return_document=ReturnDocument.AFTER
            )
            if found is None:
                return None
            row = as_row(found)
            return replace(row, raw=await self._parts(row)) if row.parts else row

    async def waiting(self, after: int, count: int) -> list[Row]:
        """Return rows that are to be applied, in order of arrival, from ``after`` on: their ids,
        keys and times only."""
        states = {"state": {"$in": ["received", "retry", "applying"]}, "sequence": {"$gt": after}}
        wanted = dict.fromkeys(("sequence", "state", "patients", "next", "lease", "received"), 1)
        async with deadline(self.seconds, "Try again."):
            cursor = self._rows().find(states, wanted).sort("sequence", ASCENDING).limit(count)
            return [as_row(one) for one in await cursor.to_list()]

    async def stopped_before(
        self, sequence: int, sender: str, patients: Iterable[str]
    ) -> str | None:
        """Return the id of the last row before ``sequence`` of ``sender`` that a person must see
        to, dead or held, and that shares one of ``patients``; else ``None``."""
        filter: Document = {
            "state": {"$in": ["dead", "held"]},
            "sequence": {"$lt": sequence},
            "sender": sender,
            "patients": {"$in": list(patients)},
        }
        found = await self._rows().find_one(
            filter, {"_id": 1}, sort=[("sequence", DESCENDING)], session=self.session
        )
        return str(found["_id"]) if found else None

    async def lead(self, owner: str, now: datetime, until: datetime) -> bool:
        """Take or keep the lead until ``until``; return whether ``owner`` has it."""
        free = {"_id": "rows", "$or": [{"owner": owner}, {"at": {"$lt": now}}]}
        async with deadline(self.seconds, "Try again."):
            try:
                await self.database[LED].update_one(
                    free, {"$set": {"owner": owner, "at": until}}, upsert=True
                )
            except DuplicateKeyError:
                return False
        return True

    async def leave(self, owner: str) -> None:
        """Give up the lead, so that another need not wait for its end."""
        async with deadline(self.seconds, "Try again."):
            await self.database[LED].delete_one({"_id": "rows", "owner": owner})

    async def select(self, wanted: Selection) -> list[Row]:
        """Return the rows that are ``wanted``, without bytes, newest first unless asked for."""
        order = ASCENDING if wanted.ascending else DESCENDING
        async with deadline(self.seconds, "Narrow the selection."):
            cursor = self._rows().find(_filter(wanted), {"raw": 0}, session=self.session)
            found = await cursor.sort("sequence", order).limit(wanted.count).to_list()
        return [as_row(one) for one in found]

    async def counts(self) -> dict[str, int]:
        """Return how many rows are in each state."""
        stages = [{"$group": {"_id": "$state", "count": {"$sum": 1}}}]
        async with deadline(self.seconds, "Try again."):
            cursor = await self._rows().aggregate(stages)
            return {one["_id"]: one["count"] for one in await cursor.to_list()}

    async def unmapped(self, sender: str, count: int) -> list[Document]:
        """Return the fields that no row of the mapping read, and the codes without a target: by
        sender, field, system and code how often, the last time, and a row that has it."""
        stages: list[Document] = [
            {"$match": {"unmapped": {"$exists": True}, **({"sender": sender} if sender else {})}},
            {"$unwind": "$unmapped"},
            {
                "$group": {
                    "_id": {
                        "sender": "$sender",
                        "field": "$unmapped.field",
                        "system": "$unmapped.system",
                        "code": "$unmapped.code",
                    },
                    "count": {"$sum": "$unmapped.count"},
                    "last": {"$max": "$received"},
                    "row": {"$last": "$_id"},
                }
            },
            {"$sort": {"count": -1, "_id": 1}},
            {"$limit": count},
        ]
        async with deadline(self.seconds, "Name a sender."):
            cursor = await self._rows().aggregate(stages)
            found: list[Document] = await cursor.to_list()
        return found

    async def origins(self, places: Iterable[str]) -> dict[str, Document]:
        """Return what is known of the last statement about each of ``places`` (``Patient/1``)."""
        cursor = self.database[ORIGINS].find({"_id": {"$in": list(places)}}, session=self.session)
        return {one["_id"]: one for one in await cursor.to_list()}

    async def set_origins(self, new: Iterable[Document], known: Iterable[Document]) -> None:
        """Keep statements, each with ``_id`` ``Patient/1``: of ``new`` places, and of ``known``."""
        writes: list[InsertOne[Document] | ReplaceOne[Document]] = [
            *(InsertOne(one) for one in new),
            *(ReplaceOne({"_id": one["_id"]}, one, upsert=True) for one in known),
        ]
        if writes:
            await self.database[ORIGINS].bulk_write(writes, session=self.session)

    async def touch_origins(self, places: Iterable[str], row: str) -> None:
        """Note that ``row`` has done something with ``places``, without saying anything of them:
        who writes about one of them at the same time has to begin anew."""
        writes = [UpdateOne({"_id": one}, {"$set": {"row": row}}, upsert=True) for one in places]
        if writes:
            await self.database[ORIGINS].bulk_write(writes, session=self.session)

    async def senders(self) -> list[Document]:
        """Return the current profile of each sender, as ``{"name", "version", "profile"}``."""
        async with deadline(self.seconds, "Try again."):
            cursor = self.database[SENDERS].find({}).sort("version", ASCENDING)
            found = {one["name"]: one for one in await cursor.to_list()}
        return list(found.values())

    async def set_sender(self, name: str, profile: Mapping[str, Any], at: datetime) -> int:
        """Keep ``profile`` as the next version of that of ``name``; return which that is."""
        async with deadline(self.seconds, _ADVICE):
            cursor = self.database[SENDERS].find({"name": name}, {"version": 1})
            version = 1 + max([one["version"] for one in await cursor.to_list()], default=0)
            await self.database[SENDERS].insert_one(
                {
                    "_id": f"{name}/{version}",
                    "name": name,
                    "version": version,
                    "at": at,
                    "profile": profile,
                }
            )
        return version

    def _rows(self) -> Any:
        return self.database[INBOX]

    async def _apart(self, row: Row) -> Row:
        """Keep the bytes of ``row`` beside it. They come first: a row is never without them."""
        pieces = range(0, len(row.raw), _PART_BYTES)
        for number, begin in enumerate(pieces):
            part = {
                "_id": f"{row.id}/{number}",
                "row": row.id,
                "data": row.raw[begin:][:_PART_BYTES],
            }
            await self.database[RAW].insert_one(part, session=self.session)
        return replace(row, raw=b"", parts=len(pieces))

    async def _parts(self, row: Row) -> bytes:
        cursor = self.database[RAW].find({"row": row.id}, session=self.session).sort("_id", 1)
        return b"".join([one["data"] for one in await cursor.to_list()])

    async def forget_parts(self, id: str) -> None:
        """Remove the bytes kept beside the row ``id``."""
        await self.database[RAW].delete_many({"row": id}, session=self.session)


class KeyTakenError(Exception):
    """Another row has the key."""


def _filter(wanted: Selection) -> Document:
    exact: dict[str, Any] = {
        "_id": {"$in": list(wanted.ids)} if wanted.ids else None,
        "state": {"$in": list(wanted.states)} if wanted.states else None,
        "sender": wanted.sender or None,
        "type": wanted.type or None,
        "issues.code": wanted.issue or None,
    }
    found: Document = {name: value for name, value in exact.items() if value is not None}
    if wanted.patient:
        found["$or"] = [{"patients": wanted.patient}, {"subjects": wanted.patient}]
    times = {"$gte": wanted.since, "$lt": wanted.before}
    if bounds := {name: value for name, value in times.items() if value is not None}:
        found["received"] = bounds
    if wanted.after:
        found["sequence"] = {"$gt" if wanted.ascending else "$lt": wanted.after}
    if wanted.below:
        found["sequence"] = found.get("sequence", {}) | {"$lt": wanted.below}
    return found


@dataclass(slots=True)
class Arrivals:
    """Gives each row of one process its place in the order of arrival, in microseconds."""

    last: int = field(default=0)

    def next(self, now: datetime) -> int:
        """Return the place of what arrives at ``now``."""
        self.last = max(self.last + 1, int(now.timestamp() * 1_000_000))
        return self.last
