"""Date parameters: dates, instants, periods and the outer limits of timings.

https://hl7.org/fhir/R4/search.html#date

A key is ``{"l": low, "h": high}``, the half-open range of UTC time that the element covers.

``:missing`` is the only modifier. Prefixes are in ``_PREFIXES``, and ``ap``: the value and a tenth
of its distance from now are overlapped.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from fhir_server.outcome import FhirError
from fhir_server.r4.dates import EARLIEST, LATEST, DateRange, date_range
from fhir_server.search.escape import unescape
from fhir_server.search.keys import Filter, on_range

Conditions = dict[str, Any]

# What a period that is open at an end is open to: beyond every date that can be asked for.
_ALWAYS = EARLIEST - timedelta(milliseconds=1)
_FOREVER = LATEST + timedelta(milliseconds=1)

# Prefix -> conditions, where the stored value covers [l, h) and the asked value covers
# [low, high). https://hl7.org/fhir/R4/search.html#prefix
# "eq" has a second bound on l, which follows from the others: it keeps the index scan short.
_PREFIXES: dict[str, Callable[[datetime, datetime], Conditions]] = {
    "eq": lambda low, high: {"l": {"$gte": low, "$lt": high}, "h": {"$lte": high}},
    "ne": lambda low, high: {"$or": [{"l": {"$lt": low}}, {"h": {"$gt": high}}]},
    "gt": lambda low, high: {"h": {"$gt": high}},
    "lt": lambda low, high: {"l": {"$lt": low}},
    "ge": lambda low, high: {"$or": [{"l": {"$gte": low}}, {"h": {"$gt": high}}]},
    "le": lambda low, high: {"$or": [{"l": {"$lt": low}}, {"h": {"$lte": high}}]},
    "sa": lambda low, high: {"l": {"$gte": high}},
    "eb": lambda low, high: {"h": {"$lte": low}},
}
PREFIXES = (*_PREFIXES, "ap")


def _key(covered: DateRange) -> dict[str, datetime]:
    return {"l": covered[0], "h": covered[1]}


def _range(text: Any) -> DateRange | None:
    """Return the range of ``text``, or ``None`` if it is no date: the resource is then invalid."""
    if type(text) is not str:
        return None
    try:
        return date_range(text)
    except FhirError:
        return None


def _date(text: Any) -> list[Any]:
    covered = _range(text)
    return [_key(covered)] if covered else []


def _period(period: Any) -> list[Any]:
    covered = _of_period(period)
    return [_key(covered)] if covered else []


def _of_period(period: Any) -> DateRange | None:
    if type(period) is not dict:
        return None
    start, end = _range(period.get("start")), _range(period.get("end"))
    if not (start or end):
        return None
    return start[0] if start else _ALWAYS, end[1] if end else _FOREVER


def _timing(timing: Any) -> list[Any]:
    """Return the outer limits of the events and of the bounds of the repetition."""
    events = timing.get("event")
    repeat = timing.get("repeat")
    found = [_range(event) for event in events] if type(events) is list else []
    if type(repeat) is dict:
        found.append(_of_period(repeat.get("boundsPeriod")))
    ranges = [covered for covered in found if covered]
    if not ranges:
        return []
    return [_key((min(low for low, _ in ranges), max(high for _, high in ranges)))]


def _nothing(value: Any) -> list[Any]:
    return []


INDEXED: Mapping[str, Callable[[Any], list[Any]]] = {
    **dict.fromkeys(("date", "dateTime", "instant"), _date),
    "Period": _period,
    "Timing": _timing,
    # Forms of an element with dates. A string is free text, and a date if it reads as one
    # (CarePlan.activity.detail.scheduledString); an age says when without saying a date.
    "string": _date,
    **dict.fromkeys(("Age", "Range"), _nothing),
}
"""FHIR type -> what is written for a value of it."""


def prefixed(value: str, prefixes: tuple[str, ...]) -> tuple[str, str]:
    """Return prefix and rest of ``value``; without a prefix it is ``eq``."""
    return (value[:2], value[2:]) if value[:2] in prefixes else ("eq", value)


def compile_date(
    field: str, value: str, *, single: bool = False, now: datetime | None = None
) -> Filter:
    """Return the filter for one date value, ``[prefix][date]``, against ``field``.

    ``now`` is what ``ap`` measures its distance from; without it, ``ap`` means overlap.

    Raises ``value`` for what is no date.
    """
    return on_range(field, _conditions(value, now), single)


def compile_instant(field: str, value: str, now: datetime | None = None) -> Filter:
    """Return the filter for one date value against ``field``, a point in time of each document.

    The point covers one millisecond: where ``h`` is asked, the point itself is.
    """
    return _on_point(field, _conditions(value, now))


# What is asked of the end of a millisecond -> the same, asked of the millisecond.
_OF_POINT = {"$gt": "$gte", "$lte": "$lt"}


def _on_point(field: str, conditions: Conditions) -> Filter:
    bounds: dict[str, Any] = {}
    for member, condition in conditions.items():
        if member == "$or":
            return {"$or": [_on_point(field, branch) for branch in condition]}
        for operator, bound in condition.items():
            bounds[operator if member == "l" else _OF_POINT[operator]] = bound
    return {field: bounds}


def _conditions(value: str, now: datetime | None) -> Conditions:
    # A plus sign that was not percent-encoded arrives as a space.
    prefix, text = prefixed(unescape(value).replace(" ", "+"), PREFIXES)
    low, high = date_range(text)
    if prefix != "ap":
        return _PREFIXES[prefix](low, high)
    if now is not None:
        low, high = _widened(low, high, abs(now - low) / 10)
    return {"l": {"$lt": high}, "h": {"$gt": low}}


def _widened(low: datetime, high: datetime, by: timedelta) -> DateRange:
    return (
        low - by if low - EARLIEST > by else EARLIEST,
        high + by if LATEST - high > by else LATEST,
    )
