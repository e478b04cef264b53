"""The verbs of the store: read, vread, write, history, search, and transactions around them.

The interactions of https://hl7.org/fhir/R4/http.html, as far as they concern the database.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import TypeVar, cast

from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.messages import NO_ENTRY, Resource, Response
from fhir_server.outcome import too_large
from fhir_server.r4.json import encode
from fhir_server.search.keys import Filter
from fhir_server.search.plan import Plan, linked_types
from fhir_server.search.several import Several
from fhir_server.search.wanted import Kin
from fhir_server.security.audit import EVENTS, Row
from fhir_server.security.plan import AccessPlan
from fhir_server.store import answers, audit_rows, history, search
from fhir_server.store.access import Visible
from fhir_server.store.audit import Audit, Lane, Recording
from fhir_server.store.calendar_links import CalendarLinks
from fhir_server.store.changes import Asked, Change
from fhir_server.store.claims import CLAIMS, Seen, claim
from fhir_server.store.client import NOTHING_WRITTEN, Database, deadline
from fhir_server.store.commit import Commit
from fhir_server.store.concepts import Concepts
from fhir_server.store.conformance import Conformance
from fhir_server.store.contained import contained_ids, own_ids
from fhir_server.store.denials import Denials
from fhir_server.store.distinct import Keyed, distinct
from fhir_server.store.documents import (
    HISTORY_SUFFIX,
    SERVED,
    Document,
    Shown,
    Stored,
    stored,
)
from fhir_server.store.explain import Watched, plan_text
from fhir_server.store.expunge import Expunging, Wanted
from fhir_server.store.fetch import Fetch
from fhir_server.store.granules import Granules
from fhir_server.store.guides import Guides, Parts, guides_of, parts_of
from fhir_server.store.inbox import Inbox
from fhir_server.store.indexes import Indexes
from fhir_server.store.integrity import Owed
from fhir_server.store.keys import KEYS, SEARCH_PARAMETER, SERVER, SearchKeys
from fhir_server.store.kin import kin
from fhir_server.store.moment import NO_MOMENT, Moment, at, latest
from fhir_server.store.offers import Offers
from fhir_server.store.one_behind_other import Part, one_behind_other
from fhir_server.store.outbox import Outbox
from fhir_server.store.proposals import Proposals
from fhir_server.store.queues import Queues
from fhir_server.store.rules import Inside
from fhir_server.store.search import AS_SHOWN, AS_STORED, Form, Listed, Page
from fhir_server.store.search_types import Types
from fhir_server.store.together import Answers, Named, together
from fhir_server.store.transactions import repeated, transacted
from fhir_server.store.versions import asks_keys
from fhir_server.store.writer import Befores

T = TypeVar("T")
Found = TypeVar("Found")

_NARROWED = "narrowed"
_NOTHING_KNOWN: Befores = MappingProxyType({})
_SEARCH_ADVICE = "Narrow the search by another parameter."
_READ_ADVICE = "Ask for less, or try again when the server is less busy."


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds that a request, a write and a search may take in the database."""

    request_s: float
    write_s: float
    search_s: float


