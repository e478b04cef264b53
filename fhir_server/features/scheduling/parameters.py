"""The rules by which a Schedule gives out time, read from it and from its HealthcareService. Pure.

Section 2 of design/scheduling.md. Field by field the Schedule wins, then the HealthcareService,
then the default. On one resource a group of parameters for the service that is asked for wins over
a group for all services, and our extension over the alias.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from fhir_server.features.scheduling.parts import (
    Faults,
    Part,
    minutes,
    number,
    one_of,
    period,
    reference,
    whole,
    zone,
)
from fhir_server.features.scheduling.windows import DAY, Window, not_available, windows_of
from fhir_server.outcome import FhirError
from fhir_server.settings import Settings

Json = Mapping[str, Any]
T = TypeVar("T")

PARAMETERS = "urn:fhir-server:StructureDefinition:scheduling-parameters"
ALIAS = "https://medplum.com/fhir/StructureDefinition/SchedulingParameters"
"""What another server calls the same, with defaults of its own."""
SERVICE = "urn:fhir-server:StructureDefinition:service"
"""On a CodeableConcept that says which service: the HealthcareService (Reference)."""
SERVICE_ALIAS = "https://medplum.com/fhir/service-type-reference"
TIMEZONE = "http://hl7.org/fhir/StructureDefinition/timezone"

_LONGEST = 31 * DAY
_YEARS = 3660 * DAY
_BEGINNING = datetime(1, 1, 3, tzinfo=UTC)
_END = datetime(9999, 12, 29, tzinfo=UTC)
_OURS = frozenset(
    (
        *("duration", "timezone", "availability", "bufferBefore", "bufferAfter"),
        *("alignmentInterval", "alignmentOffset", "alignmentTimezone", "slotCapacity"),
        *("bookingLimit", "service", "minimumNotice", "horizon", "cancelCutoff"),
        *("rescheduleCutoff", "holdMinutes", "holidayCalendar"),
    )
)

Span = tuple[datetime, datetime]
Holidays = Mapping[str, frozenset[date]]
"""Local dates by the name of their calendar."""


@dataclass(frozen=True, slots=True)
class Limit:
    """``count`` appointments in a local ``day`` or ``week`` (ISO 8601)."""

    count: int
    per: str


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds where no rule says, from the settings."""

    zone: ZoneInfo
    notice: timedelta
    horizon: timedelta
    hold_minutes: int


@dataclass(frozen=True, slots=True)
class Rules:
    """How ``schedule`` (``Schedule/1``) gives out time for ``service``, ``""`` for any.

    Lengths are in minutes; ``duration`` is ``None`` where nothing says it, and then ``interval``
    may be. Spans are ``[start, end)`` in UTC. ``planning`` is the time that the Schedule covers.
    """

    schedule: str
    service: str
    zone: ZoneInfo
    duration: int | None = None
    windows: tuple[Window, ...] = ()
    holidays: frozenset[date] = frozenset()
    not_available: tuple[Span, ...] = ()
    planning: Span = (_BEGINNING, _END)
    before: int = 0
    after: int = 0
    interval: int | None = None
    offset: int = 0
    alignment_zone: ZoneInfo = field(default=ZoneInfo("UTC"))
    capacity: int = 1
    limits: tuple[Limit, ...] = ()
    notice: timedelta = timedelta(0)
    horizon: timedelta = timedelta(days=90)
    cancel_cutoff: timedelta | None = None
    reschedule_cutoff: timedelta | None = None
    hold_minutes: int = 10

    def limits_at(self, start: datetime) -> dict[str, int]:
        """Return the ids under which an appointment at ``start`` is counted, and how many there
        may be: ``limit|Schedule/1|HealthcareService/2|2026-12-01``."""
        day = start.astimezone(self.zone).date()
        year, week, _ = day.isocalendar()
        places = {"day": day.isoformat(), "week": f"{year:04}-W{week:02}"}
        return {
            f"limit|{self.schedule}|{self.service}|{places[one.per]}": one.count
            for one in self.limits
        }


