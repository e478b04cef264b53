"""The verbs of the store: read, vread, write, history, search, and transactions around them.

The interactions of https://hl7.org/fhir/R4/http.html, as far as they concern the database.
"""

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Any, TypeVar

from pymongo import ReplaceOne
from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.outcome import FhirError
from fhir_server.search.plan import Plan
from fhir_server.store import history, search
from fhir_server.store.changes import Change, Judge, Judged
from fhir_server.store.client import Database, deadline
from fhir_server.store.documents import (
    HISTORY_SUFFIX,
    KEPT_IN_HISTORY,
    SERVED,
    Document,
    Stored,
    historical,
    stored,
)
from fhir_server.store.fetch import Fetch
from fhir_server.store.indexes import Indexes
from fhir_server.store.transactions import StaleRead, repeated, transacted

T = TypeVar("T")

_READ_ADVICE = "Ask for less, or try again when the server is less busy."
_BEFORE = dict.fromkeys(KEPT_IN_HISTORY, 1)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds that a request, a write and a search may take in the database."""

    request_s: float
    write_s: float
    search_s: float


@dataclass(frozen=True, slots=True)
class ResourceStore:
    """Resources in MongoDB. Bound to a session inside a transaction, else to none."""

    database: Database
    indexes: Indexes
    judge: Judge
    timeouts: Timeouts
    page_bytes_max: int
    fetch: Fetch
    session: AsyncClientSession | None = None

    async def read(self, type: str, id: str) -> Stored | None:
        """Return the current version of ``type/id``, which may be a deletion, or ``None``."""
        if self.session is None:
            found = await self.fetch.one(type, id)
        else:
            found = await self.database[type].find_one(
                {"_id": id}, projection=SERVED, session=self.session
            )
        return stored(type, found) if found else None

    async def vread(self, type: str, id: str, version: int) -> Stored | None:
        """Return ``version`` of ``type/id``, current or historical, or ``None``."""
        current = await self.read(type, id)
        if current is None or current.version == version:
            return current
        async with deadline(self.timeouts.request_s, _READ_ADVICE):
            found = await self.database[type + HISTORY_SUFFIX].find_one(
                {"_id": {"id": id, "version": version}}, projection=SERVED, session=self.session
            )
        return stored(type, found) if found else None

    async def history(self, wanted: history.Wanted) -> history.Page:
        """Return one page of versions, newest first."""
        async with deadline(self.timeouts.request_s, _READ_ADVICE):
            types = await self.indexes.existing() if not wanted.type else (wanted.type,)
            return await history.page(
                self.database, self.session, types, wanted, bytes_max=self.page_bytes_max
            )

    async def search(self, plan: Plan) -> search.Page:
        """Return one page of what ``plan`` finds."""
        async with deadline(self.timeouts.search_s, "Narrow the search by another parameter."):
            return await search.run(
                self.database, self.session, plan, bytes_max=self.page_bytes_max
            )

    async def write(self, changes: Sequence[Change], now: datetime) -> list[Stored]:
        """Make all of ``changes``, or none, and return what each came to, in their order.

        No two of them may be of the same resource. ``now`` is UTC. The version before goes to
        history in the same transaction: no reader sees both, or neither.

        Raises ``conflict`` where a precondition forbids one, ``transient`` under contention.
        """
        await self.indexes.ensure({change.type for change in changes})
        async with deadline(self.timeouts.write_s, "Nothing was written; try again."):
            if self.session is not None:
                return await self._write(changes, now, end=0)
            end = time.monotonic() + self.timeouts.write_s
            return await repeated(lambda: self._write(changes, now, end), end)

    async def in_transaction(self, work: Callable[["ResourceStore"], Awaitable[T]]) -> T:
        """Run ``work`` on a store whose writes all happen or none do; return its result.

        ``work`` may run more than once and must have no other effect. Inside a transaction this
        joins it.
        """
        if self.session is not None:
            return await work(self)
        end = time.monotonic() + self.timeouts.request_s

        async def attempt() -> T:
            return await transacted(
                self.database.client, lambda session: work(replace(self, session=session)), end
            )

        async with deadline(self.timeouts.request_s, "Nothing was written; try again."):
            return await repeated(attempt, end)

    async def _write(self, changes: Sequence[Change], now: datetime, end: float) -> list[Stored]:
        befores = await self._befores(changes)
        judged = self._judged(changes, befores, now)
        effective = [one for one in judged if one.after is not None]
        if self.session is not None:
            await self._apply(effective, self.session)
        elif len(effective) == 1 and effective[0].before is None:
            # One insert is atomic by itself; a transaction around it would double its cost.
            await self.database[effective[0].change.type].insert_one(effective[0].after or {})
        elif effective:
            await transacted(
                self.database.client, lambda session: self._apply(effective, session), end
            )
        return [one.stored for one in judged]

    def _judged(
        self,
        changes: Sequence[Change],
        befores: Mapping[tuple[str, str], Document],
        now: datetime,
    ) -> list[Judged]:
        judged = []
        for place, change in enumerate(changes):
            try:
                before = befores.get((change.type, change.id))
                judged.append(self.judge.judged(change, before, now))
            except FhirError as error:
                error.place = place
                raise
        return judged

    async def _befores(self, changes: Iterable[Change]) -> dict[tuple[str, str], Document]:
        """Return the current documents of what is to be changed; a new id has none."""
        found: dict[tuple[str, str], Document] = {}
        # The id of a create is new by construction; if it were not, the insert would fail.
        known = [change for change in changes if change.interaction != "create"]
        for type, group in _by_type(known, lambda change: change.type):
            ids = [change.id for change in group]
            filter = {"_id": ids[0] if len(ids) == 1 else {"$in": ids}}
            cursor = self.database[type].find(filter, projection=_BEFORE, session=self.session)
            found |= {(type, one["_id"]): one for one in await cursor.to_list()}
        return found

    async def _apply(self, judged: Sequence[Judged], session: AsyncClientSession) -> None:
        """Write in the order of collection and id, so that two writers cannot wait in a circle."""
        for type, group in _by_type(judged, lambda one: one.change.type):
            ordered = sorted(group, key=lambda one: one.change.id)
            await self._apply_to_type(type, ordered, session)

    async def _apply_to_type(
        self, type: str, judged: Sequence[Judged], session: AsyncClientSession
    ) -> None:
        inserts = [one.after for one in judged if one.before is None and one.after]
        replaced = [(one.before, one.after) for one in judged if one.before and one.after]
        if inserts:
            await self.database[type].insert_many(inserts, session=session)
        if replaced:
            # Compare and swap: the version that was judged must still be the current one.
            result = await self.database[type].bulk_write(
                [
                    ReplaceOne({"_id": before["_id"], "version": before["version"]}, after)
                    for before, after in replaced
                ],
                session=session,
            )
            if result.matched_count != len(replaced):
                raise StaleRead
            await self.database[type + HISTORY_SUFFIX].insert_many(
                [historical(before, after["last_updated"]) for before, after in replaced],
                session=session,
            )


def _by_type(
    items: Iterable[Any], type_of: Callable[[Any], str]
) -> Iterable[tuple[str, Iterable[Any]]]:
    return groupby(sorted(items, key=type_of), key=type_of)
