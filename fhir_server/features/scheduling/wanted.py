"""What ``$find`` is asked for, read from its parameters. Pure.

Section 3 of design/scheduling.md; https://profiles.ihe.net/ITI/Scheduling/ITI-115.html
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from fhir_server.features.scheduling.parts import NEARER, YEARS, clock, moments
from fhir_server.features.scheduling.windows import DAYS
from fhir_server.operations.asked import Given
from fhir_server.outcome import FhirError, Issue, invalid_value
from fhir_server.r4.references import target

TABLE: Mapping[str, str] = {
    "start": "dateTime",
    "end": "dateTime",
    "timing": "Timing",
    "_count": "integer",
    **dict.fromkeys(("specialty", "visit-type", "location-string"), "string"),
    **dict.fromkeys(("practitioner", "organization", "location-reference"), "Reference"),
    **dict.fromkeys(("patient-reference", "schedule", "service-type-reference"), "Reference"),
    "ignore-appointment": "Reference",
    "occurrence-count": "integer",
}
UNSERVED: Mapping[str, str] = {
    "patient-resource": "who is not known here is no reason against a time; leave it out",
    "reason": "no rule says which reason wants which doctor; use specialty or visit-type",
    "referral-identifier": "referrals do not decide on times here; leave it out",
    "insurance-reference": "insurance does not decide on times here; leave it out",
}
COUNT_DEFAULT, COUNT_MAX = 20, 1000
SERIES_MAX = 52
_SERIES_DAYS_MAX = 7
_VALUES_MAX = 100
_TIMING = frozenset(("dayOfWeek", "timeOfDay", "when", "boundsPeriod"))
# https://hl7.org/fhir/R4/valueset-event-timing.html, as far as it is about the clock.
_WHEN = {"MORN": (300, 720), "AFT": (720, 1020), "EVE": (1020, 1260), "NIGHT": (1260, 1740)}

Token = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Named:
    """A resource that is asked for: ``Practitioner/1``, or its identifier (system, value)."""

    key: str = ""
    identifier: Token = ("", "")


@dataclass(frozen=True, slots=True)
class Timing:
    """When it suits, by the clock of the rules: days (0 is Monday), hours as ``[start, end)`` in
    minutes, and from when to when. What is empty says nothing."""

    days: frozenset[int] = frozenset()
    hours: tuple[tuple[int, int], ...] = ()
    bounds: tuple[datetime, datetime] | None = None

    def suits(self, start: datetime, zone: ZoneInfo) -> bool:
        """Whether an appointment at ``start`` suits."""
        local = start.astimezone(zone)
        wall = local.hour * 60 + local.minute
        # What begins in the evening may go on after midnight.
        is_hour = any(low <= wall < high or low <= wall + 1440 < high for low, high in self.hours)
        return (
            (not self.days or local.weekday() in self.days)
            and (not self.hours or is_hour)
            and (self.bounds is None or self.bounds[0] <= start < self.bounds[1])
        )


ANY_TIME = Timing()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be found between ``start`` and ``end`` (UTC): ``count`` proposals at most, each of
    ``occurrences`` weekly ones. What is repeated is in order of preference."""

    start: datetime
    end: datetime
    count: int
    occurrences: int = 1
    schedules: tuple[Named, ...] = ()
    practitioners: tuple[Named, ...] = ()
    locations: tuple[Named, ...] = ()
    organizations: tuple[Named, ...] = ()
    addresses: tuple[str, ...] = ()
    specialties: tuple[Token, ...] = ()
    visit_types: tuple[Token, ...] = ()
    service: str = ""
    patients: tuple[str, ...] = ()
    ignored: str = ""
    timing: Timing = ANY_TIME


def wanted(given: Given, zone: ZoneInfo, days_max: int, bases: Sequence[str]) -> Wanted:
    """Return what ``given`` asks for. A date without a time is a day of ``zone``.

    Raises ``required`` without ``start`` or ``end``; ``value`` for a time without its zone, a range
    that is empty or longer than ``days_max``, and whatever else cannot be understood.
    """
    start, end = _moment(given, "start", zone), _moment(given, "end", zone)
    if end <= start:
        raise FhirError(Issue("value", "end is not after start."))
    if end - start > timedelta(days=days_max):
        raise FhirError(Issue("value", f"From start to end are more than {days_max} days."))
    found = Wanted(
        *(start, end, _whole(given, "_count", COUNT_DEFAULT, COUNT_MAX)),
        occurrences=_whole(given, "occurrence-count", 1, SERIES_MAX),
        schedules=_named(given, "schedule", "Schedule", bases),
        practitioners=_named(given, "practitioner", "Practitioner", bases),
        locations=_named(given, "location-reference", "Location", bases),
        organizations=_named(given, "organization", "Organization", bases),
        addresses=tuple(_many(given, "location-string")),
        specialties=tuple(_token("specialty", one) for one in _many(given, "specialty")),
        visit_types=tuple(_token("visit-type", one) for one in _many(given, "visit-type")),
        service=_one(given, "service-type-reference", "HealthcareService", bases),
        patients=_keys(given, "patient-reference", "Patient", bases),
        ignored=_one(given, "ignore-appointment", "Appointment", bases),
        timing=_timing(given.one("timing"), zone),
    )
    if found.occurrences > 1:
        _check_series(found)
    return found


