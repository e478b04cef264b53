"""Dates, dateTimes and times of any precision, and what can be said of two of them.

http://hl7.org/fhirpath/N1/#date, http://hl7.org/fhirpath/N1/#comparison

A moment is compared from the year on, down to the finest part that both have; seconds and their
fraction are one part. Where one of two equal beginnings goes on, nothing can be said.
"""

import calendar
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache

_FORM = re.compile(
    r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2}))?)?"
    r"(?:(T)(?:([0-9]{2})(?::([0-9]{2})(?::([0-9]{2}(?:\.[0-9]{1,12})?))?)?"
    r"(Z|[+-][0-9]{2}:[0-9]{2})?)?)?"
)
_TIME = re.compile(r"([0-9]{2})(?::([0-9]{2})(?::([0-9]{2}(?:\.[0-9]{1,12})?))?)?")
_MOST = (9999, 12, 31, 23, 59, 60)
_UNCERTAIN_HOURS = 26  # between the zones +14:00 and -12:00

Part = int | Decimal


@dataclass(frozen=True, slots=True)
class Moment:
    """A point of time as written.

    ``type`` is ``Date``, ``DateTime`` or ``Time``. ``parts`` are year, month, day, hour, minute,
    second (of a Time: hour, minute, second), as many as are written; a second with a fraction is a
    :class:`Decimal`. ``offset`` is that of the zone in minutes, or ``None``.
    """

    type: str
    parts: tuple[Part, ...]
    offset: int | None = None

    def __str__(self) -> str:
        """Return the text without the sign: ``2015-02-04T14:34:28Z``."""
        texts = [_two(part) for part in self.parts]
        if self.type == "Time":
            return ":".join(texts)
        texts[0] = f"{int(self.parts[0]):04}"
        day, time = "-".join(texts[:3]), ":".join(texts[3:])
        return f"{day}T{time}{_zone(self.offset)}" if time else day

    @property
    def utc(self) -> tuple[Part, ...]:
        """The parts, at the zone UTC where one is written."""
        if not self.offset or len(self.parts) < 5:
            return self.parts
        return _moved(self.parts, -self.offset)


def _two(part: Part) -> str:
    if isinstance(part, Decimal):
        text = f"{part:f}"
        return text if text.index(".") > 1 else f"0{text}"
    return f"{part:02}"


def _zone(offset: int | None) -> str:
    if offset is None:
        return ""
    if offset == 0:
        return "Z"
    hours, minutes = divmod(abs(offset), 60)
    return f"{'-' if offset < 0 else '+'}{hours:02}:{minutes:02}"


@lru_cache(maxsize=4096)
def date(text: str) -> Moment | None:
    """Return the Date that ``text`` writes, or ``None``."""
    found = moment(text)
    return found if found is not None and found.type == "Date" else None


@lru_cache(maxsize=4096)
def date_time(text: str) -> Moment | None:
    """Return the DateTime that ``text`` writes, with or without a time, or ``None``."""
    found = moment(text)
    return found and Moment("DateTime", found.parts, found.offset)


@lru_cache(maxsize=1024)
def time(text: str) -> Moment | None:
    """Return the Time that ``text`` writes, without a ``T``, or ``None``."""
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    parts = tuple(_part(part) for part in found.groups() if part is not None)
    return Moment("Time", parts) if _is_possible((1, 1, 1, *parts)) else None


