"""The operators: what ``left`` and ``right`` give.

http://hl7.org/fhirpath/N1/#operations
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from fhir_server.r4.fhirpath import arithmetic
from fhir_server.r4.fhirpath.arithmetic import Number, bounded
from fhir_server.r4.fhirpath.comparison import (
    compared,
    distinct,
    equal,
    equivalent,
    is_number,
    key,
    keys,
)
from fhir_server.r4.fhirpath.environment import State, checked_length, single, string
from fhir_server.r4.fhirpath.faults import FhirPathError
from fhir_server.r4.fhirpath.model import Value, type_name
from fhir_server.r4.fhirpath.moments import Moment, shifted
from fhir_server.r4.fhirpath.quantities import Quantity, calendar_unit_of, canonical, product

Operator = Callable[[list[Value], list[Value], State], list[Value]]
Comparison = Callable[[list[Value], list[Value], State], bool | None]

# ---------------------------------------------------------------------------------- comparisons


def _equal(left: list[Value], right: list[Value], state: State) -> bool | None:
    state.weigh(left, right)
    return equal(left, right, state.units)


def _differs(left: list[Value], right: list[Value], state: State) -> bool | None:
    same = _equal(left, right, state)
    return None if same is None else not same


def _equivalent(left: list[Value], right: list[Value], state: State) -> bool:
    state.weigh(left, right)
    return equivalent(left, right, state.units)


def _ordered(symbol: str, passes: Callable[[int], bool]) -> Comparison:
    def comparison(left: list[Value], right: list[Value], state: State) -> bool | None:
        if len(left) != 1 or len(right) != 1:
            if not left or not right:
                return None
            raise FhirPathError(f"{symbol} compares single items")
        order = compared(left[0], right[0], state.units)
        return None if order is None else passes(order)

    return comparison


def _in(left: list[Value], right: list[Value], state: State) -> bool | None:
    if not left:
        return None
    if len(left) > 1:
        raise FhirPathError("in and contains look for a single item")
    state.weigh(left)
    return key(left[0], state.units) in _members(right, state)


_FEW = 4  # of so many, a set is not worth keeping


def _members(items: list[Value], state: State) -> Any:
    """Return the keys of ``items``; those of a list that comes again are kept."""
    if len(items) <= _FEW:
        state.weigh(items)
        return keys(items, state.units)
    memo = state.environment.memo
    found = memo.get(id(items))
    if found is None or found[0] is not items:
        state.weigh(items)
        # The list is kept with its keys: another one cannot have its identity meanwhile.
        found = memo[id(items)] = (items, keys(items, state.units))
    return found[1]


COMPARISONS: Mapping[str, Comparison] = {
    "=": _equal,
    "!=": _differs,
    "~": _equivalent,
    "!~": lambda left, right, state: not _equivalent(left, right, state),
    "<": _ordered("<", lambda order: order < 0),
    "<=": _ordered("<=", lambda order: order <= 0),
    ">": _ordered(">", lambda order: order > 0),
    ">=": _ordered(">=", lambda order: order >= 0),
    "in": _in,
    "contains": lambda left, right, state: _in(right, left, state),
}

# ----------------------------------------------------------------------------------- arithmetic


def _calculated(
    symbol: str,
    of_numbers: Callable[[Number, Number], Number | None],
    others: Callable[[Any, Any, State], Any] | None = None,
) -> Operator:
    def operator(left: list[Value], right: list[Value], state: State) -> list[Value]:
        one, other = single(left, symbol), single(right, symbol)
        if one is None or other is None:
            return []
        try:
            if is_number(one) and is_number(other):
                return list(bounded(of_numbers(one, other)))
            found = others(one, other, state) if others is not None else NotImplemented
        except ArithmeticError:
            return []
        if found is NotImplemented:
            names = [".".join(type_name(each)) for each in (left[0], right[0])]
            raise FhirPathError(f"{names[0]} {symbol} {names[1]} means nothing")
        if type(found) is str:
            return checked_length(found, state)
        return [] if found is None else [found]

    return operator


def _plus(one: Any, other: Any, state: State) -> Any:
    if type(one) is str and type(other) is str:
        return one + other
    return _sum(one, other, state, 1)


def _minus(one: Any, other: Any, state: State) -> Any:
    return _sum(one, other, state, -1)


def _sum(one: Any, other: Any, state: State, sign: int) -> Any:
    if type(one) is Moment and type(other) is Quantity:
        unit = calendar_unit_of(other)
        if not unit:
            raise FhirPathError(f"'{other.unit}' is no unit of the calendar")
        return shifted(one, other.value * sign, unit)
    if type(one) is not Quantity or type(other) is not Quantity:
        return NotImplemented
    if (one.unit, one.calendar, one.system) == (other.unit, other.calendar, other.system):
        return one.like(arithmetic.EXACT.add(one.value, other.value * sign))
    (base, value), (others_base, others_value) = (
        canonical(each, state.units) for each in (one, other)
    )
    if base != others_base or base == "calendar":
        return None
    return Quantity(arithmetic.EXACT.add(value, others_value * sign), base)


def _as_quantity(value: Any) -> Any:
    return Quantity(Decimal(value), "1") if is_number(value) else value


def _product(divided: bool) -> Callable[[Any, Any, State], Any]:
    def call(one: Any, other: Any, state: State) -> Any:
        left, right = _as_quantity(one), _as_quantity(other)
        if type(left) is not Quantity or type(right) is not Quantity:
            return NotImplemented
        return product(left, right, state.units, divided=divided)

    return call


def _concatenated(left: list[Value], right: list[Value], state: State) -> list[Value]:
    """``&``: nothing counts as an empty string."""
    text = (string(left, "&") or "") + (string(right, "&") or "")
    return checked_length(text, state)


def _united(left: list[Value], right: list[Value], state: State) -> list[Value]:
    state.weigh(left, right)
    return distinct(left + right, state.units)


OPERATORS: Mapping[str, Operator] = {
    "+": _calculated("+", arithmetic.added, _plus),
    "-": _calculated("-", arithmetic.subtracted, _minus),
    "*": _calculated("*", arithmetic.multiplied, _product(False)),
    "/": _calculated("/", arithmetic.divided, _product(True)),
    "div": _calculated("div", arithmetic.quotient),
    "mod": _calculated("mod", arithmetic.remainder),
    "&": _concatenated,
    "|": _united,
}


def negated(items: list[Value], state: State) -> list[Value]:
    """Return ``-items``."""
    value = single(items, "-")
    if value is None:
        return []
    if is_number(value):
        return list(bounded(-value if type(value) is int else arithmetic.EXACT.minus(value)))
    if type(value) is Quantity:
        return [value.like(-value.value)]
    raise FhirPathError(f"-{'.'.join(type_name(items[0]))} means nothing")
