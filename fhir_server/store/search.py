"""Runs a plan: filter, order, one page, and the total if it is asked for.

https://hl7.org/fhir/R4/search.html
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bson import Decimal128
from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.search.plan import Plan
from fhir_server.search.sort import SortKey
from fhir_server.store import joins
from fhir_server.store.client import Database
from fhir_server.store.documents import PRESENT, SERVED, Document, Stored, stored
from fhir_server.store.includes import NOTHING_INCLUDED, Gathering, Included, fields_for
from fhir_server.store.rows import rows_within


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a search. ``after`` is the key of its last row when there are more rows.

    ``included`` is what comes along.
    """

    entries: tuple[Stored, ...]
    after: tuple[Any, ...] | None
    total: int | None
    included: Included = NOTHING_INCLUDED


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a page may hold: bytes of matches, and of includes; includes."""

    bytes_max: int
    includes_max: int


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a plan is run: the collection, the session, how much a page may hold, and the stages
    that drop rows after they are ordered and before they are counted; what more of a row is
    wanted."""

    collection: Any
    session: AsyncClientSession | None
    bytes_max: int
    stages: tuple[Document, ...] = ()
    fields: tuple[str, ...] = ()


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
    if plan.ranged:
        filter = await _key_by_key(database[plan.type], session, plan.filter, plan.ranged)
        plan = replace(plan, filter=filter)
    fields = tuple(fields_for(plan.type, plan.includes))
    source = _Source(database[plan.type], session, bounds.bytes_max, fields=fields)
    source, filter, known = await _joined(database, source, plan, types)
    total = await _total(source, plan, filter)
    if plan.count == 0:
        return Page((), None, total)
    rows, cut = known or await _rows(source, plan, filter)
    shown, more = rows[: plan.count], cut or len(rows) > plan.count
    if total is None and not more and plan.after is None:
        total = len(shown)
    after = _row_key(plan.sort, shown[-1]) if more else None
    included = NOTHING_INCLUDED
    if plan.includes and shown:
        limits = (bounds.includes_max, bounds.bytes_max)
        gathering = Gathering(database, session, types, plan.includes, *limits, plan.rest)
        included = await gathering.of({plan.type: shown})
    if plan.rest is not None:
        return Page((), plan.until, None, included)
    return Page(tuple(stored(plan.type, row) for row in shown), after, total, included)


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
            return Page(tuple(shown), (plan.type,), None)
        shown += page.entries
        if page.after:
            return Page(tuple(shown), (plan.type, *page.after), None)
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


Rows = tuple[list[Document], bool]
_KEYS_MAX = 8  # a code is in one system, or in a few


async def _key_by_key(
    collection: Any, session: AsyncClientSession | None, filter: Document, field: str
) -> Document:
    """Return ``filter`` with the keys that are there in the place of the range at ``field``."""
    range = filter[field]["$elemMatch"]
    low, high = range["$gte"], range["$lt"]
    known: list[str] = []
    while len(known) < _KEYS_MAX:
        another = {field: {"$elemMatch": {**range, "$nin": known}}}
        row = await collection.find_one(another, projection={field: 1, "_id": 0}, session=session)
        if row is None:
            return {**filter, field: {"$in": known}}
        known += (
            key for key in joins.values_at(row, field) if low <= key < high and key not in known
        )
    return filter


async def _joined(
    database: Database, source: _Source, plan: Plan, types: Collection[str]
) -> tuple[_Source, Document, Rows | None]:
    """Return source and filter with the conditions on linked resources; and the rows of the page,
    where they were found on the way.

    The smallest side first: a handful on the inner side is listed, few on the outer side are looked
    up. Where there are more on both, some on the inner side are listed; of more than some, the
    first candidates are looked up, which fills the page unless matches are rare; only then is as
    much listed as ever is. Decision 4.
    """
    selection, session = plan.selection, source.session
    first = joins.Joins(database, session, types, joins.ONE_PAGE)
    condition = await first.condition(selection)
    if condition.stages:
        if few := await first.few(selection):
            return replace(source, stages=condition.stages), few, None
        second = joins.Joins(database, session, types, joins.FEW)
        condition = await second.condition(selection)
    found = replace(source, stages=condition.stages)
    if not condition.stages:
        return found, condition.filter, None
    rows: Rows | None = None
    if plan.count and not _in_two_parts(plan.sort):
        walk: Document = {"$limit": joins.CANDIDATES_MAX}
        some, cut = await _rows(
            replace(found, stages=(walk, *condition.stages)), plan, condition.filter
        )
        if cut or len(some) > plan.count:
            rows = some, cut
    if rows and plan.total != "accurate":
        return found, condition.filter, rows
    condition = await joins.Joins(database, session, types, joins.MANY).condition(selection)
    return replace(source, stages=condition.stages), condition.filter, rows