def defaults_of(settings: Settings) -> Defaults:
    """Return the defaults that ``settings`` say."""
    return Defaults(
        ZoneInfo(settings.scheduling_timezone),
        timedelta(minutes=settings.scheduling_notice_minutes),
        timedelta(days=settings.scheduling_horizon_days),
        settings.scheduling_hold_minutes,
    )


def named_services(resource: Json, bases: Sequence[str]) -> list[str]:
    """Return the HealthcareServices that a Schedule or an Appointment names, each once: those of
    its ``serviceType``, of its actors or participants, and of its parameters.

    ``bases`` are what this server is called. The first is what an Appointment is for.
    """
    found = []
    for concept in whole(resource).value.get("serviceType") or ():
        for one in Part("", "", concept).parts() if isinstance(concept, dict) else ():
            if one.name in (SERVICE, SERVICE_ALIAS):
                found.append(_service(one, bases))
    found += [reference(one, "HealthcareService", bases) for one in resource.get("actor") or ()]
    for one in resource.get("participant") or ():
        actor = one.get("actor") if isinstance(one, dict) else None
        found.append(reference(actor, "HealthcareService", bases))
    for url in (PARAMETERS, ALIAS):
        for group in whole(resource).parts(url):
            found += [_service(one, bases) for one in group.parts("service")]
    return [one for one in dict.fromkeys(found) if one]


def rules(
    schedule: Json,
    service: Json | None,
    places: Sequence[Json],
    holidays: Holidays,
    defaults: Defaults,
    bases: Sequence[str] = (),
) -> Rules:
    """Return the rules of ``schedule`` for ``service``, ``None`` for no certain one.

    ``places`` are the actor of the Schedule and then its Locations: the first that has a time zone
    says it. ``bases`` are what this server is called.

    Raises ``extension`` (422) with each part that cannot be used and its place.
    """
    faults = Faults()
    levels = _levels(schedule, service, bases, faults)
    found = _rules(_Chain(levels, faults), schedule, service, places, holidays, defaults)
    if faults.issues:
        raise FhirError(*faults.issues)
    return found


def _levels(
    schedule: Json, service: Json | None, bases: Sequence[str], faults: Faults
) -> list[list[Part]]:
    """Return the groups of parameters, the one that wins first, as their parts."""
    wanted = _key(service)
    groups = []
    for resource in (schedule, service) if service is not None else (schedule,):
        for url in (PARAMETERS, ALIAS):
            own = whole(resource).parts(url)
            if resource is service:
                groups += own
                for part in (one for group in own for one in group.parts("service")):
                    faults.add(part, "service is for a Schedule that has several.")
                continue
            named = [_services_of(group, bases, faults) for group in own]
            groups += [one for one, of in zip(own, named, strict=True) if wanted and wanted in of]
            groups += [one for one, of in zip(own, named, strict=True) if not of]
    for group in groups:
        for part in group.parts():
            if part.name not in _OURS:
                faults.add(part, f"there is no parameter {part.name[:40]!r}.")
    return [[Part(one.owner, one.place, one.value), *one.parts()] for one in groups]


def _services_of(group: Part, bases: Sequence[str], faults: Faults) -> list[str]:
    parts = group.parts("service")
    found = [_service(one, bases) for one in parts]
    for part, one in zip(parts, found, strict=True):
        if not one:
            faults.add(part, "service is no reference to a HealthcareService here.")
    return found


def _service(part: Part, bases: Sequence[str]) -> str:
    return reference(part.value.get("valueReference"), "HealthcareService", bases)


def _key(resource: Json | None) -> str:
    return f"{resource['resourceType']}/{resource['id']}" if resource is not None else ""


