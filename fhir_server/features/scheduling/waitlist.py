"""Free times are offered to those who wait for one: one after the other, until somebody takes it.

Section 6 of design/scheduling.md. What ``events.py`` takes comes here. An offer is a write like any
other: the rule that no time is given twice decides whether it can be made, and its version whether
the entry was asked meanwhile for another time.
"""

import json
import logging
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta

from fhir_server.context import Context
from fhir_server.features.scheduling.claims import is_live
from fhir_server.features.scheduling.conflicts import are_open
from fhir_server.features.scheduling.diaries import (
    by_key,
    diaries,
    found,
    openings_of,
    with_roles,
    with_starts,
)
from fhir_server.features.scheduling.extensions import hold_expires
from fhir_server.features.scheduling.subjects import ids_of, participants, practitioner_of
from fhir_server.features.scheduling.telling import messages, plain_message, tell, until
from fhir_server.features.scheduling.waiting import (
    Place,
    declined,
    entry_version,
    in_turn,
    link_token,
    offered,
    place_for,
    time_name,
)
from fhir_server.features.scheduling.zones import zone_with
from fhir_server.messages import Request, Resource
from fhir_server.outcome import FhirError
from fhir_server.r4.json import decode
from fhir_server.settings import Settings
from fhir_server.store.offers import Freed
from fhir_server.store.resources import ResourceStore

PATH = "/offer/"
_TIMES_MAX = 50
_REFUSED_MAX = 20
_NOT_NOW = (409, 412)  # the time, or the patient, is taken; the entry has changed
_GONE = (404, 410)
TYPES = ("Appointment", "CommunicationRequest")
_LOG = logging.getLogger("fhir_server.waitlist")


async def offer(event: Freed, context: Context) -> None:
    """Offer the times that ``event`` has freed, each to the first who wants it."""
    if event.end > context.now():
        for one in await _times(event, context):
            await _offer(one, context)


async def lapse(event: Freed, context: Context) -> None:
    """End a hold that nobody has confirmed; its time is then an event of its own."""
    held = await resource(event.subject, context)
    end = hold_expires(held) if held is not None else None
    if held is None or end is None or end > context.now():
        return
    if entry_version(held):
        await give_back(held, context)
    else:
        await put({**held, "status": "cancelled"}, context)


async def give_back(offer: Resource, context: Context) -> None:
    """Put the entry that ``offer`` is for back on the waiting list; its time is free."""
    version = entry_version(offer)
    was = await resource(f"Appointment/{offer['id']}", context, version)
    await put(declined(offer, was), context, of=offer)


async def _times(event: Freed, context: Context) -> list[Freed]:
    """Return the times that ``event`` has freed: of a block, which covers many, those that the
    rules of its calendars offer. Where they say no length it is taken as one."""
    now = context.now()
    if event.subject.startswith("Slot/") and event.actors:
        asked = (("actor", ",".join(event.actors)),)
        lengths: dict[datetime, timedelta] = {}
        has_rules = False
        for diary in await diaries(await found("Schedule", asked, context), context):
            for opening in openings_of(diary, context):
                span = (event.start, event.end)
                length = timedelta(minutes=opening.rules.duration or 0)
                has_rules = has_rules or bool(length)
                for start in (await with_starts(opening, span, (), context)).starts:
                    lengths[start] = max(lengths.get(start, length), length)
        if has_rules:
            return [
                replace(event, start=start, end=start + lengths[start])
                for start in sorted(lengths)[:_TIMES_MAX]
            ]
    return [event] if event.start > now else []


async def _offer(event: Freed, context: Context) -> None:
    """Ask the first who wants the time of ``event`` and was not asked for it before."""
    asked = await context.store.offers.asked(time_name(event))
    bases = context.parameters.base_urls
    people = await _people(event.actors, context)
    entries = await _entries({*event.actors, *people.values()}, context)
    named = [key for one in entries for key in participants(one, bases)]
    people |= await _people(set(named) - people.keys(), context)
    is_open: dict[Place, bool] = {}  # the same of all who want the same
    refused = 0
    for entry in in_turn(entries):
        place = place_for(entry, event, bases, people)
        if place is None or entry["id"] in asked or await _is_elsewhere(entry, place, context):
            continue
        slots = await _free_slots(event, place, context)
        if not slots:
            if place not in is_open:
                is_open[place] = await are_open(event.actors, *place, context)
            if not is_open[place]:
                continue
        try:
            await _ask(entry, replace(event, slots=slots), place, context)
        except FhirError as error:
            if error.status >= 500:
                raise  # later
            if error.status not in _NOT_NOW:
                _LOG.warning(
                    "%s", json.dumps(f"Appointment/{entry['id']} cannot be offered a time")
                )
            refused += 1
            if refused >= _REFUSED_MAX:
                return  # it is the time, which somebody has already, and not who waits for it
            continue
        return


