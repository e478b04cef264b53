"""Notices that stored conformance resources have changed, whichever process changed them.

All server processes on one database share the document ``conformance`` in the collection
``server``: its ``version`` grows with every change of a conformance resource, in the transaction of
that change. Each process looks at it once a second at most, and only when it needs to know; what it
has changed itself it sees at once. What was looked up is kept here until then.
"""

import time
from collections import OrderedDict
from collections.abc import Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pymongo
from pymongo.errors import PyMongoError

from fhir_server.r4.packages import CONFORMANCE
from fhir_server.store.client import Database
from fhir_server.store.documents import PRESENT
from fhir_server.store.keys import SERVER
from fhir_server.store.packages import PACKAGES, SOURCE

_DOCUMENT = "conformance"
_LOOK_S = 1.0
_ANEW_S = 60.0  # what a process that died could not announce is noticed by then
_TIMEOUT_S = 5.0
_KEPT_BYTES_MAX = 67_108_864
_KEPT_MAX = 4000
_PROFILES_MAX = 5000  # that the CapabilityStatement lists


@dataclass(frozen=True, slots=True)
class Guides:
    """What is stored that a CapabilityStatement names: ``(type, url)`` of profiles, and guides."""

    profiles: tuple[tuple[str, str], ...] = ()
    guides: tuple[str, ...] = ()


@dataclass(slots=True)
class Conformance:
    """What this process knows of the stored conformance resources."""

    database: Database
    incomplete: frozenset[str] = frozenset()
    guides: Guides = Guides()
    _version: int = -1
    _looked_at: float = float("-inf")
    _read_at: float = float("-inf")
    _listed: int = -2
    _changes: int = 0
    _kept: OrderedDict[Hashable, tuple[Any, int]] = field(default_factory=OrderedDict)
    _bytes: int = 0
    _versions: dict[tuple[Any, ...], dict[str, Any]] = field(default_factory=dict)

    def is_about(self, type: str) -> bool:
        """Whether resources of ``type`` are conformance resources."""
        return type in CONFORMANCE

    async def changed(self, session: Any = None) -> None:
        """Tell all processes that a stored conformance resource has changed.

        In a transaction it is part of that, and :meth:`take_up` follows its end. After a write that
        stands for itself a failure is no failure of that write: it is noticed a minute later.
        """
        bump = {"$inc": {"version": 1}}
        rows = self.database[SERVER]
        self._changes += 1
        if session is not None:
            await rows.update_one({"_id": _DOCUMENT}, bump, upsert=True, session=session)
            return
        with suppress(PyMongoError), pymongo.timeout(_TIMEOUT_S):
            await rows.update_one({"_id": _DOCUMENT}, bump, upsert=True)
        self.take_up()

    def take_up(self) -> None:
        """See at the next look what this process itself has changed."""
        if self._changes:
            self._changes = 0
            self._looked_at = self._read_at = float("-inf")

    async def look(self) -> None:
        """Forget what is kept if anything has changed; one small read a second at most."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_S:
            return
        found = await self.database[SERVER].find_one({"_id": _DOCUMENT})
        version = found["version"] if found else 0
        if version != self._version or now - self._read_at > _ANEW_S:
            rows = (
                await self.database[PACKAGES]
                .find({"state": {"$ne": "complete"}}, projection={"_id": 1})
                .to_list()
            )
            self.incomplete = frozenset(row["_id"] for row in rows)
            self._kept.clear()
            self._bytes = 0
            self._version, self._read_at, self._listed = version, now, -2
        self._looked_at = now

    def is_whole(self, resource: dict[str, Any]) -> bool:
        """Whether ``resource`` does not belong to a package of which only a part is here."""
        source = str(resource.get("meta", {}).get("source", ""))
        return not (self.incomplete and source.removeprefix(SOURCE) in self.incomplete)

    def kept(self, name: Hashable, absent: Any = None) -> Any:
        """Return what is kept under ``name``, or ``absent``."""
        found = self._kept.get(name)
        if found is None:
            return absent
        self._kept.move_to_end(name)
        return found[0]

    def same(self, resource: dict[str, Any]) -> dict[str, Any]:
        """Return ``resource``, or the equal one that was returned before: what was compiled from it
        need not be compiled again because another resource has changed."""
        meta = resource.get("meta", {})
        version = (resource["resourceType"], resource["id"], meta.get("versionId"))
        known = self._versions.get(version)
        if known is not None and known["meta"] == meta:
            return known
        self._versions[version] = resource
        while len(self._versions) > _KEPT_MAX:
            del self._versions[next(iter(self._versions))]
        return resource

    def keep(self, name: Hashable, value: Any, size: int) -> None:
        """Keep ``value``, which came of ``size`` bytes, until anything changes or room is short."""
        self._bytes += size - self._kept.pop(name, (None, 0))[1]
        self._kept[name] = value, size
        while self._bytes > _KEPT_BYTES_MAX or len(self._kept) > _KEPT_MAX:
            _, (_, gone) = self._kept.popitem(last=False)
            self._bytes -= gone

    async def list_guides(self) -> Guides:
        """Return the profiles and guides that are stored, for the CapabilityStatement."""
        await self.look()
        if self._listed != self._version:
            self.guides = Guides(await self._profiles(), await self._implementation_guides())
            self._listed = self._version
        return self.guides

    async def _profiles(self) -> tuple[tuple[str, str], ...]:
        filter = {**PRESENT, "resource.derivation": "constraint", "resource.kind": "resource"}
        rows = await self._rows("StructureDefinition", filter, "url", "type", "kind", "derivation")
        return tuple(sorted({(one["type"], one["url"]) for one in rows}))

    async def _implementation_guides(self) -> tuple[str, ...]:
        rows = await self._rows("ImplementationGuide", dict(PRESENT), "url", "version")
        return tuple(sorted({one["url"] for one in rows if "url" in one}))

    async def _rows(self, type: str, filter: dict[str, Any], *names: str) -> list[dict[str, Any]]:
        wanted = dict.fromkeys((f"resource.{name}" for name in (*names, "meta.source")), 1)
        rows = await self.database[type].find(filter, wanted, limit=_PROFILES_MAX).to_list()
        return [row["resource"] for row in rows if self.is_whole(row["resource"])]
