"""Writes the search keys of stored resources anew, where they are not what would be written today.

Section 16.6 of ARCHITECTURE.md. One process at a time works, some resources at once, with as long a
pause after each portion; where it stopped, it or another goes on. Versions and times stay what they
are: nothing but what is written beside the resource changes.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pymongo import UpdateOne
from pymongo.errors import DuplicateKeyError, PyMongoError

from fhir_server.messages import Resource
from fhir_server.outcome import FhirError
from fhir_server.r4.json import decode_stored
from fhir_server.search import parameters as pending
from fhir_server.search.contained import CONTAINED
from fhir_server.search.index import Indexed
from fhir_server.store.client import Database
from fhir_server.store.documents import Document, beside
from fhir_server.store.keys import SERVER, SearchKeys

_JOB = "reindex/"
_LEASE = "reindex"
_LEASE_MS = 30_000
_PORTION = 50  # some 15 ms of work, which is as long as other requests wait
_IDLE_S = 1.0
_NOT_BEGUN = -1

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """The indexing of one type: ``status`` is ``waiting``, ``running`` or ``done``.

    ``done`` counts resources, ``total`` is about how many there are. ``pending`` are the search
    fields that cannot be asked for until it is done. ``ended`` is UTC.
    """

    type: str
    status: str
    done: int
    total: int
    pending: tuple[str, ...]
    ended: datetime | None


@dataclass(slots=True)
class Reindex:
    """Brings the keys of stored resources up to the table of search parameters."""

    database: Database
    keys: SearchKeys
    index: Callable[[Resource], Indexed]
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Do what there is to do, for as long as the server runs."""
        while True:
            began = time.monotonic()
            try:
                worked = await self.step()
            except (PyMongoError, FhirError) as error:
                _log.warning('"indexing was interrupted: %s"', error.__class__.__name__)
                worked = False
            # Half of the time belongs to requests.
            await self._pause(time.monotonic() - began if worked else _IDLE_S)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
            self._wake.clear()
        except TimeoutError:
            pass

    async def ask(self, types: Iterable[str]) -> None:
        """Have all resources of ``types`` indexed, whether or not their keys look right."""
        for type in types:
            await self.database[SERVER].update_one(
                {"_id": _JOB + type},
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
            _job(type, known.get(type, {}), pending.get(type, ()))
            for type in sorted({*pending, *known})
        ]

    async def step(self) -> bool:
        """Index one portion. Return whether there was something to do, and it could be done."""
        type = await self._next()
        if type is None or not await self.keys.agreed() or not await self._is_ours():
            return False
        if await self._nothing_stored():
            return True
        server, name, changes = self.database[SERVER], _JOB + type, self.keys.changes
        job = await server.find_one({"_id": name}) or {}
        if job.get("changes") != changes or "ended" in job:
            job = {**job, **await self._begun(type)}
        last, count = await self._portion(type, job)
        done = job["done"] + count
        if last is not None:
            progress = {"changes": changes, "after": last, "done": done}
            progress |= {"until": job["until"], "total": job["total"]}
            await server.update_one(
                {"_id": name}, {"$set": progress, "$unset": {"ended": ""}}, upsert=True
            )
        elif await self.keys.finished([type], changes):
            await server.update_one(
                {"_id": name},
                [{"$set": {"done": done, "total": done, "ended": "$$NOW"}}, {"$unset": ["asked"]}],
                upsert=True,
            )
            _log.info('{"indexed":"%s","resources":%d}', type, done)
        return True

    async def _next(self) -> str | None:
        """Return the type that is to be indexed next.

        First what cannot be asked for by itself, then by what is contained, then what was asked.
        """
        if found := self.keys.pending():
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
        return {"after": "", "until": last["_id"] if last else "", "done": 0, "total": total}

    async def _portion(self, type: str, job: Document) -> tuple[str | None, int]:
        """Index the next resources of ``job``; return the last id, and how many there were."""
        collection = self.database[type]
        wanted: Document = {"_id": {"$gt": job["after"], "$lte": job["until"]}}
        if self.keys.table.pending(type) == {pending.CONTAINED} and not job.get("asked"):
            wanted[CONTAINED] = {"$exists": True}  # the others contain nothing, whatever is added
        cursor = collection.find(wanted, projection={"json": 1, "version": 1, "deleted": 1})
        rows = await cursor.sort("_id", 1).limit(_PORTION).to_list()
        present = [row for row in rows if not row.get("deleted")]
        updates = [self._update(row) for row in present]
        if updates:
            await collection.bulk_write(updates, ordered=False)
        return (rows[-1]["_id"] if rows else None), len(present)

    def _update(self, row: dict[str, Any]) -> UpdateOne:
        fields = beside(self.index(decode_stored(row["json"])))
        change = {"$set": fields} | ({} if CONTAINED in fields else {"$unset": {CONTAINED: ""}})
        # A version that came meanwhile has its keys already.
        return UpdateOne({"_id": row["_id"], "version": row["version"]}, change)


def _job(type: str, known: dict[str, Any], pending: tuple[str, ...]) -> Job:
    ended = known.get("ended")
    waits = bool(pending) or bool(known.get("asked"))
    status = "done" if not waits else "running" if known.get("after") else "waiting"
    return Job(
        type,
        status,
        known.get("done", 0),
        max(known.get("total", 0), known.get("done", 0)),
        pending,
        ended if status == "done" else None,
    )
