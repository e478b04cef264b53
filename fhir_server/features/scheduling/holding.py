"""Whatever writes an Appointment or a Slot takes its time, or is refused; and keeps to the states.

Sections 4 and 5 of design/scheduling.md. A rule (``store/rules.py``): it runs in the transaction of
each write, so an operation, a PUT, a patch, a bundle and a message are held to the same. What is
refused for a time that is taken has two issues, as IHE asks (ITI-116).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from fhir_server.features.scheduling.calendars import Calendar, Calendars, calendars
from fhir_server.features.scheduling.claims import (
    LIMIT,
    Plan,
    Refusal,
    Room,
    Want,
    claim_plan,
    granules_of,
    is_live,
)
from fhir_server.features.scheduling.extensions import (
    OVERRIDE_REASON,
    extensions,
    is_server_made,
    moment,
)
from fhir_server.features.scheduling.instants import LONGEST
from fhir_server.features.scheduling.own_writes import own_fault
from fhir_server.features.scheduling.parts import YEARS
from fhir_server.features.scheduling.states import fault, is_of_today
from fhir_server.features.scheduling.subjects import (
    BLOCK,
    BUSY,
    Json,
    Subject,
    ids_of,
    is_block,
    subject_of,
)
from fhir_server.features.scheduling.waiting import entry_version
from fhir_server.messages import NO_ENTRY, Resource
from fhir_server.outcome import FhirError, Issue
from fhir_server.registry import Registry
from fhir_server.store.changes import Change
from fhir_server.store.granules import moment_of
from fhir_server.store.rules import NOTHING_SAID, Inside, Seen, Verdict

_NAMED_MAX = 10


@dataclass(frozen=True, slots=True)
class _Event:
    """One change: what was, what is now (``None``: nothing), and what each takes."""

    number: int
    change: Change
    before: Json | None
    after: Json | None
    was: Subject | None
    now: Subject | None

    @property
    def holder(self) -> str:
        return f"{self.change.type}/{self.change.id}"


@dataclass(slots=True)
class _Known:
    """What was looked up: who has what, and whom the Slots are held by."""

    bookings: dict[str, dict[str, Any]] = field(default_factory=dict)
    by_slot: dict[str, set[str]] = field(default_factory=dict)

    def learn(self, bookings: Iterable[dict[str, Any]]) -> None:
        """Add ``bookings``."""
        for one in bookings:
            self.bookings[one["_id"]] = one
            for slot in one["slots"]:
                self.by_slot.setdefault(slot, set()).add(one["_id"])


class Holding:
    """The rule that no time is given twice."""

    types = frozenset(("Appointment", "Slot"))
    refuses = True

    async def __call__(self, seen: Sequence[Seen], inside: Inside) -> Verdict:
        """Take and free what the changes ``seen`` say. Faults are ``business-rule`` and
        ``conflict``, 409, and ``forbidden`` for what a patient does by operations only."""
        if inside.settings.scheduling_enforce == "off":
            return NOTHING_SAID
        events = [_event(number, one, inside) for number, one in enumerate(seen)]
        bases = inside.table.base_urls
        own = {one.number: error for one in events if (error := _own_fault(one, bases, inside.now))}
        states = {one.number: error for one in events if (error := _state_fault(one, inside.now))}
        faults = states | own
        if faults:
            return Verdict(faults)
        return await _settled([one for one in events if one.was != one.now], inside)


def register(registry: Registry) -> None:
    """Add the rule."""
    registry.rule("scheduling", Holding())


def _event(number: int, seen: Seen, inside: Inside) -> _Event:
    bases, before, after = inside.table.base_urls, seen.before, seen.after
    now = _lasting(subject_of(after, bases), inside.now)
    return _Event(number, seen.change, before, after, subject_of(before, bases), now)


def _lasting(subject: Subject | None, now: datetime) -> Subject | None:
    """What is over takes nothing."""
    return subject if subject is not None and subject.end > now else None


def _own_fault(event: _Event, bases: Sequence[str], now: datetime) -> FhirError | None:
    change = event.change
    is_own = change.access is not None and change.access.own and not change.by_operation
    if change.type != "Appointment" or not is_own:
        return None
    text = own_fault(event.before, event.after, bases, now)
    return FhirError(Issue("forbidden", text)) if text else None


def _state_fault(event: _Event, now: datetime) -> FhirError | None:
    if event.now is not None and event.now.end - event.now.start > LONGEST:
        return _ruled_out(f"{event.holder} is longer than {LONGEST.days} days.")
    if event.now is not None and event.now.end.year not in YEARS:
        return _ruled_out(f"{event.holder} is later than the year {YEARS[-1]}.")
    if event.change.type != "Appointment" or event.after is None:
        return None
    before = str((event.before or {}).get("status", ""))
    after = str(event.after.get("status", ""))
    end = moment(event.after.get("end")) or moment(event.after.get("start"))
    text = fault(before, after, end, now)
    if (before, after) == ("noshow", "arrived") and not (
        event.change.override and is_of_today(str(event.after.get("start", "")), now)
    ):
        text = "Who did not come arrives on the same day only, and with an X-Override-Reason."
    return _ruled_out(text) if text else None


def _ruled_out(text: str) -> FhirError:
    return FhirError(Issue("business-rule", text), status=409)


async def _settled(events: Sequence[_Event], inside: Inside) -> Verdict:
    if not events:
        return NOTHING_SAID
    known = await _known(events, inside)
    if faults := dict(_held_slots(events, known, inside.now)):
        return Verdict(faults)
    found = await calendars([one.now for one in events if one.now is not None], inside)
    by_holder = {one.holder: one for one in events}
    wants = list(_wants(events, known, found, inside))
    released = {one.holder for one in events if one.holder in known.bookings}
    for want in wants:  # an Appointment takes over what its Slots have
        released |= {slot for slot in want.slots if slot in known.bookings}
    released -= {one.holder for one in wants}
    looked_at = {id for one in wants for id in one.rooms}
    for holder in released | {one.holder for one in wants}:
        looked_at.update(known.bookings.get(holder, {}).get("g", ()))
    granules = await inside.granules.granules(looked_at)
    plan = claim_plan(wants, released, granules, known.bookings, inside.now)
    if plan.refusals:
        return Verdict({by_holder[one.holder].number: _refused(one) for one in plan.refusals})
    await inside.granules.write(plan.taken)
    return Verdict(then=await _followers(events, wants, known, plan, inside))


async def _known(events: Sequence[_Event], inside: Inside) -> _Known:
    """Look up what those of ``events`` have, and who else has their Slots."""
    known = _Known()
    holders = {one.holder for one in events}
    slots = {one for one in holders if one.startswith("Slot/")}
    for event in events:
        slots |= event.now.slots if event.now is not None else frozenset()
    known.learn((await inside.granules.bookings(holders | slots)).values())
    slots |= {slot for one in known.bookings.values() for slot in one["slots"]}
    known.learn(await inside.granules.bookings_of_slots(slots))
    own = {slot for one in known.bookings.values() for slot in one["slots"]} - slots - holders
    known.learn((await inside.granules.bookings(own)).values())
    return known


def _held_slots(
    events: Sequence[_Event], known: _Known, now: datetime
) -> Iterator[tuple[int, FhirError]]:
    """Yield a fault for each Slot that is set free, or goes, under an appointment that stays."""
    ending = {one.holder for one in events if one.now is None}
    for event in events:
        if event.change.type != "Slot" or event.now is not None:
            continue
        holders = known.by_slot.get(event.holder, set()) - ending
        if any(is_live(known.bookings[one], now) for one in holders):
            text = f"{event.holder} is held by an appointment; cancel that, and the Slot is free."
            yield event.number, _ruled_out(text)


def _wants(
    events: Sequence[_Event], known: _Known, found: Calendars, inside: Inside
) -> Iterator[Want]:
    """Yield what each of ``events`` wants. A Slot that an appointment stands for wants nothing."""
    busy = known.bookings.keys() | {one.holder for one in events}
    held: set[str] = set()
    for event in sorted(events, key=lambda one: one.change.type):  # Appointments, then Slots
        if event.now is None or (
            event.change.type == "Slot" and _is_held(event, held, known, inside)
        ):
            continue
        calendars = found.calendars(event.now)
        rooms = dict(_rooms(event.now, calendars, inside))
        slots = sorted(_own_slots(event.now, calendars, found))
        held.update(slots)
        for slot in busy & set(slots):  # what that has taken is the appointment's now
            taken = subject_of(found.slots.get(slot.partition("/")[2]), inside.table.base_urls)
            if taken is not None:
                rooms = {**dict(_rooms(taken, found.calendars(taken), inside)), **rooms}
        yield Want(
            *(event.holder, rooms, event.now.end, slots, event.now.expires),
            overrides=bool(event.change.override),
        )


def _is_held(event: _Event, held: Collection[str], known: _Known, inside: Inside) -> bool:
    """Whether an appointment stands for the Slot of ``event``; not where that becomes a block."""
    if event.holder in held:
        return True
    if event.now is not None and event.now.blocks and not (event.was and event.was.blocks):
        return False
    others = known.by_slot.get(event.holder, set())
    return any(is_live(known.bookings[one], inside.now) for one in others)


def _own_slots(
    subject: Subject, calendars: Mapping[str, Calendar], found: Calendars
) -> Iterator[str]:
    """Yield those of its Slots that ``subject`` stands for: they are of its time, buffers included.
    In a block nobody is seen, whoever refers to it; one that lies in a buffer is that buffer."""
    low = min((subject.start - one.before for one in calendars.values()), default=subject.start)
    high = max((subject.end + one.after for one in calendars.values()), default=subject.end)
    for key in subject.slots:
        slot = found.slots.get(key.partition("/")[2])
        if slot is None:  # it may come later
            yield key
            continue
        start, end = moment(slot.get("start")), moment(slot.get("end"))
        if start is None or end is None:
            continue
        if is_block(slot):
            if low <= start and end <= high and (end <= subject.start or subject.end <= start):
                yield key
        elif start < high and low < end:
            yield key


async def want_of(holder: str, appointment: Json, inside: Inside) -> Want | None:
    """Return what ``appointment`` would take if it were written now; ``None`` for nothing."""
    subject = _lasting(subject_of(appointment, inside.table.base_urls), inside.now)
    if subject is None:
        return None
    found = await calendars([subject], inside)
    taken = found.calendars(subject)
    slots = sorted(_own_slots(subject, taken, found))
    rooms = dict(_rooms(subject, taken, inside))
    return Want(holder, rooms, subject.end, slots, subject.expires)


def _rooms(
    subject: Subject, found: Mapping[str, Calendar], inside: Inside
) -> Iterator[tuple[str, Room]]:
    """Yield the granules that ``subject`` wants, and what room there may be in them."""
    granule = timedelta(minutes=inside.settings.scheduling_granule_minutes)
    for actor, calendar in found.items():
        start, end = subject.start, subject.end
        if not subject.schedules:
            start, end = start - calendar.before, end + calendar.after
        count = 1 if subject.blocks else calendar.count  # where nobody is, there is no room
        for id, until in granules_of(actor, start, end, granule):
            yield id, Room(calendar.schedule, count, until)
        if subject.schedules:  # a Slot has no buffers, and is none of the appointments of a day
            continue
        for id, most in (calendar.limits or {}).items():
            yield id, Room(calendar.schedule, most, subject.end)
    if inside.settings.scheduling_patients:
        for actor in subject.actors:
            if actor.startswith("Patient/"):
                for id, until in granules_of(actor, subject.start, subject.end, granule):
                    yield id, Room("", 1, until)


def _refused(refusal: Refusal) -> FhirError:
    """Say what is taken, and not by whom: whoever may read that finds it."""
    limits = [one for one in refusal.full if one.startswith(LIMIT)]
    if limits and len(limits) == len(refusal.full):
        _, schedule, service, day = limits[0].split("|")
        what = f" of {service}" if service else ""
        text = f"{schedule} has as many appointments{what} as it may have in {day}."
        return _ruled_out(text)
    issues = [Issue("conflict", text) for text in _taken(refusal.full.keys() - set(limits))]
    gone = Issue("not-found", "The time is gone.", severity="fatal")
    return FhirError(*issues[:_NAMED_MAX], gone)


def _taken(granules: Collection[str]) -> Iterator[str]:
    by_actor: dict[str, list[str]] = {}
    for one in sorted(granules):
        by_actor.setdefault(one.partition("|")[0], []).append(one)
    for actor, some in by_actor.items():
        first, last = moment_of(some[0]), moment_of(some[-1])
        yield f"{actor} is taken in the time that begins {first:%Y-%m-%dT%H:%MZ}" + (
            "." if first == last else f", until {last:%Y-%m-%dT%H:%MZ} and beyond."
        )


async def _followers(
    events: Sequence[_Event],
    wants: Sequence[Want],
    known: _Known,
    plan: Plan,
    inside: Inside,
) -> list[Change]:
    """Return what follows: expired holds are cancelled, Slots go with their appointments, and what
    was overridden says why."""
    ended = {one.holder for one in events}
    standing = {slot: one for one in wants for slot in one.slots}
    left = {slot for one in ended for slot in known.bookings.get(one, {}).get("slots", ())}
    left = {
        slot
        for slot in left - standing.keys() - known.bookings.keys()
        if not any(is_live(known.bookings[one], inside.now) for one in known.by_slot[slot] - ended)
    }
    reasons = {one.holder: one.change.override for one in events if one.holder in plan.overrode}
    changed = {
        "Appointment": ids_of("Appointment", {*reasons, *plan.displaced}),
        "Slot": ids_of("Slot", {*standing, *left}),
    }
    record = events[0].change.record
    if record is not None:
        record = replace(record, entry=NO_ENTRY, also=None)
    then = []
    for type, ids in changed.items():
        for id, resource in sorted((await inside.read(type, ids)).items()):
            key = f"{type}/{id}"
            after: Resource | None = resource
            if type == "Appointment":
                after = _overridden(resource, reasons[key]) if key in reasons else _lapsed(resource)
            elif key in left:
                after = _freed(resource)
            else:
                after = _taken_up(resource, standing[key], plan)
            if after != resource:
                interaction = "update" if after is not None else "delete"
                version = frozenset((resource["meta"]["versionId"],))
                then.append(Change(interaction, type, id, after, if_match=version, record=record))
    return then


def _overridden(appointment: Resource, reason: str) -> Resource:
    if any(extensions(appointment, OVERRIDE_REASON)):
        return appointment
    said = {"url": OVERRIDE_REASON, "valueString": reason}
    return {**appointment, "extension": [*appointment.get("extension", ()), said]}


def _lapsed(appointment: Resource) -> Resource:
    """Its hold is over and another has the time. What was an offer is no more held, and stays: who
    waits is put back on the waiting list by the event of its hold."""
    if appointment.get("status") != "pending" or entry_version(appointment):
        return appointment
    return {**appointment, "status": "cancelled"}


def _taken_up(slot: Resource, want: Want, plan: Plan) -> Resource:
    """A Slot that an appointment stands for is busy; one that is blocked stays so."""
    status = "busy" if want.expires is None else "busy-tentative"
    if slot.get("status") not in (BLOCK, "entered-in-error"):
        slot = {**slot, "status": status}
    return {**slot, "overbooked": True} if want.holder in plan.overrode else slot


def _freed(slot: Resource) -> Resource | None:
    """Return ``slot`` without its appointment; ``None`` for one that was made for that."""
    if is_server_made(slot):
        return None
    return {**slot, "status": "free"} if slot.get("status") in BUSY else slot
