"""Existence, filtering, subsetting and combining of collections.

http://hl7.org/fhirpath/N1/#functions
"""

from collections.abc import Mapping
from functools import cmp_to_key

from fhir_server.r4.fhirpath.comparison import compared, distinct, key, keys
from fhir_server.r4.fhirpath.environment import (
    BOOLEANS,
    Items,
    State,
    Step,
    integer,
    single,
    string,
    truth,
)
from fhir_server.r4.fhirpath.faults import FhirPathError
from fhir_server.r4.fhirpath.functions.function import Function
from fhir_server.r4.fhirpath.model import Value
from fhir_server.r4.fhirpath.tree import Node, Sign

# ------------------------------------------------------------------------------------- existence


def _all_of(wanted: bool) -> Function:
    def test(items: list[Value], arguments: list[list[Value]], state: State) -> bool:
        return all(_boolean(item) is wanted for item in items)

    return Function(0, 0, test=test)


def _any_of(wanted: bool) -> Function:
    def test(items: list[Value], arguments: list[list[Value]], state: State) -> bool:
        found = [_boolean(item) for item in items]
        return wanted in found

    return Function(0, 0, test=test)


def _boolean(item: Value) -> bool:
    value = single([item], "This function")
    if type(value) is not bool:
        raise FhirPathError("allTrue(), anyTrue(), allFalse() and anyFalse() take booleans")
    return value


def _exists(arguments: tuple[Items, ...], written: tuple[Node, ...]) -> Step:
    if not arguments:
        return lambda items, this, state: BOOLEANS[bool(items)]
    criteria = arguments[0]

    def step(items: list[Value], this: list[Value], state: State) -> list[Value]:
        before = state.index
        found = False
        for index, item in enumerate(items):
            state.index = index
            state.spend(1)
            if truth(criteria([item], state)):
                found = True
                break
        state.index = before
        return BOOLEANS[found]

    return step


def _all(arguments: tuple[Items, ...], written: tuple[Node, ...]) -> Step:
    criteria = arguments[0]

    def step(items: list[Value], this: list[Value], state: State) -> list[Value]:
        before = state.index
        found = True
        for index, item in enumerate(items):
            state.index = index
            state.spend(1)
            if not truth(criteria([item], state)):
                found = False
                break
        state.index = before
        return BOOLEANS[found]

    return step


def _is_distinct(items: list[Value], arguments: list[list[Value]], state: State) -> bool:
    state.weigh(items)
    return len(keys(items, state.units)) == len(items)


def _subset(items: list[Value], arguments: list[list[Value]], state: State) -> bool:
    state.weigh(items, arguments[0])
    return keys(items, state.units) <= keys(arguments[0], state.units)


def _superset(items: list[Value], arguments: list[list[Value]], state: State) -> bool:
    return _subset(arguments[0], [items], state)


# ------------------------------------------------------------------------------------- filtering


def _where(arguments: tuple[Items, ...], written: tuple[Node, ...]) -> Step:
    criteria = arguments[0]

    def step(items: list[Value], this: list[Value], state: State) -> list[Value]:
        before = state.index
        found = []
        for index, item in enumerate(items):
            state.index = index
            state.spend(1)
            if truth(criteria([item], state)):
                found.append(item)
        state.index = before
        return found

    return step


def _select(arguments: tuple[Items, ...], written: tuple[Node, ...]) -> Step:
    projection = arguments[0]

    def step(items: list[Value], this: list[Value], state: State) -> list[Value]:
        before = state.index
        found: list[Value] = []
        for index, item in enumerate(items):
            state.index = index
            projected = projection([item], state)
            state.spend(1 + len(projected))
            found += projected
        state.index = before
        return found

    return step


def _repeat(arguments: tuple[Items, ...], written: tuple[Node, ...]) -> Step:
    projection = arguments[0]

    def step(items: list[Value], this: list[Value], state: State) -> list[Value]:
        before = state.index
        seen: dict[object, Value] = {}
        level = items
        while level:
            below: list[Value] = []
            for index, item in enumerate(level):
                state.index = index
                state.spend(1)
                for one in projection([item], state):
                    state.weigh([one])
                    mark = key(one, state.units)
                    if mark not in seen:
                        seen[mark] = one
                        below.append(one)
            level = below
        state.index = before
        return list(seen.values())

    return step


def _aggregate(arguments: tuple[Items, ...], written: tuple[Node, ...]) -> Step:
    aggregator = arguments[0]
    start = arguments[1] if len(arguments) > 1 else None

    def step(items: list[Value], this: list[Value], state: State) -> list[Value]:
        total, index = state.total, state.index
        found = start(this, state) if start is not None else []
        for at, item in enumerate(items):
            state.index, state.total = at, found
            state.spend(1)
            found = aggregator([item], state)
        state.total, state.index = total, index
        return found

    return step


def _sort(arguments: tuple[Items, ...], written: tuple[Node, ...]) -> Step:
    descending = [isinstance(one, Sign) and one.operator == "-" for one in written]

    def step(items: list[Value], this: list[Value], state: State) -> list[Value]:
        rows = []
        for item in items:
            state.spend(1 + len(arguments))
            by = [argument([item], state) for argument in arguments] or [[item]]
            rows.append((item, by))

        def order(
            one: tuple[Value, list[list[Value]]], other: tuple[Value, list[list[Value]]]
        ) -> int:
            state.spend(1)
            for at, (left, right) in enumerate(zip(one[1], other[1], strict=True)):
                found = _order(left, right, state, bool(descending) and descending[at])
                if found:
                    return found
            return 0

        return [row[0] for row in sorted(rows, key=cmp_to_key(order))]

    return step


