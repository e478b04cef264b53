"""Audit rows and stored AuditEvents as one list, newest first or oldest first.

Both have a moment and an id; a page is the first of what is behind a place in that order.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

from fhir_server.security.plan import Filter, both
from fhir_server.store.audit import AUDIT
from fhir_server.store.client import Database
from fhir_server.store.documents import SERVED, Document, Stored, of_present, stored, value_at

AUDIT_EVENT = "AuditEvent"
_RECORDED = "keys.date.l"
_WITHOUT_HEAD = {"block": 0}

Place = tuple[datetime, str]
"""When something was recorded, and its id."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is searched: ``rows`` and ``resources`` are the filters of each, ``None`` for none of
    them. ``count`` are wanted from behind ``after`` on, ``newest`` first or last."""

    rows: Filter | None
    resources: Filter | None
    count: int
    newest: bool = True
    after: Place | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """One of either kind: a row as it is stored, or a resource."""

    place: Place
    row: Document | None = None
    resource: Stored | None = None


async def page(database: Database, wanted: Wanted) -> tuple[list[Found], bool]:
    """Return what is ``wanted``, and whether there is more."""
    found: list[Found] = []
    step = -1 if wanted.newest else 1
    most = wanted.count + 1
    if wanted.rows is not None:
        cursor = database[AUDIT].find(both(wanted.rows, _behind("at", wanted)), _WITHOUT_HEAD)
        rows = await cursor.sort([("at", step), ("_id", step)]).limit(most).to_list()
        found += [Found((one["at"], one["_id"]), row=one) for one in rows]
    if wanted.resources is not None:
        filter = of_present(both(wanted.resources, _behind(_RECORDED, wanted)))
        cursor = database[AUDIT_EVENT].find(filter, {**SERVED, _RECORDED: 1})
        events = await cursor.sort([(_RECORDED, step), ("_id", step)]).limit(most).to_list()
        found += [
            Found((value_at(one, _RECORDED), one["_id"]), resource=stored(AUDIT_EVENT, one))
            for one in events
        ]
    found.sort(key=lambda one: one.place, reverse=wanted.newest)
    return found[: wanted.count], len(found) > wanted.count


async def count(database: Database, wanted: Wanted) -> int:
    """Return how many there are of what is ``wanted``, wherever the page begins."""
    total = 0
    if wanted.rows is not None:
        total += await database[AUDIT].count_documents(wanted.rows)
    if wanted.resources is not None:
        total += await database[AUDIT_EVENT].count_documents(of_present(wanted.resources))
    return total


async def row(database: Database, id: str) -> Document | None:
    """Return the row at ``id``, a place in a chain."""
    found: Document | None = await database[AUDIT].find_one({"_id": id}, _WITHOUT_HEAD)
    return found


async def rows_between(
    database: Database, low: datetime | None, high: datetime | None
) -> AsyncIterator[Document]:
    """Yield the rows from ``low`` on and before ``high``, in the order of time."""
    bounds = {"$gte": low} if low else {}
    bounds |= {"$lt": high} if high else {}
    filter = {"at": bounds} if bounds else {}
    async for one in database[AUDIT].find(filter, _WITHOUT_HEAD).sort([("at", 1), ("_id", 1)]):
        yield one


def _behind(field: str, wanted: Wanted) -> Filter:
    if wanted.after is None:
        return {}
    moment, id = wanted.after
    beyond, reaching = ("$lt", "$lte") if wanted.newest else ("$gt", "$gte")
    # The first bound is what an index is read by; the second matters for one millisecond only.
    return {
        field: {reaching: moment},
        "$or": [{field: {beyond: moment}}, {"_id": {beyond: id}}],
    }
