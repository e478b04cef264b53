"""When a patient is to be reminded of a medicine: from the times that its order names. Pure.

https://hl7.org/fhir/R4/datatypes.html#Timing and design/scheduling.md, section 8. Read are the
codes of ``when``, ``timeOfDay`` and ``dayOfWeek``; without a timing, a text such as ``1-0-1``
(morning, noon, night), also with the digits of Bangla. Whatever else an order says, such as a
frequency without times, or ``as needed``, gives no reminder: a time of our own would be a guess.
So does an order that ends we do not know when: nobody is to be reminded beyond the end of a course.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from fhir_server.features.scheduling.extensions import moment

AHEAD = timedelta(hours=48)
"""How far ahead doses are planned."""
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
# Codes of an event -> the time of the settings, and how many minutes before or after it.
# https://hl7.org/fhir/R4/valueset-event-timing.html; half an hour from a meal, where none is said.
_WHEN: Mapping[str, tuple[str, int]] = {
    "MORN": ("MORN", 0),
    "MORN.early": ("MORN", -60),
    "MORN.late": ("MORN", 120),
    "NOON": ("NOON", 0),
    "AFT": ("AFT", 0),
    "AFT.early": ("AFT", -60),
    "AFT.late": ("AFT", 60),
    "EVE": ("EVE", 0),
    "EVE.early": ("EVE", -60),
    "EVE.late": ("EVE", 60),
    "NIGHT": ("NIGHT", 0),
    "HS": ("HS", 0),
    "WAKE": ("WAKE", 0),
    "CM": ("CM", 0),
    "CD": ("CD", 0),
    "CV": ("CV", 0),
    "ACM": ("CM", -30),
    "ACD": ("CD", -30),
    "ACV": ("CV", -30),
    "PCM": ("CM", 30),
    "PCD": ("CD", 30),
    "PCV": ("CV", 30),
}
_MEALS = {"C": ("CM", "CD", "CV"), "AC": ("ACM", "ACD", "ACV"), "PC": ("PCM", "PCD", "PCV")}
DOSE_TIMES: Mapping[str, str] = {
    "WAKE": "07:00",
    "MORN": "08:00",
    "CM": "08:00",
    "NOON": "13:00",
    "CD": "13:30",
    "AFT": "15:00",
    "EVE": "18:00",
    "CV": "20:00",
    "NIGHT": "21:00",
    "HS": "22:00",
}
"""The local times of the codes that the settings do not name."""

_AMOUNT = r"(?:(?:0|[1-9][0-9]?)(?:[./][0-9])?|½|¼)"
_PATTERN = re.compile(
    rf"(?<![0-9./])({_AMOUNT})\s*[-+–]\s*({_AMOUNT})(?:\s*[-+–]\s*({_AMOUNT}))?"
    rf"(\s*[-+–]\s*{_AMOUNT})?(?![0-9])"
)
_COURSE = re.compile(
    r"(?<![0-9])([0-9]{1,3})\s*(?:(/7|days?\b|d\b|দিন)|(/52|weeks?\b|wks?\b|সপ্তাহ)|(months?\b|মাস))",
    re.IGNORECASE,
)
_COURSE_DAYS = (1, 7, 30)
_UNIT_DAYS = {"h": 1 / 24, "d": 1, "wk": 7, "mo": 30, "a": 365}
_PLACES = ("MORN", "NOON", "NIGHT")
_BANGLA = str.maketrans("০১২৩৪৫৬৭৮৯", "0123456789")
_TIMES_MAX = 24
_COURSE_DAYS_MAX = 36_500
_FIRST, _LAST = datetime(1, 1, 3, tzinfo=UTC), datetime(9999, 12, 29, tzinfo=UTC)

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Course:
    """What one dosage says: the local times of a day and the minutes behind them, on which days
    (empty: on all), from when until when."""

    clocks: Sequence[tuple[time, int]]
    days: frozenset[str]
    begin: datetime | None
    end: datetime | None


def doses(
    order: Json,
    times: Mapping[str, str],
    zone: ZoneInfo,
    now: datetime,
    back: timedelta = timedelta(0),
) -> list[datetime]:
    """Return when the doses of ``order`` (a MedicationRequest) are, from ``back`` before ``now`` on
    up to :data:`AHEAD`, UTC and in their order. ``times`` are the local times of codes, as
    ``08:00``."""
    found: set[datetime] = set()
    for course in _courses(order, {**DOSE_TIMES, **times}, zone):
        for at in _at(course, zone, now - back, now + AHEAD):
            if (course.begin is None or course.begin <= at) and (
                course.end is None or at < course.end
            ):
                found.add(at)
    return sorted(found)


def goes_on(order: Json, times: Mapping[str, str], zone: ZoneInfo, now: datetime) -> bool:
    """Whether ``order`` may have doses after ``now``, and be it in weeks: what is taken on Fridays,
    or from next month on, is to be planned then."""
    courses = _courses(order, {**DOSE_TIMES, **times}, zone)
    return any(one.clocks and (one.end is None or now < one.end) for one in courses)


def _courses(order: Json, times: Mapping[str, str], zone: ZoneInfo) -> Iterator[_Course]:
    if order.get("status") != "active" or order.get("doNotPerform") is True:
        return
    if order.get("intent") in ("proposal", "plan", "option"):
        return
    for dosage in _list(order, "dosageInstruction"):
        if dosage.get("asNeededBoolean") is True or "asNeededCodeableConcept" in dosage:
            continue
        timing = dosage.get("timing")
        repeat = timing.get("repeat") if isinstance(timing, dict) else None
        repeat = repeat if isinstance(repeat, dict) else {}
        begin = _moment(order.get("authoredOn"), zone)
        if timing is None:
            text = dosage.get("text")
            said = text.translate(_BANGLA) if isinstance(text, str) else ""
            clocks, bounds = _of_text(said, times), _course_of(said, begin)
        else:
            clocks, bounds = _clocks(repeat, times), _bounds(repeat, begin, zone)
        if clocks and bounds is not None:
            yield _Course(clocks, _days_of(repeat), *bounds)


def _clocks(repeat: Json, times: Mapping[str, str]) -> list[tuple[time, int]]:
    """Return local times, and the minutes that a dose is behind them."""
    found: list[tuple[time, int]] = []
    if _is_every_day(repeat):
        for one in repeat.get("timeOfDay") or ():
            if isinstance(one, str) and (clock := _clock(one)) is not None:
                found.append((clock, 0))
        offset = repeat.get("offset")
        said = offset if isinstance(offset, int) and 0 <= offset < 24 * 60 else None
        for code in repeat.get("when") or ():
            for each in _MEALS.get(code, (code,)) if isinstance(code, str) else ():
                name, minutes = _WHEN.get(each, ("", 0))
                clock = _clock(times.get(name, ""))
                if clock is not None:
                    way = -1 if minutes < 0 else 1
                    found.append((clock, minutes if said is None else way * said))
    return found[:_TIMES_MAX]


def _is_every_day(repeat: Json) -> bool:
    """Whether the times are those of each day: what is every other day, or weekly, has no day that
    it begins on."""
    period, unit = repeat.get("period", 1), repeat.get("periodUnit", "d")
    return bool(repeat.get("dayOfWeek")) or (period == 1 and unit == "d")


def _of_text(text: str, times: Mapping[str, str]) -> list[tuple[time, int]]:
    """Return the times of ``1-0-1``; none where there are two such, as of a dose that is tapered,
    or where there are more or fewer than three numbers.

    >>> [f"{clock:%H}" for clock, _ in _of_text("1+0+1 after food", DOSE_TIMES)]
    ['08', '21']
    >>> _of_text("1-0-1-1", DOSE_TIMES), _of_text("1-0-1, then 0-0-1", DOSE_TIMES)
    ([], [])
    """
    matches = [one for one in _PATTERN.finditer(_COURSE.sub(" ", text)) if one[3]]
    if len(matches) != 1 or matches[0][4]:
        return []
    amounts = matches[0].groups()[:3]
    places = [name for name, amount in zip(_PLACES, amounts, strict=True) if amount != "0"]
    clocks = [_clock(times.get(name, "")) for name in places]
    return [(clock, 0) for clock in clocks if clock is not None]


def _at(course: _Course, zone: ZoneInfo, after: datetime, last: datetime) -> Iterator[datetime]:
    first = after.astimezone(zone).date() - timedelta(days=1)
    for count in range((last - after).days + 4):
        day: date = first + timedelta(days=count)
        if course.days and _DAYS[day.weekday()] not in course.days:
            continue
        for clock, minutes in course.clocks:
            local = datetime.combine(day, clock, zone).astimezone(UTC)
            found = local + timedelta(minutes=minutes)
            if after < found <= last:
                yield found


def _days_of(repeat: Any) -> frozenset[str]:
    days = repeat.get("dayOfWeek") if isinstance(repeat, dict) else None
    return frozenset(one for one in days or () if one in _DAYS)


_Bounds = tuple[datetime | None, datetime | None]


def _bounds(repeat: Json, begin: datetime | None, zone: ZoneInfo) -> _Bounds | None:
    """Return from when until when doses are taken, each ``None`` where that is not said. ``None``
    where there is an end, and it is not known when: after so many doses, or in five to seven days.
    ``begin`` is when the order was written."""
    if isinstance(period := repeat.get("boundsPeriod"), dict):
        end = period.get("end")
        closed = _moment(end, zone)
        if end is not None and closed is None:
            return None
        if closed is not None and "T" not in str(end):
            closed = _moment(str(end), zone, next_day=True)  # the last day is one of them
        return _moment(period.get("start"), zone) or begin, closed
    if isinstance(duration := repeat.get("boundsDuration"), dict):
        try:
            value = float(duration.get("value", 0))
        except (TypeError, ValueError):
            return None
        return _lasting(begin, value * _UNIT_DAYS.get(str(duration.get("code", "")), 0))
    if any(one in repeat for one in ("boundsRange", "boundsDuration", "boundsPeriod", "count")):
        return None
    return begin, None


def _course_of(text: str, begin: datetime | None) -> _Bounds | None:
    """Return the bounds of a text such as ``1-0-1 for 7 days``; of several lengths the shortest."""
    lengths = [
        int(one[1]) * days
        for one in _COURSE.finditer(text)
        for unit, days in zip(one.groups()[1:], _COURSE_DAYS, strict=True)
        if unit
    ]
    return _lasting(begin, min(lengths)) if lengths else (begin, None)


def _lasting(begin: datetime | None, days: float) -> _Bounds | None:
    if begin is None or not 0 < days <= _COURSE_DAYS_MAX:
        return None
    return begin, max(begin, begin + min(timedelta(days=days), _LAST - begin))


def _moment(text: Any, zone: ZoneInfo, *, next_day: bool = False) -> datetime | None:
    """Return the dateTime ``text`` in UTC; a date is its local midnight, that at its end for
    ``next_day``."""
    try:
        day = date.fromisoformat(text) if isinstance(text, str) and len(text) == 10 else None
    except ValueError:
        return None
    if day is None:
        return moment(text)
    if not _FIRST.date() < day < _LAST.date():  # forever, as 9999-12-31, and no zone goes beyond
        return _LAST if day >= _LAST.date() else _FIRST
    return datetime.combine(day + timedelta(days=next_day), time(), zone).astimezone(UTC)


def _clock(text: str) -> time | None:
    try:
        return time.fromisoformat(text).replace(tzinfo=None) if text else None
    except ValueError:
        return None


def _list(element: Json, name: str) -> list[Any]:
    found = element.get(name)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
