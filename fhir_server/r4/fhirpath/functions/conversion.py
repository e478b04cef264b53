"""``toInteger()`` and its like, and whether they would give something.

http://hl7.org/fhirpath/N1/#conversion
"""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from fhir_server.r4.fhirpath.arithmetic import INTEGERS
from fhir_server.r4.fhirpath.comparison import is_number
from fhir_server.r4.fhirpath.environment import BOOLEANS, State, single, string
from fhir_server.r4.fhirpath.functions.function import Function
from fhir_server.r4.fhirpath.model import Node, Value
from fhir_server.r4.fhirpath.moments import Moment, date, date_time, time
from fhir_server.r4.fhirpath.quantities import Quantity, canonical, parsed, quantity

_INTEGER = re.compile(r"[+-]?[0-9]{1,10}")
_DECIMAL = re.compile(r"[+-]?[0-9]{1,40}(?:\.[0-9]{1,40})?")
_BOOLEANS = {
    **dict.fromkeys(("true", "t", "yes", "y", "1", "1.0"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0", "0.0"), False),
}


def _boolean(value: Any) -> bool | None:
    if type(value) is bool:
        return value
    if is_number(value):
        return {0: False, 1: True}.get(value)
    return _BOOLEANS.get(value.lower()) if type(value) is str else None


def _integer(value: Any) -> int | None:
    if type(value) is bool:
        return int(value)
    if type(value) is str and _INTEGER.fullmatch(value):
        value = int(value)
    return value if type(value) is int and value in INTEGERS else None


def _decimal(value: Any) -> Decimal | None:
    if type(value) is bool or is_number(value):
        return Decimal(value)
    return Decimal(value) if type(value) is str and _DECIMAL.fullmatch(value) else None


def _string(value: Any) -> str | None:
    if type(value) is bool:
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return f"{value:f}"
    return None if type(value) is Node else str(value)


def _date(value: Any) -> Moment | None:
    if type(value) is Moment:
        return None if value.type == "Time" else Moment("Date", value.parts[:3])
    return date(value[:10]) if type(value) is str and date_time(value) else None


def _date_time(value: Any) -> Moment | None:
    if type(value) is Moment:
        return None if value.type == "Time" else Moment("DateTime", value.parts, value.offset)
    return date_time(value) if type(value) is str else None


def _time(value: Any) -> Moment | None:
    if type(value) is Moment:
        return value if value.type == "Time" else None
    return time(value.removeprefix("T")) if type(value) is str else None


def _quantity(value: Any) -> Quantity | None:
    if type(value) is Quantity:
        return value
    if type(value) is bool or is_number(value):
        return Quantity(Decimal(value), "1")
    return parsed(value) if type(value) is str else None


_CONVERT: Mapping[str, Callable[[Any], Any]] = {
    "Boolean": _boolean,
    "Integer": _integer,
    "Decimal": _decimal,
    "String": _string,
    "Date": _date,
    "DateTime": _date_time,
    "Time": _time,
}


def _to(type: str, convert: Callable[[Any], Any]) -> Function:
    def run(items: list[Value], given: list[list[Value]], state: State) -> list[Value]:
        value = single(items, f"to{type}()")
        found = convert(value) if value is not None else None
        return [] if found is None else [found]

    return Function(0, 0, run=run)


def _converts_to(type: str, convert: Callable[[Any], Any]) -> Function:
    def run(items: list[Value], given: list[list[Value]], state: State) -> list[Value]:
        value = single(items, f"convertsTo{type}()")
        return BOOLEANS[None if value is None else convert(value) is not None]

    return Function(0, 0, run=run)


def _to_quantity(items: list[Value], given: list[list[Value]], state: State) -> list[Value]:
    value = single(items, "toQuantity()")
    found = _quantity(value) if value is not None else None
    unit = string(given[0], "toQuantity()") if given else None
    if found is None or unit is None:
        return [] if found is None else [found]
    wanted = quantity(Decimal(1), unit, calendar=False)
    (base, amount), (others, one) = (canonical(each, state.units) for each in (found, wanted))
    scale = state.units.scale(unit)
    if base != others or not one:
        return []
    return [wanted.like(scale.written(amount) if scale is not None else amount / one)]


def _converts_to_quantity(
    items: list[Value], given: list[list[Value]], state: State
) -> list[Value]:
    if not items:
        return []
    return BOOLEANS[bool(_to_quantity(items, given, state))]


FUNCTIONS: Mapping[str, Function] = {
    **{f"to{type}": _to(type, convert) for type, convert in _CONVERT.items()},
    **{f"convertsTo{type}": _converts_to(type, convert) for type, convert in _CONVERT.items()},
    "toQuantity": Function(0, 1, run=_to_quantity),
    "convertsToQuantity": Function(0, 1, run=_converts_to_quantity),
}