async def _total(source: _Source, plan: Plan, filter: Document) -> int | None:
    if plan.total == "none":
        return None
    if plan.total == "estimate" and not plan.filter and source.session is None:
        return int(await source.collection.estimated_document_count())
    if not source.stages:
        if filter == PRESENT:
            return await _count_all(source)
        return int(await source.collection.count_documents(filter, session=source.session))
    pipeline = [{"$match": filter}, *source.stages, {"$count": "n"}]
    cursor = await source.collection.aggregate(pipeline, session=source.session)
    rows = await cursor.to_list()
    return int(rows[0]["n"]) if rows else 0


async def _count_all(source: _Source) -> int:
    """Count what is not deleted by two indexes: what is there, less what is a deletion."""
    ids = await source.collection.count_documents({"_id": {"$gte": ""}}, session=source.session)
    deleted = await source.collection.count_documents({"deleted": True}, session=source.session)
    return int(ids - deleted)


async def _rows(source: _Source, plan: Plan, filter: Document) -> Rows:
    """Return the rows of the page and one more, so that it is known whether there is one; and
    whether some were left out for their size."""
    limit = plan.count + 1
    if _falls(plan.sort):
        conditions = [filter, *_window(plan)]
        if plan.sort and not source.stages:
            conditions = _rooted(conditions, plan.sort[0].field)
        return await _found(source, plan.sort, conditions, limit)
    if _in_two_parts(plan.sort):
        return await _by_one_key(source, plan, filter)
    pipeline = _pipeline(source, plan, filter, limit)
    cursor = await source.collection.aggregate(pipeline, session=source.session)
    return await rows_within(cursor, source.bytes_max)


async def _by_one_key(source: _Source, plan: Plan, filter: Document) -> Rows:
    """Order by a key that may be missing: first those that have it, in an index's order if there
    is one, then those that lack it, which MongoDB itself would put at the wrong end."""
    [key] = plan.sort
    limit = plan.count + 1
    rows: list[Document] = []
    if plan.after is None or plan.after[0] is not None:
        conditions = _rooted([filter, {key.field: {"$ne": None}}, *_window(plan)], key.field)
        rows, cut = await _found(source, plan.sort, conditions, limit)
        if cut or len(rows) == limit or (plan.until and plan.until[0] is not None):
            return rows, cut
    conditions = [filter, {key.field: None}]
    if plan.after is not None and plan.after[0] is None:
        conditions.append({"_id": {"$gt": plan.after[-1]}})
    if plan.until is not None:
        conditions.append({"_id": {"$lte": plan.until[-1]}})
    room = max(1, source.bytes_max - sum(len(row["json"]) for row in rows))
    lacking, cut = await _found(replace(source, bytes_max=room), (), conditions, limit - len(rows))
    return rows + lacking, cut


def _rooted(conditions: Sequence[Document], field: str) -> list[Document]:
    """Return ``conditions`` as the alternatives of one of them that are about ``field``, if there
    are such, the others in each: MongoDB then merges what its indexes give in the order of
    ``field``. Of alternatives beside other conditions it finds all, and puts them in order.
    """
    flat: list[Document] = []
    waiting = list(conditions)
    while waiting:
        one = waiting.pop(0)
        waiting[:0] = one.get("$and", ())
        flat += ({name: value} for name, value in one.items() if name != "$and")
    for place, one in enumerate(flat):
        branches = one.get("$or", ())
        if branches and all(field in branch for branch in branches):
            rest = [*flat[:place], *flat[place + 1 :]]
            rest = [other for other in rest if other != {field: {"$ne": None}}]
            return [{"$or": [{"$and": [branch, *rest]} for branch in branches]}]
    return list(conditions)


