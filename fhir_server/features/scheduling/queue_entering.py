"""``$check-in`` of an Appointment, and ``$issue-token`` for who comes without one.

design/scheduling.md, section 7. The number is taken first, outside of the transaction that makes
the Encounter: whoever dies in between leaves a gap, never a number twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from fhir_server.context import Context
from fhir_server.features.scheduling import queue
from fhir_server.features.scheduling.extensions import extensions, moment
from fhir_server.features.scheduling.parameters import SERVICE
from fhir_server.features.scheduling.queue_numbers import given as number_given
from fhir_server.features.scheduling.queue_resources import (
    DEFINITION,
    answered,
    duration,
    expected,
    named_id,
    read,
    reference_id,
    write,
)
from fhir_server.features.scheduling.reminders import local
from fhir_server.features.scheduling.zones import zone_at, zone_of_place
from fhir_server.interactions.admitting import check_part
from fhir_server.interactions.parameters import known_only
from fhir_server.messages import Request, Resource, Response
from fhir_server.operations.bodies import parameters_in
from fhir_server.outcome import FhirError, Issue, invalid_value
from fhir_server.r4.json import decode, decode_stored
from fhir_server.registry import Operation
from fhir_server.store.documents import instant
from fhir_server.store.queues import DONE, Entry, claim_name
from fhir_server.store.resources import ResourceStore

_CHECK_IN = {
    "location": "valueReference",
    "service": "valueReference",
    "priority": "valueCode",
}
_ISSUE = {
    "patient": "valueReference",
    "bare": "valueBoolean",
    "service": "valueReference",
    "priority": "valueCode",
}
_MAY_COME = ("booked", "arrived")
_CLASS = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ActCode",
    "code": "AMB",
    "display": "ambulatory",
}
_TYPES = ("Encounter", "Appointment")


@dataclass(frozen=True, slots=True)
class _Visit:
    """Who comes where: what the Encounter is made of. ``appointment`` is empty for a walk-in."""

    location: Resource
    service: Resource
    patient: str
    priority: str
    appointment: Resource

    @property
    def queue(self) -> tuple[str, str]:
        """Location and service by their ids."""
        return self.location["id"], self.service.get("id", "")


async def check_in(request: Request, context: Context) -> Response:
    """Give the patient of an Appointment a number, and make the Encounter ``arrived``.

    Raises ``business-rule`` (409) for an Appointment in another state or on another day,
    ``duplicate`` (409) where the patient has a number in this queue, ``required`` where it is not
    said which queue it is.
    """
    known_only(request, ())
    check_part(Request("create", "Encounter"), context)
    given = parameters_in(request, context, _CHECK_IN)
    found = (await read("Appointment", request.id, context)).resource
    appointment = local(found, context.parameters.base_urls)
    _check_may_come(appointment)
    await _check_day(appointment, context)
    actors = [one.get("actor", {}) for one in appointment.get("participant", ())]
    patient = next(filter(None, (reference_id(one, "Patient") for one in actors)), "")
    service_id = named_id(given, "service", "HealthcareService") or _service_of(appointment)
    service = await _service(service_id, context)
    places = [id for one in actors if (id := reference_id(one, "Location"))]
    here = named_id(given, "location", "Location")
    location_id = here or _only(places or _places_of(service))
    location = (await read("Location", location_id, context)).resource
    visit = _Visit(location, service, patient, _priority(given), appointment)
    return await _entered(visit, context)


async def issue_token(request: Request, context: Context) -> Response:
    """Give a number to who comes without an appointment; ``bare`` is one for nobody known yet."""
    known_only(request, ())
    check_part(Request("create", "Encounter"), context)
    given = parameters_in(request, context, _ISSUE)
    patient = named_id(given, "patient", "Patient")
    if bool(patient) == (given.get("bare") is True):
        text = "Say who it is for: a patient, or bare = true for somebody who is not known yet."
        raise FhirError(Issue("required", text, "Parameters.parameter"))
    location = (await read("Location", request.id, context)).resource
    service = await _service(named_id(given, "service", "HealthcareService"), context)
    if patient:
        await read("Patient", patient, context)
    return await _entered(_Visit(location, service, patient, _priority(given), {}), context)


async def _entered(visit: _Visit, context: Context) -> Response:
    now = context.now()
    zone = await zone_of_place(visit.location, context)
    day = queue.local_day(now, zone).isoformat()
    location, service = visit.queue
    claim = claim_name(location, service, day, visit.patient)
    await _check_free(claim, context.store)  # no number is wasted on a refusal
    number = await number_given(visit.location, visit.service, context)
    carried = timedelta(minutes=context.settings.queue_carry_minutes)
    entry = Entry(
        *("", location, service, number.date, number.number, number.token),
        queue.rank(visit.priority),
        at=now,
        arrived=now,
        until=queue.stands_until(now, zone, carried),
        patient=visit.patient,
    )

    async def work(store: ResourceStore) -> tuple[Entry, Resource]:
        inside = replace(context, store=store)
        await _check_free(claim, store)
        if visit.appointment:
            await _arrive(visit.appointment["id"], inside)
        body = _encounter(visit, entry, number.identifier(context))
        made = await context.perform(Request("create", "Encounter", body=body), inside)
        encounter = decode(made.body, depth_max=context.settings.depth_max)
        kept = replace(entry, id=encounter["id"])
        await store.queues.enter(kept)
        return kept, encounter

    kept, encounter = await context.store.in_transaction(work, _TYPES)
    return await _told(kept, encounter, context)


async def _told(entry: Entry, encounter: Resource, context: Context) -> Response:
    queues = context.store.queues
    ahead = await queues.ahead(entry, context.now())
    wait = (await expected(queues, entry.location, entry.service, context)).wait_s(ahead)
    more: list[Mapping[str, Any]] = [{"name": "ahead", "valueUnsignedInt": ahead}]
    if wait is not None:
        more.append({"name": "predicted-wait", "valueDuration": duration(wait)})
    return answered(entry, encounter, *more, status=201)


async def _check_free(claim: str, store: ResourceStore) -> None:
    """Raise ``duplicate`` where the patient has a number of a visit that has not ended; one of a
    visit that was ended by another way is taken out of the queue."""
    held = await store.queues.holder(claim)
    if held is None:
        return
    found = await store.read("Encounter", held.id)
    if found is not None and not queue.is_open(
        decode_stored(found.json) if not found.deleted else {}
    ):
        if store.session is not None:
            await store.queues.change(held, (held.state,), {"state": DONE})
        return
    visit = f": Encounter/{held.id}" if found is not None else ""
    text = f"This patient has the number {held.token} in this queue{visit}."
    raise FhirError(Issue("duplicate", text))


def _check_may_come(appointment: Resource) -> None:
    status = appointment.get("status", "")
    if status in _MAY_COME:
        return
    text = f"This Appointment is {status}; one that is booked or arrived can be checked in."
    raise FhirError(Issue("business-rule", text, "Appointment.status"), status=409)


async def _check_day(appointment: Resource, context: Context) -> None:
    """Raise ``business-rule`` for an Appointment of another day; one that goes on over midnight is
    of both."""
    zone = await zone_at(appointment, context)
    start, end = moment(appointment.get("start")), moment(appointment.get("end"))
    now = context.now()
    today = queue.local_day(now, zone)
    if start is None or queue.local_day(start, zone) == today:
        return
    if end is None or not start <= now < end:
        day = queue.local_day(start, zone)
        text = f"This Appointment is on {day}, and today is {today}; $reschedule moves it to today."
        raise FhirError(Issue("business-rule", text, "Appointment.start"), status=409)


async def _arrive(id: str, inside: Context) -> None:
    """Make the Appointment ``checked-in``, in the transaction of the Encounter."""
    found = await read("Appointment", id, inside)
    _check_may_come(found.resource)
    await write({**found.resource, "status": "checked-in"}, found.version, inside)


def _service_of(appointment: Resource) -> str:
    """Return the id of the HealthcareService that takes part in an Appointment, or that its
    serviceType stands for; ``""`` where there is none."""
    named = [one.get("actor", {}) for one in appointment.get("participant", ())]
    for concept in appointment.get("serviceType", ()):
        named += [one.get("valueReference") for one in extensions(concept, SERVICE)]
    return next(filter(None, (reference_id(one, "HealthcareService") for one in named)), "")


async def _service(id: str, context: Context) -> Resource:
    return (await read("HealthcareService", id, context)).resource if id else {}


def _places_of(service: Resource) -> list[str]:
    return [id for one in service.get("location", ()) if (id := reference_id(one, "Location"))]


def _only(places: list[str]) -> str:
    """Return the one place. Raises ``required`` where there is none, or a choice."""
    if len(set(places)) == 1:
        return places[0]
    text = "Say where the patient waits: location, a reference such as Location/1."
    raise FhirError(Issue("required", text, "Parameters.parameter"))


def _priority(given: Mapping[str, Any]) -> str:
    said = str(given.get("priority", queue.ROUTINE))
    if said not in queue.PRIORITIES:
        raise invalid_value("priority", said, "a code of v3-ActPriority, such as EM, UR or R")
    return said


def _encounter(visit: _Visit, entry: Entry, identifier: Resource) -> Resource:
    start = instant(entry.arrived)
    encounter: Resource = {
        "resourceType": "Encounter",
        "identifier": [identifier],
        "status": "arrived",
        "class": _CLASS,
        "priority": {"coding": [{"system": queue.PRIORITY_SYSTEM, "code": visit.priority}]},
        "period": {"start": start},
        "location": [queue.place_at(entry.location, entry.arrived)],
    }
    if service := (visit.appointment.get("serviceType") or visit.service.get("type")):
        encounter["serviceType"] = service[0]
    if visit.patient:
        encounter["subject"] = {"reference": f"Patient/{visit.patient}"}
    if visit.appointment:
        encounter["appointment"] = [{"reference": f"Appointment/{visit.appointment['id']}"}]
        staff = [
            {"individual": one["actor"]}
            for one in visit.appointment.get("participant", ())
            if reference_id(one.get("actor", {}), "Practitioner", "PractitionerRole")
        ]
        encounter |= {"participant": staff} if staff else {}
    if "managingOrganization" in visit.location:
        encounter["serviceProvider"] = visit.location["managingOrganization"]
    return encounter


OPERATIONS = (
    Operation(
        "$check-in",
        DEFINITION + "check-in",
        check_in,
        on=("Appointment",),
        instance=True,
        whole=False,
        affects_state=True,
        needs="u",
    ),
    Operation(
        "$issue-token",
        DEFINITION + "issue-token",
        issue_token,
        on=("Location",),
        instance=True,
        whole=False,
        affects_state=True,
        needs="r",
    ),
)
