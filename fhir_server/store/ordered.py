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
from fhir_server.store.documents import SERVED, Document, value_at
from fhir_server.store.rows import rows_within

Fields = Sequence[tuple[str, bool]]
"""The fields of an order, each with whether it goes down; the last is always the id."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a plan is run: the collection, the session, how much a page may hold, and the stages
    that drop rows after they are ordered and before they are counted; what of a row is wanted, as
    it is and ``computed``."""

    collection: Any
    session: AsyncClientSession | None
    bytes_max: int
    stages: tuple[Document, ...] = ()
    fields: tuple[str, ...] = tuple(SERVED)
    computed: tuple[tuple[str, Document], ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """Rows in their order. ``beyond`` is the next one in the direction of reading, if there is one:
    behind the last row, or, backward, before the first."""

    rows: list[Document]
    beyond: Document | None


async def found(source: Source, plan: Plan, filter: Document, candidates: int = 0) -> Found:
    """Return the rows of ``plan``: at most ``plan.count``, and no more than the source may hold.

    With ``candidates`` the stages of the source are applied to so many documents only; what is
    found ends early where that is not enough.
    """
    limit = plan.count + 1
    if all(key.present for key in plan.sort):
        parts = _parts(order_of(plan.sort), plan.after, plan.until)
        rows, left_out = await _read(source, parts, filter, limit, plan.backward, candidates)
    elif len(plan.sort) == 1 and plan.sort[0].single:
        parts = _parts_by_one_key(plan)
        rows, left_out = await _read(source, parts, filter, limit, plan.backward, candidates)
    else:
        source = replace(source, stages=_walk(source, candidates))
        pipeline = _pipeline(source, plan, filter, limit)
        cursor = await source.collection.aggregate(pipeline, session=source.session)
        rows, left_out = await rows_within(cursor, source.bytes_max)
    shown = rows[: plan.count]
    beyond = rows[plan.count] if len(rows) > plan.count else left_out
    return Found(shown[::-1] if plan.backward else shown, beyond)


async def found_among(
    source: Source, plan: Plan, filter: Document, candidates: int
) -> Found | None:
    """Return the rows of ``plan`` if they are among the first ``candidates`` that meet ``filter``:
    the stages of the source are applied to those only. ``None`` if they do not fill the page."""
    page = await found(source, plan, filter, candidates)
    return page if page.beyond is not None else None


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


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the rows: those that meet ``conditions``, in the order of ``fields``."""

    fields: Fields
    conditions: tuple[Document, ...] = ()

    def order(self, backward: bool) -> Document:
        """Return the order in which its rows are read."""
        return {field: -1 if descending != backward else 1 for field, descending in self.fields}


@dataclass(frozen=True, slots=True)
class _Stretch:
    """What one command reads: what meets ``condition``, in ``order``."""

    condition: Document
    order: Document


def _parts_by_one_key(plan: Plan) -> list[_Part]:
    """Order by a key that may be missing: first those that have it, in an index's order if there
    is one, then those that lack it, which MongoDB itself would put at the wrong end."""
    fields = order_of(plan.sort)
    (field, descending), after, until = fields[0], plan.after, plan.until
    if descending and until is None:
        return _falling(fields, after)
    parts: list[_Part] = []
    if after is None or after.key[0] is not None:
        end = until if until is not None and until.key[0] is not None else None
        having: Document = {field: {"$ne": None}}
        parts += _parts(fields, after, end, having)
    if until is None or until.key[0] is None:
        begin = after if after is not None and after.key[0] is None else None
        parts.append(_same(fields, None, begin, until))
    return parts


def _falling(fields: Fields, after: Edge | None) -> list[_Part]:
    """Return the rows from ``after`` to the end where MongoDB's own order is the one that is asked
    for: values that are missing, which it takes for the least of all, come last."""
    if after is None:
        return [_Part(fields)]
    value = after.key[0]
    same = _same(fields, value, after, None)
    if value is None:
        return [same]
    return [same, _Part(fields, ({fields[0][0]: {"$not": {"$gte": value}}},))]


def _parts(
    fields: Fields, after: Edge | None, until: Edge | None, having: Document | None = None
) -> list[_Part]:
    """Return the rows from one place to another as stretches, each between two bounds of an index.

    ``fields`` are a key and the id, or the id alone; ``having`` is the condition of having the key.
    One condition for all of it, (key, id) > (x, y), would be an ``$or``, and MongoDB then reads an
    index from its beginning more often than not: a page would cost more the further on it is.
    """
    if len(fields) == 1:
        return [_Part(fields, tuple(_window(fields, after, until)))]
    if after is not None and until is not None and after.key[0] == until.key[0]:
        return [_same(fields, after.key[0], after, until)]
    keys = fields[:1]
    ends = [edge and replace(edge, key=edge.key[:1]) for edge in (after, until)]
    # What is equal to a bound has a stretch of its own: before it, or behind.
    begin, end = (
        replace(edge, behind=behind) if edge else None
        for edge, behind in zip(ends, (True, False), strict=True)
    )
    between = _window(keys, begin, end) or ([having] if having else [])
    return [
        *([_same(fields, after.key[0], after, None)] if after is not None else []),
        _Part(fields, tuple(between)),
        *([_same(fields, until.key[0], None, until)] if until is not None else []),
    ]


def _same(fields: Fields, value: Any, after: Edge | None, until: Edge | None) -> _Part:
    """Return the rows whose key is ``value``, by their ids."""
    ids = fields[-1:]
    begin, end = (edge and replace(edge, key=edge.key[-1:]) for edge in (after, until))
    return _Part(ids, ({fields[0][0]: value}, *_window(ids, begin, end)))


async def _read(
    source: Source,
    parts: Sequence[_Part],
    filter: Document,
    limit: int,
    backward: bool,
    candidates: int,
) -> tuple[list[Document], Document | None]:
    """Return the first rows of ``parts`` that meet ``filter``, or, ``backward``, the last, the very
    last first; and the first that was left out for its size. ``candidates`` is as in ``found``."""
    rows: list[Document] = []
    room = source.bytes_max
    keys = {field for part in parts for field, _ in part.fields}
    here = replace(source, fields=(*source.fields, *keys))
    left = candidates
    stretches = [
        _Stretch(condition, part.order(backward))
        for part in (parts[::-1] if backward else parts)
        for condition in _conditions(part, filter, backward, merged=not source.stages)
    ]
    for stretch in stretches:
        here = replace(here, bytes_max=max(1, room), stages=_walk(source, left))
        more, left_out = await _read_stretch(here, stretch, limit - len(rows))
        if rows and more and len(more[0].get("json", b"")) > room:
            return rows, more[0]
        rows += more
        if left_out is not None or len(rows) == limit:
            return rows, left_out
        room -= sum(len(row.get("json", b"")) for row in more)
        if candidates and stretch is not stretches[-1]:
            left -= await source.collection.count_documents(
                stretch.condition, limit=left, session=source.session
            )
            if left <= 0:  # what else this part has was not looked at
                break
    return rows, None


def _walk(source: Source, candidates: int) -> tuple[Document, ...]:
    return ({"$limit": candidates}, *source.stages) if candidates else source.stages


def _conditions(part: _Part, filter: Document, backward: bool, *, merged: bool) -> list[Document]:
    """Return what rows of ``part`` have to meet; where that is several conditions, their rows come
    one behind the other. ``merged`` says that what alternatives find may be merged in order."""
    if merged and len(part.fields) > 1:
        (field, descending), *_ = part.fields
        return _rooted((filter, *part.conditions), field, descending != backward)
    return [{"$and": [filter, *part.conditions]} if part.conditions else filter]


def _rooted(conditions: Sequence[Document], field: str, descending: bool) -> list[Document]:
    """Return ``conditions`` as the alternatives of one of them that are about ``field``, if there
    are such, the others in each: MongoDB then merges what its indexes give in the order of
    ``field``. Of alternatives beside other conditions it finds all, and puts them in order.

    Where the first alternative has the upper end of ``field`` for itself, and that comes first, it
    is asked alone: it mostly fills the page. What begins before a date and goes on after it takes
    MongoDB longer to plan, a plan for each length, than to find that there is hardly any.
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
            each = [{"$and": [branch, *rest]} for branch in branches]
            if descending and _is_above([branch[field] for branch in branches]):
                return [each[0], {"$or": each[1:]}]
            return [{"$or": each}]
    return [{"$and": list(conditions)} if len(conditions) > 1 else conditions[0]]


def _is_above(bounds: Sequence[Any]) -> bool:
    """Whether the first of ``bounds`` begins where all others have ended at the latest."""
    first, *others = (one if isinstance(one, dict) else {} for one in bounds)
    begin = first.get("$gte")
    return begin is not None and all("$lt" in one and one["$lt"] <= begin for one in others)


async def _read_stretch(
    source: Source, stretch: _Stretch, limit: int
) -> tuple[list[Document], Document | None]:
    wanted = {**dict.fromkeys((*source.fields, "_id"), 1), **dict(source.computed)}
    if source.stages:
        pipeline: list[Document] = [{"$match": stretch.condition}, {"$sort": stretch.order}]
        pipeline += [*source.stages, {"$limit": limit}, {"$project": wanted}]
        joined = await source.collection.aggregate(pipeline, session=source.session)
        return await rows_within(joined, source.bytes_max)
    cursor = source.collection.find(stretch.condition, projection=wanted, session=source.session)
    return await rows_within(cursor.sort(stretch.order).limit(limit), source.bytes_max)


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
    computed = f"_k{place}"
    value = row[computed] if computed in row else value_at(row, key.field)
    found: Decimal | Any = value.to_decimal() if isinstance(value, Decimal128) else value
    return found
