"""What Consents deny: a row for each that denies something, written with the Consent itself.

Section 3.3 of design/security.md. The collection ``denials`` has the rows, by the id of the
Consent; ``denials`` in the collection ``server`` has a number that grows, in the same transaction,
with every change of a row and every use of break-glass: what was computed from rows of the same
number still holds. A process goes by a number for a tenth of a second; whoever has changed a row
waits as long after the commit and answers then. So nothing is served after the answer that a
Consent denies, in whatever process, and most requests read nothing to know that.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pymongo import IndexModel
from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.r4.json import decode_stored
from fhir_server.security.consent import EVERYBODY, Row, row_of
from fhir_server.store.changes import Judged
from fhir_server.store.client import Database
from fhir_server.store.documents import PRESENT, Document
from fhir_server.store.fetch import Fetch
from fhir_server.store.rows import rows_within
from fhir_server.store.transactions import repeated, transacted

CONSENT = "Consent"
ROWS = "denials"
ROW_INDEXES = [
    IndexModel([("touches", 1)], name="touches"),
    IndexModel([("patient", 1)], name="patient"),
]
_SERVER = "server"
_NUMBER = "denials"
_FORM = 1
"""Raised by whoever changes what a row is made of: rows are then made anew at the next start."""
LEASE_S = 0.1
"""Seconds that a process may go by the number that it has read. Whoever changes a row answers so
much later: that is rare, and to read the number for every request is not cheap."""
_MARGIN_S = 0.02
_PORTION, _PORTION_BYTES = 200, 8_000_000
_ROLES_MAX, _LEVELS_MAX = 200, 8
_DIFFERING_MAX = 1000
_SECONDS = 60.0

Written = Sequence[tuple[str, Row | None]]
"""The id of each Consent that is written, and its row from now on."""


@dataclass(frozen=True, slots=True)
class Membership:
    """What somebody works as: ``PractitionerRole/1``, ``Organization/1`` and those that it is part
    of, and the codes of the roles, ``(system, code)``. ``person`` is ``Practitioner/1``."""

    person: str = ""
    roles: frozenset[str] = frozenset()
    organizations: frozenset[str] = frozenset()
    codes: frozenset[tuple[str, str]] = frozenset()


@dataclass(slots=True)
class Denials:
    """The rows of a database. ``base_urls`` are what this server is called. ``kept`` is for what a
    process makes of them, ``joined`` for what is being made; who puts something in bounds it.
    ``changes`` counts what this process has written."""

    database: Database
    fetch: Fetch
    base_urls: tuple[str, ...]
    kept: dict[Any, Any] = field(default_factory=dict)
    joined: dict[Any, Any] = field(default_factory=dict)
    changes: int = 0
    _number: int = 0
    _read_at: float = float("-inf")
    _look: "tuple[float, asyncio.Task[None]] | None" = None

    async def prepare(self, types: Collection[str]) -> None:
        """Make the rows of a database of an older release, where ``types`` are those in use, or of
        one whose references to itself were others."""
        if CONSENT not in types:
            return
        form = [_FORM, *self.base_urls]
        found = await self.database[_SERVER].find_one({"_id": _NUMBER})
        if found is None or found.get("form") != form:
            await self.rebuild()
            await self.database[_SERVER].update_one(
                {"_id": _NUMBER}, {"$set": {"form": form}}, upsert=True
            )

    def among(self, judged: Iterable[Judged]) -> Written:
        """Return what is to be written with those of ``judged`` that are Consents: nothing of a
        new one that denies nothing."""
        return [
            (one.change.id, row)
            for one in judged
            if one.change.type == CONSENT
            for row in [self._row(one.after)]
            if row is not None or one.before is not None
        ]

    def _row(self, document: Document | None) -> Row | None:
        found = document and document.get("resource")
        return row_of(found, self.base_urls) if found else None

    async def write(self, written: Written, session: AsyncClientSession) -> None:
        """Put the rows ``written`` in the place of those before, in the transaction of
        ``session``."""
        ids = [id for id, _ in written]
        gone = await self.database[ROWS].delete_many({"_id": {"$in": ids}}, session=session)
        rows = [_document(id, row) for id, row in written if row is not None]
        if rows:
            await self.database[ROWS].insert_many(rows, session=session)
        if rows or gone.deleted_count:
            self.changes += 1
            await raise_number(self.database, session)

    async def number(self) -> int:
        """Return how often rows have changed; 0 where there has never been one. It was read less
        than :data:`LEASE_S` ago, so that no change is overlooked whose writer has settled. Those
        who ask meanwhile wait for the same look, if it is no older than that."""
        now = time.monotonic()
        while now - self._read_at >= LEASE_S:
            if self._look is None or self._look[1].done() or now - self._look[0] >= LEASE_S:
                self._look = now, asyncio.create_task(self._read(now))
            await asyncio.shield(self._look[1])
        return self._number

    async def _read(self, began: float) -> None:
        found = await self.fetch.one(_SERVER, _NUMBER)
        if began >= self._read_at:
            self._number = int(found.get("number", 0)) if found else 0
            self._read_at = began

    async def settle(self, since: int) -> None:
        """Wait until every process knows what was committed, where rows were written by this one
        ``since`` it had made so many ``changes``. Whoever answers that a Consent is written has
        waited."""
        if self.changes != since:
            self._read_at = float("-inf")
            await asyncio.sleep(LEASE_S + _MARGIN_S)

    async def touching(self, names: Iterable[str] | None, *, organizations: bool) -> list[Document]:
        """Return the rows that touch one of ``names``, or anybody if they are ``None``; with
        ``organizations`` those that name any organization."""
        filter: Document = {}
        if names is not None:
            either: list[Document] = [{"touches": {"$in": [EVERYBODY, *sorted(names)]}}]
            if organizations:
                range = {"$gte": "Organization/", "$lt": "Organization0"}
                either.append({"touches": {"$elemMatch": range}})
            filter = {"$or": either}
        return list(await self.database[ROWS].find(filter, projection={"touches": 0}).to_list())

    async def membership(self, person: str) -> Membership:
        """Return what ``person``, ``Practitioner/1`` or ``PractitionerRole/1``, works as."""
        type, _, id = person.partition("/")
        wanted: Document = {"keys.practitioner": person} if type == "Practitioner" else {"_id": id}
        fields = dict.fromkeys(("keys.organization", "keys.practitioner", "resource.code"), 1)
        cursor = self.database["PractitionerRole"].find(
            {"$and": [wanted, PRESENT, {"resource.active": {"$ne": False}}]}, projection=fields
        )
        rows = await cursor.limit(_ROLES_MAX).to_list()
        keys = [one.get("keys", {}) for one in rows]
        places = {place for one in keys for place in _listed(one.get("organization"))}
        people = {place for one in keys for place in _listed(one.get("practitioner"))}
        return Membership(
            person
            if type == "Practitioner"
            else next(iter(people), "")
            if len(people) == 1
            else "",
            frozenset(f"PractitionerRole/{one['_id']}" for one in rows),
            frozenset(await self._with_wholes(places)),
            frozenset(_codes(rows)),
        )

    async def _with_wholes(self, places: set[str]) -> set[str]:
        """Return ``places`` and the organizations that they are part of."""
        found, new = set(places), set(places)
        for _ in range(_LEVELS_MAX):
            ids = [one.removeprefix("Organization/") for one in sorted(new)]
            if not ids:
                break
            cursor = self.database["Organization"].find(
                {"$and": [{"_id": {"$in": ids}}, PRESENT]}, projection={"keys.partof": 1}
            )
            rows = await cursor.to_list()
            above = {p for one in rows for p in _listed(one.get("keys", {}).get("partof"))}
            new = above - found
            found |= new
        return found

    async def rebuild(self) -> int:
        """Make the rows of all stored Consents anew; return how many are other than before.

        Whoever writes a Consent meanwhile writes its row; a version is not overtaken by an older.
        """
        changed = 0
        async for rows in self._consents():
            for one in rows:
                changed += await self._made_anew(one["_id"])
        for id in [id async for id in self._left_behind()]:
            changed += await self._made_anew(id)
        return changed

    async def differing(self) -> list[str]:
        """Return the ids of Consents whose row is not what it has to be; 1,000 at most."""
        wrong: list[str] = []
        async for rows in self._consents():
            ids = [one["_id"] for one in rows]
            found = {
                one["_id"]: one async for one in self.database[ROWS].find({"_id": {"$in": ids}})
            }
            for one in rows:
                row = row_of(decode_stored(one["json"]), self.base_urls)
                if found.get(one["_id"]) != (_document(one["_id"], row) if row else None):
                    wrong.append(one["_id"])
        return [*wrong, *[id async for id in self._left_behind()]][:_DIFFERING_MAX]

    async def _consents(self) -> AsyncIterator[list[Document]]:
        """Yield the stored Consents in the order of their ids, some at once."""
        after = ""
        while True:
            wanted: Document = {"$and": [{"_id": {"$gt": after}}, PRESENT]}
            cursor = self.database[CONSENT].find(wanted, projection={"json": 1, "version": 1})
            rows, _ = await rows_within(cursor.sort("_id", 1).limit(_PORTION), _PORTION_BYTES)
            if not rows:
                return
            yield rows
            after = rows[-1]["_id"]

    async def _left_behind(self) -> AsyncIterator[str]:
        """Yield the ids of rows whose Consent is not there."""
        after = ""
        while True:
            cursor = self.database[ROWS].find({"_id": {"$gt": after}}, projection={"_id": 1})
            ids = [one["_id"] for one in await cursor.sort("_id", 1).limit(_PORTION).to_list()]
            if not ids:
                return
            wanted = {"$and": [{"_id": {"$in": ids}}, PRESENT]}
            there = await self.database[CONSENT].find(wanted, projection={"_id": 1}).to_list()
            for id in sorted({*ids} - {one["_id"] for one in there}):
                yield id
            after = ids[-1]

    async def _made_anew(self, id: str) -> bool:
        """Make the row of the Consent ``id`` anew; return whether it was another."""

        async def work(session: AsyncClientSession) -> bool:
            consent = await self.database[CONSENT].find_one({"_id": id}, session=session)
            row = self._row(consent)
            now = _document(id, row) if row else None
            if await self.database[ROWS].find_one({"_id": id}, session=session) == now:
                return False
            if consent:  # whoever writes it at the same time is in the way, and one is repeated
                await self.database[CONSENT].update_one(
                    {"_id": id}, {"$inc": {"touched": 1}}, session=session
                )
            await self.write([(id, row)], session)
            return True

        end = time.monotonic() + _SECONDS
        return await repeated(lambda: transacted(self.database.client, work, end), end)


async def drop_row(database: Database, id: str, session: AsyncClientSession) -> None:
    """Remove the row of the Consent ``id``, which is removed for good in the same transaction."""
    gone = await database[ROWS].delete_one({"_id": id}, session=session)
    if gone.deleted_count:
        await raise_number(database, session)


async def raise_number(database: Database, session: AsyncClientSession) -> None:
    """Have every process compute anew what is denied, from the end of the transaction on."""
    await database[_SERVER].update_one(
        {"_id": _NUMBER}, {"$inc": {"number": 1}}, upsert=True, session=session
    )


def _document(id: str, row: Row) -> Document:
    return {
        "_id": id,
        "patient": row.patient,
        "touches": list(row.touches),
        "exempt": list(row.exempt),
        "begins": row.begins,
        "ends": row.ends,
        "rule": row.rule,
    }


def _listed(value: Any) -> list[str]:
    found = value if isinstance(value, list) else [value]
    return [one for one in found if isinstance(one, str)]


def _codes(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for row in rows:
        for concept in row.get("resource", {}).get("code", ()):
            for coding in concept.get("coding", ()):
                if "code" in coding:
                    yield coding.get("system", ""), coding["code"]