def moment(text: str) -> Moment | None:
    """Return the Date or DateTime that ``text`` writes (it is the latter with a ``T``)."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    year, month, day, sign, hour, minute, second, zone = found.groups()
    if hour and not day:
        return None
    written = (year, month, day, hour, minute, second)
    parts = tuple(_part(part) for part in written if part is not None)
    offset = _offset(zone) if zone else None
    if not _is_possible(parts) or (offset is not None and abs(offset) > 14 * 60):
        return None
    return Moment("DateTime" if sign else "Date", parts, offset)


def _part(text: str) -> Part:
    return Decimal(text) if "." in text else int(text)


def _offset(text: str) -> int:
    if text == "Z":
        return 0
    minutes = int(text[1:3]) * 60 + int(text[4:6])
    return -minutes if text[0] == "-" else minutes


def _is_possible(parts: tuple[Part, ...]) -> bool:
    least = (1, 1, 1, 0, 0, 0)
    if not all(least[at] <= int(part) <= _MOST[at] for at, part in enumerate(parts)):
        return False
    return len(parts) < 3 or parts[2] <= days_in(int(parts[0]), int(parts[1]))


def days_in(year: int, month: int) -> int:
    """Return how many days the month has."""
    return calendar.monthrange(year, month)[1]


def _moved(parts: tuple[Part, ...], minutes: int) -> tuple[Part, ...]:
    """Return ``parts``, which have a time, so many minutes later; unmoved at the ends of time."""
    year, month, day, hour, minute = (int(part) for part in parts[:5])
    try:
        moved = datetime(year, month, day, hour, minute) + timedelta(minutes=minutes)  # noqa: DTZ001
    except OverflowError:
        return parts
    return (moved.year, moved.month, moved.day, moved.hour, moved.minute, *parts[5:])


def order(left: Moment, right: Moment) -> int | None:
    """Return -1, 0 or 1 as ``left`` is before, at or after ``right``; ``None`` where it is open.

    A time without a zone may be in any zone: beside one with a zone, it is open what is less than
    26 hours apart. Both are Times, or neither is.
    """
    one, other = left.utc, right.utc
    timed = len(one) > 3 and len(other) > 3 and left.type != "Time"
    if timed and (left.offset is None) != (right.offset is None):
        later = _moved(_minutes(other), _UNCERTAIN_HOURS * 60)
        earlier = _moved(_minutes(other), -_UNCERTAIN_HOURS * 60)
        one = _minutes(one)
        return -1 if one < earlier else 1 if one > later else None
    for mine, others in zip(one, other, strict=False):
        if mine != others:
            return -1 if mine < others else 1
    return 0 if len(one) == len(other) else None


def _minutes(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    return (*parts, 0)[:5]


# ----------------------------------------------------------------------------------- arithmetic

_AT = {"year": 0, "month": 1, "day": 2, "hour": 3, "minute": 4, "second": 5, "millisecond": 5}
_IN_DAY = {"hour": 24, "minute": 1440, "second": 86_400, "millisecond": 86_400_000}
_SHIFT_MAX = 10**15  # milliseconds beyond the years 1 to 9999


def shifted(moment: Moment, amount: Decimal, unit: str) -> Moment | None:
    """Return ``moment``, so many calendar ``unit`` later; ``None`` beyond the years 1 to 9999.

    http://hl7.org/fhirpath/N1/#datetime-arithmetic: fractions are dropped, except of seconds; a
    unit finer than what is written counts as whole ones of the finest part.
    """
    if abs(amount) > _SHIFT_MAX:
        return None
    if unit == "week":
        amount, unit = amount * 7, "day"
    try:
        if moment.type == "Time":
            return _time_shifted(moment, amount, unit)
        return _shifted(moment, amount, unit)
    except (OverflowError, ValueError):
        return None


def _shifted(moment: Moment, amount: Decimal, unit: str) -> Moment:
    parts = moment.parts
    if unit in ("year", "month") or len(parts) < 3:
        return _months_later(moment, _months(parts, amount, unit))
    if len(parts) == 3:
        days = int(amount / _IN_DAY.get(unit, 1))
        later = datetime(*map(int, parts)) + timedelta(days=days)  # type: ignore[arg-type]  # noqa: DTZ001
        return Moment(moment.type, (later.year, later.month, later.day), moment.offset)
    return Moment(moment.type, _clock_later(parts, amount, unit), moment.offset)


def _months(parts: tuple[Part, ...], amount: Decimal, unit: str) -> int:
    """Return how many months ``amount`` is, of which a year alone takes whole years."""
    if unit == "year":
        return int(amount) * 12
    if unit != "month":
        days = int(amount / _IN_DAY.get(unit, 1))
        return int(Decimal(days) / 365) * 12 if len(parts) == 1 else int(Decimal(days) / 30)
    return int(amount / 12) * 12 if len(parts) == 1 else int(amount)


def _months_later(moment: Moment, months: int) -> Moment:
    year, month = divmod(int(moment.parts[0]) * 12 + int((*moment.parts, 1)[1]) - 1 + months, 12)
    if not 1 <= year <= 9999:
        raise OverflowError(year)
    rest = moment.parts[2:]
    if rest:
        rest = (min(int(rest[0]), days_in(year, month + 1)), *rest[1:])
    return Moment(moment.type, (year, month + 1, *rest)[: len(moment.parts)], moment.offset)


def _clock_later(parts: tuple[Part, ...], amount: Decimal, unit: str) -> tuple[Part, ...]:
    """Return the ``parts`` of a day and a time so much later, as precise as they are."""
    seconds = _seconds(parts[3:]) + _amount_of_seconds(amount, unit, len(parts) - 3)
    days, seconds = divmod(seconds, 86_400)
    if seconds < 0:
        days, seconds = days - 1, seconds + 86_400
    year, month, day = (int(part) for part in parts[:3])
    later = datetime(year, month, day) + timedelta(days=int(days))  # noqa: DTZ001
    return (later.year, later.month, later.day, *_clock(seconds, parts[3:]))


def _time_shifted(moment: Moment, amount: Decimal, unit: str) -> Moment:
    if unit in ("year", "month", "day"):
        return moment
    seconds = _seconds(moment.parts) + _amount_of_seconds(amount, unit, len(moment.parts))
    seconds %= 86_400
    if seconds < 0:
        seconds += 86_400
    return Moment("Time", _clock(seconds, moment.parts))


_UNIT_SECONDS = {"day": 86_400, "hour": 3600, "minute": 60, "second": 1}


def _amount_of_seconds(amount: Decimal, unit: str, parts: int) -> Decimal:
    """Return what is added, in seconds, as whole ones of the finest of ``parts`` that there are."""
    if unit == "millisecond":
        seconds = Decimal(int(amount)) / 1000
    elif unit == "second":
        seconds = amount
    else:
        seconds = Decimal(int(amount)) * _UNIT_SECONDS[unit]
    finest = (3600, 60)[parts - 1] if parts < 3 else 0
    return Decimal(int(seconds / finest) * finest) if finest else seconds


def _seconds(clock: tuple[Part, ...]) -> Decimal:
    hour, minute, second = (*clock, 0, 0)[:3]
    return Decimal(hour * 3600 + minute * 60) + second


def _clock(seconds: Decimal, like: tuple[Part, ...]) -> tuple[Part, ...]:
    """Return hour, minute and second of a day, as many of them as ``like`` has, and as precise."""
    whole, fraction = divmod(seconds, 1)
    minutes, second = divmod(int(whole), 60)
    hour, minute = divmod(minutes, 60)
    last: Part = second
    if len(like) > 2 and isinstance(like[2], Decimal):
        last = (second + fraction).quantize(like[2])
    elif fraction:
        last = second + fraction.normalize()
    return (hour, minute, last)[: len(like)]
