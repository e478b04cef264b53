"""Rows that say ``plan`` -> CommunicationRequests, and the rows of the outbox that send them.

Section 8 of design/scheduling.md. The plan is made of what is there now, not of what has changed:
to make it once more changes nothing. One transaction writes all of it, and ends the row; a write
that comes between has put another row in its place, and the plan is made again.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import groupby

from fhir_server.context import Context
from fhir_server.features.scheduling.communications import (
    NO_MESSAGES,
    ended,
    objects,
    request_of,
)
from fhir_server.features.scheduling.medication_reminders import doses, goes_on
from fhir_server.features.scheduling.reminder_policy import Desk
from fhir_server.features.scheduling.reminders import (
    LIVE,
    Json,
    Person,
    Reminder,
    displays,
    first_way,
    given,
    language_of,
    local,
    name_of,
    notice,
    patients_of,
    reachable,
    started,
    wanted,
    zone_of,
)
from fhir_server.features.scheduling.templates import languages, named, rendered
from fhir_server.features.scheduling.zones import zone_at
from fhir_server.messages import Request, Resource
from fhir_server.outcome import FhirError
from fhir_server.r4.json import decode
from fhir_server.store.outbox import SENDING, SENT, WAITING, WITHDRAWN, Row
from fhir_server.store.resources import ResourceStore

TYPES = ("CommunicationRequest", "Communication")
"""The types that are written here."""
MEDICATION = "medication/"
"""What the subject of a plan of doses begins with, before the patient."""
_REVOKED = "revoked"
_OFF = ("cancelled", "entered-in-error")
_AGAIN = timedelta(hours=24)
_ORDERS_MAX = 200
_USE = timedelta(hours=2)  # after that a dose is not reminded of


class Superseded(Exception):
    """Another has the row by now; nothing was written."""


def plan_row(subject: str, now: datetime) -> Row:
    """Return the row that has the messages about ``subject`` planned: ``Appointment/1``, or
    ``medication/Patient/1``."""
    return Row(f"plan/{subject}", "plan", now, subject=subject)


async def planned(row: Row, desk: Desk, context: Context) -> None:
    """Make the plan that ``row`` asks for. Raises :class:`Superseded`."""
    work = _doses_planned if row.subject.startswith(MEDICATION) else _appointment_planned

    async def within(store: ResourceStore) -> None:
        await work(row, desk, replace(context, store=store))

    await context.store.in_transaction(within, TYPES)


async def _appointment_planned(row: Row, desk: Desk, context: Context) -> None:
    outbox, now = context.store.outbox, context.now()
    appointment = await resource(row.subject, context)
    if appointment is not None:
        appointment = local(appointment, context.parameters.base_urls)
        desk = desk.on_clocks_of(await zone_at(appointment, context))
    rows = await outbox.about(row.subject)
    references = {one.content["patient"] for one in rows}
    references |= set(patients_of(appointment or {}))
    people = {one: await person(one, desk, context) for one in sorted(references)}
    known = {one: found for one, found in people.items() if found is not None}
    planned = _planned(rows)
    needed = wanted(appointment, known, desk.policy, now, planned) if appointment else []
    needed += _notices(appointment, rows, known, desk, now) if appointment else []
    values = displays(appointment or {})
    await _kept(needed, rows, {one: known[one].patient for one in known}, values, desk, context)
    if not await outbox.drop(row):
        raise Superseded


def _planned(rows: Iterable[Row]) -> frozenset[str]:
    """Return the ids of messages that a plan had last time, and that a write may have taken back
    since: one of them that is due already is late, and not over."""
    return frozenset(one.id for one in rows if one.reason != _REVOKED)


def _notices(
    appointment: Json, rows: Sequence[Row], people: Mapping[str, Person], desk: Desk, now: datetime
) -> Iterable[Reminder]:
    """Yield what is to be told to those who were told something that is not so any more."""
    start, status = started(appointment), appointment.get("status")
    taking_part = patients_of(appointment)
    for reference, person in people.items():
        told = [
            one
            for one in rows
            if one.state in (SENT, SENDING)
            and one.content["patient"] == reference
            # What was offered is not known to be anybody's time.
            and one.content["kind"] != "offer"
        ]
        if not told:
            continue
        last = max(told, key=lambda one: (one.at or now, one.due))
        was_off = last.content["kind"] == "cancelled"
        is_off = status in _OFF or (status in LIVE and reference not in taking_part)
        said = appointment
        if is_off and not was_off:  # they know of the time that they were told
            kind, said = "cancelled", {**appointment, "start": last.content["start"].isoformat()}
        elif not is_off and status in LIVE and (was_off or last.content["start"] != start):
            kind = "moved"
        else:
            continue
        found = notice(kind, said, (reference, person), desk.policy, now, after=last.id)
        if found is not None:
            yield found


async def _doses_planned(row: Row, desk: Desk, context: Context) -> None:
    outbox, now = context.store.outbox, context.now()
    reference = row.subject.removeprefix(MEDICATION)
    found = await person(reference, desk, context)
    orders = await _orders(reference, context) if found is not None else []
    rows = await outbox.about(row.subject)
    needed: list[Reminder] = []
    if found is not None:
        needed += _of_doses((reference, found), orders, _planned(rows), desk, context)
    patients = {reference: found.patient} if found is not None else {}
    await _kept(needed, rows, patients, {}, desk, context)
    is_over = found is None or not _have_doses(found, orders, desk, context)
    ends = outbox.drop(row) if is_over else outbox.again(row, now + _AGAIN, "", tried=0)
    if not await ends:
        raise Superseded


def _have_doses(person: Person, orders: Sequence[Resource], desk: Desk, context: Context) -> bool:
    """Whether there is to be another plan, though there may be nothing to remind of by then: an
    order may be for Fridays, and a patient have no telephone yet."""
    if not context.settings.reminder_medication or not reachable(person.patient):
        return False
    zone = zone_of(person.patient, desk.policy.zone)
    times = context.settings.reminder_dose_times
    return any(goes_on(one, times, zone, context.now()) for one in orders)


def _of_doses(
    who: tuple[str, Person],
    orders: Sequence[Resource],
    known: Collection[str],
    desk: Desk,
    context: Context,
) -> Iterable[Reminder]:
    """Yield one message for all that is taken at the same time: of the doses to come, and of those
    a short while ago that are ``known``."""
    (reference, person), now = who, context.now()
    way = first_way(person, now)
    if way is None or not context.settings.reminder_medication:
        return
    zone = zone_of(person.patient, desk.policy.zone)
    times = context.settings.reminder_dose_times
    at = sorted(
        (when, f"MedicationRequest/{one['id']}")
        for one in orders
        for when in doses(one, times, zone, now, back=_USE)
    )
    written = languages(desk.texts, "medication")
    language = language_of(person.patient, written, desk.policy.language)
    for when, some in groupby(at, key=lambda one: one[0]):
        about = tuple(order for _, order in some)
        id = name_of(["medication", reference, when.isoformat(), way.channel, *about])
        if when > now or id in known:
            until = when + _USE
            yield Reminder(
                *(id, "medication", reference, about, when, until, when, way.channel, language)
            )


async def _orders(reference: str, context: Context) -> list[Resource]:
    asked = (("patient", reference), ("status", "active"), ("_count", str(_ORDERS_MAX)))
    return await _found("MedicationRequest", asked, context)


async def _kept(
    needed: Sequence[Reminder],
    rows: Sequence[Row],
    patients: Mapping[str, Json],
    values: Mapping[str, str],
    desk: Desk,
    context: Context,
) -> None:
    """Write what is ``needed`` and not among ``rows``, and revoke what waits there and is not."""
    there = {one.id: one for one in rows}
    ids = {one.id for one in needed}
    for one in needed:
        if one.id not in there or there[one.id].state == WITHDRAWN:
            await put(one, patients[one.patient], values, desk, context)
    for row in rows:
        if row.id in ids or row.state not in (WAITING, WITHDRAWN) or row.reason == _REVOKED:
            continue
        request = await resource(f"CommunicationRequest/{row.id}", context)
        if request is not None and request.get("status") == "active":
            await written(ended(request, "revoked", "It is not so any more."), context)
        gone = replace(row, state=WITHDRAWN, reason=_REVOKED, at=row.at or context.now())
        await context.store.outbox.put([gone])


async def put(
    reminder: Reminder, patient: Json, values: Mapping[str, str], desk: Desk, context: Context
) -> None:
    """Write the CommunicationRequest of ``reminder``, and the row that has it sent. Only inside a
    transaction. ``values`` are what the text may name beside what is known of all."""
    zone = desk.policy.zone if reminder.kind != "medication" else zone_of(patient, desk.policy.zone)
    written_in = languages(desk.texts, reminder.kind)
    language = reminder.language if reminder.language in written_in else "en"
    day, time = named(reminder.start.astimezone(zone), language)
    known = {
        "given": given(patient),
        "day": day,
        "time": time,
        "clinic": desk.clinic,
        "phone": desk.phone,
        **values,
    }
    text = rendered(desk.texts, reminder.kind, reminder.channel, language, known)
    await written(request_of(reminder, text), context)
    doses = (f"{MEDICATION}{reminder.patient}",) if reminder.kind == "medication" else ()
    row = Row(
        reminder.id,
        "message",
        reminder.due,
        subject=reminder.about[0],
        watched=(*reminder.about, *doses),
        content={
            "kind": reminder.kind,
            "patient": reminder.patient,
            "start": reminder.start,
            "until": reminder.until,
            "channel": reminder.channel,
            "language": language,
            # Where it is night: doses are told of at their times, night or not.
            "zone": "" if doses else zone_of(patient, desk.policy.zone).key,
        },
    )
    await context.store.outbox.put([row])


async def person(reference: str, desk: Desk, context: Context) -> Person | None:
    """Return the patient ``reference``, with the channels by which messages are wanted; all of them
    where none are: then it is recorded that nothing was sent."""
    patient = await resource(reference, context)
    if patient is None:
        return None
    consents = await objections(reference, context)
    channels = desk.policy.channels
    open = [one for one in channels if not objects(consents, one, context.now())]
    return Person(patient, tuple(open) or channels)


async def objections(reference: str, context: Context) -> list[Resource]:
    """Return the Consents by which a patient may have said that no messages are wanted."""
    code = f"{NO_MESSAGES['system']}|{NO_MESSAGES['code']}"
    asked = (("patient", reference), ("status", "active"), ("category", code))
    return await _found("Consent", asked, context)


async def _found(type: str, asked: tuple[tuple[str, str], ...], context: Context) -> list[Resource]:
    answer = await context.perform(Request("search-type", type, parameters=asked), context)
    bundle = decode(answer.body, depth_max=context.settings.depth_max)
    return [one["resource"] for one in bundle.get("entry", ())]


async def resource(reference: str, context: Context) -> Resource | None:
    """Return what is at ``reference`` (``Patient/1``), ``None`` where nothing is."""
    type, _, id = reference.partition("/")
    try:
        answer = await context.perform(Request("read", type, id), context)
    except FhirError as error:
        if error.status in (404, 410):
            return None
        raise
    return decode(answer.body, depth_max=context.settings.depth_max)


async def written(resource: Resource, context: Context) -> None:
    """Write ``resource`` under its id."""
    type, id = resource["resourceType"], resource["id"]
    await context.perform(Request("update", type, id, body=resource), context)
