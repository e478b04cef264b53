"""Writes the search keys of stored resources anew, where they are not what would be written today.

Section 16.6 of ARCHITECTURE.md. One process at a time works, some resources at once, with as long a
pause after each portion; where it stopped, it or another goes on. Versions and times stay what they
are: nothing but what is written beside the resource changes.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pymongo import UpdateOne
from pymongo.errors import DuplicateKeyError, PyMongoError

from fhir_server.messages import Resource
from fhir_server.r4.json import decode_stored, encode
from fhir_server.search import parameters as pending
from fhir_server.search.contained import CONTAINED
from fhir_server.search.index import Indexed
from fhir_server.store.client import Database, deadline, is_lost
from fhir_server.store.documents import Document, beside
from fhir_server.store.keys import SERVER, SearchKeys
from fhir_server.store.provenance import PROVENANCE, Belonging, looked_up
from fhir_server.store.rows import rows_within

_JOB = "reindex/"
_LEASE = "reindex"
_LEASE_MS = 30_000
_PORTION = 50
_PORTION_BYTES = 4_000_000
_PORTION_S = 10.0  # well below the lease, which another process takes over when it ends
_FAILED_MAX = 20
_IDLE_S = 1.0
_NOT_BEGUN = -1

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """The indexing of one type: ``status`` is ``waiting``, ``running``, ``done`` or ``failed``.

    ``done`` counts resources, ``total`` is about how many there are. ``pending`` are the search
    fields that cannot be asked for until it is done. ``ended`` is UTC. ``failed`` are ids of
    resources that could not be indexed, some of them; ``$reindex`` tries again.
    """

    type: str
    status: str
    done: int
    total: int
    pending: tuple[str, ...]
    ended: datetime | None
    failed: tuple[str, ...] = ()


@dataclass(slots=True)
class Reindex:
    """Brings the keys of stored resources up to the table of search parameters."""

    database: Database
    keys: SearchKeys
    index: Callable[[Resource], Indexed]
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _given_up: set[tuple[str, int]] = field(default_factory=set)

    async def run(self) -> None:
        """Do what there is to do, for as long as the server runs."""
        while True:
            began = time.monotonic()
            try:
                worked = await self.step()
            except Exception as error:  # noqa: BLE001 - the next portion may do; to end would be silent
                _log.warning('"indexing was interrupted: %s"', error.__class__.__name__)
                worked = False
            if worked:
                await asyncio.sleep(time.monotonic() - began)  # half of the time is for requests
            else:
                await self._idle()

    async def _idle(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_IDLE_S):
                await self._wake.wait()
        self._wake.clear()

    async def ask(self, types: Iterable[str]) -> None:
        """Have all resources of ``types`` indexed, whether or not their keys look right.

        What is waiting or under way already is not begun again.
        """
        pending = self.keys.pending().keys() - {type for type, _ in self._given_up}
        for type in dict.fromkeys(types):
            if type in pending:
                continue
            with suppress(DuplicateKeyError):  # it has been asked for
                await self.database[SERVER].update_one(
                    {"_id": _JOB + type, "asked": {"$ne": True}},
                    {"$set": {"asked": True, "changes": _NOT_BEGUN}, "$unset": {"ended": ""}},
                    upsert=True,
                )
        self._wake.set()

    async def jobs(self) -> list[Job]:
        """Return what is to be done, is being done, and was done last, by type."""
        pending = self.keys.pending()
        cursor = self.database[SERVER].find({"_id": {"$regex": f"^{_JOB}"}})
        known = {one["_id"].removeprefix(_JOB): one for one in await cursor.to_list()}
        return [
            _job(type, known.get(type, {}), pending.get(type, ()), self.keys.changes)
            for type in sorted({*pending, *known})
        ]

    async def step(self) -> bool:
        """Index one portion. Return whether there was something to do, and it could be done."""
        type = await self._next()
        if type is None or not await self.keys.agreed() or not await self._is_ours():
            return False
        # While a portion is read, indexed and written, this process writes by the table of its
        # beginning; and a write that hangs must not come through when all is indexed by another.
        async with self.keys.writing(), deadline(_PORTION_S, ""):
            await self._further(type)
        return True

    async def _further(self, type: str) -> None:
        """Index the next portion of ``type``, or note that there is none."""
        changes = self.keys.changes
        known = await self.database[SERVER].find_one({"_id": _JOB + type}) or {}
        job = known
        if known.get("changes") != changes or "ended" in known:
            if await self._nothing_stored():
                return
            job = {**known, **await self._begun(type)}
        last, count, failed = await self._portion(type, job)
        progress = {
            "changes": changes,
            "after": last if last is not None else job["after"],
            "until": job["until"],
            "done": job["done"] + count,
            "total": job["total"],
            "failed": [*job["failed"], *failed][:_FAILED_MAX],
        }
        if last is not None:
            await self._noted(type, known, progress)
        elif progress["failed"]:
            self._given_up.add((type, changes))
            _log.error("%s", encode({"not indexed": type, "ids": progress["failed"]}).decode())
            await self._noted(type, known, progress, ended=True)
        elif await self.keys.finished([type], changes):
            _log.info('{"indexed":"%s","resources":%d}', type, progress["done"])
            await self._noted(type, known, progress, ended=True)

    async def _noted(
        self, type: str, known: Document, progress: Document, *, ended: bool = False
    ) -> None:
        """Write down how far it is, unless it was asked to begin again meanwhile."""
        change: Document = {"$set": progress}
        change |= (
            {"$currentDate": {"ended": True}, "$unset": {"asked": ""}}
            if ended
            else {"$unset": {"ended": ""}}
        )
        begun = {"changes": known["changes"]} if known else {"changes": {"$exists": False}}
        with suppress(DuplicateKeyError):
            await self.database[SERVER].update_one(
                {"_id": _JOB + type, **begun}, change, upsert=not known
            )

    async def _next(self) -> str | None:
        """Return the type that is to be indexed next.

        First what cannot be asked for by itself, then by what is contained, then what was asked.
        """
        changes = self.keys.changes
        found = {
            type: fields
            for type, fields in self.keys.pending().items()
            if (type, changes) not in self._given_up
        }
        if found:
            return min(found, key=lambda type: (found[type] == (pending.CONTAINED,), type))
        asked = await self.database[SERVER].find_one(
            {"_id": {"$regex": f"^{_JOB}"}, "asked": True}, sort=[("_id", 1)]
        )
        return asked["_id"].removeprefix(_JOB) if asked else None

    async def _nothing_stored(self) -> bool:
        """Note at once what nothing is stored of. Return whether there was any such type."""
        stored = await self.database.list_collection_names()
        empty = self.keys.pending().keys() - set(stored)
        return bool(empty) and await self.keys.finished(sorted(empty), self.keys.changes)

    async def _is_ours(self) -> bool:
        """Take the lease, or keep it: two processes would do everything twice."""
        server = self.database[SERVER]
        free = {"$or": [{"owner": self.keys.id}, {"$expr": {"$lt": ["$until", "$$NOW"]}}]}
        until = {"$add": ["$$NOW", _LEASE_MS]}
        taken = [{"$set": {"owner": self.keys.id, "until": until}}]
        if (await server.update_one({"_id": _LEASE, **free}, taken)).matched_count:
            return True
        with suppress(DuplicateKeyError):
            await server.insert_one({"_id": _LEASE, "until": datetime.fromtimestamp(0, UTC)})
        return (await server.update_one({"_id": _LEASE, **free}, taken)).matched_count == 1

    async def _begun(self, type: str) -> dict[str, Any]:
        """Return a job that begins now.

        It ends at the last id of this moment: what is written from now on has its keys, and a
        server that takes in messages all day would never come to an end of what is new.
        """
        collection = self.database[type]
        last = await collection.find_one({}, projection={"_id": 1}, sort=[("_id", -1)])
        total = await collection.estimated_document_count()
        until = last["_id"] if last else ""
        return {"after": "", "until": until, "done": 0, "total": total, "failed": []}

    async def _portion(self, type: str, job: Document) -> tuple[str | None, int, list[str]]:
        """Index the next resources of ``job``; return the last id, how many there were, and the ids
        of those that could not be indexed."""
        collection = self.database[type]
        wanted: Document = {"_id": {"$gt": job["after"], "$lte": job["until"]}}
        if self.keys.table.pending(type) == {pending.CONTAINED} and not job.get("asked"):
            wanted[CONTAINED] = {"$exists": True}  # the others contain nothing, whatever is added
        cursor = collection.find(wanted, projection={"json": 1, "version": 1, "deleted": 1})
        rows, _ = await rows_within(cursor.sort("_id", 1).limit(_PORTION), _PORTION_BYTES)
        belonging = await self._belonging(type, rows)
        updates: dict[str, UpdateOne] = {}
        failed: list[str] = []
        for row in rows:
            if not row.get("deleted"):
                try:
                    updates[row["_id"]] = self._update(row, belonging)
                except Exception as error:  # noqa: BLE001 - one resource must not stop all the others
                    _log.error('"%s was met in indexing"', error.__class__.__name__)
                    failed.append(row["_id"])
                await asyncio.sleep(0)
        if updates:
            failed += await self._written(type, updates)
        return (rows[-1]["_id"] if rows else None), len(updates) + len(failed), failed

    async def _written(self, type: str, updates: Mapping[str, UpdateOne]) -> list[str]:
        """Write ``updates``, by id; return the ids of those that the database does not take."""
        try:
            await self.database[type].bulk_write([*updates.values()], ordered=False)
        except PyMongoError as error:
            if is_lost(error):
                raise
        else:
            return []
        failed = []
        for id, update in updates.items():
            try:
                await self.database[type].bulk_write([update])
            except PyMongoError as error:
                if is_lost(error):
                    raise
                failed.append(id)
        return failed

    async def _belonging(self, type: str, rows: Iterable[dict[str, Any]]) -> Belonging:
        """Return where the targets of what is to be indexed belong."""
        belonging = Belonging(self.keys.table.base_urls)
        if type != PROVENANCE:
            return belonging
        places: set[str] = set()
        for row in rows:
            if not row.get("deleted"):
                places |= belonging.unknown(decode_stored(row["json"]))
        return belonging.learned(await looked_up(self.database, None, places))

    def _update(self, row: dict[str, Any], belonging: Belonging) -> UpdateOne:
        resource = decode_stored(row["json"])
        fields = beside(belonging.of(resource, self.index(resource)))
        change = {"$set": fields} | ({} if CONTAINED in fields else {"$unset": {CONTAINED: ""}})
        # A version that came meanwhile has its keys already.
        return UpdateOne({"_id": row["_id"], "version": row["version"]}, change)


def _job(type: str, known: Document, pending: tuple[str, ...], changes: int) -> Job:
    ended = known.get("ended")
    waits = bool(pending) or bool(known.get("asked"))
    failed = tuple(known.get("failed", ()))
    begun = "ended" not in known and known.get("changes", _NOT_BEGUN) == changes
    status = "failed" if failed and ended else "running" if begun else "waiting"
    if not waits and status != "failed":
        status = "done"
    return Job(
        type,
        status,
        known.get("done", 0),
        max(known.get("total", 0), known.get("done", 0)),
        pending,
        ended if status in ("done", "failed") else None,
        failed,
    )
