"""Date parameters: dates, instants, periods and the outer limits of timings.

https://hl7.org/fhir/R4/search.html#date

A key is ``{"l": low, "h": high}``, the half-open range of UTC time that the element covers. Nearly
all are short: an instant, a day, a visit. Where one that ends late may begin is bounded by its
length, so what is longer than a day has its beginning or its end once more, as :data:`LENGTHS`
says: one range of an index then finds each length, and the short ones by their ``l`` alone.

``:missing`` is the only modifier. Prefixes are in ``_PREFIXES``, and ``ap``: the value and a tenth
of its distance from now are overlapped.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from fhir_server.outcome import FhirError
from fhir_server.r4.dates import EARLIEST, LATEST, DateRange, date_range
from fhir_server.search.escape import unescape
from fhir_server.search.keys import Filter, on_range

Conditions = dict[str, Any]

# What a period that is open at an end is open to: beyond every date that can be asked for.
_ALWAYS = EARLIEST - timedelta(milliseconds=1)
_FOREVER = LATEST + timedelta(milliseconds=1)

_CHARACTERS_MAX = 40  # the longest dateTime has 38
_DAY = timedelta(days=1)
LENGTHS = (("m", timedelta(days=32)), ("y", timedelta(days=367)))
"""Member of a key -> the greatest length of the ranges that have it; it repeats their ``l``."""
LONGER = "w"
"""The member that repeats the ``h`` of those which are longer still, or have no end."""
LONG = (*(member for member, _ in LENGTHS), LONGER)


def _reaching(high: datetime) -> list[Conditions]:
    """Return the alternatives that a range goes on after ``high``, a length each."""
    begin = _minus(high, _DAY)
    return [{"l": {"$gte": begin}, "h": {"$gt": high}}, *_reaching_from_before(high, begin)]


def _reaching_from_before(high: datetime, begin: datetime) -> list[Conditions]:
    """The same for ranges longer than a day that begin before ``begin``."""
    found: list[Conditions] = []
    for member, length in LENGTHS:
        if (since := _minus(high, length)) < begin:
            between = {"$gte": since, "$lt": begin}
            found.append({member: between, "h": {"$gt": high}})
    return [*found, {LONGER: {"$gt": high}}]


def _in_order(found: Sequence[Conditions]) -> list[Conditions]:
    """Return ``found`` with a bound on ``l`` for each length, by which a partial index of that
    length has its order. What has the beginning that the first of ``found`` asks for is found by
    that, whatever its length.

    Where there is no such index, the bound would only mislead to the index for all lengths.
    """
    latest = found[0].get("l", {}).get("$gte", LATEST)
    ordered = []
    for one in found:
        member = next((member for member in LONG if member in one), "")
        if member and "l" not in one:
            one = {"l": one[member] if member != LONGER else {"$lt": latest}, **one}
        ordered.append(one)
    return ordered


def _since(low: datetime, high: datetime) -> list[Conditions]:
    """Return the alternatives that a range begins at ``low`` or later, or goes on after it."""
    if high - low >= _DAY:
        return [{"l": {"$gte": low}}, *_reaching_from_before(high, low)]
    begin = _minus(high, _DAY)
    either: list[Conditions] = [{"l": {"$gte": low}}, {"h": {"$gt": high}}]
    return [{"l": {"$gte": begin}, "$or": either}, *_reaching_from_before(high, begin)]


# Prefix -> alternatives, where the stored value covers [l, h) and the asked value covers
# [low, high). https://hl7.org/fhir/R4/search.html#prefix
# Each has a bound on one member that an index holds, even where it follows from the others.
_PREFIXES: dict[str, Callable[[datetime, datetime], list[Conditions]]] = {
    "eq": lambda low, high: [{"l": {"$gte": low, "$lt": high}, "h": {"$lte": high}}],
    "ne": lambda low, high: [{"l": {"$lt": low}}, *_reaching(high)],
    "gt": lambda low, high: _reaching(high),
    "lt": lambda low, high: [{"l": {"$lt": low}}],
    "ge": _since,
    "le": lambda low, high: [
        {"l": {"$lt": high}, "$or": [{"l": {"$lt": low}}, {"h": {"$lte": high}}]}
    ],
    "sa": lambda low, high: [{"l": {"$gte": high}}],
    "eb": lambda low, high: [{"l": {"$lt": low}, "h": {"$lte": low}}],
    "ap": lambda low, high: [
        {**one, "l": {**one.get("l", {}), "$lt": high}} for one in _reaching(low)
    ],
}
# The same, where the stored value is a point: it covers one millisecond.
_OF_POINTS: dict[str, Callable[[datetime, datetime], list[Conditions]]] = {
    "eq": lambda low, high: [{"$gte": low, "$lt": high}],
    "ne": lambda low, high: [{"$lt": low}, {"$gte": high}],
    "gt": lambda low, high: [{"$gte": high}],
    "lt": lambda low, high: [{"$lt": low}],
    "ge": lambda low, high: [{"$gte": low}],
    "le": lambda low, high: [{"$lt": high}],
    "sa": lambda low, high: [{"$gte": high}],
    "eb": lambda low, high: [{"$lt": low}],
    "ap": lambda low, high: [{"$gte": low, "$lt": high}],
}
PREFIXES = tuple(_PREFIXES)


def _key(covered: DateRange) -> dict[str, datetime]:
    low, high = covered
    key = {"l": low, "h": high}
    if high - low <= _DAY:
        return key
    for member, length in LENGTHS:
        if high - low <= length:
            return {**key, member: low}
    return {**key, LONGER: high}


def _range(text: Any) -> DateRange | None:
    """Return the range of ``text``, or ``None`` if it is no date: the resource is then invalid."""
    if type(text) is not str:
        return None
    return _remembered(text) if len(text) <= _CHARACTERS_MAX else None


@lru_cache(maxsize=4096)
def _remembered(text: str) -> DateRange | None:
    """All results of a message, and most entries of a bundle, are of a few moments."""
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
    field: str,
    value: str,
    *,
    single: bool = False,
    ordered: bool = False,
    now: datetime | None = None,
) -> Filter:
    """Return the filter for one date value, ``[prefix][date]``, against ``field``.

    ``ordered`` says that there is an index for each length, in the order of ``l``. ``now`` is what
    ``ap`` measures its distance from; without it, ``ap`` means overlap.

    Raises ``value`` for what is no date.
    """
    prefix, low, high = _asked(value, now)
    found = _PREFIXES[prefix](low, high)
    if ordered:
        found = _in_order(found)
    found = [on_range(field, one, single) for one in found]
    return found[0] if len(found) == 1 else {"$or": found}


def compile_instant(field: str, value: str, now: datetime | None = None) -> Filter:
    """Return the filter for one date value against ``field``, a point in time of each document."""
    prefix, low, high = _asked(value, now)
    found = [{field: one} for one in _OF_POINTS[prefix](low, high)]
    return found[0] if len(found) == 1 else {"$or": found}


def _asked(value: str, now: datetime | None) -> tuple[str, datetime, datetime]:
    """Return the prefix of ``value`` and the range that it asks for."""
    # A plus sign that was not percent-encoded arrives as a space.
    prefix, text = prefixed(unescape(value).replace(" ", "+"), PREFIXES)
    low, high = date_range(text)
    if prefix == "ap" and now is not None:
        low, high = _widened(low, high, abs(now - low) / 10)
    return prefix, low, high


def _minus(moment: datetime, by: timedelta) -> datetime:
    return moment - by if moment - EARLIEST > by else _ALWAYS


def _widened(low: datetime, high: datetime, by: timedelta) -> DateRange:
    return _minus(low, by), high + by if LATEST - high > by else LATEST
