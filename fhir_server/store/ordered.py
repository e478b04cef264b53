"""The rows of a plan in their order, from one place to another, forward or backward.

https://hl7.org/fhir/R4/search.html#sort

The order is that of the sort keys, then of the id. Going backward the same order is read from its
other end, so that both ways show the same rows: a page back is what a page forward would have been.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from bson import Decimal128
from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.search.page import Edge
from fhir_server.search.plan import Plan
from fhir_server.search.sort import SortKey
from fhir_server.store.documents import SERVED, Document
from fhir_server.store.rows import rows_within

Fields = Sequence[tuple[str, bool]]
"""The fields of an order, each with whether it goes down; the last is always the id."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a plan is run: the collection, the session, how much a page may hold, and the stages
    that drop rows after they are ordered and before they are counted; what of a row is wanted."""

    collection: Any
    session: AsyncClientSession | None
    bytes_max: int
    stages: tuple[Document, ...] = ()
    fields: tuple[str, ...] = tuple(SERVED)


@dataclass(frozen=True, slots=True)
class Found:
    """Rows in their order. ``beyond`` is the next one in the direction of reading, if there is one:
    behind the last row, or, backward, before the first."""

    rows: list[Document]
    beyond: Document | None


async def found(source: Source, plan: Plan, filter: Document) -> Found:
    """Return the rows of ``plan``: at most ``plan.count``, and no more than the source may hold."""
    limit = plan.count + 1
    if all(key.present for key in plan.sort):
        fields = order_of(plan.sort)
        conditions = [filter, *_window(fields, plan.after, plan.until)]
        rows, left_out = await _read(source, fields, conditions, limit, plan.backward)
    elif len(plan.sort) == 1 and plan.sort[0].single:
        rows, left_out = await _by_one_key(source, plan, filter, limit)
    else:
        pipeline = _pipeline(source, plan, filter, limit)
        cursor = await source.collection.aggregate(pipeline, session=source.session)
        rows, left_out = await rows_within(cursor, source.bytes_max)
    shown = rows[: plan.count]
    beyond = rows[plan.count] if len(rows) > plan.count else left_out
    return Found(shown[::-1] if plan.backward else shown, beyond)


def order_of(sort: Sequence[SortKey]) -> list[tuple[str, bool]]:
    """Return the fields of the order.

    Where the id is not asked for, it goes against the key before it: an index (date descending,
    _id ascending) is then read forward for ``-date``, backward for ``date``.
    """
    fields = [(key.field, key.descending) for key in sort]
    if fields and fields[-1][0] == "_id":
        return fields
    return [*fields, ("_id", bool(fields) and not fields[-1][1])]


def row_key(sort: Sequence[SortKey], row: Document) -> tuple[Any, ...]:
    """Return the values by which ``row`` was ordered, its id last."""
    keys = [key for key in sort if key.field != "_id"]
    return (*(_value(row, place, key) for place, key in enumerate(keys)), row["_id"])


async def _by_one_key(
    source: Source, plan: Plan, filter: Document, limit: int
) -> tuple[list[Document], Document | None]:
    """Order by a key that may be missing: first those that have it, in an index's order if there
    is one, then those that lack it, which MongoDB itself would put at the wrong end."""
    fields = order_of(plan.sort)
    field, after, until = fields[0][0], plan.after, plan.until
    halves: list[tuple[Fields, list[Document]]] = []
    if after is None or after.key[0] is not None:
        end = until if until is not None and until.key[0] is not None else None
        having: Document = {field: {"$ne": None}}
        halves.append((fields, [filter, having, *_window(fields, after, end)]))
    if until is None or until.key[0] is None:
        ids = fields[-1:]
        begin = _of_id(after) if after is not None and after.key[0] is None else None
        window = _window(ids, begin, _of_id(until))
        halves.append((ids, [filter, {field: None}, *window]))
    rows: list[Document] = []
    room = source.bytes_max
    for order, conditions in reversed(halves) if plan.backward else halves:
        here = replace(source, bytes_max=max(1, room))
        more, left_out = await _read(here, order, conditions, limit - len(rows), plan.backward)
        rows += more
        if left_out is not None or len(rows) == limit:
            return rows, left_out
        room -= sum(len(row.get("json", b"")) for row in more)
    return rows, None


def _of_id(edge: Edge | None) -> Edge | None:
    return edge and replace(edge, key=edge.key[-1:])


async def _read(
    source: Source, fields: Fields, conditions: list[Document], limit: int, backward: bool
) -> tuple[list[Document], Document | None]:
    """Return the first rows that meet ``conditions``, of the order or, ``backward``, from its end;
    and the first that was left out for its size."""
    filter = {"$and": conditions} if len(conditions) > 1 else conditions[0]
    wanted = dict.fromkeys((*source.fields, *(field for field, _ in fields)), 1)
    order = {field: -1 if descending != backward else 1 for field, descending in fields}
    if source.stages:
        pipeline: list[Document] = [{"$match": filter}, {"$sort": order}, *source.stages]
        pipeline += [{"$limit": limit}, {"$project": wanted}]
        joined = await source.collection.aggregate(pipeline, session=source.session)
        return await rows_within(joined, source.bytes_max)
    cursor = source.collection.find(filter, projection=wanted, session=source.session)
    return await rows_within(cursor.sort(order).limit(limit), source.bytes_max)


def _window(fields: Fields, after: Edge | None, until: Edge | None) -> list[Document]:
    """Return the conditions for rows after ``after`` and before ``until``, if they are given."""
    conditions = []
    if after is not None:
        conditions.append(_beyond(fields, after.key, also=not after.behind))
    if until is not None:
        turned = [(field, not descending) for field, descending in fields]
        conditions.append(_beyond(turned, until.key, also=until.behind))
    return conditions


def _beyond(fields: Fields, values: Sequence[Any], *, also: bool) -> Document:
    """(a, b, _id) > (x, y, id), each in its direction, as MongoDB must be told it.

    With ``also``, the row with those values as well.
    """
    alternatives: list[Document] = []
    equal: Document = {}
    for place, ((field, descending), value) in enumerate(zip(fields, values, strict=True), 1):
        than = "$lt" if descending else "$gt"
        if also and place == len(fields):
            than += "e"
        alternatives.append({**equal, field: {than: value}})
        equal[field] = value
    return {"$or": alternatives} if len(alternatives) > 1 else alternatives[0]


def _pipeline(source: Source, plan: Plan, filter: Document, limit: int) -> list[Document]:
    """Order by computed keys: the least or greatest of an array, and missing values last.

    A missing value is told by a flag before each key, so that it is last in both directions.
    """
    computed: Document = {}
    fields: list[tuple[str, bool]] = []
    keys = [key for key in plan.sort if key.field != "_id"]
    for place, key in enumerate(keys):
        pick = "$max" if key.descending else "$min"
        value: Any = f"${key.field}" if key.single else {pick: f"${key.field}"}
        computed[f"_k{place}"] = {"$ifNull": [value, None]}
        fields += [(f"_m{place}", False), (f"_k{place}", key.descending)]
    fields.append(order_of(plan.sort)[-1])
    flags = {f"_m{place}": {"$eq": [f"$_k{place}", None]} for place in range(len(keys))}
    stages: list[Document] = [{"$match": filter}, {"$set": computed}, {"$set": flags}]
    window = _window(fields, _flagged(plan.after), _flagged(plan.until))
    stages += ({"$match": condition} for condition in window)
    order = {field: -1 if descending != plan.backward else 1 for field, descending in fields}
    kept = dict.fromkeys((*computed, *source.fields), 1)
    return [*stages, {"$sort": order}, *source.stages, {"$limit": limit}, {"$project": kept}]


def _flagged(edge: Edge | None) -> Edge | None:
    """Return ``edge`` with a flag before each value but the id."""
    if edge is None:
        return None
    *values, id = edge.key
    flagged = (part for value in values for part in (value is None, value))
    return replace(edge, key=(*flagged, id))


def _value(row: Document, place: int, key: SortKey) -> Any:
    value: Any = row.get(f"_k{place}") if f"_k{place}" in row else row
    if value is row:
        for step in key.field.split("."):
            value = value.get(step) if isinstance(value, dict) else None
    found: Decimal | Any = value.to_decimal() if isinstance(value, Decimal128) else value
    return found
