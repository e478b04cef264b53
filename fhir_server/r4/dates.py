"""Partial dates as half-open ranges of UTC time.

https://hl7.org/fhir/R4/datatypes.html#dateTime

A date without a zone is read as UTC. A range ends where the next one of the same precision begins:
``2013-01`` is ``[2013-01-01T00:00Z, 2013-02-01T00:00Z)``. Bounds are whole milliseconds, which is
what MongoDB keeps: finer ones are widened, on both sides of a comparison alike.
"""

import re
from datetime import UTC, datetime, timedelta

from fhir_server.outcome import invalid_value

DateRange = tuple[datetime, datetime]

# A millisecond is left on either side, so that what has no beginning or no end is beyond all dates.
EARLIEST = datetime(1, 1, 1, 0, 0, 0, 1000, tzinfo=UTC)
LATEST = datetime(9999, 12, 31, 23, 59, 59, 998000, tzinfo=UTC)

_DAY = timedelta(days=1)
_MINUTE = timedelta(minutes=1)
_SECOND = timedelta(seconds=1)
_MILLISECOND = timedelta(milliseconds=1)
_OFFSET_HOURS_MAX = 14  # https://hl7.org/fhir/R4/datatypes.html#dateTime, its regular expression

# Seconds may be absent: "Time can consist of hours and minutes with no seconds" (search.html#date).
_FORM = re.compile(
    r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2})"
    r"(?:T([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,12}))?)?"
    r"(?:(Z)|([+-])([0-9]{2}):([0-9]{2}))?)?)?)?"
)


def date_range(text: str, what: str = "A date") -> DateRange:
    """Return ``[low, high)`` of a FHIR date, dateTime or instant of any precision.

    A second of 60 (a leap second) is the second after 59. What lies outside the years 1 to 9999
    once its offset is taken off is cut to :data:`EARLIEST` and :data:`LATEST`.

    Raises ``value`` for what is no date; ``what`` begins the sentence.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise _no_date(what, text)
    try:
        low, high = _range(found.groups())
    except ValueError as error:
        raise _no_date(what, text) from error
    return max(low, EARLIEST), min(high, LATEST)


def _no_date(what: str, text: str) -> Exception:
    return invalid_value(what, text, "a date such as 2024, 2024-02-29 or 2024-02-29T13:05:00Z")


def _range(parts: tuple[str | None, ...]) -> DateRange:
    year, month, day, hour, minute, second, fraction, zulu, sign, hours, minutes = parts
    if not day or not hour:
        return _of_days(int(year or 0), month, day)
    seconds = int(second or 0)
    if seconds > 60:
        raise ValueError(seconds)
    low = datetime(
        *(int(year or 0), int(month or 0), int(day)),
        *(int(hour), int(minute or 0), min(seconds, 59)),
        tzinfo=UTC,
    )
    if zulu is None and sign:
        offset = _offset(sign, int(hours or 0), int(minutes or 0))
        low = _moved(low, -offset)
    if seconds == 60:
        low = _moved(low, _SECOND)
    if fraction:
        return _of_fraction(low, fraction)
    return low, _moved(low, _SECOND if second else _MINUTE)


def _of_days(year: int, month: str | None, day: str | None) -> DateRange:
    low = datetime(year, int(month or 1), int(day or 1), tzinfo=UTC)
    if day:
        return low, _moved(low, _DAY)
    if month and month != "12":
        return low, low.replace(month=low.month + 1)
    if year == LATEST.year:
        return low, LATEST
    return low, datetime(year + 1, 1, 1, tzinfo=UTC)


def _of_fraction(low: datetime, digits: str) -> DateRange:
    """Return the range of ``digits`` behind the point, widened to whole milliseconds."""
    scale = 10 ** len(digits)
    first = int(digits) * 1000 // scale
    last = -(-(int(digits) + 1) * 1000 // scale)
    return _moved(low, first * _MILLISECOND), _moved(low, last * _MILLISECOND)


def _offset(sign: str, hours: int, minutes: int) -> timedelta:
    if hours > _OFFSET_HOURS_MAX or minutes > 59:
        raise ValueError(hours)
    offset = timedelta(hours=hours, minutes=minutes)
    return -offset if sign == "-" else offset


def _moved(moment: datetime, by: timedelta) -> datetime:
    try:
        return min(moment + by, LATEST)
    except OverflowError:
        return EARLIEST if by < timedelta() else LATEST
