"""References that lead to something: what is refused so that they do, by two settings.

https://hl7.org/fhir/R4/http.html#delete: "reasons specific to that resource, such as referential
integrity". The settings list types:

============================  ==================================================================
``referential_integrity``     what others refer to is not deleted
``reference_targets_checked`` a reference is written only if there is such a resource
============================  ==================================================================

Both are looked at when everything is written, inside the same transaction: what is deleted or
created together is then seen as it will be. Where both hold for a type, who refers to a resource
and who deletes it also write a claim: without it, each would not see what the other is doing. A
reference that was there before the setting is left alone.
"""

import random
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pymongo import UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.messages import Resource
from fhir_server.outcome import FhirError, Issue
from fhir_server.r4.json import decode_stored
from fhir_server.r4.references import target
from fhir_server.settings import Types, covers
from fhir_server.store.changes import Judged
from fhir_server.store.claims import CLAIMS
from fhir_server.store.client import Database
from fhir_server.store.indexes import Indexes
from fhir_server.store.keys import SearchKeys

_REFERRERS_SHOWN = 10
_AT_ONCE = 500  # ids in one question
# Who refers to a resource takes one of its claims, who deletes it all: those who refer to the same
# patient are then seldom in each other's way.
_CLAIMS = 4

Place = tuple[str, str]
"""``(type, id)``."""


