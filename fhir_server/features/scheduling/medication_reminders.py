"""When a patient is to be reminded of a medicine: from the times that its order names. Pure.

https://hl7.org/fhir/R4/datatypes.html#Timing and design/scheduling.md, section 8. Read are the
codes of ``when``, ``timeOfDay`` and ``dayOfWeek``; without a timing, a text such as ``1-0-1``
(morning, noon, night), also with the digits of Bangla. Whatever else an order says, such as a
frequency without times, or ``as needed``, gives no reminder: a time of our own would be a guess.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
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

_AMOUNT = r"(?:[0-9]{1,2}(?:[./][0-9])?|½|¼)"
_PATTERN = re.compile(
    rf"(?<![0-9])({_AMOUNT})\s*[-+–]\s*({_AMOUNT})\s*[-+–]\s*({_AMOUNT})(?![0-9])"
)
_PLACES = ("MORN", "NOON", "NIGHT")
_BANGLA = str.maketrans("০১২৩৪৫৬৭৮৯", "0123456789")
_TIMES_MAX = 24

Json = Mapping[str, Any]


def doses(order: Json, times: Mapping[str, str], zone: ZoneInfo, now: datetime) -> list[datetime]:
    """Return when the doses of ``order`` (a MedicationRequest) are, from ``now`` on for
    :data:`AHEAD`, UTC and in their order. ``times`` are the local times of codes, as ``08:00``."""
    if order.get("status") != "active" or order.get("doNotPerform") is True:
        return []
    if order.get("intent") in ("proposal", "plan", "option"):
        return []
    known = {**DOSE_TIMES, **times}
    found: set[datetime] = set()
    for one in _list(order, "dosageInstruction"):
        found.update(_of(one, order, known, zone, now))
    return sorted(found)


def _of(
    dosage: Json, order: Json, times: Mapping[str, str], zone: ZoneInfo, now: datetime
) -> Iterator[datetime]:
    if dosage.get("asNeededBoolean") is True or "asNeededCodeableConcept" in dosage:
        return
    timing = dosage.get("timing")
    repeat = timing.get("repeat") if isinstance(timing, dict) else None
    clocks = _clocks(repeat, times) if isinstance(repeat, dict) else []
    if timing is None:
        clocks = _of_text(dosage.get("text"), times)
    begin, end = _bounds(repeat if isinstance(repeat, dict) else {}, order)
    for moment_ in _at(clocks, _days_of(repeat), zone, now):
        if (begin is None or begin <= moment_) and (end is None or moment_ < end):
            yield moment_


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


def _of_text(text: Any, times: Mapping[str, str]) -> list[tuple[time, int]]:
    """Return the times of ``1-0-1``.

    >>> [f"{clock:%H}" for clock, _ in _of_text("1+0+1 after food", DOSE_TIMES)]
    ['08', '21']
    """
    match = _PATTERN.search(text.translate(_BANGLA)) if isinstance(text, str) else None
    if match is None:
        return []
    places = [name for name, amount in zip(_PLACES, match.groups(), strict=True) if amount != "0"]
    clocks = [_clock(times.get(name, "")) for name in places]
    return [(clock, 0) for clock in clocks if clock is not None]


def _at(
    clocks: Sequence[tuple[time, int]], days: frozenset[str], zone: ZoneInfo, now: datetime
) -> Iterator[datetime]:
    first = now.astimezone(zone).date() - timedelta(days=1)
    for count in range(AHEAD.days + 3):
        day: date = first + timedelta(days=count)
        if days and _DAYS[day.weekday()] not in days:
            continue
        for clock, minutes in clocks:
            local = datetime.combine(day, clock, zone).astimezone(UTC)
            found = local + timedelta(minutes=minutes)
            if now < found <= now + AHEAD:
                yield found


def _days_of(repeat: Any) -> frozenset[str]:
    days = repeat.get("dayOfWeek") if isinstance(repeat, dict) else None
    return frozenset(one for one in days or () if one in _DAYS)


def _bounds(repeat: Json, order: Json) -> tuple[datetime | None, datetime | None]:
    """Return from when until when doses are taken; ``None`` where that is not said."""
    begin = moment(order.get("authoredOn"))
    if isinstance(period := repeat.get("boundsPeriod"), dict):
        end = period.get("end")
        closed = moment(end)
        if closed is not None and isinstance(end, str) and "T" not in end:
            closed += timedelta(days=1)  # the last day is one of them
        return moment(period.get("start")) or begin, closed
    if isinstance(duration := repeat.get("boundsDuration"), dict) and begin is not None:
        unit = {"d": 1, "wk": 7, "mo": 30, "a": 365}.get(str(duration.get("code", "")))
        try:
            days = min(float(duration.get("value", 0)), 36_500.0)
        except (TypeError, ValueError):
            return begin, None
        return begin, begin + timedelta(days=days * unit) if unit and days > 0 else None
    return begin, None


def _clock(text: str) -> time | None:
    try:
        return time.fromisoformat(text).replace(tzinfo=None) if text else None
    except ValueError:
        return None


def _list(element: Json, name: str) -> list[Any]:
    found = element.get(name)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
