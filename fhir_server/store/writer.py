"""Makes changes: reads what is there, has each change judged, writes the outcome.

https://hl7.org/fhir/R4/http.html#ops and section 16.3 of ARCHITECTURE.md
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from pymongo import ReplaceOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import PyMongoError

from fhir_server.outcome import FhirError
from fhir_server.store.changes import Change, Judge, Judged
from fhir_server.store.client import Database, OutcomeUnknownError, is_lost
from fhir_server.store.documents import (
    HISTORY_SUFFIX,
    KEPT_IN_HISTORY,
    Document,
    Stored,
    historical,
)
from fhir_server.store.integrity import Integrity, Owed
from fhir_server.store.keys import SearchKeys
from fhir_server.store.transactions import StaleRead, transacted

_PAUSE_EVERY = 50  # changes judged before other requests get their turn
_BEFORE = dict.fromkeys(KEPT_IN_HISTORY, 1)


class NotTogether(Exception):
    """One of several changes is refused now that all are written; each is to be made alone."""


Befores = Mapping[tuple[str, str], Document]
"""``(type, id)`` -> the current document."""


@dataclass(frozen=True, slots=True)
class Writer:
    """Makes changes, each to another resource, once: what met another write is not repeated here.

    Bound to a session, it writes in that session's transaction; else in one of its own. What is to
    be looked at before that session's transaction ends is put into ``owed``.
    """

    database: Database
    judge: Judge
    keys: SearchKeys
    integrity: Integrity
    session: AsyncClientSession | None = None
    owed: Owed | None = None

    async def all(self, changes: Sequence[Change], now: datetime, end: float) -> list[Stored]:
        """Make all of ``changes``, or none; a refusal has the place of its change."""
        async with self.keys.writing():
            befores = await self._befores(changes)
            judged = []
            for place, change in enumerate(changes):
                if place % _PAUSE_EVERY == _PAUSE_EVERY - 1:
                    await asyncio.sleep(0)
                judged.append(self._judged(place, change, befores, now))
            await self._written(judged, end)
            return [one.stored for one in judged]

    async def each(
        self, changes: Sequence[Change], now: datetime, end: float
    ) -> list[Stored | FhirError]:
        """Make those of ``changes`` that are not refused; return what came of each."""
        async with self.keys.writing():
            befores = await self._befores(changes)
            outcomes: list[Judged | FhirError] = []
            for place, change in enumerate(changes):
                try:
                    outcomes.append(self._judged(place, change, befores, now))
                except FhirError as error:
                    outcomes.append(error)
            try:
                await self._written([one for one in outcomes if isinstance(one, Judged)], end)
            except OutcomeUnknownError:
                raise
            except FhirError as error:
                raise NotTogether from error
        return [one.stored if isinstance(one, Judged) else one for one in outcomes]

    def _judged(self, place: int, change: Change, befores: Befores, now: datetime) -> Judged:
        try:
            return self.judge.judged(change, befores.get((change.type, change.id)), now)
        except FhirError as error:
            error.place = place
            raise

    async def _written(self, judged: Sequence[Judged], end: float) -> None:
        effective = [one for one in judged if one.after is not None]
        # What stays as it is, but was to be at a certain version, must be so when the rest is
        # written: two bundles could otherwise each change what the other relies on.
        relied_on = [
            one
            for one in judged
            if one.after is None and one.before and one.change.relies_on_version
        ]
        owed = self.integrity.owed(judged)

        async def work(session: AsyncClientSession) -> None:
            await self.integrity.claim(owed, session)
            await self._apply(effective, relied_on, session)
            if self.owed is not None:  # what follows in this transaction may put it right
                self.owed.take(owed)
            else:
                await self.integrity.check(owed, session)

        if self.session is not None:
            await work(self.session)
        elif len(effective) == 1 and effective[0].before is None and not relied_on and not owed:
            await self._insert(effective[0])
        elif effective:
            await transacted(self.database.client, work, end)

    async def _insert(self, judged: Judged) -> None:
        """One insert is atomic by itself; a transaction around it would double its cost."""
        try:
            await self.database[judged.change.type].insert_one(judged.after or {})
        except PyMongoError as error:
            if is_lost(error):
                raise OutcomeUnknownError() from error
            raise

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

    async def _apply(
        self, judged: Sequence[Judged], relied_on: Sequence[Judged], session: AsyncClientSession
    ) -> None:
        """Write in the order of collection and id, so that two writers cannot wait in a circle."""
        for one in relied_on:
            # A real write: MongoDB sees no conflict in reading, nor in writing what is there.
            touched = await self.database[one.change.type].update_one(
                {"_id": one.change.id, "version": one.stored.version},
                {"$inc": {"touched": 1}},
                session=session,
            )
            if touched.matched_count != 1:
                raise StaleRead
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
