"""Number parameters.

https://hl7.org/fhir/R4/search.html#number

A key is ``{"l": low, "h": high}``, both included: a number is its own low and high, whatever its
digits; a Range has the limits it states. Only a value that is asked for has an implicit range, and
only where it is asked with ``eq``, ``ne`` or no prefix at all.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from fhir_server.r4.decimals import implicit_range, number
from fhir_server.search.date import prefixed
from fhir_server.search.escape import unescape
from fhir_server.search.keys import Filter, on_range

Conditions = dict[str, Any]

# Prefix -> conditions on [l, h] for the number asked for, taken as exact.
_PREFIXES: dict[str, Callable[[Decimal], Conditions]] = {
    "gt": lambda value: {"h": {"$gt": value}},
    "lt": lambda value: {"l": {"$lt": value}},
    "ge": lambda value: {"h": {"$gte": value}},
    "le": lambda value: {"l": {"$lte": value}},
    "sa": lambda value: {"l": {"$gt": value}},
    "eb": lambda value: {"h": {"$lt": value}},
}
PREFIXES = ("eq", "ne", *_PREFIXES, "ap")

_INFINITY = Decimal("Infinity")
_TENTH = Decimal("0.1")


def decimal(value: Any) -> Decimal | None:
    """Return the JSON number ``value`` as a decimal, or ``None`` for anything else."""
    if type(value) is int:
        return Decimal(value)
    return value if isinstance(value, Decimal) else None


def range_of(element: Any) -> tuple[Decimal, Decimal] | None:
    """Return the limits of a Range; one that is missing is infinite."""
    low, high = (
        decimal(limit.get("value")) if type(limit) is dict else None
        for limit in (element.get("low"), element.get("high"))
    )
    if low is None and high is None:
        return None
    return -_INFINITY if low is None else low, _INFINITY if high is None else high


def _number(value: Any) -> list[Any]:
    exact = decimal(value)
    return [] if exact is None else [{"l": exact, "h": exact}]


def _range(element: Any) -> list[Any]:
    limits = range_of(element)
    return [{"l": limits[0], "h": limits[1]}] if limits else []


INDEXED: Mapping[str, Callable[[Any], list[Any]]] = {
    **dict.fromkeys(("integer", "decimal", "positiveInt", "unsignedInt"), _number),
    "Range": _range,
}
"""FHIR type -> what is written for a value of it."""


def compile_number(field: str, value: str, *, single: bool = False) -> Filter:
    """Return the filter for one number value, ``[prefix][number]``, against ``field``.

    Raises ``value`` for what is no number.
    """
    return on_range(field, number_conditions(unescape(value)), single)


def number_conditions(text: str) -> Conditions:
    """Return the conditions on ``l`` and ``h`` that ``[prefix][number]`` asks for."""
    prefix, digits = prefixed(text, PREFIXES)
    if prefix in _PREFIXES:
        return _PREFIXES[prefix](number(digits))
    if prefix == "ap":
        value = number(digits)
        spread = abs(value) * _TENTH
        return {"l": {"$lte": value + spread}, "h": {"$gte": value - spread}}
    low, high = implicit_range(digits)
    if prefix == "ne":
        return {"$or": [{"l": {"$lt": low}}, {"h": {"$gte": high}}]}
    return {"l": {"$gte": low, "$lt": high}, "h": {"$lt": high}}