async def _found(
    source: _Source, sort: Sequence[SortKey], conditions: list[Document], limit: int
) -> Rows:
    filter = {"$and": conditions} if len(conditions) > 1 else conditions[0]
    fields = SERVED | dict.fromkeys(source.fields, 1) | {key.field: 1 for key in sort}
    order = {field: -1 if descending else 1 for field, descending in _order(sort)}
    if source.stages:
        pipeline: list[Document] = [{"$match": filter}, {"$sort": order}, *source.stages]
        pipeline += [{"$limit": limit}, {"$project": fields}]
        joined = await source.collection.aggregate(pipeline, session=source.session)
        return await rows_within(joined, source.bytes_max)
    cursor = source.collection.find(filter, projection=fields, session=source.session)
    return await rows_within(cursor.sort(order).limit(limit), source.bytes_max)


def _order(sort: Sequence[SortKey]) -> list[tuple[str, bool]]:
    """Return the fields of the order and whether each goes down; the last is always the id.

    Where the id is not asked for, it goes against the key before it: an index (date descending,
    _id ascending) is then read forward for ``-date``, backward for ``date``.
    """
    fields = [(key.field, key.descending) for key in sort]
    if fields and fields[-1][0] == "_id":
        return fields
    return [*fields, ("_id", bool(fields) and not fields[-1][1])]


def _falls(sort: Sequence[SortKey]) -> bool:
    """Return whether MongoDB's own order is the one that is asked for: values that are missing,
    which it takes for the least of all, come last."""
    if all(key.present for key in sort):
        return True
    return len(sort) == 1 and sort[0].single and sort[0].descending


def _in_two_parts(sort: Sequence[SortKey]) -> bool:
    """Return whether what has a value is asked first, and what lacks it afterwards."""
    return len(sort) == 1 and sort[0].single and not _falls(sort)


def _window(plan: Plan) -> list[Document]:
    """Return the conditions for rows after ``plan.after`` and up to ``plan.until``, if given."""
    fields = _order(plan.sort)
    conditions = [_after(fields, plan.after)] if plan.after is not None else []
    if plan.until is not None and (None not in plan.until or _falls(plan.sort)):
        conditions.append({"$nor": [_after(fields, plan.until)]})
    return conditions


def _after(fields: Sequence[tuple[str, bool]], values: Sequence[Any]) -> Document:
    """(a, b, _id) > (x, y, id), each in its direction, as MongoDB must be told it.

    The first condition lets an index begin at the right place; only what has the same value there
    is then looked at in vain. What goes down ends with what has no value at all.
    """
    first, falls = fields[0]
    bound: Document = {}
    if len(fields) > 1 and values[0] is not None:
        bound = {first: {"$not": {"$gt": values[0]}} if falls else {"$gte": values[0]}}
    alternatives: list[Document] = []
    equal: Document = {}
    for (field, descending), value in zip(fields, values, strict=True):
        if value is not None:
            beyond = {"$not": {"$gte": value}} if descending else {"$gt": value}
            alternatives.append({**equal, field: beyond})
        equal[field] = value
    one = {"$or": alternatives} if len(alternatives) > 1 else alternatives[0]
    return {"$and": [bound, one]} if bound else one


def _pipeline(source: _Source, plan: Plan, filter: Document, limit: int) -> list[Document]:
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
    fields.append(_order(plan.sort)[-1])
    flags = {f"_m{place}": {"$eq": [f"$_k{place}", None]} for place in range(len(keys))}
    stages: list[Document] = [{"$match": filter}, {"$set": computed}, {"$set": flags}]
    if plan.after is not None:
        stages.append({"$match": _after(fields, _flagged(plan.after))})
    if plan.until is not None:
        stages.append({"$match": {"$nor": [_after(fields, _flagged(plan.until))]}})
    order = {field: -1 if descending else 1 for field, descending in fields}
    kept = dict.fromkeys((*computed, *source.fields), 1)
    stages += [{"$sort": order}, *source.stages, {"$limit": limit}, {"$project": SERVED | kept}]
    return stages


def _flagged(key: tuple[Any, ...]) -> list[Any]:
    """Return the values of ``key``, a flag before each but the id."""
    *values, id = key
    return [*(part for value in values for part in (value is None, value)), id]


def _row_key(sort: Sequence[SortKey], row: Document) -> tuple[Any, ...]:
    """Return the values by which ``row`` was ordered, its id last."""
    keys = [key for key in sort if key.field != "_id"]
    return (*(_value(row, place, key) for place, key in enumerate(keys)), row["_id"])


def _value(row: Document, place: int, key: SortKey) -> Any:
    value: Any = row.get(f"_k{place}") if f"_k{place}" in row else row
    if value is row:
        for step in key.field.split("."):
            value = value.get(step) if isinstance(value, dict) else None
    return value.to_decimal() if isinstance(value, Decimal128) else value