@dataclass(frozen=True, slots=True)
class _Chain:
    """The groups that are asked one after the other; each begins with itself."""

    levels: Sequence[Sequence[Part]]
    faults: Faults

    @property
    def is_alias(self) -> bool:
        """Whether all that is said is said by the alias, so that its defaults hold."""
        names = {one[0].name for one in self.levels}
        return names == {ALIAS}

    def all(self, name: str) -> Sequence[Part]:
        """Return the parts ``name`` of the first group that has any."""
        for level in self.levels:
            if found := [one for one in level[1:] if one.name == name]:
                return found
        return ()

    def read(self, name: str, reader: Callable[[Part], T], default: T) -> T:
        """Return what ``reader`` makes of the first part ``name``. All groups are read, so that
        what cannot be used is said also where another wins."""
        found = [
            self.faults.read(part, reader, default)
            for level in self.levels
            if (part := self.faults.one(level[1:], name)) is not None
        ]
        return found[0] if found else default


def _rules(
    chain: _Chain,
    schedule: Json,
    service: Json | None,
    places: Sequence[Json],
    holidays: Holidays,
    defaults: Defaults,
) -> Rules:
    read, faults = chain.read, chain.faults
    local = read("timezone", zone, _zone_of_places(places, faults) or defaults.zone)
    duration = read("duration", minutes(1, _LONGEST), 0)
    interval = read("alignmentInterval", minutes(0 if chain.is_alias else 1, DAY), -1)
    if chain.is_alias and interval <= 0:
        interval = 60  # its default; and 0 is written there for "on the hour"
    said = chain.all("availability")
    calendar = read("holidayCalendar", _calendar(holidays), frozenset[date]())
    return Rules(
        *(_key(schedule), _key(service), local, duration or None),
        windows=windows_of(said, service, always=chain.is_alias, faults=faults),
        holidays=calendar,
        not_available=tuple(not_available(said, service, local, faults)),
        planning=_planning(schedule, local, faults),
        before=read("bufferBefore", minutes(0, 7 * DAY), 0),
        after=read("bufferAfter", minutes(0, 7 * DAY), 0),
        interval=interval if interval > 0 else duration or None,
        offset=read("alignmentOffset", minutes(0, DAY), 0),
        alignment_zone=read(
            "alignmentTimezone", zone, ZoneInfo("UTC") if chain.is_alias else local
        ),
        capacity=read("slotCapacity", number(1, 10_000), 1),
        limits=tuple(_limits(chain)),
        notice=_length(chain, "minimumNotice", defaults.notice) or defaults.notice,
        horizon=_length(chain, "horizon", defaults.horizon) or defaults.horizon,
        cancel_cutoff=_length(chain, "cancelCutoff", None),
        reschedule_cutoff=_length(chain, "rescheduleCutoff", None),
        hold_minutes=read("holdMinutes", number(1, DAY), defaults.hold_minutes),
    )


def _length(chain: _Chain, name: str, default: timedelta | None) -> timedelta | None:
    found = chain.read(name, minutes(0, _YEARS), -1)
    return timedelta(minutes=found) if found >= 0 else default


def _zone_of_places(places: Sequence[Json], faults: Faults) -> ZoneInfo | None:
    for place in places:
        for part in whole(place).parts(TIMEZONE):
            return faults.read(part, zone, None)
    return None


def _calendar(holidays: Holidays) -> Callable[[Part], frozenset[date]]:
    def read(part: Part) -> frozenset[date]:
        return holidays[one_of(tuple(holidays))(part)]

    return read


def _limits(chain: _Chain) -> Iterator[Limit]:
    for part in chain.all("bookingLimit"):
        inside = part.parts()
        count = chain.faults.one(inside, "count")
        per = chain.faults.one(inside, "per")
        if count is None or per is None:
            chain.faults.add(part, "bookingLimit has no count, or no per.")
            continue
        most = chain.faults.read(count, number(1, 100_000), 1)
        yield Limit(most, chain.faults.read(per, one_of(("day", "week")), "day"))


def _planning(schedule: Json, local: ZoneInfo, faults: Faults) -> Span:
    said = schedule.get("planningHorizon")
    if not said:
        return _BEGINNING, _END
    element = {"url": "planningHorizon", "valuePeriod": said}
    part = Part(whole(schedule).owner, "Schedule.planningHorizon", element)
    low, high = faults.read(part, period(local), (_BEGINNING, _END))
    return max(low, _BEGINNING), min(high, _END)
