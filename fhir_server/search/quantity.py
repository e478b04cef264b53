"""Quantity parameters: a number and its unit.

https://hl7.org/fhir/R4/search.html#quantity

A key is ``{"l": low, "h": high, "s": system, "c": code, "u": unit}``, what is unknown left out, and
a unit that is the code as well. Numbers are as in ``number.py``; a comparator makes a quantity the
range that it states.

A quantity in a unit of UCUM has its place among all quantities of the same dimension beside that:
``"n"``, text such as ``g.m-3 SEPARATOR number``, whose order is that of the numbers. One member
answers both what is equal and what is between two limits. A range has ``"p"`` and ``"q"`` instead,
its low and its high.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any

from fhir_server.outcome import invalid_value
from fhir_server.r4.ucum import SYSTEM as UCUM
from fhir_server.r4.ucum import Scale, Units
from fhir_server.search.escape import split, unescape
from fhir_server.search.keys import AFTER, SEPARATOR, Filter, on_range, shortened
from fhir_server.search.number import Conditions, decimal, number_conditions, range_of

_CURRENCIES = "urn:iso:std:iso:4217"  # https://hl7.org/fhir/R4/datatypes.html#Money
_INFINITY = Decimal("Infinity")

# What is written before the digits: an exponent that is never negative.
_EXPONENT_BIAS = 50_000
_NEGATED = str.maketrans("0123456789", "9876543210")
_NO_UNITS = Units()


def sortable(number: Decimal) -> str:
    """Return ``number`` as text whose order is that of numbers.

    >>> sorted(map(sortable, map(Decimal, ("10", "-2", "9.5", "-10", "0"))))[0] == sortable(
    ...     Decimal(-10)
    ... )
    True
    """
    if not number.is_finite():
        return "2" if number > 0 else "0"
    if not number:
        return "1"
    mantissa, _, exponent = f"{number:e}".partition("e")
    digits = mantissa.lstrip("-").replace(".", "").rstrip("0")
    text = f"{int(exponent) + _EXPONENT_BIAS:05d}{digits}"
    # The more below zero, the less: the digits are turned round, and what is longer comes first.
    return f"0{text.translate(_NEGATED)}~" if number < 0 else f"1{text}"


# The parameters of an Observation ask for the same place four times.
@lru_cache(maxsize=1024)
def _place(scale: Scale, number: Decimal) -> str:
    return f"{shortened(scale.base)}{SEPARATOR}{sortable(scale.canonical(number))}"


def indexed(units: Units) -> Mapping[str, Callable[[Any], list[Any]]]:
    """Return the table: FHIR type -> what is written for a value of it."""

    def key(low: Decimal, high: Decimal, stated: Any) -> dict[str, Any]:
        system, code, unit = stated.get("system"), stated.get("code"), stated.get("unit")
        found: dict[str, Any] = {"l": low, "h": high}
        if type(system) is str:
            found["s"] = shortened(system)
        if type(code) is str:
            found["c"] = shortened(code)
        if type(unit) is str and unit != code:
            found["u"] = shortened(unit)
        scale = units.scale(code) if system == UCUM and type(code) is str else None
        if scale is None:
            return found
        if low == high:
            return {**found, "n": _place(scale, low)}
        return {**found, "p": _place(scale, low), "q": _place(scale, high)}

    def quantity(element: Any) -> list[Any]:
        value = decimal(element.get("value"))
        if value is None:
            return []
        comparator = element.get("comparator")
        low = -_INFINITY if comparator in ("<", "<=") else value
        high = _INFINITY if comparator in (">", ">=") else value
        return [key(low, high, element)]

    def a_range(element: Any) -> list[Any]:
        limits = range_of(element)
        if limits is None:
            return []
        stated = element["low"] if type(element.get("low")) is dict else element["high"]
        return [key(*limits, stated)]

    return {
        **dict.fromkeys(("Quantity", "Age", "Count", "Distance", "Duration"), quantity),
        "Money": _money,
        "Range": a_range,
        # A series has no one value: its presence is known, its samples are not searched.
        "SampledData": _nothing,
    }


def _money(element: Any) -> list[Any]:
    value, currency = decimal(element.get("value")), element.get("currency")
    if value is None:
        return []
    unit = {"s": _CURRENCIES, "c": shortened(currency)} if type(currency) is str else {}
    return [{"l": value, "h": value, **unit}]


def _nothing(element: Any) -> list[Any]:
    return []


def compile_quantity(
    field: str, value: str, *, single: bool = False, units: Units = _NO_UNITS
) -> Filter:
    """Return the filter for one quantity value against ``field``.

    ``value`` is ``[prefix][number]``, ``…|system|code``, ``…|system|`` or ``…||unit``, where the
    unit is a code or its human text; escapes are still in place. With a code of UCUM, quantities in
    all units that can be converted into it are compared.

    Raises ``value`` for any other form and for what is no number.
    """
    match [unescape(part) for part in split(value, "|")]:
        case [text] | [text, "", ""]:
            conditions = number_conditions(text)
        case [text, "", unit]:
            conditions = _with_unit(number_conditions(text), shortened(unit))
        case [text, system, code]:
            conditions = number_conditions(text)
            if system == UCUM and (scale := units.scale(code)):
                branches = _converted(conditions, scale)
                return {"$or": [on_range(field, branch, single) for branch in branches]}
            conditions["s"] = shortened(system)
            if code:
                conditions["c"] = shortened(code)
        case _:
            raise invalid_value("A quantity", value, "number, number|system|code or number||unit")
    return on_range(field, conditions, single)


def _converted(conditions: Conditions, scale: Scale) -> list[Conditions]:
    """Return the alternatives that ``conditions`` on low and high are for all units of a dimension.

    Both bounds of every comparison stay inside the dimension.
    """
    base = shortened(scale.base)
    everything = {"$gte": f"{base}{SEPARATOR}", "$lt": f"{base}{AFTER}"}

    def bounds(*members: Mapping[str, Decimal]) -> Conditions:
        asked = {
            operator: _place(scale, bound)
            for member in members
            for operator, bound in member.items()
        }
        below = {} if asked.keys() & {"$lt", "$lte"} else {"$lt": everything["$lt"]}
        above = {} if asked.keys() & {"$gt", "$gte"} else {"$gte": everything["$gte"]}
        return {**above, **asked, **below}

    found: list[Conditions] = []
    for branch in conditions.get("$or", [conditions]):
        low, high = branch.get("l", {}), branch.get("h", {})
        found += [{"n": bounds(low, high)}, {"p": bounds(low), "q": bounds(high)}]
    return found


def _with_unit(conditions: Conditions, unit: str) -> Conditions:
    """Return ``conditions`` with those on code or text; both may come with an ``$or``."""
    branches = conditions.get("$or", [conditions])
    return {"$or": [{**branch, member: unit} for branch in branches for member in ("c", "u")]}
