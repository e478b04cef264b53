"""Quantity parameters: a number and its unit.

https://hl7.org/fhir/R4/search.html#quantity

A key is ``{"l": low, "h": high, "s": system, "c": code, "u": unit}``, what is unknown left out.
Numbers are as in ``number.py``; a comparator makes a quantity the range that it states. Units are
compared as written; nothing is converted.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from fhir_server.outcome import invalid_value
from fhir_server.search.escape import split, unescape
from fhir_server.search.keys import Filter, on_range, shortened
from fhir_server.search.number import Conditions, decimal, number_conditions, range_of

_CURRENCIES = "urn:iso:std:iso:4217"  # https://hl7.org/fhir/R4/datatypes.html#Money
_INFINITY = Decimal("Infinity")
_MEMBERS = (("s", "system"), ("c", "code"), ("u", "unit"))


def _unit(element: Any) -> dict[str, Any]:
    return {
        member: shortened(element[name])
        for member, name in _MEMBERS
        if type(element.get(name)) is str
    }


def _quantity(element: Any) -> list[Any]:
    value = decimal(element.get("value"))
    if value is None:
        return []
    comparator = element.get("comparator")
    low = -_INFINITY if comparator in ("<", "<=") else value
    high = _INFINITY if comparator in (">", ">=") else value
    return [{"l": low, "h": high, **_unit(element)}]


def _money(element: Any) -> list[Any]:
    value, currency = decimal(element.get("value")), element.get("currency")
    if value is None:
        return []
    unit = {"s": _CURRENCIES, "c": shortened(currency)} if type(currency) is str else {}
    return [{"l": value, "h": value, **unit}]


def _range(element: Any) -> list[Any]:
    limits = range_of(element)
    if limits is None:
        return []
    stated = element["low"] if type(element.get("low")) is dict else element["high"]
    return [{"l": limits[0], "h": limits[1], **_unit(stated)}]


def _nothing(element: Any) -> list[Any]:
    return []


INDEXED: Mapping[str, Callable[[Any], list[Any]]] = {
    **dict.fromkeys(("Quantity", "Age", "Count", "Distance", "Duration"), _quantity),
    "Money": _money,
    "Range": _range,
    # A series has no one value: its presence is known, its samples are not searched.
    "SampledData": _nothing,
}
"""FHIR type -> what is written for a value of it."""


def compile_quantity(field: str, value: str, *, single: bool = False) -> Filter:
    """Return the filter for one quantity value against ``field``.

    ``value`` is ``[prefix][number]``, ``…|system|code``, ``…|system|`` or ``…||unit``, where the
    unit is a code or its human text; escapes are still in place.

    Raises ``value`` for any other form and for what is no number.
    """
    conditions: Conditions
    match [unescape(part) for part in split(value, "|")]:
        case [text] | [text, "", ""]:
            conditions = number_conditions(text)
        case [text, "", unit]:
            conditions = _with_unit(number_conditions(text), shortened(unit))
        case [text, system, code]:
            conditions = number_conditions(text) | {"s": shortened(system)}
            if code:
                conditions["c"] = shortened(code)
        case _:
            raise invalid_value("A quantity", value, "number, number|system|code or number||unit")
    return on_range(field, conditions, single)


def _with_unit(conditions: Conditions, unit: str) -> Conditions:
    """Return ``conditions`` with those on code or text; both may come with an ``$or``."""
    branches = conditions.get("$or", [conditions])
    return {"$or": [{**branch, member: unit} for branch in branches for member in ("c", "u")]}
