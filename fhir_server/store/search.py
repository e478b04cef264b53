"""Runs a plan: filter, order, one page, and the total if it is asked for.

https://hl7.org/fhir/R4/search.html
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.search.page import Edge
from fhir_server.search.plan import Plan
from fhir_server.store.client import Database
from fhir_server.store.documents import SERVED, Document, Stored, stored
from fhir_server.store.includes import NOTHING_INCLUDED, Gathering, Included, fields_for
from fhir_server.store.joins import Joins
from fhir_server.store.ordered import Source, found, row_key


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a search.

    ``before`` is where it begins and ``after`` where it ends, each where there are further rows
    beyond. ``included`` is what comes along.
    """

    entries: tuple[Stored, ...]
    after: Edge | None
    total: int | None
    included: Included = NOTHING_INCLUDED
    before: Edge | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a page may hold: bytes of matches, and of includes; includes."""

    bytes_max: int
    includes_max: int


async def run(
    database: Database,
    session: AsyncClientSession | None,
    plan: Plan,
    *,
    types: Collection[str],
    bounds: Bounds,
) -> Page:
    """Return the page of ``plan``; its total where asked for, or where this page shows it.

    The page ends early rather than hold more JSON than ``bounds`` say, but has one row at least.
    ``types`` are those in use.
    """
    condition = await Joins(database, session, types).condition(plan.selection)
    fields = (*SERVED, *fields_for(plan.type, plan.includes))
    source = Source(database[plan.type], session, bounds.bytes_max, condition.stages, fields)
    total = await _total(source, plan, condition.filter)
    if plan.count == 0:
        return Page((), None, total)
    page = await found(source, plan, condition.filter)
    before, after = _edges(plan, page.rows, page.beyond)
    if total is None and before is None and after is None:
        total = len(page.rows)
    included = NOTHING_INCLUDED
    if plan.includes and page.rows:
        limits = (bounds.includes_max, bounds.bytes_max)
        gathering = Gathering(database, session, types, plan.includes, *limits, plan.rest)
        included = await gathering.of({plan.type: page.rows})
    if plan.rest is not None:
        return Page((), plan.until, None, included, before)
    entries = tuple(stored(plan.type, row) for row in page.rows)
    return Page(entries, after, total, included, before)


def _edges(
    plan: Plan, rows: Sequence[Document], beyond: Document | None
) -> tuple[Edge | None, Edge | None]:
    """Return where the page begins and ends, as far as there are rows beyond.

    What a page was asked to begin or end at is where the page beside it ends or begins: between
    the two nothing can be skipped.
    """
    if plan.backward:
        return (Edge(row_key(plan.sort, beyond)) if beyond else None), plan.until
    return plan.after, (Edge(row_key(plan.sort, rows[-1])) if beyond else None)


async def run_types(
    database: Database,
    session: AsyncClientSession | None,
    plans: Sequence[Plan],
    *,
    types: Collection[str],
    bounds: Bounds,
) -> Page:
    """Return the page of all ``plans``, one for each type, in their order.

    Only the first has an ``after``: a page begins with the type that the page before ended in.
    The key of the page after it begins with a type; nothing but a type is that type's beginning.
    """
    shown: list[Stored] = []
    for plan in plans:
        room = plan.count - len(shown)
        left = bounds.bytes_max - sum(len(one.json) for one in shown)
        full = room <= 0 or left <= 0
        wanted = replace(plan, count=1 if full else room, total="none")
        page = await run(
            database, session, wanted, types=types, bounds=replace(bounds, bytes_max=max(left, 1))
        )
        if full and page.entries:
            return Page(tuple(shown), Edge((plan.type,)), None)
        shown += page.entries
        if page.after:
            return Page(tuple(shown), Edge((plan.type, *page.after.key)), None)
    return Page(tuple(shown), None, None)


async def count_types(
    database: Database,
    session: AsyncClientSession | None,
    plans: Sequence[Plan],
    *,
    types: Collection[str],
    bounds: Bounds,
) -> int:
    """Return how many resources all ``plans`` find."""
    total = 0
    for plan in plans:
        wanted = replace(plan, count=0, total="accurate")
        page = await run(database, session, wanted, types=types, bounds=bounds)
        total += page.total or 0
    return total


async def _total(source: Source, plan: Plan, filter: Document) -> int | None:
    if plan.total == "none":
        return None
    if plan.total == "estimate" and not plan.filter and source.session is None:
        return int(await source.collection.estimated_document_count())
    if not source.stages:
        return int(await source.collection.count_documents(filter, session=source.session))
    pipeline = [{"$match": filter}, *source.stages, {"$count": "n"}]
    cursor = await source.collection.aggregate(pipeline, session=source.session)
    rows = await cursor.to_list()
    return int(rows[0]["n"]) if rows else 0
