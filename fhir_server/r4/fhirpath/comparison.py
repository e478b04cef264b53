"""Equality, equivalence and order of values, in the logic of three values.

http://hl7.org/fhirpath/N1/#equality, http://hl7.org/fhirpath/N1/#comparison
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from fhir_server.r4.fhirpath.arithmetic import EXACT
from fhir_server.r4.fhirpath.faults import FhirPathError
from fhir_server.r4.fhirpath.model import Node, Value, system, type_name
from fhir_server.r4.fhirpath.moments import Moment, order
from fhir_server.r4.fhirpath.quantities import Quantity, canonical
from fhir_server.r4.ucum import Units


def key(item: Value, units: Units) -> Hashable:
    """Return what is the same for items that are equal, and for no others."""
    value = system(item)
    kind = type(value)
    if kind is str:
        return value  # type: ignore[no-any-return]
    if kind is bool:
        return (bool, value)
    if kind is Moment:
        return (value.type == "Time", value.utc, value.offset is None and len(value.parts) > 3)
    if kind is Quantity:
        return canonical(value, units)
    if kind is Node:
        return (value.type, _json_key(value.value), _json_key(value.sibling))
    return (Decimal, value)


def _json_key(json: Any) -> Hashable:
    if type(json) is dict:
        return frozenset((name, _json_key(value)) for name, value in json.items())
    if type(json) is list:
        return tuple(map(_json_key, json))
    return (bool, json) if type(json) is bool else json


def keys(items: Sequence[Value], units: Units) -> set[Hashable]:
    """Return the keys of ``items``."""
    return {key(item, units) for item in items}


def distinct(items: Sequence[Value], units: Units) -> list[Value]:
    """Return ``items`` without those that are equal to an earlier one."""
    found: dict[Hashable, Value] = {}
    for item in items:
        found.setdefault(key(item, units), item)
    return list(found.values())


def equal(left: Sequence[Value], right: Sequence[Value], units: Units) -> bool | None:
    """``=``: whether two collections have equal items in the same order."""
    if not left or not right:
        return None
    if len(left) != len(right):
        return False
    open = False
    for one, other in zip(left, right, strict=True):
        same = _equal(system(one), system(other), units)
        if same is False:
            return False
        open = open or same is None
    return None if open else True


def _equal(one: Any, other: Any, units: Units) -> bool | None:
    kind = type(one)
    if kind is str or kind is bool:
        return type(other) is kind and bool(one == other)
    if kind is Moment and type(other) is Moment:
        if (one.type == "Time") != (other.type == "Time"):
            return False
        found = order(one, other)
        return None if found is None else found == 0
    if kind is Quantity or type(other) is Quantity:
        return _equal_quantities(one, other, units)
    if kind is Node:
        return type(other) is Node and key(one, units) == key(other, units)
    return type(other) is not bool and bool(one == other)


def _quantities(one: Any, other: Any) -> tuple[Quantity, Quantity] | None:
    """Return both as quantities: a number is one of the unit ``1``."""
    found = [Quantity(Decimal(each), "1") if is_number(each) else each for each in (one, other)]
    if all(type(each) is Quantity for each in found):
        return found[0], found[1]
    return None


def _equal_quantities(one: Any, other: Any, units: Units) -> bool | None:
    both = _quantities(one, other)
    if both is None:
        return False
    (base, value), (others_base, others_value) = (canonical(each, units) for each in both)
    if base != others_base:
        # A month of the calendar is as long as no other unit, and perhaps as long as some.
        return None if "calendar" in (base, others_base) else False
    return value == others_value


def is_number(value: Any) -> bool:
    """Whether ``value`` is an integer or a decimal; a boolean is neither."""
    return isinstance(value, int | Decimal) and type(value) is not bool


def compared(left: Any, right: Any, units: Units) -> int | None:
    """Return -1, 0 or 1 as one item is less than, equal to or greater than the other.

    ``None`` where it is open. Raises :class:`FhirPathError` for what has no common order.
    """
    one, other = system(left), system(right)
    if type(one) is str and type(other) is str:
        return (one > other) - (one < other)
    if is_number(one) and is_number(other):
        return (one > other) - (one < other)  # type: ignore[no-any-return]
    moments = type(one) is Moment and type(other) is Moment
    if moments and (one.type == "Time") == (other.type == "Time"):
        return order(one, other)
    both = _quantities(one, other)
    if both is not None:
        (base, value), (others_base, others_value) = (canonical(each, units) for each in both)
        return (value > others_value) - (value < others_value) if base == others_base else None
    if _valueless(one) or _valueless(other):
        return None
    names = [".".join(type_name(each)) for each in (left, right)]
    raise FhirPathError(f"{names[0]} and {names[1]} have no order")


def _valueless(item: Any) -> bool:
    """Whether ``item`` is an element that could have a value to compare, and has none."""
    return type(item) is Node and (item.shape.is_primitive or item.shape.is_quantity)


# ---------------------------------------------------------------------------------- equivalence


def equivalent(left: Sequence[Value], right: Sequence[Value], units: Units) -> bool:
    """``~``: whether two collections have equivalent items, in any order."""
    if len(left) != len(right):
        return False
    if len(left) == 1:
        return _equivalent(system(left[0]), system(right[0]), units)
    mine, others = (Counter(_loose_key(item, units) for item in side) for side in (left, right))
    return mine == others


def _equivalent(one: Any, other: Any, units: Units) -> bool:
    if is_number(one) and is_number(other):
        return _about_equal(one, other)
    both = _quantities(one, other) if Quantity in (type(one), type(other)) else None
    if both is not None:
        (base, value), (others_base, others_value) = (
            canonical(each, units, roughly=True) for each in both
        )
        return base == others_base and _about_equal(value, others_value, both)
    return _loose_key(one, units) == _loose_key(other, units)


def _about_equal(one: Any, other: Any, written: tuple[Quantity, Quantity] | None = None) -> bool:
    """Compare two numbers with as many decimals as the less precise has."""
    one, other = Decimal(one), Decimal(other)
    if written and one and other:
        # Of converted quantities, the digits that count are those that were written.
        digits = min(len(each.value.normalize().as_tuple().digits) for each in written)
        context = EXACT.copy()
        context.prec = digits
        return bool(context.plus(one) == context.plus(other))
    places = max(_exponent(one.normalize()), _exponent(other.normalize()))
    step = Decimal((0, (1,), min(places, 0)))
    return bool(
        one.quantize(step, ROUND_HALF_UP, EXACT) == other.quantize(step, ROUND_HALF_UP, EXACT)
        if max(one.adjusted(), other.adjusted()) - places < EXACT.prec - 2
        else one == other
    )


def _exponent(value: Decimal) -> int:
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)  # neither NaN nor infinity is ever made
    return exponent


def _loose_key(item: Any, units: Units) -> Hashable:
    """Return what is the same for equivalent items; numbers are compared as they are."""
    value = system(item)
    if type(value) is str:
        return " ".join(value.casefold().split())
    if type(value) is Node and type(value.value) is dict:
        return _loose_json(value.value)
    return key(value, units)


def _loose_json(json: Any) -> Hashable:
    if type(json) is dict:
        return frozenset((name, _loose_json(value)) for name, value in json.items() if name != "id")
    if type(json) is list:
        return frozenset(Counter(map(_loose_json, json)).items())
    if type(json) is str:
        return " ".join(json.casefold().split())
    return (bool, json) if type(json) is bool else json