@dataclass(slots=True)
class Owed:
    """What is to be looked at before a transaction ends: place -> number of the change.

    ``referred`` has all changes that refer to a place, each with where the first of its references
    stands, such as ``Observation.subject``.
    """

    deleted: dict[Place, int | None] = field(default_factory=dict)
    referred: dict[Place, dict[int | None, str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.deleted or self.referred)

    def take(self, other: "Owed") -> None:
        """Take over what ``other`` has. The numbers of its changes mean nothing later."""
        self.deleted |= dict.fromkeys(other.deleted)
        for place, paths in other.referred.items():
            self.referred.setdefault(place, {None: next(iter(paths.values()))})


@dataclass(frozen=True, slots=True)
class Integrity:
    """Looks after references. ``kept`` are the types of the first setting, ``checked`` those of the
    second."""

    database: Database
    indexes: Indexes
    keys: SearchKeys
    kept: Types = ()
    checked: Types = ()

    def owed(self, judged: Sequence[Judged]) -> Owed:
        """Return what ``judged`` changes make it necessary to look at; nothing without settings."""
        owed = Owed()
        if not self.kept and not self.checked:
            return owed
        for number, one in enumerate(judged):
            if one.after is None:
                continue
            if one.after.get("deleted"):
                if covers(self.kept, one.change.type):
                    owed.deleted[one.change.type, one.change.id] = number
            elif self.checked:
                before = one.before["json"] if one.before and "json" in one.before else b""
                known = dict(self._links(decode_stored(before))) if before else {}
                for place, path in self._links(one.after["resource"]):
                    if place not in known:
                        owed.referred.setdefault(place, {}).setdefault(number, path)
        return owed

    async def check_one(self, type: str, id: str, resource: Resource | None) -> None:
        """Look whether ``type/id`` could be deleted, or ``resource`` written: what the settings
        demand of references, at this moment. Raises what :meth:`check` does."""
        owed = Owed()
        if resource is None and covers(self.kept, type):
            owed.deleted[type, id] = 0
        elif resource is not None and self.checked:
            owed.referred |= {place: {0: path} for place, path in self._links(resource)}
        await self.check(owed, None)

    async def claim(self, owed: Owed, session: AsyncClientSession) -> None:
        """Let nobody delete what ``owed`` refers to, nor refer to what it deletes, beside it."""
        names = [
            _claim(place, number)
            for place in owed.deleted
            if covers(self.checked, place[0])
            for number in range(_CLAIMS)
        ]
        names += [
            _claim(place, random.randrange(_CLAIMS))
            for place in owed.referred
            if covers(self.kept, place[0])
        ]
        if names:
            taken = {"at": "$$NOW", "times": {"$add": [{"$ifNull": ["$times", 0]}, 1]}}
            updates = [
                UpdateOne({"_id": name}, [{"$set": taken}], upsert=True)
                for name in sorted(set(names))
            ]
            await self.database[CLAIMS].bulk_write(updates, session=session)

    async def check(self, owed: Owed, session: AsyncClientSession | None) -> None:
        """Look whether what was deleted is referred to, and what is referred to is there.

        Raises ``conflict`` (409) with those who refer, ``business-rule`` (422) for a reference that
        leads to nothing; ``place`` of the error is the number of the change.
        """
        async for fault in self._faults(owed, session):
            raise fault

    async def faults(self, owed: Owed, session: AsyncClientSession) -> list[FhirError]:
        """Return what :meth:`check` would raise, of every change that is at fault."""
        return [fault async for fault in self._faults(owed, session)]

    async def _faults(
        self, owed: Owed, session: AsyncClientSession | None
    ) -> AsyncIterator[FhirError]:
        for type, ids in _by_type(owed.referred):
            for some in _portions(ids):
                for fault in await self._leading_to_nothing(type, some, owed, session):
                    yield fault
        if owed.deleted:
            existing = await self.indexes.existing()
            for type, ids in _by_type(owed.deleted):
                for some in _portions(ids):
                    for fault in await self._deleted_in_vain(type, some, owed, existing, session):
                        yield fault

    async def _leading_to_nothing(
        self, type: str, ids: Sequence[str], owed: Owed, session: AsyncClientSession | None
    ) -> list[FhirError]:
        cursor = self.database[type].find(
            {"_id": {"$in": ids}, "deleted": {"$exists": False}}, {"_id": 1}, session=session
        )
        there = {one["_id"] for one in await cursor.to_list()}
        faults = []
        for id in ids:
            if id not in there:
                text = f"The reference to {type}/{id} leads to nothing: there is no such resource."
                for number, path in owed.referred[type, id].items():
                    faults.append(_at(number, FhirError(Issue("business-rule", text, path))))
        return faults

    async def _deleted_in_vain(
        self,
        type: str,
        ids: Sequence[str],
        owed: Owed,
        existing: Iterable[str],
        session: AsyncClientSession | None,
    ) -> list[FhirError]:
        wanted = {f"{type}/{id}" for id in ids}
        found: dict[str, list[str]] = {}
        for other in existing:
            fields = self._fields(other, type)
            if fields is None:
                return [_at(owed.deleted[type, id], _pending(type)) for id in ids]
            if not fields:
                continue
            value: Any = {"$in": sorted(wanted)} if len(wanted) > 1 else next(iter(wanted))
            room = _REFERRERS_SHOWN + 1 - sum(map(len, found.values()))
            cursor = self.database[other].find(
                {"$or": [{field: value} for field in fields]},
                projection=dict.fromkeys(fields, 1),
                session=session,
            )
            for row in await cursor.limit(room).to_list():
                for name in wanted & _values(row.get("keys", {})):
                    found.setdefault(name, []).append(f"{other}/{row['_id']}")
            if sum(map(len, found.values())) > _REFERRERS_SHOWN:
                break
        return [
            _at(owed.deleted[type, name.partition("/")[2]], _referred_to(name, referrers))
            for name, referrers in sorted(found.items())
        ]

    def _fields(self, type: str, target_type: str) -> list[str] | None:
        """Return where documents of ``type`` have the keys of references to ``target_type``;
        ``None`` while not all of them have."""
        parameters = self.keys.table.written(type).values()
        found = dict.fromkeys(
            one.field
            for one in parameters
            if one.type == "reference"
            and one.key
            and target_type in one.targets
            and any(path.type == "Reference" for path in one.paths)
        )
        pending = self.keys.table.pending(type)
        if any(name.removeprefix("keys.") in pending for name in found):
            return None
        return list(found)

    def _links(self, resource: Any) -> Iterator[tuple[Place, str]]:
        """Yield where references to this server lead, of the types that are checked; and where
        they stand."""
        open: list[tuple[Any, str]] = [(resource, str(resource["resourceType"]))]
        while open:
            value, path = open.pop()
            if isinstance(value, list):
                open += [(one, path) for one in reversed(value)]
            elif isinstance(value, dict):
                text = value.get("reference")
                if isinstance(text, str) and not text.startswith("#"):
                    found = target(text, self.keys.table.base_urls)
                    known = found.id and found.type in self.keys.table.types
                    if known and covers(self.checked, found.type):
                        yield (found.type, found.id), path
                # What a Bundle or a Parameters carries is not of this server.
                open += [
                    (one, f"{path}.{name}")
                    for name, one in reversed(value.items())
                    if name != "resource" or not isinstance(one, dict) or "resourceType" not in one
                ]


def _referred_to(name: str, referrers: Sequence[str]) -> FhirError:
    shown = ", ".join(referrers[:_REFERRERS_SHOWN])
    more = " and others" if len(referrers) > _REFERRERS_SHOWN else ""
    text = f"{name} is not deleted: {shown}{more} refer to it. Delete or change those first."
    return FhirError(Issue("conflict", text))


def _pending(type: str) -> FhirError:
    text = f"What refers to a {type} is still being indexed. See $reindex-status."
    return FhirError(Issue("transient", text), headers=(("Retry-After", "30"),))


def _at(number: int | None, error: FhirError) -> FhirError:
    error.place = number
    return error


def _claim(place: Place, number: int) -> str:
    return f"reference/{place[0]}/{place[1]}/{number}"


def _values(keys: Any) -> set[str]:
    found: set[str] = set()
    for value in keys.values():
        found.update(value if isinstance(value, list) else [value])
    return found


def _by_type(places: Iterable[Place]) -> list[tuple[str, list[str]]]:
    found: dict[str, list[str]] = {}
    for type, id in sorted(places):
        found.setdefault(type, []).append(id)
    return list(found.items())


def _portions(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), _AT_ONCE):
        yield ids[start : start + _AT_ONCE]
