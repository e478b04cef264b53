"""What a process remembers of the stored conformance resources: profiles, value sets and so on.

All server processes on one database share one number, ``conformance`` in the collection ``server``,
which grows with every write of one of :data:`TYPES`. Each looks at it at most once a second; when
it has changed, all that was remembered is forgotten. Who writes forgets at once. What a version of
a resource is, decoded, outlives that: a write does not have all large ones decoded again.
"""

import time
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pymongo
from pymongo.errors import PyMongoError

from fhir_server.r4.packages import CONFORMANCE
from fhir_server.store.client import Database

TYPES = CONFORMANCE
_SERVER = "server"
_CONFORMANCE = "conformance"
_LOOKED_S = 1.0
# A process may have died between its write and the number: what it wrote is seen by then.
_AGE_S = 60.0
_TIMEOUT_S = 5.0
_SYSTEMS_MAX = 5000  # as many as are listed
WEIGHT_MAX = 16 * 1024 * 1024
"""Bytes of JSON that are remembered in all; decoded they take some six times as much."""
DECODED_MAX = WEIGHT_MAX // 2
"""Of these bytes, those that stay decoded when something else was written."""


@dataclass(slots=True)
class Memory:
    """Values by key, up to a weight in all; what was used longest ago goes first."""

    weight_max: int = WEIGHT_MAX
    _kept: OrderedDict[Hashable, tuple[Any, int]] = field(default_factory=OrderedDict)
    _weight: int = 0

    def get(self, key: Hashable, default: Any = None) -> Any:
        """Return what is kept under ``key``, or ``default``."""
        found = self._kept.get(key)
        if found is None:
            return default
        with suppress(KeyError):  # another thread's write has just let it go
            self._kept.move_to_end(key)
        return found[0]

    def put(self, key: Hashable, value: Any, weight: int = 100) -> Any:
        """Keep ``value``, which weighs about as much as ``weight`` bytes of JSON; return it."""
        if weight <= self.weight_max:
            self._weight += weight - self._kept.pop(key, (None, 0))[1]
            self._kept[key] = value, weight
            while self._weight > self.weight_max:
                self._weight -= self._kept.popitem(last=False)[1][1]
        return value


@dataclass(slots=True)
class Conformance:
    """The memory of this process, and how the processes tell each other what has changed."""

    database: Database
    decoded: Memory = field(default_factory=lambda: Memory(DECODED_MAX))
    """Versions of resources as they are decoded. A version never changes: nothing is forgotten."""
    _memory: Memory = field(default_factory=Memory)
    _number: int = -1
    _looked_at: float = float("-inf")
    _began_at: float = float("-inf")
    _is_stale: bool = False

    @property
    def remembered(self) -> Memory:
        """What is remembered, without a look at whether it still holds."""
        return self._memory

    async def memory(self) -> Memory:
        """Return what is remembered, once it is known to be at most a second behind.

        Who puts something in, puts it into the memory that was there when it began to look: if
        something has changed meanwhile, nobody uses that one any more.
        """
        now = time.monotonic()
        if now - self._looked_at > _LOOKED_S:
            began = self._memory
            found = await self.database[_SERVER].find_one({"_id": _CONFORMANCE})
            number = found["number"] if found else 0
            if self._memory is began:
                if number != self._number or now - self._began_at > _AGE_S:
                    self._forget(number)
                self._looked_at = now
        return self._memory

    async def changed(self, types: Iterable[str]) -> None:
        """Tell all processes that resources of ``types`` have been written, if it concerns them."""
        if TYPES.isdisjoint(types):
            return
        self._forget(-1)
        # The write itself is made; who does not hear of it forgets within a minute anyway.
        with suppress(PyMongoError), pymongo.timeout(_TIMEOUT_S):
            await self.database[_SERVER].update_one(
                {"_id": _CONFORMANCE}, {"$inc": {"number": 1}}, upsert=True
            )
            self._forget(-1)

    async def whole_systems(self) -> list[tuple[str, str]]:
        """Return url and version of the stored code systems with their concepts, newest first."""
        wanted = {"resource.concept.0": {"$exists": True}, "deleted": {"$exists": False}}
        fields = {"resource.url": 1, "resource.version": 1}
        cursor = self.database["CodeSystem"].find(wanted, projection=fields)
        rows = await cursor.sort("last_updated", -1).limit(_SYSTEMS_MAX).to_list()
        found = (one.get("resource", {}) for one in rows)
        return [(one["url"], one.get("version", "")) for one in found if "url" in one]

    async def implied(self, value_set: str) -> str | None:
        """Return the url of the stored code system that says that ``value_set`` is all of it."""
        wanted = {"resource.valueSet": value_set, "deleted": {"$exists": False}}
        found = await self.database["CodeSystem"].find_one(wanted, projection={"resource.url": 1})
        return found.get("resource", {}).get("url") if found else None

    def mark(self, types: Iterable[str]) -> None:
        """Note that an open transaction has written ``types``; :meth:`settle` follows its end."""
        self._is_stale = self._is_stale or not TYPES.isdisjoint(types)

    async def settle(self) -> None:
        """Tell what transactions of this process have written."""
        if self._is_stale:
            self._is_stale = False
            await self.changed(TYPES)

    def _forget(self, number: int) -> None:
        self._memory = Memory()
        self._number = number
        self._began_at = time.monotonic()
        self._looked_at = float("-inf")