def _order(left: list[Value], right: list[Value], state: State, descending: bool) -> int:
    """Return how two items are ordered; what has nothing to sort by is first either way."""
    one, other = single(left, "sort()"), single(right, "sort()")
    if one is None or other is None:
        return (one is not None) - (other is not None)
    found = compared(one, other, state.units) or 0
    return -found if descending else found


def _iif(arguments: tuple[Items, ...], written: tuple[Node, ...]) -> Step:
    def step(items: list[Value], this: list[Value], state: State) -> list[Value]:
        if len(items) > 1:
            raise FhirPathError("iif() is called on one item at most")
        if truth(arguments[0](items, state), "The criterion of iif()"):
            return arguments[1](items, state)
        return arguments[2](items, state) if len(arguments) > 2 else []

    return step


def _coalesce(arguments: tuple[Items, ...], written: tuple[Node, ...]) -> Step:
    def step(items: list[Value], this: list[Value], state: State) -> list[Value]:
        for argument in arguments:
            found = argument(this, state)
            if found:
                return found
        return []

    return step


def _trace(arguments: tuple[Items, ...], written: tuple[Node, ...]) -> Step:
    def step(items: list[Value], this: list[Value], state: State) -> list[Value]:
        name = string(arguments[0](this, state), "trace()")
        trace = state.environment.trace
        if trace is not None:
            shown = items
            if len(arguments) > 1:
                shown = [one for item in items for one in arguments[1]([item], state)]
            trace(name or "", shown)
        return items

    return step


# ------------------------------------------------------------------------ subsetting, combining


def _single(items: list[Value], arguments: list[list[Value]], state: State) -> list[Value]:
    if len(items) > 1:
        raise FhirPathError(f"single() finds {len(items)} items")
    return items


def _skip(items: list[Value], arguments: list[list[Value]], state: State) -> list[Value]:
    count = integer(arguments[0], "skip()")
    return items[max(count, 0) :] if count is not None else []


def _take(items: list[Value], arguments: list[list[Value]], state: State) -> list[Value]:
    count = integer(arguments[0], "take()")
    return items[: max(count, 0)] if count is not None else []


def _intersect(items: list[Value], arguments: list[list[Value]], state: State) -> list[Value]:
    state.weigh(items, arguments[0])
    others = keys(arguments[0], state.units)
    return [one for one in distinct(items, state.units) if key(one, state.units) in others]


def _exclude(items: list[Value], arguments: list[list[Value]], state: State) -> list[Value]:
    state.weigh(items, arguments[0])
    others = keys(arguments[0], state.units)
    return [one for one in items if key(one, state.units) not in others]


def _combine(items: list[Value], arguments: list[list[Value]], state: State) -> list[Value]:
    state.weigh(items, arguments[0])
    return items + arguments[0]


def _union(items: list[Value], arguments: list[list[Value]], state: State) -> list[Value]:
    return _distinct(_combine(items, arguments, state), [], state)


def _distinct(items: list[Value], arguments: list[list[Value]], state: State) -> list[Value]:
    state.weigh(items)
    return distinct(items, state.units)


FUNCTIONS: Mapping[str, Function] = {
    "empty": Function(0, 0, test=lambda items, arguments, state: not items),
    "exists": Function(0, 1, make=_exists),
    "all": Function(1, 1, make=_all),
    "allTrue": _all_of(True),
    "allFalse": _all_of(False),
    "anyTrue": _any_of(True),
    "anyFalse": _any_of(False),
    "subsetOf": Function(1, 1, test=_subset),
    "supersetOf": Function(1, 1, test=_superset),
    "count": Function(0, 0, run=lambda items, arguments, state: [len(items)]),
    "distinct": Function(0, 0, run=_distinct),
    "isDistinct": Function(0, 0, test=_is_distinct),
    "where": Function(1, 1, make=_where),
    "select": Function(1, 1, make=_select),
    "repeat": Function(1, 1, make=_repeat),
    "aggregate": Function(1, 2, make=_aggregate),
    "sort": Function(0, 8, make=_sort),
    "iif": Function(2, 3, make=_iif),
    "coalesce": Function(1, 50, make=_coalesce),
    "trace": Function(1, 2, make=_trace),
    "single": Function(0, 0, run=_single),
    "first": Function(0, 0, run=lambda items, arguments, state: items[:1]),
    "last": Function(0, 0, run=lambda items, arguments, state: items[-1:]),
    "tail": Function(0, 0, run=lambda items, arguments, state: items[1:]),
    "skip": Function(1, 1, run=_skip),
    "take": Function(1, 1, run=_take),
    "intersect": Function(1, 1, run=_intersect),
    "exclude": Function(1, 1, run=_exclude),
    "combine": Function(1, 2, run=_combine),
    "union": Function(1, 1, run=_union),
    "not": Function(0, 0, test=lambda items, arguments, state: _negated(truth(items, "not()"))),
}


def _negated(value: bool | None) -> bool | None:
    return None if value is None else not value
