"""The least and the greatest value that a value of limited precision may mean.

https://build.fhir.org/ig/HL7/FHIRPath/#lowboundaryprecision-integer-decimal--date--datetime--time
"""

from collections.abc import Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from fhir_server.r4.fhirpath.arithmetic import EXACT
from fhir_server.r4.fhirpath.comparison import is_number
from fhir_server.r4.fhirpath.environment import State, integer, single
from fhir_server.r4.fhirpath.faults import FhirPathError
from fhir_server.r4.fhirpath.functions.function import Function
from fhir_server.r4.fhirpath.model import Value
from fhir_server.r4.fhirpath.moments import Moment, Part, days_in
from fhir_server.r4.fhirpath.quantities import Quantity, canonical

_PLACES = 8
_PLACES_MAX = 31
# Digits of a moment -> how many parts it has; the last are seconds with milliseconds.
_DATE_PARTS = {4: 1, 6: 2, 8: 3}
_DATE_TIME_PARTS = {**_DATE_PARTS, 10: 4, 12: 5, 14: 6, 17: 7}
_TIME_PARTS = {2: 1, 4: 2, 6: 3, 9: 4}
_PARTS = {"Date": _DATE_PARTS, "DateTime": _DATE_TIME_PARTS, "Time": _TIME_PARTS}
_DEFAULT = {"Date": 8, "DateTime": 17, "Time": 9}
_LAST = (9999, 12, 31, 23, 59, Decimal("59.999"))
_FIRST = (1, 1, 1, 0, 0, Decimal("0.000"))
_EAST, _WEST = 14 * 60, -12 * 60


def _boundary(low: bool) -> Function:
    name = "lowBoundary()" if low else "highBoundary()"

    def run(items: list[Value], given: list[list[Value]], state: State) -> list[Value]:
        value = single(items, name)
        digits = integer(given[0], name) if given else None
        if value is None or (given and digits is None):
            return []
        if is_number(value):
            found = _of_number(Decimal(value), digits, low)
            return [] if found is None else [found]
        if type(value) is Quantity:
            found = _of_number(value.value, digits, low)
            return [] if found is None else [value.like(found)]
        if type(value) is Moment:
            moment = _of_moment(value, digits, low)
            return [] if moment is None else [moment]
        raise FhirPathError(f"{name} takes a number, a quantity, a date or a time")

    return Function(0, 1, run=run)


def _of_number(value: Decimal, places: int | None, low: bool) -> Decimal | None:
    places = _PLACES if places is None else places
    if not 0 <= places <= _PLACES_MAX:
        return None
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)
    half = Decimal((0, (5,), min(exponent, 0) - 1))
    found = EXACT.subtract(value, half) if low else EXACT.add(value, half)
    if found.adjusted() + places > EXACT.prec - 2:
        return None
    rounding = ROUND_FLOOR if low else ROUND_CEILING
    return found.quantize(Decimal((0, (1,), -places)), rounding, EXACT)


def _of_moment(value: Moment, digits: int | None, low: bool) -> Moment | None:
    wanted = _PARTS[value.type].get(_DEFAULT[value.type] if digits is None else digits)
    if wanted is None:
        return None
    if value.type == "Time":
        parts = _filled((2000, 1, 1, *value.parts), wanted + 3, low)[3:]
        return Moment("Time", parts)
    parts = _filled(value.parts, wanted, low)
    offset = value.offset
    if offset is None and wanted > 3:
        offset = _EAST if low else _WEST
    return Moment(value.type, parts, offset if wanted > 3 else None)


def _filled(parts: tuple[Part, ...], wanted: int, low: bool) -> tuple[Part, ...]:
    """Return as many parts as are ``wanted``; seven say that the second has milliseconds."""
    found = list(parts)
    for at in range(len(parts), 6):
        if at == 2 and not low:
            found.append(days_in(int(found[0]), int(found[1])))
        else:
            found.append((_FIRST if low else _LAST)[at])
    if wanted == 7:
        found[5] = _with_milliseconds(found[5], low)
    elif wanted == 6:
        found[5] = int(found[5])
    return tuple(found[:wanted])


def _with_milliseconds(second: Part, low: bool) -> Decimal:
    if isinstance(second, int):
        return Decimal(second) + (Decimal("0.000") if low else Decimal("0.999"))
    return second.quantize(Decimal("0.001"))


def _precision(items: list[Value], given: list[list[Value]], state: State) -> list[Value]:
    value = single(items, "precision()")
    if value is None:
        return []
    if is_number(value):
        exponent = Decimal(value).as_tuple().exponent
        assert isinstance(exponent, int)
        return [max(-exponent, 0)]
    if type(value) is not Moment:
        raise FhirPathError("precision() takes a number, a date or a time")
    digits = sorted(_PARTS[value.type])
    parts = len(value.parts) + isinstance(value.parts[-1], Decimal)
    return [digits[parts - 1]]


def _comparable(items: list[Value], given: list[list[Value]], state: State) -> bool | None:
    one, other = single(items, "comparable()"), single(given[0], "comparable()")
    if type(one) is not Quantity or type(other) is not Quantity:
        return None
    return canonical(one, state.units)[0] == canonical(other, state.units)[0]


FUNCTIONS: Mapping[str, Function] = {
    "lowBoundary": _boundary(True),
    "highBoundary": _boundary(False),
    "precision": Function(0, 0, run=_precision),
    "comparable": Function(1, 1, test=_comparable),
}
