"""What an Appointment or a Slot speaks of: its time, who takes part, which Slots. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from fhir_server.features.scheduling.extensions import (
    hold_expires,
    is_server_made,
    moment,
)
from fhir_server.features.scheduling.instants import LATEST, LONGEST
from fhir_server.features.scheduling.parameters import named_services
from fhir_server.features.scheduling.states import LIVE
from fhir_server.r4.references import Target, target

Json = Mapping[str, Any]

_MINUTE = timedelta(minutes=1)
BLOCK = "busy-unavailable"
BUSY = frozenset(("busy", "busy-tentative", BLOCK))
WITHOUT_TIME = frozenset(("optional", "information-only"))
# Whom a Schedule is about; a place that stands beside one of them is where they work, and can hold
# others as well.
_PEOPLE_AND_THINGS = frozenset(("Practitioner", "PractitionerRole", "Device"))
BOOKED = _PEOPLE_AND_THINGS | {"Location", "HealthcareService"}


@dataclass(frozen=True, slots=True)
class Subject:
    """What takes a time: ``actors`` and ``slots`` as ``Practitioner/1``, ``start`` and ``end`` in
    UTC, ``expires`` the end of a hold. ``schedules`` are those of a Slot, ``services`` what an
    Appointment is for, the first before the others. ``blocks`` says that it is a Slot in which
    nobody is to be seen."""

    start: datetime
    end: datetime
    actors: frozenset[str] = frozenset()
    slots: frozenset[str] = frozenset()
    schedules: frozenset[str] = frozenset()
    services: tuple[str, ...] = ()
    expires: datetime | None = None
    blocks: bool = False


def subject_of(resource: Json | None, bases: Sequence[str]) -> Subject | None:
    """Return what ``resource``, an Appointment or a Slot, takes; ``None`` where it takes nothing.
    ``bases`` are what this server is called."""
    if resource is None:
        return None
    start = moment(resource.get("start"))
    if start is None:
        return None
    end = _end(resource, start)
    if resource["resourceType"] == "Slot":
        if resource.get("status") not in BUSY:
            return None
        schedules = frozenset(keys_of([resource.get("schedule")], bases, {"Schedule"}))
        return Subject(start, end, schedules=schedules, blocks=is_block(resource))
    if resource.get("status") not in LIVE:
        return None
    slots = frozenset(keys_of(resource.get("slot", ()), bases, {"Slot"}))
    actors = frozenset(participants(resource, bases))
    services = tuple(named_services(resource, bases))
    return Subject(start, end, actors, slots, frozenset(), services, hold_expires(resource))


def is_block(slot: Json) -> bool:
    """Whether ``slot`` says that there is nobody: not the buffer that we made of an appointment."""
    return slot.get("status") == BLOCK and not is_server_made(slot)


def _end(resource: Json, start: datetime) -> datetime:
    """Return when ``resource`` is over. One that does not say, or says that it ends before it has
    begun, lasts as long as it says, or a minute: its start is taken by nobody else."""
    end = moment(resource.get("end"))
    if end is not None and end > start:
        return end
    said = resource.get("minutesDuration")
    most = LONGEST // _MINUTE
    minutes = said if isinstance(said, int) and 0 < said <= most else 1
    return start if start >= LATEST else start + minutes * _MINUTE


def participants(appointment: Json, bases: Sequence[str]) -> Iterator[str]:
    """Yield those who have to be there, as ``Practitioner/1``."""
    for one in appointment.get("participant", ()):
        if one.get("required") not in WITHOUT_TIME and one.get("status") != "declined":
            yield from keys_of([one.get("actor")], bases, BOOKED | {"Patient"})


def actors_of(schedule: Json, bases: Sequence[str]) -> list[str]:
    """Return whose time ``schedule`` is: people and devices, else its places and services."""
    actors = schedule.get("actor", ())
    return [*keys_of(actors, bases, _PEOPLE_AND_THINGS)] or [*keys_of(actors, bases, BOOKED)]


def places_of(schedule: Json, bases: Sequence[str]) -> list[str]:
    """Return whose and where ``schedule`` is, people first: one of them may say the time zone."""
    return [*actors_of(schedule, bases), *keys_of(schedule.get("actor", ()), bases, {"Location"})]


def schedules_of(slots: Iterable[Json], bases: Sequence[str]) -> set[str]:
    """Return the ids of the Schedules that ``slots`` are of."""
    return ids_of(
        "Schedule", [*keys_of((one.get("schedule") for one in slots), bases, {"Schedule"})]
    )


def practitioner_of(role: Json, bases: Sequence[str]) -> str:
    """Return whose role it is, as ``Practitioner/1``; ``""`` for nobody's here."""
    return next(keys_of([role.get("practitioner")], bases, {"Practitioner"}), "")


def ids_of(type: str, keys: Iterable[str]) -> set[str]:
    """Return the ids of those of ``keys`` that are of ``type``."""
    return {one.partition("/")[2] for one in keys if one.partition("/")[0] == type}


def keys_of(elements: Any, bases: Sequence[str], types: frozenset[str] | set[str]) -> Iterator[str]:
    """Yield those of the References ``elements`` that are to one of ``types``, as ``Slot/1``."""
    for one in elements:
        text = one.get("reference") if isinstance(one, dict) else None
        if isinstance(text, str) and not text.startswith("#"):
            found: Target = target(text, bases)
            if found.id and found.type in types:
                yield f"{found.type}/{found.id}"
