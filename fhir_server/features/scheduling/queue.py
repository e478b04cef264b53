"""Whose turn it is: numbers, ranks, states of a queue, and how long somebody will wait. Pure.

design/scheduling.md, section 7. An Encounter waits in the queue of a Location and a service.

===========  =================================================================
``waiting``  has a number, and is not called yet
``calling``  a counter takes it at this moment; for ten seconds nobody else can
``called``   was called to a counter, and is being served there
``absent``   was called three times and did not come
``done``     was served, or left
===========  =================================================================
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from statistics import median
from typing import Any
from zoneinfo import ZoneInfo

import re2 as re

from fhir_server.store.documents import instant
from fhir_server.store.queues import ABSENT, CALLED, DONE, WAITING, Entry

Json = dict[str, Any]

PREFIX_EXTENSION = "urn:fhir-server:StructureDefinition:queue-prefix"
"""On a HealthcareService or a Location: the letters before its numbers, as ``CARD``."""
TRIAGE_EXTENSION = "urn:fhir-server:StructureDefinition:queue-triage"
"""On a HealthcareService: who is called here is triaged, and not yet treated."""
TIMEZONE_EXTENSION = "http://hl7.org/fhir/StructureDefinition/timezone"
PRIORITY_SYSTEM = "http://terminology.hl7.org/CodeSystem/v3-ActPriority"
PRIORITIES = (
    *("A", "CR", "CS", "CSP", "CSR", "EL", "EM", "P", "PRN", "R"),
    *("RR", "S", "T", "UD", "UR"),
)
"""https://hl7.org/fhir/R4/v3/ActPriority/vs.html"""
ROUTINE = "R"
_RANKS = {"EM": 1, "UR": 3}
LAST_RANK = 5

SKIPS_MAX = 3
SERVICES_KNOWN = 20
"""So many service times, the last ones, say how long a service takes."""
COUNTERS_SEEN = timedelta(minutes=30)
"""A counter that has called nobody for so long is taken for closed."""
BEGUN = ("planned", "arrived", "triaged", "in-progress", "onleave")
"""The statuses of an Encounter that has not ended."""

FROM: Mapping[str, tuple[str, ...]] = {
    "$recall": (CALLED, ABSENT),
    "$skip": (CALLED,),
    "$transfer": (WAITING, CALLED, ABSENT),
    "$finish": (CALLED,),
}
"""Operation -> the states that it can be called in."""

IN_WORDS = {
    WAITING: "is waiting and was not called yet",
    "calling": "is being called at this moment",
    CALLED: "was called",
    ABSENT: "was called three times and did not come",
    DONE: "has left the queue",
}

_PREFIX = re.compile(r"[A-Z][A-Z0-9]{0,5}")
_LETTERS = re.compile(r"[A-Za-z]+")
_DERIVED_LETTERS = 4
NO_PREFIX = "Q"


def rank(priority: str) -> int:
    """Return the place of a priority among others: a lower one is called first.

    >>> rank("EM"), rank("UR"), rank("R"), rank("")
    (1, 3, 5, 5)
    """
    return _RANKS.get(priority, LAST_RANK)


def priority_of(encounter: Mapping[str, Any]) -> str:
    """Return the ActPriority code of an Encounter, or ``""``."""
    for coding in encounter.get("priority", {}).get("coding", ()):
        if coding.get("system") == PRIORITY_SYSTEM:
            return str(coding.get("code", ""))
    return ""


def is_open(encounter: Mapping[str, Any]) -> bool:
    """Whether an Encounter has not ended."""
    return encounter.get("status", "") in BEGUN


def prefix(*named: Mapping[str, Any]) -> str:
    """Return what stands before the numbers: of the first of ``named``, service or place, that
    says it in the extension; else from the letters of the first name that has some.

    >>> prefix({"name": "Cardiology"}, {"name": "Building A"})
    'CARD'
    """
    said = [_extended(one, PREFIX_EXTENSION, "valueString") for one in named]
    for one in said:
        if isinstance(one, str) and _PREFIX.fullmatch(one):
            return one
    for resource in named:
        if found := _LETTERS.search(str(resource.get("name", ""))):
            return str(found.group(0))[:_DERIVED_LETTERS].upper()
    return NO_PREFIX


def is_triage(service: Mapping[str, Any]) -> bool:
    """Whether who is called in the queue of ``service`` is triaged there."""
    return _extended(service, TRIAGE_EXTENSION, "valueBoolean") is True


def token(letters: str, number: int) -> str:
    """Return the number as it is called out.

    >>> token("CARD", 14), token("CARD", 1014)
    ('CARD-014', 'CARD-1014')
    """
    return f"{letters}-{number:03d}"


def zone_of(location: Mapping[str, Any]) -> ZoneInfo | None:
    """Return the time zone that the extension of a Location says, ``None`` where it says none."""
    try:
        return ZoneInfo(str(_extended(location, TIMEZONE_EXTENSION, "valueCode") or ""))
    except (ValueError, OSError, KeyError):  # what is no name, and what is not there
        return None


def local_day(now: datetime, zone: ZoneInfo) -> date:
    """Return the date that it is in ``zone``."""
    return now.astimezone(zone).date()


def stands_until(now: datetime, zone: ZoneInfo, carried: timedelta) -> datetime:
    """Return when who arrives ``now`` is not called any more: ``carried`` after the end of the
    local day, so that nobody is lost at midnight, however long they have waited by then."""
    tomorrow = local_day(now, zone) + timedelta(days=1)
    return datetime.combine(tomorrow, time(), zone).astimezone(UTC) + carried