@dataclass(frozen=True, slots=True)
class ResourceStore:
    """Resources in MongoDB. Bound to a session inside a transaction, else to none.

    ``fetch`` reads resources, ``beside`` what else a write has to know, by id. ``audit`` is where
    is recorded what is done, ``None`` where that is off; ``record`` is of the request under way,
    ``rows`` what its transaction is to write of it. ``override`` is why a rule is not to hold for
    what is written (``rules.py``).
    """

    database: Database
    indexes: Indexes
    timeouts: Timeouts
    page_bytes_max: int
    includes_max: int
    fetch: Fetch
    beside: Fetch
    commit: Commit
    keys: SearchKeys
    concepts: Concepts
    conformance: Conformance
    denials: Denials
    session: AsyncClientSession | None = None
    owed: Owed | None = None
    plan: AccessPlan | None = None
    audit: Audit | None = None
    record: Recording | None = None
    rows: list[Row] | None = None
    override: str = ""

    def narrowed(self, plan: AccessPlan) -> "ResourceStore":
        """Return this store as far as ``plan`` lets it be seen and changed; a plan that it is
        narrowed to already is replaced. Section 3 of design/security.md.

        Of a store that is bound to no request, the plan keeps what was made for the one before."""
        base, found = plan.kept.get(_NARROWED, (None, None))
        if base is self and found is not None:
            return cast(ResourceStore, found)
        visible = Visible(self._whole, plan, self.commit.writer.judge.index)
        narrowed = replace(self, database=visible.as_database, plan=plan)
        if self.session is None and self.record is None and self.rows is None:
            plan.kept[_NARROWED] = self, narrowed
        return narrowed

    @property
    def as_server(self) -> "ResourceStore":
        """This store whole: for what the server itself has to know to do its work, such as
        definitions. Nothing that is read so may be answered to a client."""
        return replace(self, database=self._whole, plan=None)

    async def as_of(self, moment: Moment | None = None) -> tuple["ResourceStore", Moment]:
        """Return this store as it was at ``moment``, and that moment; without one it is now.
        Searches of it see nothing that was written later. What a transaction reads is of one moment
        anyway.

        A search of it raises 410 where the database does not know the moment any more.
        """
        if self.session is not None:
            return self, NO_MOMENT
        moment = moment or await latest(self._whole, self.timeouts.request_s)
        whole = at(self._whole, moment)
        database = self.database
        if isinstance(database, Visible):
            whole = replace(database, whole=whole).as_database
        return replace(self, database=whole), moment

    @property
    def _whole(self) -> Database:
        database = self.database
        return database.whole if isinstance(database, Visible) else database

    def inside(self, now: datetime) -> Inside:
        """Return the transaction of this store as rules see it. It is for what the server does by
        itself: rules see everything."""
        rules = self.commit.writer.rules
        assert self.session is not None
        assert self.plan is None
        assert rules.settings is not None
        return Inside(self.database, self.session, self.keys.table, rules.settings, now)

    @property
    def granules(self) -> Granules:
        """The times that are taken, in the same transaction where there is one: whose they are is
        not to be told."""
        return Granules(self._whole, self.session)

    @property
    def proposals(self) -> Proposals:
        """What was proposed, to whom."""
        return Proposals(self.database, self.timeouts.request_s)

    @property
    def inbox(self) -> Inbox:
        """The messages received, in the same transaction where there is one."""
        return Inbox(self.database, self.session, self.timeouts.write_s)

    @property
    def offers(self) -> Offers:
        """Times that became free, and who was asked for them, in the same transaction where there
        is one."""
        return Offers(self.database, self.session, self.timeouts.write_s)

    @property
    def calendar_links(self) -> CalendarLinks:
        """The secret addresses of calendars."""
        return CalendarLinks(self._whole, self.timeouts.write_s)

    @property
    def queues(self) -> Queues:
        """Who waits where, in the same transaction where there is one."""
        return Queues(self.database, self.session, self.timeouts.request_s)

    @property
    def outbox(self) -> Outbox:
        """What is to leave this server, in the same transaction where there is one."""
        return Outbox(self.database, self.session)

    async def read(self, type: str, id: str) -> Stored | None:
        """Return the current version of ``type/id``, which may be a deletion, or ``None``."""
        if self.session is None:
            found = await self.fetch.one(type, id, self.plan)
        else:
            found = await self.database[type].find_one(
                {"_id": id}, projection=SERVED, session=self.session
            )
        if found is None and self.plan is not None and asks_keys(self.plan.seen(type)):
            async with deadline(self.timeouts.request_s, _READ_ADVICE):
                found = await self.database[type].last_seen(id, SERVED, self.session)
        return stored(type, found) if found else None

    async def read_all(self, type: str, ids: Sequence[str]) -> list[Stored]:
        """Return the current versions of those of ``type`` that have one of ``ids``; what was
        deleted is among them."""
        filter = {"_id": {"$in": list(ids)}}
        return await self._all(type, filter)

    async def together(
        self, named: Sequence[Named], key: str = "", *, apart: bool = False
    ) -> Answers:
        """Return what is ``named``, and the row of the inbox that has ``key``.

        Inside a transaction it is certain that all which carries an identifier is found. Raises
        :class:`TooMuchTogether`, upon which the next attempt asks ``apart``.
        """
        place = (self.database, self.session)
        async with deadline(self.timeouts.request_s, _READ_ADVICE):
            found = await together(place, named, key, self._identifiers, apart=apart)
        if self.session is not None:
            await self.keys.check_against(found.keys)
        return found

    def _identifiers(self, type: str) -> str:
        return self.keys.table.of(type)["identifier"].field

    async def _all(self, type: str, filter: Filter) -> list[Stored]:
        async with deadline(self.timeouts.request_s, _READ_ADVICE):
            cursor = self.database[type].find(filter, projection=SERVED, session=self.session)
            return [stored(type, one) for one in await cursor.to_list()]

    async def in_compartment(self, type: str, place: str, after: str, most: int) -> list[Stored]:
        """Return those of ``type`` in the compartment ``place`` (``Patient/1``), in the order of
        their ids, ``most`` at most, from behind the id ``after`` on."""
        filter: Filter = {"compartments": place, "_id": {"$gt": after}}
        async with deadline(self.timeouts.request_s, _READ_ADVICE):
            cursor = self.database[type].find(filter, projection=SERVED, session=self.session)
            found = await cursor.sort("_id", 1).limit(most).to_list()
        return [stored(type, one) for one in found]

    async def one_behind_other(
        self, parts: Sequence[Part], most: int, bytes_max: int
    ) -> tuple[list[Shown], bool]:
        """Return what ``parts`` want of their types, in this order and that of ids, ``most`` and
        ``bytes_max`` of it; and whether there is more."""
        async with deadline(self.timeouts.search_s, _SEARCH_ADVICE):
            return await one_behind_other(self.database, self.session, parts, most, bytes_max)

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

    async def search_types(self, wanted: Several) -> Page[Shown]:
        """Return one page of what ``wanted`` finds in several types."""
        async with deadline(self.timeouts.search_s, _SEARCH_ADVICE):
            types = await self.indexes.existing()
            bounds = search.Bounds(self.page_bytes_max, self.includes_max)

            async def run(database: Database) -> Page[Shown]:
                return await Types(database, self.session, types, bounds).page(wanted)

            return await self._explained(wanted.plans, run)

    async def search(self, plan: Plan) -> Page[Stored]:
        """Return one page of what ``plan`` finds."""
        return await self._searched(plan, AS_STORED)

    async def searched(self, plan: Plan) -> Page[Shown]:
        """Return the same as an answer shows it, which costs less to read."""
        return await self._searched(plan, AS_SHOWN)

    async def _searched(self, plan: Plan, form: Form[Found]) -> Page[Found]:
        async with deadline(self.timeouts.search_s, _SEARCH_ADVICE):
            types = await self.indexes.in_use(linked_types(plan))
            bounds = search.Bounds(self.page_bytes_max, self.includes_max)

            async def run(database: Database) -> Page[Found]:
                place = (database, self.session, plan)
                return await search.run(*place, types=types, bounds=bounds, form=form)

            return await self._explained((plan,), run)

    async def listed(self, plan: Plan, fields: tuple[str, ...]) -> Listed:
        """Return what ``plan`` finds, ``fields`` of each document."""
        async with deadline(self.timeouts.search_s, _SEARCH_ADVICE):
            types = await self.indexes.in_use(linked_types(plan))
            place = (self.database, self.session)
            return await search.listed(
                *place, plan, fields, types=types, bytes_max=self.page_bytes_max
            )

    @property
    def explains(self) -> bool:
        """Whether a search may be explained here."""
        return self.session is None and self.plan is None

    async def _explained(
        self, plans: Sequence[Plan], run: Callable[[Database], Awaitable[Page[Found]]]
    ) -> Page[Found]:
        """Return the page that ``run`` finds, and how it came about if ``plans`` ask for that.

        A transaction cannot explain what it does, and to whom something is hidden nothing is
        explained: how much was looked at would say how much there is.
        """
        if not self.explains or not any(plan.explain for plan in plans):
            return await run(self.database)
        watched = Watched(self.database)
        page = await run(watched.as_database)
        texts = (*map(plan_text, plans), *await watched.explained())
        return replace(page, explained=texts)

    async def contained_ids(
        self, place: tuple[str, Sequence[str]], type: str, filter: Filter
    ) -> dict[str, list[str]]:
        """Return, by container, the ids of those resources of ``type`` in the containers at
        ``place`` (their type and ids) that meet ``filter``."""
        async with deadline(self.timeouts.search_s, _SEARCH_ADVICE):
            return await contained_ids(self.database, self.session, place, type, filter)

    async def own_ids(self, place: tuple[str, Sequence[str]], filter: Filter) -> set[str]:
        """Return the ids of those resources at ``place`` that themselves meet ``filter``."""
        async with deadline(self.timeouts.search_s, _SEARCH_ADVICE):
            return await own_ids(self.database, self.session, place, filter)

    async def kin(self, wanted: Kin) -> list[str]:
        """Return the ids of what lies above or below a resource, its own first."""
        async with deadline(self.timeouts.search_s, _SEARCH_ADVICE):
            return await kin(self.database, self.session, wanted)

    async def distinct(self, type: str, field: str, most: int) -> tuple[list[Keyed], bool]:
        """Return the keys at ``field``, each once, ``most`` at most; and whether that is all."""
        async with deadline(self.timeouts.search_s, _SEARCH_ADVICE):
            return await distinct(self.database, self.session, type, field, most)

    async def audit_row(self, id: str) -> Document | None:
        """Return the audit row at ``id``, if there is one."""
        async with deadline(self.timeouts.request_s, _READ_ADVICE):
            return await audit_rows.row(self.database, id)

    async def audit_page(self, wanted: audit_rows.Wanted) -> tuple[list[audit_rows.Found], bool]:
        """Return audit rows and AuditEvents, and whether there are more."""
        async with deadline(self.timeouts.search_s, _SEARCH_ADVICE):
            return await audit_rows.page(self.database, wanted)

    async def audit_count(self, wanted: audit_rows.Wanted) -> int:
        """Return how many of them there are."""
        async with deadline(self.timeouts.search_s, _SEARCH_ADVICE):
            return await audit_rows.count(self.database, wanted)

    async def expunge(self, wanted: Wanted) -> tuple[int, bool]:
        """Remove versions for good, for half of the time that a request has; return how many are
        gone, and whether nothing of what is ``wanted`` is left."""
        seconds = self.timeouts.request_s
        async with deadline(seconds, "What is gone is gone; ask again for the rest."):
            work = Expunging(self._whole, wanted, time.monotonic() + seconds / 2)
            complete = await work.run()
            if wanted.everything and SEARCH_PARAMETER in wanted.types:
                await self.keys.changed(self.session)
            await self.conformance.changed(wanted.types)
        return work.count, complete

    async def write(
        self, changes: Sequence[Change], now: datetime, known: Befores = _NOTHING_KNOWN
    ) -> list[Stored]:
        """Make all of ``changes``, or none, and return what each came to, in their order.

        No two of them may be of the same resource. ``now`` is UTC. The version before goes to
        history in the same transaction: no reader sees both, or neither. ``known`` are the current
        documents as this transaction has read them before; they are not read again.

        Raises ``conflict`` where a precondition forbids one, ``transient`` under contention.
        """
        denied = self.denials.changes
        stored = await self._written(changes, now, known)
        if self.session is None:
            await self.denials.settle(denied)
        if any(one.type == SEARCH_PARAMETER and one.changed for one in stored):
            await self.keys.changed(self.session)
        written = {one.type for one in stored if one.changed}
        if self.session is None:
            await self.conformance.changed(written)
        else:
            self.conformance.mark(written)
        return stored

    async def _written(
        self, changes: Sequence[Change], now: datetime, known: Befores
    ) -> list[Stored]:
        async with deadline(self.timeouts.request_s, NOTHING_WRITTEN):
            await self.indexes.ensure({change.type for change in changes})
        changes = self._asked(changes)
        if self.session is None and len(changes) == 1:
            stored = await self.commit.one(changes[0], now, self.timeouts.write_s)
            assert isinstance(stored, Stored), "only what has a key has been answered before"
            self._recorded(changes)
            return [stored]
        writer = replace(self.commit.writer, session=self.session, owed=self.owed, rows=self.rows)
        # A bundle of thousands takes longer than one write, and is one request all the same.
        seconds = self.timeouts.request_s
        async with deadline(seconds, NOTHING_WRITTEN):
            if self.session is not None:
                return await writer.all(changes, now, 0, known)
            end = time.monotonic() + seconds
            all_stored = await repeated(lambda: writer.all(changes, now, end), end)
        self._recorded(changes)
        return all_stored

    def _asked(self, changes: Sequence[Change]) -> list[Change]:
        """Return ``changes`` with what is known of whoever asks for them."""
        drafts = [one.record for one in changes]
        if self.record is not None and self.audit is not None:
            drafts = [one or self.record.draft for one in drafts]
            if self.session is None and drafts and drafts[0] and self.record.together:
                drafts[0] = replace(drafts[0], also=self.record.together)
        return [
            replace(
                one,
                access=None if one.by_server else self.plan,
                override=self.override or one.override,
                record=draft,
            )
            for one, draft in zip(changes, drafts, strict=True)
        ]

    def _recorded(self, changes: Sequence[Change]) -> None:
        """Note that the rows of ``changes`` are written."""
        if self.record is not None:
            drafts = [one.record for one in changes if one.record is not None]
            self.record.written.update(one.entry for one in drafts)
            if any(one.also is not None for one in drafts):
                self.record.written.add(NO_ENTRY)

    async def check_deletable(self, type: str, id: str) -> None:
        """Raise what a deletion of ``type/id`` would raise at this moment."""
        async with deadline(self.timeouts.request_s, _READ_ADVICE):
            await self.commit.writer.integrity.check_one(type, id, None, self.plan)

    async def check_storable(self, resource: Resource, id: str = "") -> None:
        """Raise what writing ``resource`` would raise at this moment."""
        type = resource["resourceType"]
        most = self.commit.writer.judge.resource_bytes_max
        if len(encode(resource)) > most:
            raise too_large("The resource", most)
        async with deadline(self.timeouts.request_s, _READ_ADVICE):
            await self.commit.writer.integrity.check_one(type, id, resource, self.plan)

    async def parts(self) -> Parts:
        """Return the packages that are not whole."""
        return await parts_of(self._whole, self.conformance)

    async def guides(self) -> Guides:
        """Return the profiles and guides that are stored."""
        return await guides_of(self._whole, self.conformance)

    async def write_once(self, change: Change, now: datetime) -> Stored | Response:
        """Make ``change``, which says how it is made ``once``, like :meth:`write`; or return what
        was answered to it the first time.

        Raises ``business-rule`` where another request has the key.
        """
        assert self.session is None, "what others do in the transaction would be done once more"
        async with deadline(self.timeouts.request_s, NOTHING_WRITTEN):
            await self.indexes.ensure({change.type})
        [change] = self._asked([change])
        denied = self.denials.changes
        outcome = await self.commit.one(change, now, self.timeouts.request_s)
        if isinstance(outcome, Stored):
            self._recorded([change])
        await self.denials.settle(denied)
        if change.type == SEARCH_PARAMETER:
            await self.keys.changed()
        return outcome

    async def answered(self, asked: Asked) -> Response | None:
        """Return what was answered to ``asked``, if anything. Takes no key."""
        async with deadline(self.timeouts.request_s, NOTHING_WRITTEN):
            found = await answers.found_answers(self.database, [asked])
            return await answers.told(self.database, found[asked.id], asked) if found else None

    async def claim(self, names: Sequence[str], *, checked: bool = False) -> None:
        """Let no other transaction that claims one of ``names`` be committed beside this one.

        Only inside a transaction. ``checked`` says that :meth:`together` has searched in it, and
        that the keys were complete.
        """
        assert self.session is not None, "a claim is part of a transaction"
        if not checked:
            await self.keys.check(self.session)
        await claim(self.database, names, self.session)

    async def seen_claims(self, names: Sequence[str]) -> Seen:
        """Return what the claims ``names`` are now: for ``Change.claims``, before a search that
        finds nothing. Not in a transaction, which has :meth:`claim`."""
        assert self.session is None, "a transaction would see the claims of its beginning"
        found = await asyncio.gather(*(self.beside.one(CLAIMS, name) for name in names))
        return dict(zip(names, found, strict=True))

    async def check_searched(self) -> None:
        """Raise :class:`StaleRead` where this process has searched by keys that are not complete
        any more."""
        found = await self.beside.one(SERVER, KEYS)
        async with deadline(self.timeouts.request_s, NOTHING_WRITTEN):
            await self.keys.check_against(found)

    async def first_answer(self, asked: Asked) -> Response | None:
        """Return what was answered to ``asked``, or take its key and return ``None``.

        Only inside a transaction. Raises ``business-rule`` where another request has the key.
        """
        assert self.session is not None, "a key is taken together with what is written under it"
        return await answers.first_answer(self.database, asked, self.session)

    async def keep_answer(self, asked: Asked, answer: Response) -> None:
        """Keep ``answer`` for those who ask the same again. Only inside a transaction."""
        assert self.session is not None, "an answer is kept together with what it tells of"
        await answers.keep_answer(self.database, asked, answer, self.session)

    async def in_transaction(
        self,
        work: Callable[["ResourceStore"], Awaitable[T]],
        types: Iterable[str],
        seconds: float | None = None,
    ) -> T:
        """Run ``work`` on a store whose writes all happen or none do; return its result.

        ``work`` may run more than once and must have no other effect. ``types`` are those that it
        may write: a collection or index that is made while transactions hold its locks would wait
        for them, and they for it. Inside a transaction this joins it. ``seconds`` is how long it
        may take, as long as a request without it.
        """
        if self.session is not None:
            return await work(self)
        seconds = self.timeouts.request_s if seconds is None else seconds
        async with deadline(self.timeouts.request_s, NOTHING_WRITTEN):
            await self.indexes.ensure(types)
        end = time.monotonic() + seconds
        denied = self.denials.changes
        rows: list[Row] = []

        async def attempt() -> T:
            if self.audit is None:
                return await transacted(self.database.client, partial(inside, None), end)
            async with self.audit.lane() as lane:
                return await transacted(self.database.client, partial(inside, lane), end)

        async def inside(lane: Lane | None, session: AsyncClientSession) -> T:
            owed = Owed()
            rows.clear()  # of an attempt before
            result = await work(replace(self, session=session, owed=owed, rows=rows))
            await self.commit.writer.integrity.check(owed, session)
            if lane is not None:
                if rows and self.record is not None and self.record.together is not None:
                    rows.append(self.record.together)
                await lane.append(rows, session)
            return result

        # What is written inside is committed at the end: until then this process writes by the
        # table that it has now.
        async with deadline(seconds, NOTHING_WRITTEN), self.keys.writing():
            result = await repeated(attempt, end)
        if self.record is not None:
            # What an event says beside a request is not the row of the request.
            self.record.written.update(one.entry for one in rows if one.did not in EVENTS)
        await self.keys.take_up()
        await self.conformance.settle()
        await self.denials.settle(denied)
        return result