def _check_series(found: Wanted) -> None:
    if found.ignored:
        text = "ignore-appointment moves one appointment; it is no part of a series."
        raise FhirError(Issue("value", text))
    if found.end - found.start > timedelta(days=_SERIES_DAYS_MAX):
        text = f"Of a series, start and end are about the first week: {_SERIES_DAYS_MAX} days."
        raise FhirError(Issue("value", text))


def _moment(given: Given, name: str, zone: ZoneInfo) -> datetime:
    said = given.text(name)
    if not said:
        raise FhirError(Issue("required", f"{given.name} needs {name}."))
    time = said.partition("T")[2]
    if time and not set(time) & set("Z+-"):  # in whose zone, nobody says
        raise invalid_value(name, said, "a time with its zone, such as 2026-12-01T09:00:00+06:00")
    try:
        found = moments(said, zone)[name == "end"]
    except OverflowError as error:
        raise invalid_value(name, said, NEARER) from error
    if found.year not in YEARS:
        raise invalid_value(name, said, NEARER)
    return found


def _whole(given: Given, name: str, default: int, most: int) -> int:
    found: int = given.one(name, default)
    if not 1 <= found <= most:
        raise invalid_value(name, str(found), f"1 to {most:,}")
    return found


def _many(given: Given, name: str) -> list[Any]:
    found = given.many(name)
    if len(found) > _VALUES_MAX:
        raise FhirError(Issue("too-costly", f"{name} is given more than {_VALUES_MAX} times."))
    return found


def _named(given: Given, name: str, type: str, bases: Sequence[str]) -> tuple[Named, ...]:
    return tuple(dict.fromkeys(_reference(one, name, type, bases) for one in _many(given, name)))


def _keys(given: Given, name: str, type: str, bases: Sequence[str]) -> tuple[str, ...]:
    found = _named(given, name, type, bases)
    if any(not one.key for one in found):
        raise FhirError(Issue("value", f"{name} is a reference such as {type}/1."))
    return tuple(one.key for one in found)


def _one(given: Given, name: str, type: str, bases: Sequence[str]) -> str:
    given.one(name)  # once
    return next(iter(_keys(given, name, type, bases)), "")


def _reference(element: Any, name: str, type: str, bases: Sequence[str]) -> Named:
    said = element.get("reference") if isinstance(element, dict) else None
    if isinstance(said, str):
        found = target(said if "/" in said else f"{type}/{said}", bases)
        if found.type == type and found.id:
            return Named(found.key)
        raise invalid_value(name, said, f"a reference such as {type}/1")
    identifier = element.get("identifier") if isinstance(element, dict) else None
    if isinstance(identifier, dict) and isinstance(identifier.get("value"), str):
        return Named(identifier=(str(identifier.get("system", "")), identifier["value"]))
    raise FhirError(Issue("value", f"{name} has neither reference nor identifier."))


def _token(name: str, said: str) -> Token:
    system, bar, code = said.rpartition("|")
    if not bar or not code or "|" in system:  # what is repeated is no list with commas
        raise invalid_value(name, said, "system|code")
    return system, code


def _timing(said: Any, zone: ZoneInfo) -> Timing:
    """Return what the Timing ``said`` allows. https://hl7.org/fhir/R4/datatypes.html#Timing"""
    if not said:
        return ANY_TIME
    repeat = said.get("repeat", {})
    unknown = [*(name for name in said if name != "repeat"), *(repeat.keys() - _TIMING)]
    if unknown:
        text = f"timing has {sorted(unknown)[0]}; understood are repeat with {', '.join(_KNOWN)}."
        raise FhirError(Issue("not-supported", text))
    try:
        hours = [(clock(one), clock(one) + 1) for one in repeat.get("timeOfDay", ())]
    except ValueError as error:
        raise FhirError(Issue("value", f"timing.repeat.timeOfDay {error}")) from error
    for one in repeat.get("when", ()):
        if one not in _WHEN:
            raise invalid_value("timing.repeat.when", one, ", ".join(_WHEN))
        hours.append(_WHEN[one])
    days = repeat.get("dayOfWeek", ())
    for one in days:
        if one not in DAYS:
            raise invalid_value("timing.repeat.dayOfWeek", one, ", ".join(DAYS))
    bounds = repeat.get("boundsPeriod")
    return Timing(
        frozenset(map(DAYS.index, days)),
        tuple(hours),
        _bounds(bounds, zone) if bounds else None,
    )


_KNOWN = sorted(_TIMING)


def _bounds(period: Mapping[str, Any], zone: ZoneInfo) -> tuple[datetime, datetime]:
    low = moments(period.get("start", "0001"), zone)[0]
    return low, moments(period.get("end", "9999"), zone)[1]
