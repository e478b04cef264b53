"""Bulk exports: what was asked for, how far it is, and the files that came of it.

https://hl7.org/fhir/uv/bulkdata/STU2/export.html

====================  ==============================================================================
``exports``           a job each: who asked for what, its place, its files; leased by one process
``exports.pieces``    ``{job, n}``; a file is several, one behind the other. Of resources a piece
                      says which versions, else it has NDJSON
``exports.patients``  a hundred patients each, ``{job, n}``, where a job is about some patients
====================  ==============================================================================

A version never changes, so a file needs no more of a resource than which version it has. The bytes
are read when the file is: to write them a second time took the database ten times as long as to
find them, and what was expunged stayed in the files.

Pieces are written in one transaction with the place that follows them, and only by whoever has the
lease. So a process that dies, or is so slow that another goes on in its place, leaves nothing out
and nothing twice. Who asked is kept without any token; what that one may see is asked again for
each page.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from pymongo import ASCENDING, IndexModel, ReturnDocument
from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.store.client import NOTHING_WRITTEN, Database, deadline, make_collection
from fhir_server.store.documents import Document
from fhir_server.store.transactions import repeated, transacted

JOBS, PIECES, PATIENTS = "exports", "exports.pieces", "exports.patients"
PATIENTS_TOGETHER = 100
"""The patients of one row: one query each of so many compartments, merged in the order of ids."""

PREPARING, RUNNING, COMPLETE, FAILED, CANCELLED = (
    *("preparing", "running", "complete", "failed"),
    "cancelled",
)
_LEASE_MS = 15_000  # a page takes less: whoever needs longer loses it, and nothing is lost
_IDLE_S = 1.0
_SWEPT_EVERY_S = 60.0
_SWEPT_AT_ONCE = 20
_GRACE = timedelta(hours=1)  # who began to load a file in time comes to its end
_LONG_AGO = datetime.fromtimestamp(0, UTC)
_READ_ADVICE = "Try again."


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be exported.

    ``level`` is ``""`` for the system, ``Patient`` or ``Group``. ``types`` are in the order of
    their files; ``named`` says that the client named them. ``filters`` are pairs of type and
    search, ``elements`` as they were given. ``since`` is UTC. ``patients`` counts the rows of
    patients; ``None`` is all patients. ``ignored`` are issues, as an OperationOutcome has them.
    """

    level: str
    types: tuple[str, ...]
    named: bool = False
    filters: tuple[tuple[str, str], ...] = ()
    elements: tuple[str, ...] = ()
    since: datetime | None = None
    patients: int | None = None
    ignored: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class File:
    """One file of a job: ``pieces`` of them from number ``first`` on, with ``count`` resources in
    ``size`` bytes, as they are stored. ``kind`` is ``output``, ``deleted`` or ``error``."""

    kind: str
    type: str
    first: int
    pieces: int = 0
    count: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """How far a job is: what step, which search and which row of patients, behind which id."""

    step: int = 0
    query: int = 0
    row: int = 0
    after: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """An export. ``owner`` is the key of who asked, ``principal`` what that one is made of again.

    ``url`` is the request as it was sent. ``transaction_time`` and ``expires`` are UTC. ``problem``
    is what it failed of: ``status`` and an OperationOutcome.
    """

    id: str
    owner: str
    principal: Mapping[str, Any]
    url: str
    asked: Asked
    began: datetime
    transaction_time: datetime
    expires: datetime
    status: str = PREPARING
    place: Place = Place()
    pieces: int = 0
    count: int = 0
    failures: int = 0
    files: tuple[File, ...] = ()
    problem: Mapping[str, Any] = field(default_factory=dict)


