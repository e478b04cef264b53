"""``$allocate``: of all free times the one that suits a patient best is booked.

Section 3 of design/scheduling.md. What is free ``$find`` says, what suits ``allocation.py``; the
best is tried first, and where somebody else was quicker the next.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from fhir_server.context import Context
from fhir_server.features.scheduling.allocation import (
    Candidate,
    Spans,
    Wishes,
    best,
    leaves_gap,
)
from fhir_server.features.scheduling.asked import (
    MOMENT,
    REFERENCE,
    TEXT,
    Given,
    Known,
    Wish,
    given,
    moment_of,
    one_of,
    reference_of,
    text_of,
)
from fhir_server.features.scheduling.booking import made
from fhir_server.features.scheduling.claims import is_live
from fhir_server.features.scheduling.drafting import actors_of, asked_of
from fhir_server.features.scheduling.governing import durations_of, read_all
from fhir_server.features.scheduling.persons import own_patient
from fhir_server.features.scheduling.refusals import gone
from fhir_server.features.scheduling.writing import TYPES
from fhir_server.messages import Request, Resource, Response
from fhir_server.outcome import FhirError, Issue
from fhir_server.r4.json import decode
from fhir_server.registry import Operation, Registry
from fhir_server.store.granules import moment_of as granule_start

_KNOWN: Known = {
    "patient": REFERENCE,
    "service": REFERENCE,
    "practitioner": REFERENCE,
    "location": REFERENCE,
    "language": ("valueCode", *TEXT),
    "gender": ("valueCode", *TEXT),
    "timing": ("valueTiming",),
    "earliest": MOMENT,
    "latest": MOMENT,
    "comment": TEXT,
}
_SEVERAL = ("practitioner", "location")
_PREFERRED_MAX = 50
_FOUND = 1000  # as many as $find answers at most
_CONFLICT = 409


@dataclass(frozen=True, slots=True)
class _Sought:
    """What is sought: for ``patient``, of ``service``, from ``earliest`` to ``latest``, at times
    that ``timing`` names, with somebody of ``gender``."""

    patient: str
    service: str
    earliest: datetime
    latest: datetime
    timing: Mapping[str, Any] | None
    gender: str
    wishes: Wishes
    comment: str


def register(registry: Registry) -> None:
    """Add ``$allocate``."""
    registry.operation(
        Operation(
            "$allocate",
            "urn:fhir-server:OperationDefinition:appointment-allocate",
            allocate,
            on=("Appointment",),
            affects_state=True,
            needs="c s",
            keyed=TYPES,
        )
    )


async def allocate(request: Request, context: Context) -> Response:
    """Book the free time of the lowest cost. Raises ``not-found`` where none suits, ``conflict``
    where others took all that was tried."""
    if request.body is not None and (issues := context.validate(request.body)):
        raise FhirError(*issues)
    sought = _sought(given(request, _KNOWN, several=_SEVERAL), context)
    candidates = await _candidates(await _free(sought, request, context), sought, context)
    if not candidates:
        text = "No time is free that suits; ask for less, or for a longer period."
        raise FhirError(Issue("not-found", text))
    chosen = best(candidates, sought.wishes, context.now())
    for one in chosen:
        wish = Wish(
            "appointment-reference",
            patient=sought.patient,
            comment=sought.comment,
        )
        try:
            return await made(wish, [one.proposal], "booked", request, context)
        except FhirError as error:
            if error.status != _CONFLICT:
                raise
    raise gone(f"Others took each of the {len(chosen)} best times; ask again.")


def _sought(found: Given, context: Context) -> _Sought:
    """Read the parameters. Raises ``required`` without a service or a patient."""
    bases = context.parameters.base_urls
    service = reference_of(one_of(found, "service"), "HealthcareService", "service", bases)
    patient = reference_of(one_of(found, "patient"), "Patient", "patient", bases)
    patient = patient or own_patient(context.principal)
    for name, said in (("service", service), ("patient", patient)):
        if not said:
            raise FhirError(Issue("required", f"Say {name}.", "Parameters.parameter"))
    now = context.now()
    earliest, latest = (one_of(found, name) for name in ("earliest", "latest"))
    low = max(now, moment_of(earliest, "earliest")) if earliest else now
    most = low + timedelta(days=context.settings.scheduling_find_days_max)
    high = min(most, moment_of(latest, "latest")) if latest else most
    if high <= low:
        raise FhirError(Issue("value", "latest is before earliest, or past."))
    wishes = Wishes(
        _preferred(found, "practitioner", "Practitioner", bases),
        _preferred(found, "location", "Location", bases),
        text_of(one_of(found, "language"), "language"),
    )
    gender = text_of(one_of(found, "gender"), "gender")
    comment = text_of(one_of(found, "comment"), "comment")
    timing = one_of(found, "timing")
    return _Sought(patient, service, low, high, timing, gender, wishes, comment)


def _preferred(found: Given, name: str, type: str, bases: Sequence[str]) -> Sequence[str]:
    values = found.get(name, [])
    if len(values) > _PREFERRED_MAX:
        raise FhirError(Issue("value", f"{name} is given at most {_PREFERRED_MAX} times."))
    return list(dict.fromkeys(reference_of(one, type, name, bases) for one in values))


async def _free(sought: _Sought, request: Request, context: Context) -> list[Resource]:
    """Return what ``$find`` proposes, by the rights of who asks."""
    parameters: list[Resource] = [
        {"name": "start", "valueDateTime": sought.earliest.isoformat()},
        {"name": "end", "valueDateTime": sought.latest.isoformat()},
        {"name": "service-type-reference", "valueReference": {"reference": sought.service}},
        {"name": "_count", "valueInteger": _FOUND},
    ]
    if sought.timing is not None:
        parameters.append({"name": "timing", "valueTiming": sought.timing})
    body = {"resourceType": "Parameters", "parameter": parameters}
    asked = Request("$find", "Appointment", body=body, base_url=request.base_url)
    response = await context.perform(asked, context)
    found = decode(response.body, depth_max=context.settings.depth_max)
    entries = [one["resource"] for one in found.get("entry", ())]
    return [one for one in entries if one["resourceType"] == "Appointment"]


async def _candidates(
    proposals: Sequence[Resource], sought: _Sought, context: Context
) -> list[Candidate]:
    """Return ``proposals`` with what their cost is made of; those with somebody of another gender
    are left out."""
    people = {_actor(one, "Practitioner") for one in proposals}
    known = await read_all("Practitioner", {_id(one) for one in people if one}, context)
    taken = await _taken(proposals, context)
    shortest = await _shortest(proposals, context)
    found = []
    for one in proposals:
        asked = asked_of(one)
        practitioner = _actor(one, "Practitioner")
        person = known.get(_id(practitioner), {})
        if sought.gender and person.get("gender") != sought.gender:
            continue
        busy = taken.get(practitioner, ())
        found.append(
            Candidate(
                asked.start,
                min((slot.schedule for slot in asked.slots), default=""),
                practitioner,
                _actor(one, "Location"),
                _languages(person),
                leaves_gap(asked.start, asked.end, busy, shortest),
                _nameless(one),
            )
        )
    return found


async def _shortest(proposals: Sequence[Resource], context: Context) -> timedelta:
    """Return how long the shortest appointment is that the Schedules of ``proposals`` give out."""
    times = [asked_of(one) for one in proposals]
    ids = {_id(slot.schedule) for one in times for slot in one.slots if slot.schedule}
    schedules = await read_all("Schedule", ids, context)
    lengths = [one.end - one.start for one in times]
    lengths += [one for schedule in schedules.values() for one in durations_of(schedule)]
    return min(lengths, default=timedelta(0))


def _nameless(proposal: Resource) -> Resource:
    """Return ``proposal`` without the id by which it could have been taken."""
    return {name: value for name, value in proposal.items() if name != "id"}


async def _taken(proposals: Sequence[Resource], context: Context) -> dict[str, Spans]:
    """Return when those of ``proposals`` are taken, by practitioner: in order, and joined."""
    people = {one for one in (_actor(each, "Practitioner") for each in proposals) if one}
    if not people:
        return {}
    times = [asked_of(one) for one in proposals]
    day = timedelta(days=1)
    low, high = min(one.start for one in times) - day, max(one.end for one in times) + day
    granule = timedelta(minutes=context.settings.scheduling_granule_minutes)
    now = context.now()
    found: dict[str, list[tuple[datetime, datetime]]] = {}
    for one in await context.store.granules.taken(people, low, high):
        if not any(is_live(holder, now) for holder in one["h"]):
            continue
        start = granule_start(one["_id"])
        spans = found.setdefault(one["_id"].partition("|")[0], [])
        if spans and spans[-1][1] == start:
            spans[-1] = (spans[-1][0], start + granule)
        else:
            spans.append((start, start + granule))
    return dict(found)


def _actor(proposal: Resource, type: str) -> str:
    return next((one for one in actors_of(proposal) if one.startswith(f"{type}/")), "")


def _languages(person: Resource) -> frozenset[str]:
    """Return the languages of a Practitioner, as ``bn`` and as ``bn-bd``."""
    codes = [
        str(coding.get("code", "")).lower()
        for one in person.get("communication", ())
        for coding in one.get("coding", ())
    ]
    return frozenset((*codes, *(one.partition("-")[0] for one in codes)))


def _id(reference: str) -> str:
    return reference.partition("/")[2]
