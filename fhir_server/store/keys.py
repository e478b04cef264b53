"""Which search keys the stored resources have, and which table new ones are written by.

Section 16.6 of ARCHITECTURE.md. All server processes on one database share one document, ``keys``
in the collection ``server``:

==============  ==================================================================================
``version``     grows with every change of this document and of the SearchParameters
``table``       the digest of the table that was taken up last
``changes``     how often that was another one than before
``types``       type -> field -> digest: what *every* stored resource of the type has
==============  ==================================================================================

A parameter is answered where its digest is the one in ``types``. Whoever takes up a table first
strikes out whatever that table writes in another way, and only then writes by it; the digests come
back when all resources were indexed again (``reindex.py``), which begins when no process writes by
another table any more. Every process says once a second by which tables it is writing; one that
could not say so for a while asks before it writes again.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pymongo
from pymongo import IndexModel
from pymongo.errors import DuplicateKeyError, PyMongoError

from fhir_server.r4.json import encode
from fhir_server.search.added import added_parameters
from fhir_server.search.digests import added_fields, field_digests, table_digest
from fhir_server.search.parameters import ParameterTable
from fhir_server.store.client import Database
from fhir_server.store.transactions import StaleRead

SERVER = "server"
KEYS = "keys"
SEARCH_PARAMETER = "SearchParameter"
BEAT_S = 1.0
FENCE_S = 10.0  # a process that has not been heard for so long writes nothing before it is
_BEAT_TIMEOUT_S = 5.0
_LEAVE_TIMEOUT_S = 1.0  # who has not left is forgotten after its beats
_REFRESHED_EVERY = 60  # beats: what a process that died could not announce is noticed by then
_PROCESS = "process/"
# What of a SearchParameter says what it does.
_READ = ("id", "url", "code", "type", "base", "expression", "target", "component", "status")
_SOURCES_MAX = 2000  # many more than are served: the others are named as not served
_TRIES_MAX = 100
_GONE_S = 3600

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class SearchKeys:
    """The table of search parameters as it is now, on one server process.

    ``id`` is the name of this process. ``write_s`` is how long one write may take. One that is
    ``observing`` says what it would find, and never writes.
    """

    database: Database
    table: ParameterTable
    id: str
    write_s: float
    observing: bool = False
    version: int = -1
    changes: int = 0
    _digest: str = ""
    _beat_at: float = float("-inf")
    _writing: Counter[str] = field(default_factory=Counter)
    _refreshing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _sources: Any = None
    _is_stale: bool = False
    _unusable: frozenset[str] = frozenset()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """While inside, this process is known to write by the table that it has now."""
        assert not self.observing, "who only observes does not write"
        if _clock() - self._beat_at > FENCE_S:
            await self.beat()
        digest = self._digest
        self._writing[digest] += 1
        try:
            yield
        finally:
            self._writing[digest] -= 1

    async def run(self) -> None:
        """Say once a second that this process is there, and see what has changed."""
        for number in count(1):
            try:
                await asyncio.sleep(BEAT_S)
                if number % _REFRESHED_EVERY == 0:
                    await self.refresh()
                await self.beat()
            except PyMongoError as error:
                _log.debug('"no word from the database: %s"', error.__class__.__name__)
            except Exception as error:  # noqa: BLE001 - without this beat the table would never change again
                _log.error('"the search parameters cannot be read: %s"', error.__class__.__name__)

    async def beat(self) -> None:
        """Take up what has changed, and say by which tables this process writes."""
        with pymongo.timeout(_BEAT_TIMEOUT_S):
            found = await self.database[SERVER].find_one({"_id": KEYS}, projection={"version": 1})
            if found is None or found["version"] != self.version:
                await self.refresh()
            began = _clock()
            tables = self._in_use()
            # By the clock of the database, which all processes share.
            await self.database[SERVER].update_one(
                {"_id": _PROCESS + self.id},
                [{"$set": {"seen": "$$NOW", "tables": sorted(tables)}}],
                upsert=True,
            )
            self._beat_at = began

    async def begin(self) -> None:
        """Take up what is there, and be known to the other processes."""
        # One that was killed is not asked about for ever.
        gone = IndexModel([("seen", 1)], expireAfterSeconds=_GONE_S)
        await self.database[SERVER].create_indexes([gone])
        await self.beat()

    async def leave(self) -> None:
        """Say that this process writes no more. A database that is gone is not waited for."""
        with suppress(PyMongoError), pymongo.timeout(_LEAVE_TIMEOUT_S):
            await self.database[SERVER].delete_one({"_id": _PROCESS + self.id})

    async def refresh(self) -> None:
        """Take up the table that the stored SearchParameters make, and what is indexed by it."""
        async with self._refreshing:
            for _ in range(_TRIES_MAX):
                if await self._taken_up():
                    return
            raise RuntimeError("the search keys of this database change all the time")

    async def changed(self, session: Any = None) -> None:
        """Tell all processes that the stored SearchParameters have changed.

        In a transaction it is part of that, and :meth:`take_up` follows its end. After a write that
        stands for itself a failure is no failure of that write: it is noticed a minute later.
        """
        bump = {"$inc": {"version": 1}}
        self._is_stale = True
        if session is not None:
            await self.database[SERVER].update_one({"_id": KEYS}, bump, session=session)
            return
        with suppress(PyMongoError), pymongo.timeout(_BEAT_TIMEOUT_S):
            await self.database[SERVER].update_one({"_id": KEYS}, bump)
            await self.take_up()

    async def take_up(self) -> None:
        """Take up at once what this process itself has changed."""
        if self._is_stale:
            self._is_stale = False
            with suppress(PyMongoError), pymongo.timeout(_BEAT_TIMEOUT_S):
                await self.refresh()

    async def began(self, type: str) -> None:
        """Note that the collection of ``type`` was made just now: all in it is to be written yet.

        What a site added is left out: a process that does not know it yet may be writing as well.
        """
        digests = field_digests(self.table, type)
        added = added_fields(self.table, type)
        fields = {name: digest for name, digest in digests.items() if name not in added}
        await self.database[SERVER].update_one(
            {"_id": KEYS, f"types.{type}": {"$exists": False}},
            {"$set": {f"types.{type}": fields}, "$inc": {"version": 1}},
        )
        # What another process has noted may be what this one writes otherwise.
        await self.refresh()

    async def check(self, session: Any) -> None:
        """Raise :class:`StaleRead` where this process may ask by keys that are not complete any
        more: it has not heard yet what another has taken up."""
        found = await self.database[SERVER].find_one(
            {"_id": KEYS}, projection={"version": 1}, session=session
        )
        await self.check_against(found)

    async def check_against(self, found: Mapping[str, Any] | None) -> None:
        """The same, where ``found`` is the version of the shared document :data:`KEYS`."""
        if found is None or found["version"] != self.version:
            await self.refresh()
            raise StaleRead

    async def finished(self, types: Iterable[str], changes: int) -> bool:
        """Note that all resources of ``types`` have the keys of this table, since ``changes``.

        Return whether it is noted: not if another table was taken up somewhere meanwhile.
        """
        fields = {f"types.{type}": dict(field_digests(self.table, type)) for type in types}
        noted = await self.database[SERVER].update_one(
            {"_id": KEYS, "changes": changes, "table": self._digest},
            {"$set": fields, "$inc": {"version": 1}},
        )
        await self.refresh()
        return noted.matched_count == 1

    async def agreed(self) -> bool:
        """Whether every process that may be writing writes by the table of this one."""
        if self._in_use() != {self._digest}:
            return False
        differing = {**self._others, "tables": {"$ne": [self._digest]}}
        return not await self._seen(differing, FENCE_S + self.write_s + BEAT_S)

    async def hears(self, id: str) -> bool:
        """Whether the process ``id``, or without one any but this, has lately said that it is
        there."""
        return await self._seen({"_id": _PROCESS + id} if id else self._others, FENCE_S)

    @property
    def _others(self) -> dict[str, Any]:
        return {"_id": {"$regex": f"^{_PROCESS}", "$ne": _PROCESS + self.id}}

    async def _seen(self, processes: dict[str, Any], seconds: float) -> bool:
        since = {"$gt": ["$seen", {"$subtract": ["$$NOW", int(seconds * 1000)]}]}
        found = await self.database[SERVER].count_documents({**processes, "$expr": since}, limit=1)
        return found > 0

    def pending(self) -> dict[str, tuple[str, ...]]:
        """Return type -> fields that a part of its stored resources may lack, by alphabet."""
        found = {type: tuple(sorted(self.table.pending(type))) for type in self.table.types}
        return {type: fields for type, fields in found.items() if fields}

    def _in_use(self) -> set[str]:
        """Return the digests of the tables that this process writes by."""
        return {self._digest, *(one for one, held in self._writing.items() if held > 0)}

    async def _taken_up(self) -> bool:
        """Read the shared document and note what this process makes of it; try it again if not."""
        server = self.database[SERVER]
        state = await server.find_one({"_id": KEYS})
        if state is None and self.observing:
            state = {"version": 0, "table": "", "changes": 0, "types": {}}
        if state is None:
            with suppress(DuplicateKeyError):
                await server.insert_one(
                    {"_id": KEYS, "version": 0, "table": "", "changes": 0, "types": {}}
                )
            return False
        names = frozenset(await self.database.list_collection_names())
        table = await self._made(names)
        digests = {type: field_digests(table, type) for type in table.types}
        digest = table_digest(table)
        kept = {
            type: _kept(fields, digests.get(type, {})) for type, fields in state["types"].items()
        }
        version, changes = state["version"], state["changes"]
        differs = digest != state["table"] or kept != state["types"]
        if differs and not self.observing:
            changes += digest != state["table"]
            noted = await server.update_one(
                {"_id": KEYS, "version": version},
                {
                    "$set": {"table": digest, "types": kept, "changes": changes},
                    "$inc": {"version": 1},
                },
            )
            if noted.matched_count == 0:
                return False
            version += 1
        self.table = table.without(
            {
                type: _lacking(table, type, kept.get(type), fields, stored=type in names)
                for type, fields in digests.items()
            }
        )
        if table.unusable.keys() != self._unusable:
            self._unusable = frozenset(table.unusable)
            for url in sorted(self._unusable):
                _log.warning("%s", encode({"not served": url}).decode())
        self._digest, self.version, self.changes = digest, version, changes
        return True

    async def _made(self, collections: frozenset[str]) -> ParameterTable:
        """Return the table that the stored SearchParameters make; the same if they are the same."""
        sources: list[dict[str, Any]] = []
        if SEARCH_PARAMETER in collections:
            cursor = self.database[SEARCH_PARAMETER].find(
                {"resource.status": "active", "deleted": {"$exists": False}},
                projection={f"resource.{name}": 1 for name in _READ},
                sort=[("_id", 1)],
                limit=_SOURCES_MAX,
            )
            sources = [one.get("resource", {}) for one in await cursor.to_list()]
        if sources == self._sources:
            return self.table.without({})
        added, unusable = added_parameters(sources, self.table)
        # In a thread: a parameter of all types takes a tenth of a second.
        table = await asyncio.to_thread(self.table.with_added, added)
        table.unusable |= unusable
        self._sources = sources
        return table


def _kept(recorded: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
    """Return those of the ``recorded`` digests that are still what is written."""
    return {name: digest for name, digest in recorded.items() if wanted.get(name) == digest}


def _lacking(
    table: ParameterTable,
    type: str,
    recorded: Mapping[str, str] | None,
    wanted: Mapping[str, str],
    *,
    stored: bool,
) -> frozenset[str]:
    """Return the fields of ``type`` that are not known to be complete.

    Of a type that nothing is stored of, those are the ones that a site added: another process may
    be about to store something without them.
    """
    if recorded is None and not stored:
        return added_fields(table, type)
    return frozenset(name for name in wanted if name not in (recorded or {}))


def _clock() -> float:
    """Return seconds that also pass while the machine sleeps, as they do for the database."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)