async def _people(actors: Collection[str], context: Context) -> dict[str, str]:
    """Return whose the roles among ``actors`` are, as far as these are there."""
    roles = await by_key({one for one in actors if one.startswith("PractitionerRole/")}, context)
    bases = context.parameters.base_urls
    return {key: of for key, role in roles.items() if (of := practitioner_of(role, bases))}


async def _entries(actors: Collection[str], context: Context) -> list[Resource]:
    """Return the entries that name one of ``actors``, also by a role, or no practitioner."""
    by_id: dict[str, Resource] = {}
    everyone = await with_roles(actors, context)
    named = (("actor", ",".join(everyone)),) if everyone else ()
    for more in (named, (("practitioner:missing", "true"),)):
        if more:
            asked = (("status", "waitlist"), *more)
            by_id |= {one["id"]: one for one in await found("Appointment", asked, context)}
    return list(by_id.values())


async def _is_elsewhere(entry: Resource, place: Place, context: Context) -> bool:
    """Whether a patient of ``entry`` has another appointment then."""
    if not context.settings.scheduling_patients:
        return False
    patients = _patients(entry, context)
    taken = await context.store.granules.taken(patients, place.start, place.end)
    return any(is_live(one, context.now()) for granule in taken for one in granule["h"])


def _patients(entry: Resource, context: Context) -> list[str]:
    named = participants(entry, context.parameters.base_urls)
    return sorted(one for one in named if one.startswith("Patient/"))


async def _ask(entry: Resource, event: Freed, place: Place, context: Context) -> None:
    """Make the offer and its message, in one transaction. Raises ``conflict``: 409 where the time
    is taken, 412 where the entry is not as it was."""
    now, slots = context.now(), event.slots
    zone = await zone_with(event.actors, context, entry)
    place = Place(place.start.astimezone(zone), place.end.astimezone(zone))
    minutes = timedelta(minutes=context.settings.scheduling_offer_minutes)
    draft = offered(entry, place, event, place.start, slots)
    some = await messages("offer", draft, context)
    # Who is not to be woken up is told later, and has as long to answer as others.
    told = max((one.reminder.due for one in some), default=now)
    expires = min(told + minutes, place.start)
    made = offered(entry, place, event, expires, slots)
    link = f"{root_of(context.settings)}{PATH}{link_token(context.page_key, *_token_of(made))}"
    text = (
        f"A time is free for you: {{start}}. To take it, open {link} until "
        f"{expires.astimezone(zone):%Y-%m-%d %H:%M}."
    )
    plain = await plain_message("offer", made, text, context)

    async def within(store: ResourceStore) -> None:
        inside = replace(context, store=store)
        await put(made, inside, of=entry)
        await tell(until(some, expires), made, plain, {"link": link}, inside)

    await context.store.in_transaction(within, TYPES)


def _token_of(offer: Resource) -> tuple[str, str]:
    return offer["id"], entry_version(offer)


async def _free_slots(event: Freed, place: Place, context: Context) -> list[str]:
    """Return those Slots of clients that stand for this time: the offer takes them along."""
    slots = [await resource(f"Slot/{id}", context) for id in sorted(ids_of("Slot", event.slots))]
    return [
        f"Slot/{one['id']}"
        for one in slots
        if one is not None and one.get("status") == "free" and event.end == place.end
    ]


def root_of(settings: Settings) -> str:
    """Return what this server is called by those who get its links, without the FHIR path."""
    base = settings.base_url or f"http://{settings.host}:{settings.port}"
    return base.rstrip("/").removesuffix("/fhir")


async def resource(reference: str, context: Context, version: str = "") -> Resource | None:
    """Return what is at ``reference`` (``Patient/1``), ``None`` where nothing is."""
    type, _, id = reference.partition("/")
    asked = Request("vread" if version else "read", type, id, version)
    try:
        answer = await context.perform(asked, context)
    except FhirError as error:
        if error.status in _GONE:
            return None
        raise
    return decode(answer.body, depth_max=context.settings.depth_max)


async def put(appointment: Resource, context: Context, of: Resource | None = None) -> None:
    """Write ``appointment`` in the place of the version ``of`` it. Raises 412 where it has changed
    since."""
    version = (of or appointment)["meta"]["versionId"]
    request = Request(
        "update",
        appointment["resourceType"],
        appointment["id"],
        body=appointment,
        if_match=frozenset((version,)),
    )
    await context.perform(request, context)
