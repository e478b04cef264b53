"""What is to be written for a booking: an Appointment and its Slots, of a proposed one. Pure.

Sections 3 and 4 of design/scheduling.md. http://hl7.org/fhir/R4/appointment.html
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from fhir_server.features.scheduling.extensions import (
    HOLD_EXPIRES,
    OVERRIDE_REASON,
    SERVER_MADE,
    WAITLIST_ENTRY,
)
from fhir_server.features.scheduling.instants import instant_of
from fhir_server.messages import Resource
from fhir_server.outcome import FhirError, Issue, invalid_value

SERIES = "urn:fhir-server:appointment-series"
"""The system of the identifier that the appointments of one series share."""
SLOT_STATUS: Mapping[str, str] = {"pending": "busy-tentative", "booked": "busy"}
"""What the Slots of an Appointment are, by its status."""

# What a proposal has and a booking gets anew, or not at all.
_ANEW = frozenset(
    (
        *("id", "text", "implicitRules", "status", "slot", "created", "contained"),
        *("start", "end", "extension", "participant", "cancelationReason", "identifier"),
    )
)
_PLAIN = re.compile(r"[A-Z][A-Za-z]{1,63}/[A-Za-z0-9\-.]{1,64}")  # what is on this server
_OURS = frozenset((HOLD_EXPIRES, OVERRIDE_REASON, WAITLIST_ENTRY))
_OF_SLOT = ("serviceCategory", "serviceType", "specialty", "appointmentType")
_ASKED = ("needs-action", "tentative")
_BOOKABLE = ("proposed", "pending", "booked")
_FREE = ("free", "busy", "busy-tentative")


@dataclass(frozen=True, slots=True)
class SlotAsked:
    """A Slot that an Appointment asks for: ``id`` of one that is stored, or ``""`` and the
    ``schedule`` (``Schedule/1``) in which one is to be made."""

    id: str
    schedule: str


@dataclass(frozen=True, slots=True)
class Asked:
    """One appointment that is asked for: when, and by which Slots. ``proposal`` is the rest."""

    start: datetime
    end: datetime
    slots: Sequence[SlotAsked]
    proposal: Resource

    def at(self, start: datetime) -> "Asked":
        """Return the same at another time, for as long; a stored Slot is of the first time only."""
        slots = [one for one in self.slots if one.schedule]
        return replace(self, start=start, end=start + (self.end - self.start), slots=slots)


@dataclass(frozen=True, slots=True)
class Terms:
    """How it is to be booked: with which ``status``, for whom (``Patient/1`` or ``""``), a hold
    ``until`` when; ``override`` and ``comment`` as they were given; ``series`` names what it is one
    of. ``now`` is UTC."""

    status: str
    patient: str
    now: datetime
    until: datetime | None = None
    override: str = ""
    comment: str = ""
    series: str = ""


def to_book(proposal: Resource) -> Asked:
    """Return what the Appointment ``proposal`` asks for, like :func:`asked_of`. Raises ``value``
    for one whose status says that it is not to be booked."""
    if proposal.get("status") not in _BOOKABLE:
        expected = ", ".join(_BOOKABLE)
        raise invalid_value("status", proposal.get("status"), expected, "Appointment.status")
    return asked_of(proposal)


def asked_of(proposal: Resource) -> Asked:
    """Return what the Appointment ``proposal`` asks for. Raises ``required`` where it does not say
    when, ``value`` where it ends before it starts or has a Slot of another time."""
    start, end = (_moment(proposal, name) for name in ("start", "end"))
    if end <= start:
        raise invalid_value("end", proposal["end"], "a time after the start", "Appointment.end")
    return Asked(start, end, list(_slots(proposal, start, end)), proposal)


def _moment(proposal: Resource, name: str) -> datetime:
    if name not in proposal:
        text = f"An appointment to be booked needs a {name}."
        raise FhirError(Issue("required", text, f"Appointment.{name}"))
    found = instant_of(proposal[name])
    if found is None:
        expected = "a time such as 2026-12-01T09:00:00+06:00"
        raise invalid_value(name, proposal[name], expected, f"Appointment.{name}")
    return found


def _slots(proposal: Resource, start: datetime, end: datetime) -> Iterator[SlotAsked]:
    contained = {
        one.get("id", f"{place}"): one
        for place, one in enumerate(proposal.get("contained", ()))
        if one.get("resourceType") == "Slot" and one.get("status") in _FREE
    }
    for one in proposal.get("slot", ()):
        target = one.get("reference", "")
        if target.startswith("#"):
            found = contained.pop(target[1:], None)
            if found is not None:
                yield _contained(found, start, end)
        else:
            yield SlotAsked(_named(one, "Slot", "Appointment.slot").partition("/")[2], "")
    if not proposal.get("slot"):  # as a proposal that nobody refers to its Slots in
        yield from (_contained(one, start, end) for one in contained.values())


def _contained(slot: Resource, start: datetime, end: datetime) -> SlotAsked:
    if [instant_of(slot.get(name)) for name in ("start", "end")] != [start, end]:
        text = "A contained Slot has the start and the end of its Appointment."
        raise FhirError(Issue("value", text, "Appointment.contained"))
    place = "Appointment.contained.schedule"
    return SlotAsked("", _named(slot.get("schedule", {}), "Schedule", place))


def _named(element: Mapping[str, Any], type: str, place: str) -> str:
    """Return the resource of ``type`` that a Reference points at. Raises ``value`` for another."""
    target = element.get("reference", "")
    if not target.startswith(f"{type}/") or not _PLAIN.fullmatch(target):
        raise invalid_value(place, target, f"a reference such as {type}/1", place)
    return str(target)


def actors_of(appointment: Mapping[str, Any]) -> list[str]:
    """Return the participants of ``appointment`` that are no patients, as ``Type/id``."""
    return [one for one in _participants(appointment) if not one.startswith("Patient/")]


def patient_of(appointment: Mapping[str, Any]) -> str:
    """Return the patient of ``appointment`` (``Patient/1``), or ``""``."""
    found = (one for one in _participants(appointment) if one.startswith("Patient/"))
    return next(found, "")


def _participants(appointment: Mapping[str, Any]) -> Iterator[str]:
    for one in appointment.get("participant", ()):
        target = one.get("actor", {}).get("reference", "")
        if _PLAIN.fullmatch(target):
            yield target


def series_of(appointment: Mapping[str, Any]) -> str:
    """Return the name of the series that ``appointment`` is one of, or ``""``."""
    found = (one for one in appointment.get("identifier", ()) if one.get("system") == SERIES)
    return next((str(one.get("value", "")) for one in found), "")


def appointment_of(asked: Asked, slots: Iterable[str], terms: Terms) -> Resource:
    """Return the Appointment to write for ``asked``, with the Slots ``slots`` (ids).

    What the proposal says is kept, as reason and service; times are told in the offset that it had.
    """
    proposal = asked.proposal
    found: Resource = {
        "resourceType": "Appointment",
        **{name: value for name, value in proposal.items() if name not in _ANEW},
        "status": terms.status,
        "start": asked.start.isoformat(),
        "end": asked.end.isoformat(),
        "created": terms.now.isoformat(timespec="seconds"),
        "participant": _people(proposal, terms),
    }
    kept = [one for one in proposal.get("contained", ()) if one.get("resourceType") != "Slot"]
    extra = _extensions(proposal, until=terms.until, override=terms.override)
    series = [{"system": SERIES, "value": terms.series}] if terms.series else []
    listed = {
        "contained": kept,
        "extension": extra,
        "slot": [{"reference": f"Slot/{one}"} for one in slots],
        "identifier": [*proposal.get("identifier", ()), *series],
    }
    found |= {name: value for name, value in listed.items() if value}
    if terms.comment:
        found["comment"] = terms.comment
    return found


def _people(proposal: Resource, terms: Terms) -> list[Resource]:
    """Return the participants: those who were there, and the patient; who was asked has accepted
    what is booked, and is asked while it is held."""
    status = "accepted" if terms.status == "booked" else "tentative"
    there = [
        {**one, "status": status} if one.get("status") in _ASKED else one
        for one in proposal.get("participant", ())
    ]
    if terms.patient and patient_of(proposal) != terms.patient:
        there = [
            one
            for one in there
            if not one.get("actor", {}).get("reference", "").startswith("Patient/")
        ]
        there.append({"actor": {"reference": terms.patient}, "status": status})
    return there


def _extensions(
    resource: Resource, until: datetime | None = None, override: str = ""
) -> list[Resource]:
    found = [one for one in resource.get("extension", ()) if one.get("url") not in _OURS]
    if until is not None:
        found.append({"url": HOLD_EXPIRES, "valueDateTime": until.isoformat(timespec="seconds")})
    if override:
        found.append({"url": OVERRIDE_REASON, "valueString": override})
    return found


def slot_of(asked: Asked, schedule: str, status: str, start: datetime, end: datetime) -> Resource:
    """Return the Slot from ``start`` to ``end`` to be made in ``schedule`` for ``asked``, or for a
    buffer of it; it goes with its Appointment."""
    said = asked.proposal
    of_proposal = {name: _concepts(said[name]) for name in _OF_SLOT if name in said}
    return {
        "resourceType": "Slot",
        "meta": {"tag": [dict(SERVER_MADE)]},
        **of_proposal,
        "schedule": {"reference": schedule},
        "status": status,
        "start": start.isoformat(),
        "end": end.isoformat(),
    }


def _concepts(value: Any) -> Any:
    """Return concepts without extensions: those of an Appointment are not those of a Slot."""
    if isinstance(value, list):
        return [_concepts(one) for one in value]
    return {name: one for name, one in value.items() if name != "extension"}


def confirmed(held: Resource, terms: Terms) -> Resource:
    """Return the Appointment ``held`` as it is booked."""
    found = {**held, "status": "booked", "participant": _people(held, terms)}
    return _with_extensions(found, _extensions(held, override=terms.override))


def cancelled(appointment: Resource, reason: Resource) -> Resource:
    """Return ``appointment`` as it is cancelled, for ``reason`` (a CodeableConcept, or ``{}``)."""
    found = {**appointment, "status": "cancelled"}
    return {**found, "cancelationReason": reason} if reason else found


def _with_extensions(appointment: Resource, extensions: Sequence[Resource]) -> Resource:
    found = {name: one for name, one in appointment.items() if name != "extension"}
    if extensions:
        found["extension"] = list(extensions)
    return found


def moved(
    appointment: Resource, asked: Asked, slots: Sequence[str], override: str = ""
) -> Resource:
    """Return ``appointment`` at the time and in the Slots of ``asked``, with what was said of its
    override before left out: it was about another time."""
    expires = [one for one in appointment.get("extension", ()) if one.get("url") == HOLD_EXPIRES]
    found = {
        **appointment,
        "start": asked.start.isoformat(),
        "end": asked.end.isoformat(),
        "slot": [{"reference": f"Slot/{one}"} for one in slots],
    }
    if not slots:
        del found["slot"]
    return _with_extensions(found, [*_extensions(appointment, override=override), *expires])


def with_actors(appointment: Resource, actors: Sequence[str], others: Sequence[str]) -> Resource:
    """Return ``appointment`` with ``actors`` in the place of ``others`` (references)."""
    kept = [
        one
        for one in appointment.get("participant", ())
        if _participant(one) not in others or _participant(one) in actors
    ]
    there = {_participant(one) for one in kept}
    status = "accepted" if appointment["status"] == "booked" else "tentative"
    new = [{"actor": {"reference": one}, "status": status} for one in actors if one not in there]
    return {**appointment, "participant": [*new, *kept]}


def _participant(one: Mapping[str, Any]) -> str:
    return next(_participants({"participant": [one]}), "")


def hold_until(now: datetime, minutes: Iterable[int]) -> datetime:
    """Return until when a hold lasts: the shortest of what its Schedules allow."""
    return now + timedelta(minutes=min(minutes))
