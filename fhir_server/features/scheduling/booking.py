"""``$hold`` and ``$book``: a proposed appointment becomes one that has its time.

Sections 3 and 4 of design/scheduling.md; https://profiles.ihe.net/ITI/Scheduling/.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

from fhir_server.context import Context
from fhir_server.features.scheduling.asked import BOOK, HOLD, Wish, wish_of
from fhir_server.features.scheduling.changing import cancelled, confirmed, rescheduled
from fhir_server.features.scheduling.drafting import (
    Asked,
    Terms,
    appointment_of,
    asked_of,
    hold_until,
    patient_of,
    series_of,
    to_book,
)
from fhir_server.features.scheduling.extensions import hold_expires
from fhir_server.features.scheduling.governing import read_all
from fhir_server.features.scheduling.persons import is_scheduler, own_patient
from fhir_server.features.scheduling.places import (
    Place,
    check_active,
    check_times,
    places_of,
    slots_of,
    with_people,
)
from fhir_server.features.scheduling.proposals import is_proposal, proposed
from fhir_server.features.scheduling.refusals import against_rules
from fhir_server.features.scheduling.replies import reply
from fhir_server.features.scheduling.series import weekly
from fhir_server.features.scheduling.turns import Turns
from fhir_server.features.scheduling.writing import (
    TYPES,
    created,
    in_one,
    read,
    search,
    slot_created,
    written,
)
from fhir_server.interactions.admitting import check_power
from fhir_server.messages import Request, Resource, Response
from fhir_server.operations.asked import given
from fhir_server.outcome import FhirError, Issue
from fhir_server.registry import Operation, Registry
from fhir_server.security.scopes import OVERRIDE
from fhir_server.store.changes import Change
from fhir_server.store.documents import Stored

_DEFINITION = "urn:fhir-server:OperationDefinition:appointment-"
_TURNS = Turns()  # of this process
_LONGEST_OF_SERIES = timedelta(days=1)
_NOT_THERE = ("not-found", "deleted")


def register(registry: Registry) -> None:
    """Add ``$hold`` and ``$book``."""
    for name, handler in (("hold", hold), ("book", book)):
        registry.operation(
            Operation(
                f"${name}",
                _DEFINITION + name,
                handler,
                on=("Appointment",),
                affects_state=True,
                needs="c",
                keyed=TYPES,
            )
        )


async def hold(request: Request, context: Context) -> Response:
    """Hold the time of a proposal for some minutes. IHE ITI-116."""
    wish = _wish(request, context)
    proposals = await _proposed(wish, context)
    if not proposals:
        raise against_rules(f"{wish.reference} is no proposal; it is there already.")
    return await made(wish, proposals, "pending", request, context)


async def book(request: Request, context: Context) -> Response:
    """Book a proposal, or confirm a hold; an ``appointment-resource`` that is there already is
    moved, or cancelled. IHE ITI-117."""
    wish = _wish(request, context)
    there = await _existing(wish, context)
    if there is None:
        proposals = await _proposed(wish, context)
        if proposals:
            return await made(wish, proposals, "booked", request, context)
        held = replace(request, id=wish.reference.partition("/")[2])
        return await confirmed(held, context, wish.patient, wish.comment)
    request = replace(request, id=there["id"])
    if wish.appointment.get("status") == "cancelled":
        reason = wish.appointment.get("cancelationReason", {})
        return await cancelled(request, context, reason)
    if there["status"] == "pending" and _is_same_time(wish, there):
        return await confirmed(request, context, wish.patient, wish.comment)
    start = asked_of(wish.appointment).start
    return await rescheduled(request, context, start, override=wish.override)


def _wish(request: Request, context: Context) -> Wish:
    """Return what is wished for; who asks for himself need not say so."""
    table = HOLD if request.interaction == "$hold" else BOOK
    wish = wish_of(given(request, context, table), context.parameters.base_urls)
    if wish.override:
        check_power(OVERRIDE, context)
    wish = replace(wish, override=wish.override or context.store.override)
    if wish.patient or wish.person is not None:
        return wish
    return replace(wish, patient=own_patient(context.principal))


async def _existing(wish: Wish, context: Context) -> Resource | None:
    """Return the stored Appointment that is meant; ``None`` where it is a new one."""
    id = wish.appointment.get("id", "") if wish.name == "appointment-resource" else ""
    if not id:
        return None
    try:
        return await read(f"Appointment/{id}", context)
    except FhirError as error:
        if error.issues[0].code in _NOT_THERE:
            return None
        raise


def _is_same_time(wish: Wish, there: Resource) -> bool:
    asked, stands = asked_of(wish.appointment), asked_of(there)
    return (asked.start, asked.end) == (stands.start, stands.end)


async def _proposed(wish: Wish, context: Context) -> list[Resource]:
    """Return the Appointments that ``wish`` names as proposals, or as a whole; nothing where its
    reference is to a stored one. Raises ``not-found`` for a proposal that is unknown, over, or
    another's."""
    if not wish.reference:
        return [wish.appointment]
    id = wish.reference.partition("/")[2]
    if is_proposal(id):
        with suppress(FhirError):
            return await proposed(id, context)
    try:
        await read(wish.reference, context)
    except FhirError as error:
        if error.issues[0].code in _NOT_THERE:
            return await proposed(id, context)  # says why
        raise
    return []


