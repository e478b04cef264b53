"""The queues: one document for each Encounter that has a number, and who may call it.

design/scheduling.md, section 7. No name is in them, and no reason for a visit.

================  ===================================================================
``queues``        ``_id`` is the Encounter; place, service, number, rank, state, times
``queue_claims``  ``token|location|service|date|patient``: one number for one patient
================  ===================================================================

To call is two steps. One atomic step takes who is next, for ten seconds (``lease``); then a
transaction changes the Encounter, and only while the step before is still ours. Where a process
dies in between, the next one to call after the ten seconds takes the same.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import ASCENDING, DESCENDING, IndexModel, ReturnDocument
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import DuplicateKeyError

from fhir_server.store.client import NOTHING_WRITTEN, Database, deadline
from fhir_server.store.counters import current_number, ensure_counters, next_number
from fhir_server.store.documents import Document

QUEUES, CLAIMS = "queues", "queue_claims"
WAITING, CALLING, CALLED, ABSENT, DONE = "waiting", "calling", "called", "absent", "done"
LEASE = timedelta(seconds=10)
_KEPT_S = 31 * 86_400  # a month of waits can be looked at
_CLAIM_KEPT_S = 86_400
_LONG_AGO = datetime.fromtimestamp(0, UTC)
_READ_ADVICE = "Try again."


@dataclass(frozen=True, slots=True)
class Entry:
    """One Encounter in a queue, or that was in one.

    ``date`` is the local date of its number, ``until`` when it is not called any more. ``at`` is
    what its place in the queue is judged by, ``arrived`` when it came. ``call`` names the request
    by which it was called to ``counter``; ``first`` and ``called`` are when it was called the
    first and the last time, ``started`` since when it is served. All times are UTC.
    """

    id: str
    location: str
    service: str
    date: str
    number: int
    token: str
    rank: int
    at: datetime
    arrived: datetime
    until: datetime
    patient: str = ""
    state: str = WAITING
    counter: str = ""
    call: str = ""
    skips: int = 0
    calls: int = 0
    first: datetime | None = None
    called: datetime | None = None
    started: datetime | None = None
    finished: datetime | None = None

    @property
    def claim(self) -> str:
        """The name under which its patient has this number, ``""`` without a patient."""
        return claim_name(self.location, self.service, self.date, self.patient)


_FIELDS = tuple(one.name for one in fields(Entry) if one.name != "id")


def claim_name(location: str, service: str, date: str, patient: str) -> str:
    """Return the name under which ``patient`` has a number in a queue, ``""`` without a patient."""
    return f"token|{location}|{service}|{date}|{patient}" if patient else ""


async def ensure_queues(database: Database) -> None:
    """Make the indexes, and with them the collections."""
    await asyncio.gather(  # each is a way to the database and back, at every start
        database[QUEUES].create_indexes(_indexes()),
        database[CLAIMS].create_indexes(
            [IndexModel([("until", ASCENDING)], expireAfterSeconds=_CLAIM_KEPT_S)]
        ),
        ensure_counters(database),
    )


def _indexes() -> list[IndexModel]:
    waiting = {"partialFilterExpression": {"waits": True}}
    order = [("rank", ASCENDING), ("at", ASCENDING), ("number", ASCENDING)]
    place = [("location", ASCENDING), ("service", ASCENDING)]
    return [
        IndexModel([*place, *order], name="next of a service", **waiting),
        IndexModel([place[0], *order], name="next of a place", **waiting),
        IndexModel([*place, ("called", DESCENDING)], name="called"),
        IndexModel([("location", ASCENDING), ("state", ASCENDING), ("called", DESCENDING)]),
        IndexModel([*place, ("finished", DESCENDING)], name="finished"),
        IndexModel(
            [("call", ASCENDING)], unique=True, partialFilterExpression={"call": {"$gt": ""}}
        ),
        IndexModel([("until", ASCENDING)], expireAfterSeconds=_KEPT_S),
    ]


@dataclass(frozen=True, slots=True)
class Queues:
    """The queues of ``database``, in the transaction of ``session`` where there is one."""

    database: Database
    session: AsyncClientSession | None
    timeout_s: float

    async def number(self, name: str, until: datetime | None) -> int:
        """Return the next number of ``name``; never in a transaction."""
        assert self.session is None, "a number that is taken back could be given twice"
        async with deadline(self.timeout_s, NOTHING_WRITTEN):
            return await next_number(self.database, name, until)

    async def edition(self, name: str) -> int:
        """Return the last number of ``name`` that was given."""
        async with deadline(self.timeout_s, _READ_ADVICE):
            return await current_number(self.database, name)

    async def holder(self, claim: str) -> Entry | None:
        """Return the entry by which ``claim`` is held, if it is."""
        if not claim:
            return None
        async with deadline(self.timeout_s, _READ_ADVICE):
            found = await self.database[CLAIMS].find_one({"_id": claim}, session=self.session)
        return await self.of(found["entry"]) if found else None

    async def of(self, id: str) -> Entry | None:
        """Return the entry of the Encounter ``id``."""
        async with deadline(self.timeout_s, _READ_ADVICE):
            found = await self.database[QUEUES].find_one({"_id": id}, session=self.session)
        return _entry(found) if found else None

    async def enter(self, entry: Entry) -> None:
        """Put ``entry`` into its queue, and take its claim; the claim is known to be free."""
        await self.database[QUEUES].insert_one(_document(entry), session=self.session)
        await self._take(entry)

    async def _take(self, entry: Entry) -> None:
        if entry.claim:
            row = {"_id": entry.claim, "entry": entry.id, "until": entry.until}
            await self.database[CLAIMS].insert_one(row, session=self.session)

    async def _free(self, entry: Entry) -> None:
        if entry.claim:
            mine = {"_id": entry.claim, "entry": entry.id}
            await self.database[CLAIMS].delete_one(mine, session=self.session)

    async def next(
        self,
        place: tuple[str, str | None],
        call: str,
        counter: str,
        now: datetime,
        among: Sequence[str] | None = None,
    ) -> Entry | None:
        """Take who is next for ``call``, for ten seconds: the lowest rank, then the oldest.

        ``place`` is a location and a service, all of them where that is ``None``; ``among`` are
        the Encounters that may be taken, where not all. Returns ``None`` where nobody waits. What
        ``call`` took before is returned again, so that a lost answer calls nobody twice.
        """
        wanted = {**_waiting(*place, now), "lease": {"$lte": now}}
        if among is not None:
            wanted["_id"] = {"$in": [*among]}
        taken = {"state": CALLING, "call": call, "counter": counter, "lease": now + LEASE}
        async with deadline(self.timeout_s, _READ_ADVICE):
            try:
                found = await self.database[QUEUES].find_one_and_update(
                    wanted,
                    {"$set": taken},
                    sort=[("rank", 1), ("at", 1), ("number", 1)],
                    return_document=ReturnDocument.AFTER,
                )
            except DuplicateKeyError:  # a call takes one: this one did
                found = None
            found = found or await self.database[QUEUES].find_one({"call": call})
        return _entry(found) if found else None

    async def is_in_use(self, location: str, date: str, token: str) -> bool:
        """Whether somebody at ``location`` has the number ``token`` of that day."""
        present = {"location": location, "state": {"$in": [WAITING, CALLING, CALLED, ABSENT]}}
        async with deadline(self.timeout_s, _READ_ADVICE):
            wanted = {**present, "date": date, "token": token}
            return await self.database[QUEUES].find_one(wanted, {"_id": 1}) is not None

    async def forget(self, location: str, now: datetime) -> None:
        """Have nobody look any more at those of ``location`` who wait and are not called any more:
        they stay a month, and would be passed over at each call."""
        over = {"location": location, "waits": True, "until": {"$lte": now}}
        async with deadline(self.timeout_s, _READ_ADVICE):
            await self.database[QUEUES].update_many(over, {"$unset": {"waits": ""}})

    async def release(self, entry: Entry) -> None:
        """Let ``entry``, which was taken and not called, be called by others at once."""
        mine = {"_id": entry.id, "state": CALLING, "call": entry.call}
        freed = {"state": WAITING, "call": "", "counter": "", "lease": _LONG_AGO}
        async with deadline(self.timeout_s, _READ_ADVICE):
            await self.database[QUEUES].update_one(mine, {"$set": freed})

    async def change(
        self, entry: Entry, states: Sequence[str], changes: Mapping[str, Any]
    ) -> Entry | None:
        """Change ``entry`` if it is in one of ``states`` and was called by none but its own call;
        return it as it then is, else ``None``. Its claim goes where it goes, and ends with it."""
        wanted = {"_id": entry.id, "state": {"$in": [*states]}, "call": entry.call}
        unset = {}
        if changes.get("state", entry.state) not in (WAITING, CALLING):
            unset = {"$unset": {"waits": ""}}
        else:
            changes = {**changes, "waits": True, "lease": _LONG_AGO}
        found = await self.database[QUEUES].find_one_and_update(
            wanted,
            {"$set": dict(changes), **unset},
            return_document=ReturnDocument.AFTER,
            session=self.session,
        )
        if found is None:
            return None
        after = _entry(found)
        if after.state == DONE:
            await self._free(entry)
        elif after.claim != entry.claim:
            await self._free(entry)
            await self._take(after)
        return after

    async def waiting(
        self, location: str, service: str | None, now: datetime, most: int
    ) -> list[Entry]:
        """Return who waits, or is being called, in the order of calling; ``most`` at most."""
        order = [("rank", 1), ("at", 1), ("number", 1)]
        return await self._list(_waiting(location, service, now), order, most)

    async def ahead(self, entry: Entry, now: datetime) -> int:
        """Return how many of the queue of ``entry`` are called before it."""
        rank, at, number = entry.rank, entry.at, entry.number
        before = [
            {"rank": {"$lt": rank}},
            {"rank": rank, "at": {"$lt": at}},
            {"rank": rank, "at": at, "number": {"$lt": number}},
        ]
        wanted = {**_waiting(entry.location, entry.service, now), "$or": before}
        async with deadline(self.timeout_s, _READ_ADVICE):
            return await self.database[QUEUES].count_documents(wanted)

    async def called(
        self, location: str, service: str | None, now: datetime, most: int
    ) -> list[Entry]:
        """Return who was called and is being served, the last called first."""
        wanted: Document = {"location": location, "state": CALLED, "until": {"$gt": now}}
        if service is not None:
            wanted["service"] = service
        return await self._list(wanted, [("called", -1)], most)

    async def finished(
        self, location: str, service: str, since: datetime | None, most: int
    ) -> list[Entry]:
        """Return who was served in a queue, since then or at all, the last one first."""
        wanted: Document = {"location": location, "service": service, "state": DONE}
        wanted["finished"] = {"$gte": since or _LONG_AGO}
        return await self._list(wanted, [("finished", -1)], most)

    async def counters(self, location: str, service: str, since: datetime) -> int:
        """Return how many counters have called in a queue since then."""
        wanted = {"location": location, "service": service, "called": {"$gte": since}}
        async with deadline(self.timeout_s, _READ_ADVICE):
            return len(await self.database[QUEUES].distinct("counter", wanted))

    async def _list(self, wanted: Document, order: list[tuple[str, int]], most: int) -> list[Entry]:
        async with deadline(self.timeout_s, _READ_ADVICE):
            cursor = self.database[QUEUES].find(wanted, session=self.session)
            return [_entry(one) for one in await cursor.sort(order).limit(most).to_list()]


def _waiting(location: str, service: str | None, now: datetime) -> Document:
    wanted: Document = {"location": location, "waits": True, "until": {"$gt": now}}
    return wanted if service is None else {**wanted, "service": service}


def _entry(found: Mapping[str, Any]) -> Entry:
    return Entry(found["_id"], **{name: found[name] for name in _FIELDS if name in found})


def _document(entry: Entry) -> Document:
    row = asdict(entry)
    return {"_id": row.pop("id"), **row, "waits": True, "lease": _LONG_AGO}
