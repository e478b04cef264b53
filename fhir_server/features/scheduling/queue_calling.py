"""``$call-next``, ``$recall``, ``$skip``, ``$transfer`` and ``$finish``: what a counter does.

design/scheduling.md, section 7. Who is next is taken in one atomic step (``store/queues.py``);
then the Encounter is changed, in a transaction that requires that this step is still ours.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import re2 as re

from fhir_server.context import Context
from fhir_server.features.scheduling import queue
from fhir_server.features.scheduling.queue_numbers import Number
from fhir_server.features.scheduling.queue_numbers import given as number_given
from fhir_server.features.scheduling.queue_resources import (
    DEFINITION,
    Read,
    answered,
    entry_of,
    named_id,
    read,
    reference_id,
    write,
    wrong_state,
)
from fhir_server.interactions.admitting import check_part
from fhir_server.interactions.parameters import known_only
from fhir_server.messages import Request, Resource, Response
from fhir_server.operations.bodies import parameters_in
from fhir_server.outcome import FhirError, Issue, invalid_value
from fhir_server.registry import Operation
from fhir_server.store.queues import CALLED, CALLING, DONE, Entry
from fhir_server.store.resources import ResourceStore

_CALL = {"counter": "valueString", "service": "valueReference", "call": "valueId"}
_TRANSFER = {"to": "valueReference", "location": "valueReference", "keepPriority": "valueBoolean"}
_COUNTER = re.compile(r"[\pL\pM\pN][\pL\pM\pN .\-]{0,11}")
_TRIES = 5
_WAITING_MAX = 1_000  # a queue is shorter
_TYPES = ("Encounter", "Appointment")
_KEPT_APPOINTMENT = ("arrived", "checked-in")

Work = Callable[[Entry, Read, Context], Awaitable[tuple[Entry, Resource]]]


async def call_next(request: Request, context: Context) -> Response:
    """Call who is next to ``counter``: its Encounter becomes ``in-progress``, or ``triaged``.

    Raises ``not-found`` with the detail ``no-patient`` where nobody waits. With ``call``, an id of
    the caller's own, a call whose answer was lost is answered again, and calls nobody else.
    """
    known_only(request, ())
    check_part(Request("update", "Encounter"), context)
    given = parameters_in(request, context, _CALL)
    counter = _counter(given)
    await read("Location", request.id, context)
    service = named_id(given, "service", "HealthcareService")
    if service:
        await read("HealthcareService", service, context)
    call = f"{request.id}|{counter}|{given.get('call') or context.new_id()}"
    place = request.id, service or None
    among: list[str] | None = None
    for _ in range(_TRIES):
        entry = await context.store.queues.next(place, call, counter, context.now(), among)
        if entry is None:
            text = "Nobody is waiting here." if among is None else "Nobody whom you see is waiting."
            raise FhirError(Issue("not-found", text, detail="no-patient"))
        if entry.state != CALLING:  # this call was made before, and its answer was lost
            return answered(entry, (await read("Encounter", entry.id, context)).resource)
        try:
            called = await _called(entry, context)
        except FhirError as error:
            if error.issues[0].code != "not-found" or among is not None:
                raise
            among = await _seen(place, context)  # the next one is not for this caller
            continue
        if called is not None:
            return answered(*called)
    text = "Others keep calling the same numbers; nobody was called."
    raise FhirError(Issue("transient", text), headers=(("Retry-After", "1"),))


async def _seen(place: tuple[str, str | None], context: Context) -> list[str]:
    """Return the ids of those visits that wait and that who asks may see."""
    waiting = await context.store.queues.waiting(*place, context.now(), _WAITING_MAX)
    found = await context.store.read_all("Encounter", [one.id for one in waiting])
    return [one.id for one in found]


async def _called(entry: Entry, context: Context) -> tuple[Entry, Resource] | None:
    """Make what was taken ``called``, and its Encounter so; ``None`` where it is ours no more, or
    its visit has ended by another way."""

    async def work(store: ResourceStore) -> tuple[Entry, Resource] | None:
        inside = replace(context, store=store)
        now = context.now()
        found = await _encounter(entry, inside)
        if found is None:
            gone = {"state": DONE, "call": "", "counter": ""}  # this call takes another one
            await store.queues.change(entry, (CALLING,), gone)
            return None
        changes = {"state": CALLED, "called": now, "started": now, "calls": entry.calls + 1}
        changes["until"] = _until(entry, context)
        if entry.first is None:
            changes["first"] = now
        after = await store.queues.change(entry, (CALLING,), changes)
        if after is None:
            return None
        status = await _status_when_called(entry, found.resource, inside)
        encounter = queue.with_status(found.resource, status, now)
        encounter = await write(encounter, found.version, inside)
        return after, encounter

    try:
        return await context.store.in_transaction(work, _TYPES)
    except FhirError as error:
        if error.status < 500:  # what failed otherwise may have been done; the lease ends it
            await context.store.queues.release(entry)
        raise


async def _encounter(entry: Entry, context: Context) -> Read | None:
    """Return the Encounter of ``entry``; ``None`` where it was deleted or has ended."""
    try:
        found = await read("Encounter", entry.id, context)
    except FhirError as error:
        if error.issues[0].code == "deleted":
            return None
        raise
    return found if queue.is_open(found.resource) else None


async def _status_when_called(entry: Entry, encounter: Resource, context: Context) -> str:
    """Return what the Encounter of ``entry`` becomes; one that was begun elsewhere goes on. That a
    service has gone keeps nobody from being called."""
    if not entry.service or encounter["status"] == "in-progress":
        return "in-progress"
    try:
        service = (await read("HealthcareService", entry.service, context)).resource
    except FhirError as error:
        if error.issues[0].code not in ("deleted", "not-found"):
            raise
        return "in-progress"
    return "triaged" if queue.is_triage(service) else "in-progress"


def _until(entry: Entry, context: Context) -> datetime:
    """Return when ``entry``, which somebody deals with now, is not called any more: who is sent on
    at night, shortly before the number ends, is not lost on the way."""
    carried = timedelta(minutes=context.settings.queue_carry_minutes)
    return max(entry.until, context.now() + carried)


async def recall(request: Request, context: Context) -> Response:
    """Have a number announced again, at the same counter or another one; one that was absent is
    called again, to the counter that is said."""
    counter = parameters_in(request, context, {"counter": "valueString"})

    async def work(entry: Entry, found: Read, inside: Context) -> tuple[Entry, Resource]:
        now = inside.now()
        to = _counter(counter) if counter or not entry.counter else entry.counter
        changes: dict[str, Any] = {"counter": to, "state": CALLED, "called": now}
        changes |= {"calls": entry.calls + 1, "started": entry.started or now}
        encounter = found.resource
        if entry.state != CALLED:
            status = await _status_when_called(entry, encounter, inside)
            encounter = queue.with_status(encounter, status, now)
            encounter = await write(encounter, found.version, inside)
        return await _changed(entry, changes, inside, "$recall"), encounter

    return await _done(request, context, work)


async def skip(request: Request, context: Context) -> Response:
    """Have who was called and did not come wait again, behind those who are present; the third
    time that one is ``absent``, and is called by ``$recall`` only."""
    parameters_in(request, context, {})

    async def work(entry: Entry, found: Read, inside: Context) -> tuple[Entry, Resource]:
        now = inside.now()
        after = await _changed(entry, queue.skipped(entry, now), inside, "$skip")
        encounter = queue.with_status(found.resource, "arrived", now)
        encounter = await write(encounter, found.version, inside)
        return after, encounter

    return await _done(request, context, work)


async def transfer(request: Request, context: Context) -> Response:
    """Have somebody wait in another queue, of another service or place: with the same number, or
    a new one where somebody there has the same."""
    given = parameters_in(request, context, _TRANSFER)
    service = reference_id(given.get("to"), "HealthcareService")
    location = reference_id(given.get("to"), "Location")
    if not service and not location:
        text = "Say where to: to, a reference to a HealthcareService or a Location."
        raise FhirError(Issue("required", text, "Parameters.parameter"))
    keeps_priority = given.get("keepPriority", True) is True
    there: Resource = {}
    if service:
        there = (await read("HealthcareService", service, context)).resource
        location = named_id(given, "location", "Location")
    if location:
        await read("Location", location, context)
    other = await _number_there(request.id, location, there, context)

    async def work(entry: Entry, found: Read, inside: Context) -> tuple[Entry, Resource]:
        now = inside.now()
        to = location or _place_for(there, entry.location)
        if (to, service) == (entry.location, entry.service):
            text = f"{entry.token} is in this queue already."
            raise FhirError(Issue("business-rule", text), status=409)
        changes = queue.transferred(entry, to, service, now, keeps_priority=keeps_priority)
        encounter = found.resource
        if other is not None and to == other.location:
            changes = {**changes, **other.members}
            known = encounter.get("identifier", ())
            encounter = {**encounter, "identifier": [*known, other.identifier(inside)]}
        held = await inside.store.queues.holder(replace(entry, **changes).claim)
        if held is not None:
            text = f"This patient has the number {held.token} in that queue: Encounter/{held.id}."
            raise FhirError(Issue("duplicate", text))
        after = await _changed(entry, changes, inside, "$transfer")
        if to != entry.location:
            encounter = queue.moved(encounter, to, now)
        if there.get("type"):
            encounter = {**encounter, "serviceType": there["type"][0]}
        encounter = await write(encounter, found.version, inside)
        return after, encounter

    return await _done(request, context, work)


async def _number_there(
    id: str, location: str, service: Resource, context: Context
) -> Number | None:
    """Return a number for the Encounter ``id`` where it goes, if somebody there has the one that it
    has now: two would come when it is called. ``location`` is empty where it was not said."""
    await read("Encounter", id, context)
    entry, queues = await entry_of(context.store, id), context.store.queues
    to = location or _place_for(service, entry.location)
    if to == entry.location or entry.state not in queue.FROM["$transfer"]:
        return None
    if not await queues.is_in_use(to, entry.date, entry.token):
        return None
    return await number_given((await read("Location", to, context)).resource, service, context)


async def finish(request: Request, context: Context) -> Response:
    """End a visit: the Encounter becomes ``finished``, its Appointment ``fulfilled``."""
    parameters_in(request, context, {})

    async def work(entry: Entry, found: Read, inside: Context) -> tuple[Entry, Resource]:
        now = inside.now()
        after = await _changed(entry, {"state": DONE, "finished": now}, inside, "$finish")
        encounter = queue.finished(found.resource, now)
        encounter = await write(encounter, found.version, inside)
        for one in encounter.get("appointment", ()):
            if id := reference_id(one, "Appointment"):
                await _fulfil(id, inside)
        return after, encounter

    return await _done(request, context, work)


async def _fulfil(id: str, inside: Context) -> None:
    found = await read("Appointment", id, inside)
    if found.resource.get("status") in _KEPT_APPOINTMENT:
        await write({**found.resource, "status": "fulfilled"}, found.version, inside)


async def _done(request: Request, context: Context, work: Work) -> Response:
    """Have ``work`` change entry and Encounter in one transaction, where the state allows it."""
    known_only(request, ())

    async def attempt(store: ResourceStore) -> tuple[Entry, Resource]:
        inside = replace(context, store=store)
        found = await read("Encounter", request.id, inside)
        entry = await entry_of(store, request.id)
        if entry.state not in queue.FROM[request.interaction]:
            raise wrong_state(entry, request.interaction)
        if not queue.is_open(found.resource):
            text = f"The Encounter of {entry.token} is {found.resource.get('status')}."
            raise FhirError(Issue("business-rule", text, "Encounter.status"), status=409)
        return await work(entry, found, inside)

    return answered(*await context.store.in_transaction(attempt, _TYPES))


async def _changed(
    entry: Entry, changes: Mapping[str, Any], inside: Context, operation: str
) -> Entry:
    changes = {**changes, "until": _until(entry, inside)}
    after = await inside.store.queues.change(entry, (entry.state,), changes)
    if after is None:
        raise wrong_state(entry, operation)
    return after


def _counter(given: Mapping[str, Any]) -> str:
    """Return the counter. It is shown on boards: a short name of a place, never of a person."""
    if "counter" not in given:
        text = "Say to which counter: counter, such as 3 or Room 2."
        raise FhirError(Issue("required", text, "Parameters.parameter"))
    said = str(given["counter"])
    if not _COUNTER.fullmatch(said):
        raise invalid_value("counter", said, "up to 12 letters, digits and spaces, as Room 2")
    return said


def _place_for(service: Resource, here: str) -> str:
    """Return where who goes to ``service`` waits: here, where it is offered here or does not say
    where; else at its only place. Raises ``required`` where that is not known."""
    places = {id for one in service.get("location", ()) if (id := reference_id(one, "Location"))}
    if not places or here in places:
        return here
    if len(places) == 1:
        return places.pop()
    text = "This service is offered in several places; say in which one: location."
    raise FhirError(Issue("required", text, "Parameters.parameter"))


def _of_encounter(name: str, handler: Callable[[Request, Context], Awaitable[Response]]) -> Any:
    return Operation(
        f"${name}",
        DEFINITION + name,
        handler,
        on=("Encounter",),
        instance=True,
        whole=False,
        affects_state=True,
        needs="u",
    )


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "$call-next",
        DEFINITION + "call-next",
        call_next,
        on=("Location",),
        instance=True,
        whole=False,
        affects_state=True,
        needs="r",
    ),
    _of_encounter("recall", recall),
    _of_encounter("skip", skip),
    _of_encounter("transfer", transfer),
    _of_encounter("finish", finish),
)