async def made(
    wish: Wish, proposals: Sequence[Resource], status: str, request: Request, context: Context
) -> Response:
    """Write ``proposals`` with ``status``: one appointment, or each of a series. Raises
    ``business-rule`` where a rule does not offer the time, ``conflict`` where it is taken."""
    asked, places = await places_of(to_book(proposals[0]), context)
    check_active(places)
    starts = [asked_of(one).start for one in proposals]
    if wish.count > 1 and len(starts) == 1:
        if asked.end - asked.start > _LONGEST_OF_SERIES:
            text = "Each appointment of a series is a day long at most."
            raise FhirError(Issue("value", text, "Appointment.end"))
        starts = weekly(asked.start, wish.count, places[0].zone)
    times = [asked, *(asked.at(start) for start in starts[1:])]
    now = context.now()
    if not wish.override:
        strictly = not is_scheduler(context.principal)
        for one in times:
            check_times(one.start, one.end, places, now, strictly=strictly)
    terms = Terms(
        status,
        wish.patient or patient_of(asked.proposal),
        now,
        hold_until(now, [one.hold_minutes for one in places]) if status == "pending" else None,
        wish.override,
        wish.comment,
        context.new_id() if len(times) > 1 else "",
    )
    changes: list[Change] = []
    if wish.person is not None:
        id = wish.person.get("id", "")
        if id not in await read_all("Patient", [id] if id else [], context):
            id = context.new_id()
            changes.append(created("Patient", id, wish.person, request, context))
        terms = replace(terms, patient=f"Patient/{id}")
    for one in times:
        changes += _changes(one, places, terms, request, context)

    async def work(inside: Context) -> list[Stored]:
        if status == "pending" and terms.patient:
            await _check_holds(terms.patient, inside)
        return await written(changes, inside, wish.override)

    async def in_turn() -> list[Stored]:
        return await (in_one(context, work) if status == "pending" else work(context))

    if context.store.session is not None:
        stored = await in_turn()
    else:
        names = (f"{place.schedule}|{one.start.timestamp()}" for place in places for one in times)
        async with _TURNS.of(names):
            stored = await in_turn()
    return reply(stored, request, 201, with_slots=wish.name == "appointment")


def _changes(
    asked: Asked, places: Sequence[Place], terms: Terms, request: Request, context: Context
) -> list[Change]:
    """Return what creates the appointment ``asked``, and its Slots: one for each place that has
    none, and its buffers."""
    own = {one.id for one in asked.slots if one.id}
    slots = [place.slot for place in places if place.slot in own]
    made = {context.new_id(): one for one in slots_of(asked, places, own, terms.status)}
    body = with_people(appointment_of(asked, [*slots, *made], terms), places)
    appointment = created("Appointment", context.new_id(), body, request, context)
    return [*(slot_created(id, one) for id, one in made.items()), appointment]


async def _check_holds(patient: str, context: Context) -> None:
    """Raise ``business-rule`` where ``patient`` holds as many times already as one may; a series
    counts once."""
    most = context.settings.scheduling_holds_max
    await context.store.claim([f"holds|{patient}"])  # two holds at once would not see each other
    asked = (("patient", patient), ("status", "pending"), ("_count", "1000"))
    held = await search("Appointment", asked, context)
    now = context.now()
    live = {
        series_of(one) or one["id"]
        for one in held
        if (until := hold_expires(one)) is not None and until > now
    }
    if len(live) >= most:
        raise against_rules(f"{patient} holds {most} times already; book one or cancel it.")
