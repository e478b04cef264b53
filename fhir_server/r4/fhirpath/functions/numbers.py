"""Functions of numbers.

http://hl7.org/fhirpath/N1/#math
"""

from collections.abc import Callable, Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Context, Decimal

from fhir_server.r4.fhirpath.arithmetic import EXACT, INTEGERS, Number, bounded
from fhir_server.r4.fhirpath.comparison import is_number
from fhir_server.r4.fhirpath.environment import State, integer, single
from fhir_server.r4.fhirpath.faults import FhirPathError
from fhir_server.r4.fhirpath.functions.function import Function
from fhir_server.r4.fhirpath.model import Value
from fhir_server.r4.fhirpath.quantities import Quantity

# Roots and powers are rarely exact; nobody needs more digits of them.
_DIGITS = 18
_ROUNDED = Context(prec=_DIGITS, rounding=ROUND_HALF_UP, Emin=-6200, Emax=6200)
_EXPONENT_MAX = 1000
_PLACES_MAX = 34


def number(items: list[Value], name: str) -> Number | None:
    """Return the only item, a number, or ``None``."""
    value: Number | None = single(items, name)
    if value is not None and not is_number(value):
        raise FhirPathError(f"{name} takes a number")
    return value


def _function(name: str, call: Callable[..., Number | None], least: int, most: int) -> Function:
    def run(items: list[Value], given: list[list[Value]], state: State) -> list[Value]:
        values = [number(one, f"{name}()") for one in (items, *given)]
        if None in values:
            return []
        try:
            return list(bounded(call(*values)))
        except ArithmeticError:
            return []

    return Function(least, most, run=run)


def _abs(items: list[Value], given: list[list[Value]], state: State) -> list[Value]:
    value = single(items, "abs()")
    if type(value) is Quantity:
        return [value.like(abs(value.value))]
    return list(bounded(abs(number(items, "abs()")))) if value is not None else []  # type: ignore[arg-type]


def _whole(rounding: str) -> Callable[[Number], Number | None]:
    def call(value: Number) -> Number | None:
        if type(value) is int:
            return value
        if Decimal(value).adjusted() > 12:
            return None
        return int(Decimal(value).to_integral_value(rounding))

    return call


def _truncate(value: Number) -> Number | None:
    return int(value) if Decimal(value).adjusted() <= 12 else None


def _round(value: Number, places: Number = 0) -> Number | None:
    if type(places) is not int or not 0 <= places <= _PLACES_MAX:
        raise FhirPathError(f"round() takes a number of places from 0 to {_PLACES_MAX}")
    return Decimal(value).quantize(Decimal((0, (1,), -places)), ROUND_HALF_UP, EXACT)


def _sqrt(value: Number) -> Number | None:
    root = Decimal(value)
    return _ROUNDED.sqrt(root).normalize(_ROUNDED) if root >= 0 else None


def _exp(value: Number) -> Number | None:
    return _ROUNDED.exp(Decimal(value)) if abs(Decimal(value)) <= _EXPONENT_MAX else None


def _ln(value: Number) -> Number | None:
    return _ROUNDED.ln(Decimal(value)) if value > 0 else None


def _log(value: Number, base: Number) -> Number | None:
    if value <= 0 or base <= 0 or base == 1:
        return None
    found = EXACT.divide(EXACT.ln(Decimal(value)), EXACT.ln(Decimal(base)))
    return _ROUNDED.plus(found)


def _power(value: Number, exponent: Number) -> Number | None:
    if abs(Decimal(exponent)) > _EXPONENT_MAX:
        return value if value in (0, 1) and exponent > 0 else None
    if type(value) is int and type(exponent) is int and exponent >= 0:
        found = EXACT.power(Decimal(value), exponent)
        return int(found) if found.adjusted() < 12 else None
    if Decimal(value) < 0 and exponent != int(exponent):
        return None
    return EXACT.power(Decimal(value), Decimal(exponent)) if value or exponent > 0 else None


def _precision_places(given: list[list[Value]], name: str) -> int | None:
    return integer(given[0], name) if given else None


FUNCTIONS: Mapping[str, Function] = {
    "abs": Function(0, 0, run=_abs),
    "ceiling": _function("ceiling", _whole(ROUND_CEILING), 0, 0),
    "floor": _function("floor", _whole(ROUND_FLOOR), 0, 0),
    "truncate": _function("truncate", _truncate, 0, 0),
    "round": _function("round", _round, 0, 1),
    "sqrt": _function("sqrt", _sqrt, 0, 0),
    "exp": _function("exp", _exp, 0, 0),
    "ln": _function("ln", _ln, 0, 0),
    "log": _function("log", _log, 1, 1),
    "power": _function("power", _power, 1, 1),
}
assert INTEGERS
