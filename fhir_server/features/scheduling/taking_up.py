"""An actor who gets a Schedule has appointments already: they take their times then.

Section 4 of design/scheduling.md: only actors of an active Schedule are claimed. What was booked
before there was one, as in data that is brought from elsewhere, has taken nothing of theirs.
"""

from dataclasses import replace
from datetime import datetime
from functools import partial

from fhir_server.context import Context
from fhir_server.features.scheduling.claims import Room, claim_plan
from fhir_server.features.scheduling.conflicts import ahead
from fhir_server.features.scheduling.diaries import by_key, diaries, with_roles
from fhir_server.features.scheduling.holding import want_of
from fhir_server.outcome import FhirError
from fhir_server.r4.json import decode_stored
from fhir_server.store.changes import Change
from fhir_server.store.offers import Freed
from fhir_server.store.resources import ResourceStore

_TYPES = ("Appointment",)
_OVERTAKEN = 412


async def take_up(event: Freed, context: Context) -> None:
    """Have the appointments ahead of those whose time the Schedule gives out take their times."""
    some = await diaries((await by_key([event.subject], context)).values(), context)
    actors = await with_roles((person for one in some for person in one.people), context)
    for appointment in await ahead(actors, context):
        try:
            work = partial(_taken, appointment["id"], context)
            await context.store.in_transaction(work, _TYPES)
        except FhirError as error:
            if error.status != _OVERTAKEN:  # who changes it meanwhile has it take its time
                raise


async def _taken(id: str, context: Context, store: ResourceStore) -> None:
    await taken(id, store, context.now())


async def taken(id: str, store: ResourceStore, now: datetime) -> None:
    """Have the Appointment ``id`` take, in the transaction of ``store``, what it would if it were
    written ``now``, beside those who are there: both are booked, and a third is not to come."""
    holder, stored = f"Appointment/{id}", await store.read("Appointment", id)
    if stored is None or stored.deleted:
        return
    resource = decode_stored(stored.json)
    inside = store.inside(now)
    want = await want_of(holder, resource, inside)
    bookings = await inside.granules.bookings({holder})
    has = frozenset(bookings.get(holder, {}).get("g", ()))
    if want is None or want.rooms.keys() <= has:
        return
    # Nothing of it changes, but who cancels it meanwhile must be in the way.
    version = frozenset((str(stored.version),))
    await store.write([Change("update", "Appointment", id, resource, version)], now)
    granules = await inside.granules.granules(want.rooms.keys() | has)
    rest = {
        one: Room(there["s"], there["k"], there["t"])
        for one, there in granules.items()
        if one in has
    }
    slots = bookings.get(holder, {}).get("slots", want.slots)
    want = replace(want, rooms={**rest, **want.rooms}, slots=slots, overrides=True)
    plan = claim_plan([want], (), granules, bookings, now)
    await inside.granules.write(plan.taken)