def with_status(encounter: Mapping[str, Any], status: str, now: datetime) -> Json:
    """Return ``encounter`` with ``status`` from ``now`` on; what it was before is in its
    statusHistory. https://hl7.org/fhir/R4/encounter-definitions.html#Encounter.statusHistory"""
    before = encounter.get("status")
    if before == status:
        return dict(encounter)
    history = [*encounter.get("statusHistory", ())]
    since = next(
        (one["period"]["end"] for one in reversed(history) if one.get("period", {}).get("end")),
        encounter.get("period", {}).get("start", ""),
    )
    period = {"start": since} if _is_before(since, now) else {}
    history.append({"status": before, "period": {**period, "end": instant(now)}})
    return {**encounter, "status": status, "statusHistory": history}


def finished(encounter: Mapping[str, Any], now: datetime) -> Json:
    """Return ``encounter`` as it ends ``now``: its period, and its stay where it is."""
    end = instant(now)
    ended = with_status(encounter, "finished", now)
    period = ended.get("period", {})
    ended["period"] = (
        {**period, "end": end} if _is_before(period.get("start", end), now) else period
    )
    if "location" in ended:
        ended["location"] = [_left(one, now) for one in ended["location"]]
    return ended


def moved(encounter: Mapping[str, Any], location: str, now: datetime) -> Json:
    """Return ``encounter`` as it goes on at the Location ``location``."""
    places = [_left(one, now) for one in encounter.get("location", ())]
    return {**encounter, "location": [*places, place_at(location, now)]}


def place_at(location: str, now: datetime) -> Json:
    """Return the element ``Encounter.location`` of who has just come to ``location``."""
    return {
        "location": {"reference": f"Location/{location}"},
        "status": "active",
        "period": {"start": instant(now)},
    }


def _left(place: Mapping[str, Any], now: datetime) -> Json:
    if place.get("status") not in ("active", None) or place.get("period", {}).get("end"):
        return dict(place)
    period = dict(place.get("period", {}))
    if _is_before(period.get("start", ""), now):
        period["end"] = instant(now)
    return {**place, "status": "completed", **({"period": period} if period else {})}


# What is not so of one who waits again.
_UNCALLED: Mapping[str, Any] = {"call": "", "counter": "", "started": None}


def skipped(entry: Entry, now: datetime) -> Mapping[str, Any]:
    """Return what changes of ``entry`` when it was called and did not come: it goes behind those
    who are present, and the third time out of the queue."""
    skips = entry.skips + 1
    state = ABSENT if skips >= SKIPS_MAX else WAITING
    return {**_UNCALLED, "skips": skips, "state": state, "rank": LAST_RANK, "at": now}


def transferred(
    entry: Entry, location: str, service: str, now: datetime, *, keeps_priority: bool
) -> Mapping[str, Any]:
    """Return what changes of ``entry`` when it goes to another queue: all but its number. Its
    place is that of its arrival and rank, or else behind everybody."""
    place: Mapping[str, Any] = {"rank": entry.rank, "at": entry.arrived}
    if not keeps_priority:
        place = {"rank": LAST_RANK, "at": now}
    goes = {"location": location, "service": service, "state": WAITING, "skips": 0}
    return {**_UNCALLED, **goes, **place}


@dataclass(frozen=True, slots=True)
class Expected:
    """What a queue was like of late: the last service times in seconds, the counters at work."""

    services_s: tuple[float, ...] = ()
    counters: int = 0

    def wait_s(self, ahead: int) -> float | None:
        """Return how long who has ``ahead`` people before will wait; ``None`` where no service
        time is known: people ahead x median of the service times / counters."""
        if not self.services_s:
            return None
        return ahead * median(self.services_s) / max(1, self.counters)


@dataclass(frozen=True, slots=True)
class Measured:
    """How it went for those who were served: how many, and seconds."""

    served: int
    wait_median_s: float | None
    wait_90_s: float | None
    service_median_s: float | None


def waited_s(entry: Entry) -> float | None:
    """Return how long ``entry`` waited: first in-progress minus arrived."""
    return None if entry.first is None else (entry.first - entry.arrived).total_seconds()


def served_s(entry: Entry) -> float | None:
    """Return how long ``entry`` was served: finish minus in-progress."""
    if entry.finished is None or entry.started is None:
        return None
    return (entry.finished - entry.started).total_seconds()


def measured(entries: Iterable[Entry]) -> Measured:
    """Return how it went for ``entries``; those that were not called do not count."""
    known = list(entries)
    waits = sorted(one for one in map(waited_s, known) if one is not None)
    services = [one for one in map(served_s, known) if one is not None]
    return Measured(
        len(services),
        median(waits) if waits else None,
        _of_ten(waits, 9),
        median(services) if services else None,
    )


def _of_ten(ordered: Sequence[float], tenths: int) -> float | None:
    """Return the value that so many tenths of ``ordered`` do not exceed (nearest rank)."""
    if not ordered:
        return None
    return ordered[max(0, -(-len(ordered) * tenths // 10) - 1)]


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """Return those who wait in the order in which they are called."""
    return sorted(entries, key=lambda one: (one.rank, one.at, one.number, one.id))


def _is_before(text: str, now: datetime) -> bool:
    """Whether the dateTime ``text`` is known to be before ``now``, or its day to have begun."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return False
    if moment.tzinfo is None:
        return moment.date() < now.date()
    return moment <= now


def _extended(resource: Mapping[str, Any], url: str, member: str) -> Any:
    for one in resource.get("extension", ()):
        if one.get("url") == url:
            return one.get(member)
    return None
