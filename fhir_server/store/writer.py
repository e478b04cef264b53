"""Makes changes: reads what is there, has each change judged, writes the outcome.

https://hl7.org/fhir/R4/http.html#ops and section 16.3 of ARCHITECTURE.md
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import groupby
from typing import Any

from pymongo import ReplaceOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import PyMongoError

from fhir_server.messages import Response
from fhir_server.outcome import FhirError
from fhir_server.security.audit import Row
from fhir_server.store.access import Visible
from fhir_server.store.answers import KeyTaken, found_answers, keep_answers, kept, told
from fhir_server.store.audit import Audit, Lane
from fhir_server.store.changes import Change, Judge, Judged
from fhir_server.store.claims import ClaimTaken, claim_as_seen, seen_claims
from fhir_server.store.client import Database, OutcomeUnknownError, is_lost
from fhir_server.store.denials import Denials
from fhir_server.store.documents import (
    HISTORY_SUFFIX,
    KEPT_IN_HISTORY,
    Document,
    Stored,
    historical,
)
from fhir_server.store.integrity import Integrity, Owed
from fhir_server.store.keys import SearchKeys
from fhir_server.store.provenance import NOWHERE, PROVENANCE, Belonging, Unlooked, looked_up
from fhir_server.store.rules import Rules
from fhir_server.store.transactions import StaleRead, transacted
from fhir_server.store.versions import asks_keys

_PAUSE_EVERY = 50  # changes judged before other requests get their turn
_NONE: Mapping[str, Document] = {}
_BEFORE = dict.fromkeys(KEPT_IN_HISTORY, 1)
_NONE_MADE: Mapping[int, Judged] = {}
_NO_RULES = Rules()


class NotTogether(Exception):
    """Some of several changes are refused now that all are written: those at ``places``. They are
    to be made alone, each for itself, and the others without them."""

    def __init__(self, places: Iterable[int]) -> None:
        """Name the places, each once."""
        super().__init__()
        self.places = frozenset(places)


class _AtFault(Exception):
    """Refusals of those changes that lead to nothing, or leave others so."""

    def __init__(self, faults: Sequence[FhirError]) -> None:
        super().__init__()
        self.faults = faults


class Overtaken(StaleRead):
    """Somebody has written a claim of the change since it was seen; whoever asks for the change is
    to look again whether it is still to be made."""


Outcome = Stored | Response | FhirError | Overtaken
"""What came of a change: its version, the answer that a request like it got before, a refusal, or
nothing yet."""

Befores = Mapping[tuple[str, str], Document]
"""``(type, id)`` -> the current document."""

_NO_BEFORES: Befores = {}
_Work = Callable[[Lane | None, AsyncClientSession], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Writer:
    """Makes changes, each to another resource, once: what met another write is not repeated here.

    Bound to a session, it writes in that session's transaction; else in one of its own. What is to
    be looked at before that session's transaction ends is put into ``owed``, and what is to be
    recorded by it into ``rows``.
    """

    database: Database
    judge: Judge
    keys: SearchKeys
    integrity: Integrity
    denials: Denials
    session: AsyncClientSession | None = None
    owed: Owed | None = None
    audit: Audit | None = None
    rows: list[Row] | None = None
    rules: Rules = _NO_RULES

    async def all(
        self, changes: Sequence[Change], now: datetime, end: float, known: Befores = _NO_BEFORES
    ) -> list[Stored]:
        """Make all of ``changes``, or none; a refusal has the place of its change. ``known`` are
        documents that the transaction has read already."""
        async with self.keys.writing():
            unread = [one for one in changes if (one.type, one.id) not in known or _by_keys(one)]
            befores = {**known, **await self._befores(unread)}
            made: dict[int, Judged] = {}
            for count, (place, change) in enumerate(sorted(enumerate(changes), key=_targets_first)):
                if count % _PAUSE_EVERY == _PAUSE_EVERY - 1:
                    await asyncio.sleep(0)
                made[place] = await self._judged(place, change, befores, now, made)
            judged = [made[place] for place in range(len(changes))]
            try:
                await self._written(judged, now, end)
            except _AtFault as error:
                raise error.faults[0] from None
            return [one.stored for one in judged]

    async def each(self, changes: Sequence[Change], now: datetime, end: float) -> list[Outcome]:
        """Make those of ``changes`` that are not refused; return what came of each.

        Of a change that was asked for before (``once``), that is its first answer. Raises
        :class:`NotTogether`; for a change alone the refusal is returned like any other.
        """
        try:
            outcomes = await self._each_once(changes, now, end)
        except ClaimTaken:
            overtaken = await self._overtaken(changes)
            if not overtaken:
                raise  # whoever writes the claim has not come to an end yet
            if len(changes) == 1:
                return [Overtaken()]
            raise NotTogether(overtaken) from None
        # What is refused may be so because of what the first attempt has written.
        refused = {
            place: changes[place]
            for place, one in enumerate(outcomes)
            if isinstance(one, FhirError) and changes[place].once
        }
        if refused and (first := await self._first_of(refused.values())):
            for place, change in refused.items():
                try:
                    outcomes[place] = await self._again(change, first) or outcomes[place]
                except FhirError as error:
                    outcomes[place] = error
        return outcomes

    async def _each_once(
        self, changes: Sequence[Change], now: datetime, end: float
    ) -> list[Outcome]:
        try:
            return await self._each(changes, now, end, _NONE)
        except KeyTaken:
            first = await self._first_of(changes)
            if not first:
                raise  # whoever has the key has not come to an end yet
            return await self._each(changes, now, end, first)

    async def _overtaken(self, changes: Sequence[Change]) -> list[int]:
        """Return the places of those that have a claim which is not as they have seen it."""
        names = {name for change in changes for name in change.claims}
        is_now = await seen_claims(self.database, names)
        return [
            place
            for place, change in enumerate(changes)
            if any(is_now[name] != was for name, was in change.claims.items())
        ]

    async def _first_of(self, changes: Iterable[Change]) -> Mapping[str, Document]:
        asked = [change.once.asked for change in changes if change.once]
        return await found_answers(self.database, asked)

    async def _each(
        self, changes: Sequence[Change], now: datetime, end: float, first: Mapping[str, Document]
    ) -> list[Outcome]:
        async with self.keys.writing():
            befores = await self._befores(changes)
            outcomes: list[Judged | Response | FhirError] = []
            for place, change in enumerate(changes):
                try:
                    again = await self._again(change, first)
                    outcomes.append(again or await self._judged(place, change, befores, now))
                except FhirError as error:
                    outcomes.append(error)
            places = [n for n, one in enumerate(outcomes) if isinstance(one, Judged)]
            try:
                judged = [one for one in outcomes if isinstance(one, Judged)]
                await self._written(judged, now, end, first)
            except _AtFault as error:
                if len(changes) == 1:
                    return [error.faults[0]]
                raise NotTogether(
                    places[one.place] for one in error.faults if one.place is not None
                ) from error
        return [one.stored if isinstance(one, Judged) else one for one in outcomes]

    async def _again(self, change: Change, first: Mapping[str, Document]) -> Response | None:
        """Return what ``change`` was answered the first time, if it was asked for before."""
        found = change.once and first.get(change.once.asked.id)
        if not found or not change.once:
            return None
        seen = self.database
        if change.access is not None:  # it may have been hidden since
            seen = Visible(seen, change.access, self.judge.index).as_database
        return await told(seen, found, change.once.asked)

    async def _judged(
        self,
        place: int,
        change: Change,
        befores: Befores,
        now: datetime,
        made: Mapping[int, Judged] = _NONE_MADE,
    ) -> Judged:
        """Return what ``change``, at ``place``, comes to once ``made`` is written."""
        before = befores.get((change.type, change.id))
        belonging = NOWHERE
        while True:
            try:
                return self.judge.judged(change, before, now, belonging)
            except Unlooked as open:
                known = Belonging(self.keys.table.base_urls, belonging.known)
                belonging = known.learned(await self._compartments(open.places, made))
            except FhirError as error:
                error.place = place
                raise

    async def _compartments(
        self, places: frozenset[str], made: Mapping[int, Judged]
    ) -> dict[str, Sequence[str]]:
        written = {
            f"{one.change.type}/{one.change.id}": one.after["compartments"]
            for one in made.values()
            if one.after is not None
        }
        here = {one: written[one] for one in places & written.keys()}
        return {**await looked_up(self.database, self.session, places - here.keys()), **here}

    async def _written(
        self,
        judged: Sequence[Judged],
        now: datetime,
        end: float,
        over: Mapping[str, Document] = _NONE,
    ) -> None:
        """Write what ``judged`` came to, and the answers of those that are to be made once, in the
        place of answers whose time is ``over``."""
        effective = [one for one in judged if one.after is not None]
        # What stays as it is, but was to be at a certain version, must be so when the rest is
        # written: two bundles could otherwise each change what the other relies on.
        relied_on = [
            one
            for one in judged
            if one.after is None and one.before and one.change.relies_on_version
        ]
        owed = self.integrity.owed(judged)
        consents = self.denials.among(effective)
        claims = {name: was for one in judged for name, was in one.change.claims.items()}
        once = [(one.change.once, one.stored) for one in judged if one.change.once]
        answers = [await kept(one.asked, one.answer(stored)) for one, stored in once]
        rows = [row for one in judged for row in rows_of(one)] if self.audit else []
        ruled = any(self.rules.concern(one.change.type) for one in effective)

        async def work(lane: Lane | None, session: AsyncClientSession) -> None:
            if answers:  # first: where a key is taken, nothing has been written in vain
                await keep_answers(self.database, answers, over, session)
            if claims:
                await claim_as_seen(self.database, claims, session)
            await self.integrity.claim(owed, session)
            await self._apply(effective, relied_on, session)
            if consents:
                await self.denials.write(consents, session)
            followed = await self._followed(judged, now, end, session) if ruled else []
            if self.owed is not None:  # what follows in this transaction may put it right
                self.owed.take(owed)
            elif faults := await self.integrity.faults(owed, session):
                raise _AtFault(faults)
            if lane is not None:  # last: until the end of the transaction the lane waits for it
                await lane.append([*rows, *followed], session)
            elif self.rows is not None:
                self.rows.extend([*rows, *followed])

        if self.session is not None:
            await work(None, self.session)
        elif _is_one_insert(effective) and not (
            relied_on or owed or answers or claims or consents or ruled or rows
        ):
            await self._insert(effective[0])
        else:
            await self._transacted(work if effective or answers else None, rows, end)

    async def _followed(
        self, judged: Sequence[Judged], now: datetime, end: float, session: AsyncClientSession
    ) -> list[Row]:
        """Hold what is written to the rules, and make what follows; return the rows of that."""
        table = self.keys.table
        said = await self.rules.verdict(judged, self.database, session, table, now)
        if said.faults:
            for number, fault in said.faults.items():
                fault.place = number
            raise _AtFault(list(said.faults.values()))
        rows: list[Row] = []
        if said.then:
            owed = Owed() if self.owed is None else self.owed
            inside = replace(self, session=session, owed=owed, rows=rows)
            await inside.all(said.then, now, end)
        return rows

    async def _transacted(self, work: _Work | None, rows: Sequence[Row], end: float) -> None:
        """Do ``work`` in a transaction, which writes ``rows``; without any they go by the queue."""
        audit, client = self.audit, self.database.client
        if audit is None or not rows:
            if work is not None:
                await transacted(client, partial(work, None), end)
        elif work is None:
            for row in rows:
                audit.add(row)
            await audit.flushed()  # it is answered as done, as a change is
        else:
            async with audit.lane() as lane:
                await transacted(client, partial(work, lane), end)

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
        for type, some in _by_type(known, lambda change: change.type):
            group = list(some)
            ids = [change.id for change in group]
            filter = {"_id": ids[0] if len(ids) == 1 else {"$in": ids}}
            wanted = {**_BEFORE, "keys": 1} if any(map(_by_keys, group)) else _BEFORE
            cursor = self.database[type].find(filter, projection=wanted, session=self.session)
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


def rows_of(judged: Judged) -> list[Row]:
    """Return the audit rows of one change: none where nobody has said who asks for it."""
    change, stored = judged.change, judged.stored
    if change.record is None:
        return []
    places = [
        place
        for one in (judged.before, judged.after)
        if one
        for place in one.get("compartments", ())
    ]
    status = 204 if stored.deleted else 201 if stored.created else 200
    row = change.record.row(
        *(change.interaction, change.type, change.id),
        version=stored.version,
        concerns=places,
        status=status,
        reason=change.override,
    )
    return [row] if change.record.also is None else [row, change.record.also]


def _by_keys(change: Change) -> bool:
    """Whether keys decide who may make ``change``."""
    plan = change.access
    return plan is not None and any(
        asks_keys(one)
        for one in (
            plan.seen(change.type),
            *(plan.changed(change.type, letter) for letter in "cud"),
        )
    )


def _targets_first(placed: tuple[int, Change]) -> tuple[bool, int]:
    return placed[1].type == PROVENANCE, placed[0]


def _is_one_insert(judged: Sequence[Judged]) -> bool:
    return len(judged) == 1 and judged[0].before is None


def _by_type(
    items: Iterable[Any], type_of: Callable[[Any], str]
) -> Iterable[tuple[str, Iterable[Any]]]:
    return groupby(sorted(items, key=type_of), key=type_of)