class Version(NamedTuple):
    """A version of a resource: its number, and its ``meta.lastUpdated`` as milliseconds since 1970.

    Who writes anew what was expunged begins with version 1 again: the number alone may mean another
    resource. A ``moment`` of 0 is not known.
    """

    number: int
    moment: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a file: of each resource id and version; or ``lines`` of NDJSON, each with its end,
    and the id of what each is about, none of an error. ``size`` is their bytes."""

    ids: tuple[str, ...] = ()
    versions: tuple[Version, ...] = ()
    lines: tuple[bytes, ...] = ()
    size: int = 0

    @property
    def count(self) -> int:
        """How many resources it has."""
        return len(self.versions or self.lines)


@dataclass(slots=True)
class Exports:
    """The jobs in MongoDB. ``worker`` is the name of this process; ``seconds`` bound a command."""

    database: Database
    worker: str
    seconds: float
    _is_ready: bool = False
    _swept: float = float("-inf")
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def begin(self, job: Job, patients: Sequence[str] | None) -> None:
        """Have ``job`` done, of ``patients`` (ids, each once) or of all; it wakes who does it."""
        async with deadline(self.seconds, NOTHING_WRITTEN):
            await self._ensure()
            await self.database[JOBS].insert_one(_document(job))
            rows: list[Document] = [
                {"_id": {"job": job.id, "n": n}, "ids": list(some)}
                for n, some in enumerate(rows_of_patients(patients or ()))
            ]
            if rows:
                await self.database[PATIENTS].insert_many(rows)
            await self.database[JOBS].update_one({"_id": job.id}, {"$set": {"status": RUNNING}})
        self._wake.set()

    async def _ensure(self) -> None:
        """Make the collections before a transaction writes to them, once a process."""
        if self._is_ready:
            return
        for name in (JOBS, PIECES, PATIENTS):
            await make_collection(self.database, name)
        await self.database[JOBS].create_indexes(
            [IndexModel([("owner", ASCENDING)]), IndexModel([("expires", ASCENDING)])]
        )
        await self.database[PATIENTS].create_indexes(
            [IndexModel([("_id.job", ASCENDING), ("ids", ASCENDING)])]
        )
        self._is_ready = True

    async def counts(self, owner: str, now: datetime) -> tuple[int, int]:
        """Return how many jobs of ``owner`` are under way, and how many there are in all."""
        async with deadline(self.seconds, _READ_ADVICE):
            theirs = {"owner": owner, "expires": {"$gt": now}}
            under_way = {**theirs, "status": {"$in": [PREPARING, RUNNING]}}
            kept = {**theirs, "status": {"$ne": CANCELLED}}
            return (
                await self.database[JOBS].count_documents(under_way),
                await self.database[JOBS].count_documents(kept),
            )

    async def of(self, id: str, owner: str, now: datetime) -> Job | None:
        """Return the job ``id`` of ``owner``; ``None`` where there is none, or not any more."""
        wanted = {
            "_id": id,
            "owner": owner,
            "status": {"$ne": CANCELLED},
            "expires": {"$gt": now},
        }
        async with deadline(self.seconds, _READ_ADVICE):
            found = await self.database[JOBS].find_one(wanted)
        return _job(found) if found else None

    async def cancel(self, id: str, owner: str) -> bool:
        """End the job ``id`` of ``owner`` and remove its files; return whether there was one."""
        async with deadline(self.seconds, NOTHING_WRITTEN):
            marked = await self.database[JOBS].update_one(
                {"_id": id, "owner": owner, "status": {"$ne": CANCELLED}},
                {"$set": {"status": CANCELLED}},
            )
        if marked.matched_count:
            await self.discard(id)
        return marked.matched_count == 1

    async def discard(self, id: str) -> None:
        """Remove the job ``id`` and all that belongs to it. Nobody may be writing to it any more:
        a job that is not running takes no piece."""
        every = {"_id": {"$gte": {"job": id, "n": 0}, "$lt": {"job": id, "n": 2**53}}}
        async with deadline(self.seconds, NOTHING_WRITTEN):
            await self.database[PIECES].delete_many(every)
            await self.database[PATIENTS].delete_many(every)
            await self.database[JOBS].delete_one({"_id": id})

    async def sweep(self, now: datetime) -> None:
        """Remove what was cancelled, and what has expired an hour ago. Looks once a minute."""
        if time.monotonic() - self._swept < _SWEPT_EVERY_S:
            return
        self._swept = time.monotonic()
        over: Document = {"$or": [{"status": CANCELLED}, {"expires": {"$lt": now - _GRACE}}]}
        async with deadline(self.seconds, _READ_ADVICE):
            cursor = self.database[JOBS].find(over, projection={"_id": 1}).limit(_SWEPT_AT_ONCE)
            found = [one["_id"] for one in await cursor.to_list()]
            await self.database[JOBS].update_many(
                {"_id": {"$in": found}}, {"$set": {"status": CANCELLED}}
            )
        for id in found:
            await self.discard(id)

    async def leased(self, now: datetime) -> Job | None:
        """Return the job that has waited longest and is done by nobody; from now on by this one."""
        free = {
            "status": RUNNING,
            "expires": {"$gt": now},
            "$expr": {"$lt": [{"$ifNull": ["$until", _LONG_AGO]}, "$$NOW"]},
        }
        until = {"$add": ["$$NOW", _LEASE_MS]}
        async with deadline(self.seconds, _READ_ADVICE):
            found = await self.database[JOBS].find_one_and_update(
                free,
                [{"$set": {"worker": self.worker, "until": until, "turn": "$$NOW"}}],
                sort=[("turn", ASCENDING), ("_id", ASCENDING)],
                return_document=ReturnDocument.AFTER,
            )
        return _job(found) if found else None

    async def write(self, job: Job, pieces: Sequence[Piece], expires: datetime) -> bool:
        """Keep ``pieces`` as the last of ``job``, which is as it stands behind them, and the lease.

        Return whether the job is still this process's: it may have been cancelled, or taken over.
        """
        state: Document = {
            "status": job.status,
            "place": asdict(job.place),
            "pieces": job.pieces,
            "count": job.count,
            "failures": job.failures,
            "problem": {"$literal": dict(job.problem)},
            "expires": expires,
            "until": {"$add": ["$$NOW", _LEASE_MS]},
        }
        mine = {"_id": job.id, "status": RUNNING, "worker": self.worker}
        first = job.pieces - len(pieces)

        async def inside(session: AsyncClientSession) -> bool:
            change: list[Document] = [{"$set": state}]
            found = await self.database[JOBS].update_one(mine, change, session=session)
            if not found.matched_count:
                return False
            if pieces:
                changed = {"$set": _files_from(job, first)}
                await self.database[JOBS].update_one({"_id": job.id}, changed, session=session)
                rows = [
                    {"_id": {"job": job.id, "n": n}, **_piece_document(one)}
                    for n, one in enumerate(pieces, first)
                ]
                await self.database[PIECES].insert_many(rows, session=session)
            return True

        end = time.monotonic() + self.seconds
        async with deadline(self.seconds, NOTHING_WRITTEN):
            return await repeated(lambda: transacted(self.database.client, inside, end), end)

    async def release(self, job: Job, pause_s: int = 0) -> None:
        """Let go of ``job``: whoever looks in ``pause_s`` seconds goes on with it."""
        until = {"$add": ["$$NOW", 1000 * pause_s]} if pause_s else _LONG_AGO
        async with deadline(self.seconds, NOTHING_WRITTEN):
            await self.database[JOBS].update_one(
                {"_id": job.id, "worker": self.worker}, [{"$set": {"until": until, "worker": ""}}]
            )

    async def pieces(self, job: Job, file: File) -> AsyncIterator[Piece]:
        """Yield the pieces of ``file``, one after the other.

        Raises ``RuntimeError`` where one is missing: its job was cancelled while it was read.
        """
        for n in range(file.first, file.first + file.pieces):
            async with deadline(self.seconds, _READ_ADVICE):
                row = await self.database[PIECES].find_one({"_id": {"job": job.id, "n": n}})
            if row is None:
                raise RuntimeError(f"Export {job.id} lacks piece {n}.")
            yield _piece(row)

    async def patients(self, job: Job, n: int) -> list[str]:
        """Return the patients of row ``n`` of ``job``, by id."""
        async with deadline(self.seconds, _READ_ADVICE):
            row = await self.database[PATIENTS].find_one({"_id": {"job": job.id, "n": n}})
        return list(row["ids"]) if row else []

    async def rows_of(self, job: Job, ids: Sequence[str]) -> dict[str, int]:
        """Return id -> number of its row for those of ``ids`` that are patients of ``job``."""
        wanted = {"_id.job": job.id, "ids": {"$in": list(ids)}}
        async with deadline(self.seconds, _READ_ADVICE):
            rows = await self.database[PATIENTS].find(wanted).to_list()
        asked = set(ids)
        return {id: row["_id"]["n"] for row in rows for id in row["ids"] if id in asked}

    async def idle(self) -> None:
        """Wait until there may be something to do: another process does not wake this one."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_IDLE_S):
                await self._wake.wait()
        self._wake.clear()


