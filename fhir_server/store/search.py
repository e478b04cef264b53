"""Runs a plan: filter, order, one page, and the total if it is asked for.

https://hl7.org/fhir/R4/search.html
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bson import Decimal128
from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.search.plan import Plan
from fhir_server.search.sort import SortKey
from fhir_server.store.client import Database
from fhir_server.store.documents import SERVED, Document, Stored, stored

_PRESENT = {"deleted": {"$exists": False}}


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a search. ``after`` is the key of its last row when there are more rows."""

    entries: tuple[Stored, ...]
    after: tuple[Any, ...] | None
    total: int | None


async def run(database: Database, session: AsyncClientSession | None, plan: Plan) -> Page:
    """Return the page of ``plan``; its total where asked for, or where this page shows it."""
    collection = database[plan.type]
    filter = {"$and": [plan.filter, _PRESENT]} if plan.filter else _PRESENT
    total = None
    if plan.total == "accurate":
        total = await collection.count_documents(filter, session=session)
    elif plan.total == "estimate":
        total = await collection.estimated_document_count() if not plan.filter else None
        if total is None:
            total = await collection.count_documents(filter, session=session)
    if plan.count == 0:
        return Page((), None, total)
    rows = await _rows(collection, session, plan, filter)
    shown, more = rows[: plan.count], len(rows) > plan.count
    if total is None and not more and plan.after is None:
        total = len(shown)
    after = _row_key(plan.sort, shown[-1]) if more else None
    return Page(tuple(stored(plan.type, row) for row in shown), after, total)


async def _rows(
    collection: Any, session: AsyncClientSession | None, plan: Plan, filter: Document
) -> list[Document]:
    """Return the rows of the page and one more, so that it is known whether there is one."""
    limit = plan.count + 1
    if all(key.present for key in plan.sort):
        return await _found(collection, session, plan.sort, [filter, *_behind(plan)], limit)
    if len(plan.sort) == 1 and plan.sort[0].single:
        return await _by_one_key(collection, session, plan, filter)
    cursor = await collection.aggregate(_pipeline(plan, filter, limit), session=session)
    found: list[Document] = await cursor.to_list()
    return found


async def _by_one_key(
    collection: Any, session: AsyncClientSession | None, plan: Plan, filter: Document
) -> list[Document]:
    """Order by a key that may be missing: first those that have it, in an index's order if there
    is one, then those that lack it, which MongoDB itself would put at the wrong end."""
    [key] = plan.sort
    limit = plan.count + 1
    rows: list[Document] = []
    if plan.after is None or plan.after[0] is not None:
        present = {key.field: {"$ne": None}}
        conditions = [filter, present, *_behind(plan)]
        rows = await _found(collection, session, plan.sort, conditions, limit)
    if len(rows) < limit:
        conditions = [filter, {key.field: None}]
        if plan.after is not None and plan.after[0] is None:
            conditions.append({"_id": {"$gt": plan.after[-1]}})
        rows += await _found(collection, session, (), conditions, limit - len(rows))
    return rows


async def _found(
    collection: Any,
    session: AsyncClientSession | None,
    sort: Sequence[SortKey],
    conditions: list[Document],
    limit: int,
) -> list[Document]:
    cursor = collection.find(
        {"$and": conditions} if len(conditions) > 1 else conditions[0],
        projection=SERVED | {key.field: 1 for key in sort},
        session=session,
    )
    order = [(key.field, -1 if key.descending else 1) for key in sort]
    rows: list[Document] = (
        await cursor.sort([*order, ("_id", _id_order(sort))]).limit(limit).to_list()
    )
    return rows


def _id_order(sort: Sequence[SortKey]) -> int:
    """Return the direction of the id behind ``sort``: against the last key's.

    An index (date descending, _id ascending) is then read forward for ``-date``, backward for
    ``date``.
    """
    return -1 if sort and not sort[-1].descending else 1


def _behind(plan: Plan) -> list[Document]:
    """Return the condition for rows after ``plan.after``, if it is given."""
    if plan.after is None:
        return []
    *values, id = plan.after
    fields = [(key.field, key.descending) for key in plan.sort]
    return [_after([*fields, ("_id", _id_order(plan.sort) < 0)], [*values, id])]


def _after(fields: Sequence[tuple[str, bool]], values: Sequence[Any]) -> Document:
    """(a, b, _id) > (x, y, id), each in its direction, as MongoDB must be told it."""
    alternatives: list[Document] = []
    equal: Document = {}
    for (field, descending), value in zip(fields, values, strict=True):
        alternatives.append({**equal, field: {"$lt" if descending else "$gt": value}})
        equal[field] = value
    return {"$or": alternatives} if len(alternatives) > 1 else alternatives[0]


def _pipeline(plan: Plan, filter: Document, limit: int) -> list[Document]:
    """Order by computed keys: the least or greatest of an array, and missing values last.

    A missing value is told by a flag before each key, so that it is last in both directions.
    """
    computed: Document = {}
    order: dict[str, int] = {}
    fields: list[tuple[str, bool]] = []
    for place, key in enumerate(plan.sort):
        pick = "$max" if key.descending else "$min"
        value: Any = f"${key.field}" if key.single else {pick: f"${key.field}"}
        computed[f"_k{place}"] = {"$ifNull": [value, None]}
        order |= {f"_m{place}": 1, f"_k{place}": -1 if key.descending else 1}
        fields += [(f"_m{place}", False), (f"_k{place}", key.descending)]
    flags = {f"_m{place}": {"$eq": [f"$_k{place}", None]} for place in range(len(plan.sort))}
    stages: list[Document] = [{"$match": filter}, {"$set": computed}, {"$set": flags}]
    if plan.after is not None:
        *values, id = plan.after
        flagged = [part for value in values for part in (value is None, value)]
        stages.append({"$match": _after([*fields, ("_id", False)], [*flagged, id])})
    kept = dict.fromkeys(computed, 1)
    return [*stages, {"$sort": {**order, "_id": 1}}, {"$limit": limit}, {"$project": SERVED | kept}]


def _row_key(sort: Sequence[SortKey], row: Document) -> tuple[Any, ...]:
    """Return the values by which ``row`` was ordered, its id last."""
    return (*(_value(row, place, key) for place, key in enumerate(sort)), row["_id"])


def _value(row: Document, place: int, key: SortKey) -> Any:
    value: Any = row.get(f"_k{place}") if f"_k{place}" in row else row
    if value is row:
        for step in key.field.split("."):
            value = value.get(step) if isinstance(value, dict) else None
    return value.to_decimal() if isinstance(value, Decimal128) else value
