"""Runs a plan: filter, order, one page, and the total if it is asked for.

https://hl7.org/fhir/R4/search.html
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.search.page import Edge
from fhir_server.search.plan import Plan
from fhir_server.store.client import Database
from fhir_server.store.documents import SERVED, SHOWN, Document, shown, stored
from fhir_server.store.explain import begin
from fhir_server.store.includes import NOTHING_INCLUDED, Gathering, Included, fields_for
from fhir_server.store.linked import linked
from fhir_server.store.ordered import Source, row_key
from fhir_server.store.totals import total_of

Row = TypeVar("Row")
_SIZE: tuple[tuple[str, Document], ...] = (("size", {"$binarySize": "$json"}),)


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """A page of a search.

    ``before`` is where it begins and ``after`` where it ends, each where there are further rows
    beyond. ``included`` is what comes along. ``explained`` says how it came
    about, a JSON object for each step, if that was asked for.
    """

    entries: tuple[Row, ...]
    after: Edge | None
    total: int | None
    included: Included = NOTHING_INCLUDED
    before: Edge | None = None
    explained: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Listed:
    """What a search finds, as documents: of each ``_id``, ``size``, which is the bytes of its JSON,
    and the fields that were asked for. ``more`` says that there are further ones."""

    rows: list[Document]
    more: bool


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a page may hold: bytes of matches, and of includes; includes."""

    bytes_max: int
    includes_max: int


@dataclass(frozen=True, slots=True)
class Form(Generic[Row]):
    """What is read of a row, and what becomes of it: a function of the type and the document."""

    fields: tuple[str, ...]
    made: Callable[[str, Document], Row]


AS_STORED = Form(tuple(SERVED), stored)
AS_SHOWN = Form(tuple(SHOWN), shown)


async def run(
    database: Database,
    session: AsyncClientSession | None,
    plan: Plan,
    *,
    types: Collection[str],
    bounds: Bounds,
    form: Form[Row],
) -> Page[Row]:
    """Return the page of ``plan``; its total where asked for, or where this page shows it.

    The page ends early rather than hold more JSON than ``bounds`` say, but has one row at least.
    ``types`` are those in use.
    """
    fields = (*form.fields, *fields_for(plan.type, plan.includes))
    source = Source(database[plan.type], session, bounds.bytes_max, fields=fields)
    asked = await linked(database, source, plan, types)
    begin(database, "total")
    total = await total_of(asked.source, plan, asked.filter)
    if plan.count == 0:
        return Page((), None, total)
    begin(database, "matches")
    page = await asked.page(plan)
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
    entries = tuple(form.made(plan.type, row) for row in page.rows)
    return Page(entries, after, total, included, before)


async def listed(
    database: Database,
    session: AsyncClientSession | None,
    plan: Plan,
    fields: tuple[str, ...],
    *,
    types: Collection[str],
    bytes_max: int,
) -> Listed:
    """Return what ``plan`` finds, without what is not among ``fields``: a resource that is only to
    be known of is not read. ``bytes_max`` bounds the JSON, where that is among them."""
    source = Source(database[plan.type], session, bytes_max, fields=fields, computed=_SIZE)
    asked = await linked(database, source, plan, types)
    page = await asked.page(plan)
    return Listed(page.rows, page.beyond is not None)


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
