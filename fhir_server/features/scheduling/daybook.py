"""The appointments and blocks of one practitioner, looked up by the rights of who asks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from fhir_server.context import Context
from fhir_server.features.scheduling.diaries import by_key, found
from fhir_server.features.scheduling.extensions import CONFLICTS_WITH, extensions, moment
from fhir_server.features.scheduling.subjects import Json, participants
from fhir_server.features.scheduling.surroundings import display
from fhir_server.messages import Resource
from fhir_server.outcome import FhirError
from fhir_server.store.documents import instant

SHOWN = ("pending", "booked", "arrived", "checked-in", "fulfilled", "noshow")
BLOCKED = "busy-unavailable"
_APPOINTMENT = "Appointment"
_BLOCK = "Not available"
_REFUSED = (401, 403)
_LONG = timedelta(days=1)
_LONGEST = timedelta(days=31)  # a block is no longer


@dataclass(frozen=True, slots=True)
class Entry:
    """What is in a calendar: an Appointment or a block. Times are UTC; ``key`` is
    ``Appointment/1``. ``who`` are names of patients, where they are wanted and may be read.
    ``has_conflict``: something that came later leaves no time for it."""

    key: str
    version: int
    start: datetime
    end: datetime
    status: str
    title: str
    who: str = ""
    place: str = ""
    has_conflict: bool = False


async def entries(
    practitioner: str, low: datetime, high: datetime, context: Context, *, named: bool
) -> list[Entry]:
    """Return what the practitioner with this id has from ``low`` to before ``high``, in order;
    with the names of patients if ``named``."""
    key = f"Practitioner/{practitioner}"
    actors = [key]
    for role in await _seen("PractitionerRole", (("practitioner", key),), context):
        actors.append(f"PractitionerRole/{role['id']}")
    who = ",".join(actors)
    # What began before and lasts is found by its start.
    span = (("date", f"lt{instant(high)}"), ("date", f"ge{instant(low - _LONG)}"))
    kept = [
        one
        for one in await found(
            "Appointment", (("actor", who), ("status", ",".join(SHOWN)), *span), context
        )
        if _is_in(one, low, high)
    ]
    bases = context.parameters.base_urls
    patients = [key for one in kept for key in participants(one, bases) if "Patient/" in key]
    people = await _people(patients, context) if named else {}
    made = [_appointment(one, people, bases) for one in kept]
    made += await _blocks(who, low, high, context)
    return sorted(made, key=lambda one: (one.start, one.end, one.key))


async def _people(keys: Sequence[str], context: Context) -> Mapping[str, Resource]:
    try:
        return await by_key(keys, context)
    except FhirError as error:
        if error.status in _REFUSED:
            return {}
        raise


async def _seen(
    type: str, asked: Sequence[tuple[str, str]], context: Context
) -> Sequence[Resource]:
    """Return what is found; nothing where it may not be searched."""
    try:
        return await found(type, asked, context)
    except FhirError as error:
        if error.status in _REFUSED:
            return ()
        raise


async def _blocks(who: str, low: datetime, high: datetime, context: Context) -> list[Entry]:
    schedules = await _seen("Schedule", (("actor", who),), context)
    if not schedules:
        return []
    named = ",".join(f"Schedule/{one['id']}" for one in schedules)
    span = (("start", f"lt{instant(high)}"), ("start", f"ge{instant(low - _LONGEST)}"))
    asked = (("schedule", named), ("status", BLOCKED), *span)
    slots = await _seen("Slot", asked, context)
    return [_block(one) for one in slots if _is_in(one, low, high)]


def _is_in(resource: Json, low: datetime, high: datetime) -> bool:
    start, end = moment(resource.get("start")), moment(resource.get("end"))
    return start is not None and end is not None and start < high and low < end


def _appointment(
    appointment: Resource, people: Mapping[str, Resource], bases: Sequence[str]
) -> Entry:
    patients = [one for one in participants(appointment, bases) if one.startswith("Patient/")]
    names = [said for one in patients if (said := display(people.get(one, {})))]
    places = [
        str(one["actor"].get("display", ""))
        for one in appointment.get("participant", ())
        if "Location/" in str(one.get("actor", {}).get("reference", ""))
    ]
    made = _entry(
        appointment, _service(appointment) or _APPOINTMENT, ", ".join(names), ", ".join(places)
    )
    return replace(made, has_conflict=any(extensions(appointment, CONFLICTS_WITH)))


def _block(slot: Resource) -> Entry:
    return _entry(slot, _BLOCK)


def _entry(resource: Resource, title: str, who: str = "", place: str = "") -> Entry:
    start, end = moment(resource["start"]), moment(resource["end"])
    assert start is not None, "what is shown has a time"
    assert end is not None, "what is shown has a time"
    key = f"{resource['resourceType']}/{resource['id']}"
    version = int(resource["meta"]["versionId"])
    return Entry(key, version, start, end, resource["status"], title, who, place)


def _service(appointment: Json) -> str:
    for concept in appointment.get("serviceType", ()):
        for one in (concept, *concept.get("coding", ())):
            if said := one.get("text") or one.get("display"):
                return str(said)
    return ""