def rows_of_patients(ids: Sequence[str]) -> list[Sequence[str]]:
    """Return ``ids`` as they are put into rows."""
    return [
        ids[start : start + PATIENTS_TOGETHER] for start in range(0, len(ids), PATIENTS_TOGETHER)
    ]


def _files_from(job: Job, piece: int) -> Document:
    """Return what is to be set of the files of ``job`` that have a piece from ``piece`` on."""
    return {
        f"files.{n}": asdict(file)
        for n, file in enumerate(job.files)
        if file.first + file.pieces > piece
    }


def _piece_document(piece: Piece) -> Document:
    if piece.lines:
        return {"data": b"".join(piece.lines), "ids": list(piece.ids)}
    # One text: a list names each of its members, which is as long again.
    pairs = zip(piece.ids, piece.versions, strict=True)
    return {"versions": " ".join([f"{id}/{one.number}/{one.moment}" for id, one in pairs])}


def _piece(row: Document) -> Piece:
    if "data" in row:
        lines = tuple(row["data"].splitlines(keepends=True))
        return Piece(tuple(row["ids"]), lines=lines, size=len(row["data"]))
    parts = [one.split("/") for one in row["versions"].split(" ")]
    return Piece(tuple(id for id, *_ in parts), tuple(Version(*map(int, of)) for _, *of in parts))


def _document(job: Job) -> Document:
    found = asdict(job)
    del found["id"]
    return {"_id": job.id, **found}


def _job(document: Mapping[str, Any]) -> Job:
    known = {name: document[name] for name in _MEMBERS if name in document}
    asked = dict(document["asked"])
    for name in ("types", "elements", "ignored"):
        asked[name] = tuple(asked[name])
    asked["filters"] = tuple((type, query) for type, query in asked["filters"])
    return Job(
        id=document["_id"],
        **known,
        asked=Asked(**asked),
        place=Place(**document["place"]),
        files=tuple(File(**one) for one in document["files"]),
    )


_MEMBERS = (
    *("owner", "principal", "url", "began", "transaction_time", "expires", "status"),
    *("pieces", "count", "failures", "problem"),
)
