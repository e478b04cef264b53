"""What must hold of resources whoever writes them, and however: in the transaction of the write.

A rule sees the changes of its types once they are written, and everything else as it is inside the
transaction. It refuses changes, and names others that follow from them; those are made in the same
transaction. So a PUT, a patch, a bundle, an operation and a message are held to it alike.

A rule that only reads protects nothing (section 16.3 of ARCHITECTURE.md): what must be unique it
writes, through ``granules``.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Protocol

from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.messages import Resource
from fhir_server.outcome import FhirError
from fhir_server.r4.json import decode_stored
from fhir_server.search.parameters import ParameterTable
from fhir_server.settings import Settings
from fhir_server.store.changes import Change, Judged
from fhir_server.store.client import Database
from fhir_server.store.documents import PRESENT
from fhir_server.store.granules import Granules
from fhir_server.store.offers import Offers
from fhir_server.store.outbox import Outbox


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rule says: ``faults`` by the number of the change that is refused, and what is changed
    ``then``."""

    faults: Mapping[int, FhirError] = field(default_factory=dict)
    then: Sequence[Change] = ()


NOTHING_SAID = Verdict()


@dataclass(frozen=True, slots=True)
class Inside:
    """A transaction as a rule sees it: everything, as it is now that its changes are written.
    ``now`` is UTC."""

    database: Database
    session: AsyncClientSession
    table: ParameterTable
    settings: Settings
    now: datetime

    @property
    def granules(self) -> Granules:
        """The times that are taken, in this transaction."""
        return Granules(self.database, self.session)

    @property
    def offers(self) -> Offers:
        """Times that become free, and who was asked for them, in this transaction."""
        return Offers(self.database, self.session)

    @property
    def outbox(self) -> Outbox:
        """What is to leave this server once the transaction is committed."""
        return Outbox(self.database, self.session)

    async def read(self, type: str, ids: Collection[str]) -> dict[str, Resource]:
        """Return those of ``type`` that are there, by their ids."""
        if not ids:
            return {}
        return await self._found(type, {"_id": {"$in": sorted(ids)}})

    async def referring(
        self, type: str, code: str, targets: Collection[str]
    ) -> dict[str, Resource]:
        """Return those of ``type`` whose reference parameter ``code`` leads to one of ``targets``
        (``Practitioner/1``), by their ids."""
        if not targets:
            return {}
        return await self._found(type, {self.table.of(type)[code].field: {"$in": sorted(targets)}})

    async def _found(self, type: str, filter: dict[str, object]) -> dict[str, Resource]:
        cursor = self.database[type].find(
            {**filter, **PRESENT}, projection={"json": 1}, session=self.session
        )
        return {one["_id"]: decode_stored(one["json"]) for one in await cursor.to_list()}


@dataclass(frozen=True)
class Seen:
    """A change as rules see it: what a resource was, and what it is now. Rules that want the former
    read its JSON once between them."""

    change: Change
    judged: Judged

    @cached_property
    def before(self) -> Resource | None:
        """The resource as it was, ``None`` where nothing was."""
        json = self.judged.before.get("json") if self.judged.before else b""
        return decode_stored(json) if json else None

    @property
    def after(self) -> Resource | None:
        """The resource as it is now, ``None`` where it is deleted."""
        return self.judged.after.get("resource") if self.judged.after else None


class Rule(Protocol):
    """A rule: of which ``types`` it sees the changes, and what it says of them. One that
    ``refuses`` does so often: changes of its types are made beside the others, which would have to
    be made again."""

    @property
    def types(self) -> frozenset[str]: ...

    @property
    def refuses(self) -> bool: ...

    async def __call__(self, seen: Sequence[Seen], inside: Inside) -> Verdict:
        """Return what is to become of the changes ``seen``, of which each writes something. It may
        be called again for the same changes, in another transaction."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of a server, in the order in which they were registered."""

    settings: Settings | None = None
    rules: Sequence[Rule] = ()

    def concern(self, type: str) -> bool:
        """Whether a rule sees the changes of ``type``."""
        return any(type in one.types for one in self.rules)

    def refuse(self, type: str) -> bool:
        """Whether changes of ``type`` are refused often."""
        return any(type in one.types and one.refuses for one in self.rules)

    async def verdict(
        self,
        judged: Sequence[Judged],
        database: Database,
        session: AsyncClientSession,
        table: ParameterTable,
        now: datetime,
    ) -> Verdict:
        """Return what all rules say of ``judged``; the first that refuses is heard alone."""
        then: list[Change] = []
        written = {
            n: Seen(one.change, one) for n, one in enumerate(judged) if one.after is not None
        }
        for rule in self.rules:
            seen = {n: one for n, one in written.items() if one.change.type in rule.types}
            if not seen:
                continue
            assert self.settings is not None
            inside = Inside(database, session, table, self.settings, now)
            said = await rule(list(seen.values()), inside)
            if said.faults:
                numbers = list(seen)
                return Verdict({numbers[place]: one for place, one in said.faults.items()})
            then += said.then
        return Verdict(then=then) if then else NOTHING_SAID
