"""A search over several types: the plans of the types, and one order and one page over them.

https://hl7.org/fhir/R4/http.html#search

Without ``_sort`` types are read one behind the other, each in the order that a search of that type
has: an edge has the type, that order, the sort keys and the id. With it, the order is by the sort
keys, then by id, then by type: of each type at most one page is read, and the pages are merged. An
edge has the values in that order.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from fhir_server.outcome import FhirError, Issue
from fhir_server.search.include import Include, Place
from fhir_server.search.page import Edge, foreign_link
from fhir_server.search.parameter import Parameter
from fhir_server.search.plan import Plan

Row = tuple[tuple[Any, ...], str, dict[str, Any]]
"""The key of a row in the order of all types, its type, its document."""

# Rows that are compared for a page at most: a page over many types is shorter.
ROWS_MAX = 20_000


@dataclass(frozen=True, slots=True)
class Several:
    """A search over several types, ready to be run.

    ``plans`` are those of the types, each with its part of what the page begins and ends at;
    types that lie outside are not among them. ``after``, ``until``, ``backward``, ``includes`` and
    ``rest`` are as in :class:`Plan`. ``counted`` are the plans whose matches are to be counted.
    """

    plans: tuple[Plan, ...]
    count: int
    is_sorted: bool
    counted: tuple[Plan, ...] = ()
    after: Edge | None = None
    until: Edge | None = None
    backward: bool = False
    includes: tuple[Include, ...] = ()
    rest: Place | None = None


def several(
    plans: Sequence[Plan],
    after: Edge | None,
    until: Edge | None,
    *,
    backward: bool,
    is_sorted: bool = False,
    rest: Place | None = None,
) -> Several:
    """Return the search that ``plans``, one for each type in alphabetical order, are together.

    ``is_sorted`` says that they have one order, which was asked for.

    Raises ``value`` for an edge in an order that is not that of its plan any more.
    """
    is_sorted = is_sorted and bool(plans)
    count = max((plan.count for plan in plans), default=0)
    if is_sorted:
        count = min(count, max(1, ROWS_MAX // len(plans)))
    parts = (_part(plan, after, until, is_sorted=is_sorted) for plan in plans)
    return Several(
        plans=tuple(replace(one, count=count, backward=backward) for one in parts if one),
        count=count,
        is_sorted=is_sorted,
        counted=tuple(plan for plan in plans if plan.total != "none"),
        after=after,
        until=until,
        backward=backward,
        includes=tuple(dict.fromkeys(one for plan in plans for one in plan.includes)),
        rest=rest,
    )


def _part(plan: Plan, after: Edge | None, until: Edge | None, *, is_sorted: bool) -> Plan | None:
    """Return ``plan`` between two places in the order of all types; ``None`` if nothing is."""
    if is_sorted:
        return replace(plan, after=_at(after, plan.type), until=_at(until, plan.type))
    if after is not None:
        type = after.key[0]
        if plan.type < type:
            return None
        if plan.type == type:
            plan = replace(plan, after=_inside(after, plan))
    if until is not None:
        type = until.key[0]
        if plan.type > type:
            return None
        if plan.type == type:
            plan = replace(plan, until=_inside(until, plan))
    return plan


def order_name(plan: Plan) -> str:
    """Return what tells the order of ``plan`` from others that the same search could have."""
    return ",".join(f"{'-' if key.descending else ''}{key.code}" for key in plan.sort)


def _inside(edge: Edge, plan: Plan) -> Edge:
    """Return what ``edge`` is among the rows of ``plan``, whose type it names."""
    _, order, *values = edge.key
    if order != order_name(plan):  # the order of a search that asks for none is for us to choose
        raise foreign_link()
    return Edge(tuple(values))


def _at(edge: Edge | None, type: str) -> Edge | None:
    """Return what ``edge``, behind a row of some type, is among the rows of ``type``.

    Of rows with equal keys and ids, those of earlier types come first.
    """
    return edge and Edge(edge.key[:-1], behind=type <= edge.key[-1])


def merged(rows: Iterable[Row], descending: Sequence[bool]) -> list[Row]:
    """Return ``rows``, which begin with their keys, in the order of those; missing values are last.

    ``descending`` says of each value of a key, but for the type at its end, whether it goes down.
    """
    ordered = list(rows)
    # A sort keeps the order of what is equal: so the last value first, and the first one last.
    for place, down in reversed(list(enumerate((*descending, False)))):
        there = [row for row in ordered if row[0][place] is not None]
        missing = [row for row in ordered if row[0][place] is None]
        there.sort(key=partial(_value_at, place), reverse=down)
        ordered = there + missing
    return ordered


def _value_at(place: int, row: Row) -> Any:
    return row[0][place]


def check_sort(names: Sequence[str], tables: Mapping[str, Mapping[str, Parameter]]) -> None:
    """Refuse to order by what is one type of parameter in one resource type and another elsewhere.

    ``tables`` are the parameters of the types that are searched; all have ``names``.
    """
    for name in names:
        code = name.removeprefix("-")
        kinds = dict(_kinds(code, tables))
        if len(kinds) > 1:
            (kind, one), (other_kind, other), *_ = kinds.items()
            text = (
                f"_sort cannot order {one} and {other} together by {code}: it is of type {kind} "
                f"in the one, {other_kind} in the other."
            )
            raise FhirError(Issue("not-supported", text))


def _kinds(code: str, tables: Mapping[str, Mapping[str, Parameter]]) -> Iterator[tuple[str, str]]:
    for type, table in tables.items():
        if code in table:
            yield table[code].type, type
