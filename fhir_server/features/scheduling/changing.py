"""What becomes of an appointment: ``$confirm``, ``$cancel``, ``$reschedule``, ``$no-show`` and
``$complete``.

Sections 3 to 5 of design/scheduling.md. Each reads, judges and writes in one transaction; the table
of states is kept by the rule (``holding.py``), whoever writes.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from fhir_server.context import Context
from fhir_server.features.scheduling import drafting
from fhir_server.features.scheduling.asked import (
    CANCEL,
    CONFIRM,
    FOLLOW_UP,
    RESCHEDULE,
    concept_of,
    moment_of,
    override_of,
    reference_of,
    words_of,
)
from fhir_server.features.scheduling.drafting import Asked, SlotAsked, Terms
from fhir_server.features.scheduling.extensions import hold_expires
from fhir_server.features.scheduling.persons import is_scheduler
from fhir_server.features.scheduling.places import (
    Place,
    check_active,
    check_cutoff,
    check_times,
    moved_to,
    places_of,
    slots_of,
)
from fhir_server.features.scheduling.refusals import against_rules, gone
from fhir_server.features.scheduling.replies import reply
from fhir_server.features.scheduling.writing import (
    TYPES,
    in_one,
    read,
    slot_created,
    updated,
    written,
)
from fhir_server.interactions.admitting import check_power, forbidden
from fhir_server.messages import Request, Resource, Response
from fhir_server.operations.asked import given
from fhir_server.outcome import FhirError, Issue
from fhir_server.registry import Handler, Operation, Registry
from fhir_server.security.scopes import OVERRIDE
from fhir_server.store.changes import Change

_DEFINITION = "urn:fhir-server:OperationDefinition:appointment-"
_CANCELLED = ("proposed", "pending", "waitlist", "booked")
_MOVED = ("pending", "booked")

Revise = Callable[[Resource, Context], Awaitable[tuple[Resource, list[Change]]]]
"""Makes of an Appointment what it becomes, and what is written with it."""


def register(registry: Registry) -> None:
    """Add the operations on one appointment."""
    handlers: dict[str, Handler] = {
        "confirm": confirm,
        "cancel": cancel,
        "reschedule": reschedule,
        "no-show": partial(_ended, "noshow"),
        "complete": partial(_ended, "fulfilled"),
    }
    for name, handler in handlers.items():
        registry.operation(
            Operation(
                f"${name}",
                _DEFINITION + name,
                handler,
                on=("Appointment",),
                instance=True,
                whole=False,
                affects_state=True,
                needs="u",
                keyed=TYPES,
            )
        )


async def confirm(request: Request, context: Context) -> Response:
    """Book what is held."""
    found = given(request, context, CONFIRM)
    patient = reference_of(
        found.one("patient-reference"),
        "Patient",
        "patient-reference",
        context.parameters.base_urls,
    )
    comment = words_of(found, "comment")
    return await confirmed(request, context, patient, comment)


async def confirmed(
    request: Request, context: Context, patient: str = "", comment: str = ""
) -> Response:
    """Book the hold that ``request`` names, for ``patient`` if it had none. Raises
    ``business-rule`` for what is no hold, ``conflict`` for one that has expired."""

    async def revise(before: Resource, inside: Context) -> tuple[Resource, list[Change]]:
        now = inside.now()
        if before["status"] not in ("pending", "proposed"):
            raise _wrong_state(before, "confirmed")
        _check_hold(before, now)
        if before["status"] == "proposed" and not is_scheduler(context.principal):
            asked, places = await places_of(drafting.asked_of(before), inside)
            check_active(places)
            check_times(asked.start, asked.end, places, now, strictly=True)
        if patient and drafting.patient_of(before) not in ("", patient):
            text = f"Appointment/{before['id']} is held for another patient."
            raise FhirError(Issue("forbidden", text))
        after = drafting.confirmed(before, Terms("booked", patient, now))
        return ({**after, "comment": comment} if comment else after), []

    return await _revised(request, context, revise)


async def cancel(request: Request, context: Context) -> Response:
    """Cancel an appointment; its time is free again."""
    return await cancelled(
        request, context, concept_of(given(request, context, CANCEL).one("reason"))
    )


async def cancelled(request: Request, context: Context, reason: Resource) -> Response:
    """Cancel the appointment that ``request`` names. Raises ``business-rule`` for one that is under
    way or over, and where it is too late for a patient."""

    async def revise(before: Resource, inside: Context) -> tuple[Resource, list[Change]]:
        if before["status"] not in _CANCELLED:
            raise _wrong_state(before, "cancelled")
        if before["status"] == "booked" and not is_scheduler(context.principal):
            _, places = await places_of(drafting.asked_of(before), inside, stands=True)
            check_cutoff("cancel", drafting.asked_of(before).start, places, inside.now())
        return drafting.cancelled(before, reason), []

    return await _revised(request, context, revise)


async def reschedule(request: Request, context: Context) -> Response:
    """Move an appointment to another time, or to another Schedule."""
    found = given(request, context, RESCHEDULE)
    if not found.many("start"):
        text = "Say when it is to begin: start, such as 2026-12-01T09:00:00+06:00."
        raise FhirError(Issue("required", text, "Parameters.parameter"))
    return await rescheduled(
        request,
        context,
        moment_of(found.one("start"), "start"),
        reference_of(found.one("schedule"), "Schedule", "schedule", context.parameters.base_urls),
        override=override_of(found),
    )


async def rescheduled(
    request: Request, context: Context, start: datetime, schedule: str = "", *, override: str = ""
) -> Response:
    """Move the appointment that ``request`` names to ``start``, and into ``schedule`` if one is
    named. It keeps its id; its old time is freed in the transaction that takes the new one."""
    if override:
        check_power(OVERRIDE, context)
    override = override or context.store.override

    async def revise(before: Resource, inside: Context) -> tuple[Resource, list[Change]]:
        if before["status"] not in _MOVED:
            raise _wrong_state(before, "moved")
        now = inside.now()
        _check_hold(before, now)
        old, places = await places_of(drafting.asked_of(before), inside, stands=True)
        if before["status"] == "booked" and not is_scheduler(context.principal):
            check_cutoff("reschedule", old.start, places, now)
        there = await moved_to(places, schedule, old, inside) if schedule else places
        check_active(there)
        asked = _at(old, start, there)
        if not override:
            strictly = not is_scheduler(context.principal)
            check_times(asked.start, asked.end, there, now, strictly=strictly)
        slots = {inside.new_id(): one for one in slots_of(asked, there, (), before["status"])}
        changes = [slot_created(id, one) for id, one in slots.items()]
        after = drafting.moved(before, asked, list(slots), override)
        gone_from = {actor for place in places for actor in place.actors}
        come_to = [actor for place in there for actor in place.actors]
        if there is not places:
            after = drafting.with_actors(after, come_to, sorted(gone_from))
        return after, changes

    return await _revised(request, context, revise, override)


def _at(old: Asked, start: datetime, places: list[Place]) -> Asked:
    """Return the appointment ``old`` at ``start``, for as long, in ``places``."""
    slots = [SlotAsked("", place.schedule) for place in places]
    return Asked(start, start + (old.end - old.start), slots, old.proposal)


async def _ended(status: str, request: Request, context: Context) -> Response:
    """Note that the patient did not come, or that the appointment took place."""
    reason = words_of(given(request, context, FOLLOW_UP), "reason")
    if not is_scheduler(context.principal):
        raise forbidden("Who came, and who did not, is noted by the clinic.")

    async def revise(before: Resource, inside: Context) -> tuple[Resource, list[Change]]:
        after = {**before, "status": status}
        return ({**after, "comment": reason} if reason else after), []

    return await _revised(request, context, revise)


async def _revised(
    request: Request, context: Context, revise: Revise, override: str = ""
) -> Response:
    """Write what ``revise`` makes of the Appointment that ``request`` names."""

    async def work(inside: Context) -> Response:
        before = await read(f"Appointment/{request.id}", inside)
        after, changes = await revise(before, inside)
        stored = await written([*changes, updated(after, request, inside)], inside, override)
        return reply(stored, request, 200, with_slots=False)

    return await in_one(context, work)


def _check_hold(appointment: Resource, now: datetime) -> None:
    until = hold_expires(appointment)
    if until is not None and until <= now:
        raise gone(f"The hold of Appointment/{appointment['id']} expired at {until.isoformat()}.")


def _wrong_state(appointment: Mapping[str, Any], done: str) -> FhirError:
    text = f"Appointment/{appointment['id']} is {appointment['status']}, and cannot be {done}."
    return against_rules(text)
