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

What whoever writes may not see is not there for its references, and is not named where it keeps
something from being deleted.
"""

import random
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.messages import Resource
from fhir_server.outcome import FhirError, Issue
from fhir_server.r4.json import decode_stored
from fhir_server.r4.references import target
from fhir_server.security.plan import AccessPlan, Filter, both, either
from fhir_server.security.predicates import allows
from fhir_server.settings import Types, covers
from fhir_server.store.changes import Judged
from fhir_server.store.claims import claim
from fhir_server.store.client import Database
from fhir_server.store.documents import Document, value_at
from fhir_server.store.indexes import Indexes
from fhir_server.store.keys import SearchKeys

_REFERRERS_SHOWN = 10
_AT_ONCE = 500  # ids in one question
# Who refers to a resource takes one of its claims, who deletes it all: those who refer to the same
# patient are then seldom in each other's way.
_CLAIMS = 4

# What a plan judges those by who refer to a resource.
_JUDGED_BY = {"keys": 1, "compartments": 1, "labels": 1}
_NOBODY = object()

Place = tuple[str, str]
"""``(type, id)``."""


@dataclass(frozen=True, slots=True)
class By:
    """A change: its number, what whoever makes it may see, and where the first of its references to
    a place stands, such as ``Observation.subject``."""

    number: int | None
    plan: AccessPlan | None
    path: str = ""


@dataclass(slots=True)
class Owed:
    """What is to be looked at before a transaction ends, and by whose changes.

    ``referred`` has all changes that refer to a place. ``written`` is what is written beside them,
    and by whom: that may be referred to by the same, whoever may read it.
    """

    deleted: dict[Place, By] = field(default_factory=dict)
    referred: dict[Place, list[By]] = field(default_factory=dict)
    written: dict[Place, AccessPlan | None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.deleted or self.referred)

    def take(self, other: "Owed") -> None:
        """Take over what ``other`` has. The numbers of its changes mean nothing later."""
        self.deleted |= {place: replace(by, number=None) for place, by in other.deleted.items()}
        self.written |= other.written
        for place, some in other.referred.items():
            self.referred.setdefault(place, [replace(some[0], number=None)])


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
            plan = one.change.access
            owed.written[one.change.type, one.change.id] = plan
            if one.after.get("deleted"):
                if covers(self.kept, one.change.type):
                    owed.deleted[one.change.type, one.change.id] = By(number, plan)
            elif self.checked:
                before = one.before["json"] if one.before and "json" in one.before else b""
                known = dict(self._links(decode_stored(before))) if before else {}
                for place, path in self._links(one.after["resource"]):
                    if place not in known:
                        known[place] = path
                        owed.referred.setdefault(place, []).append(By(number, plan, path))
        return owed

    async def check_one(
        self, type: str, id: str, resource: Resource | None, plan: AccessPlan | None
    ) -> None:
        """Look whether ``type/id`` could be deleted, or ``resource`` written, by who has ``plan``:
        what the settings demand of references, at this moment. Raises what :meth:`check` does."""
        owed = Owed()
        if resource is None and covers(self.kept, type):
            owed.deleted[type, id] = By(0, plan)
        elif resource is not None and self.checked:
            links = self._links(resource)
            owed.referred |= {place: [By(0, plan, path)] for place, path in links}
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
        await claim(self.database, names, session)

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
        faults = []
        there: dict[int, set[str]] = {}  # by whose plan: that of a request is one object
        for id in ids:
            for by in owed.referred[type, id]:
                if _key(by.plan) not in there:
                    there[_key(by.plan)] = await self._there(type, ids, owed, by.plan, session)
                if id not in there[_key(by.plan)]:
                    text = f"The reference to {type}/{id} leads to nothing: "
                    text += "there is no such resource."
                    fault = FhirError(Issue("business-rule", text, by.path))
                    faults.append(_at(by.number, fault))
        return faults

    async def _there(
        self,
        type: str,
        ids: Sequence[str],
        owed: Owed,
        plan: AccessPlan | None,
        session: AsyncClientSession | None,
    ) -> set[str]:
        """Return those of ``ids`` that are there for who has ``plan``."""
        seen = plan.seen(type) if plan is not None else {}
        own = [id for id in ids if owed.written.get((type, id), _NOBODY) is plan]
        seen = either(seen, {"_id": {"$in": own}}) if own else seen
        there: Filter = {"_id": {"$in": ids}, "deleted": {"$exists": False}}
        cursor = self.database[type].find(both(seen, there), {"_id": 1}, session=session)
        return {one["_id"] for one in await cursor.to_list()}

    async def _deleted_in_vain(
        self,
        type: str,
        ids: Sequence[str],
        owed: Owed,
        existing: Iterable[str],
        session: AsyncClientSession | None,
    ) -> list[FhirError]:
        wanted = {f"{type}/{id}": owed.deleted[type, id] for id in ids}
        found: dict[str, list[str]] = {}
        judged_by = _JUDGED_BY if any(by.plan is not None for by in wanted.values()) else {}
        for other in existing:
            fields = self._fields(other, type)
            if fields is None:
                return [_at(by.number, _pending(type)) for by in wanted.values()]
            if not fields:
                continue
            value: Any = {"$in": sorted(wanted)} if len(wanted) > 1 else next(iter(wanted))
            room = _REFERRERS_SHOWN + 1 - sum(map(len, found.values()))
            cursor = self.database[other].find(
                {"$or": [{field: value} for field in fields]},
                projection=judged_by or dict.fromkeys(fields, 1),
                session=session,
            )
            for row in await cursor.limit(room).to_list():
                for name in wanted.keys() & _values_at(row, fields):
                    plan = wanted[name].plan
                    shows = plan is None or allows(plan.seen(other), row)
                    found.setdefault(name, []).append(f"{other}/{row['_id']}" if shows else "")
            if sum(map(len, found.values())) > _REFERRERS_SHOWN:
                break
        return [
            _at(wanted[name].number, _referred_to(name, referrers))
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
    """What may not be seen, which is ``""``, is not named."""
    named = [one for one in referrers[:_REFERRERS_SHOWN] if one]
    others = ["others"] if len(named) < len(referrers) else []
    who = " and ".join([*([", ".join(named)] if named else []), *others])
    text = f"{name} is not deleted: {who} refer to it. Delete or change those first."
    return FhirError(Issue("conflict", text))


def _pending(type: str) -> FhirError:
    text = f"What refers to a {type} is still being indexed. See $reindex-status."
    return FhirError(Issue("transient", text), headers=(("Retry-After", "30"),))


def _at(number: int | None, error: FhirError) -> FhirError:
    error.place = number
    return error


def _claim(place: Place, number: int) -> str:
    return f"reference/{place[0]}/{place[1]}/{number}"


def _values_at(row: Document, fields: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for one in fields:
        value = value_at(row, one)
        found.update(value if isinstance(value, list) else [value])
    return found


def _key(plan: AccessPlan | None) -> int:
    return id(plan)


def _by_type(places: Iterable[Place]) -> list[tuple[str, list[str]]]:
    found: dict[str, list[str]] = {}
    for type, id in sorted(places):
        found.setdefault(type, []).append(id)
    return list(found.items())


def _portions(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), _AT_ONCE):
        yield ids[start : start + _AT_ONCE]
