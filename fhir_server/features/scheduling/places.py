"""The Schedules that an appointment is in, and what their rules say about its time.

Section 2 of design/scheduling.md. Everything is read by the rights of who asks.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from fhir_server.context import Context
from fhir_server.features.scheduling.drafting import (
    SLOT_STATUS,
    Asked,
    SlotAsked,
    actors_of,
    slot_of,
    with_actors,
)
from fhir_server.features.scheduling.governing import actors_of as schedule_actors
from fhir_server.features.scheduling.governing import governed, read_all
from fhir_server.features.scheduling.instants import LONGEST, instant_of
from fhir_server.features.scheduling.parameters import Rules
from fhir_server.features.scheduling.refusals import against_rules, gone
from fhir_server.features.scheduling.slots import (
    ceil_minute,
    floor_minute,
    is_aligned,
    opened,
)
from fhir_server.features.scheduling.writing import search
from fhir_server.messages import Resource
from fhir_server.outcome import FhirError, Issue, not_found

_SCHEDULES_MAX = 50
_BUFFER = "busy-unavailable"


@dataclass(frozen=True, slots=True)
class Place:
    """A Schedule (``Schedule/1``) that an appointment is in, with its ``rules``. ``slot`` is the id
    of the stored Slot that is asked for, ``""`` where one is made; ``actors`` whose time it is."""

    schedule: str
    slot: str
    actors: Sequence[str]
    rules: Rules
    active: bool = True

    @property
    def zone(self) -> ZoneInfo:
        """The zone of its hours."""
        return self.rules.zone

    @property
    def hold_minutes(self) -> int:
        """How long a hold lasts."""
        return self.rules.hold_minutes


async def places_of(
    asked: Asked, context: Context, *, stands: bool = False
) -> tuple[Asked, list[Place]]:
    """Return the places of ``asked``, by its Slots or else by those who take part; and ``asked``
    with a Slot for each of them. ``stands`` says that it is stored: its Slots, and those of its
    buffers, say its Schedules.

    Raises ``required`` where nobody of them has a Schedule, ``not-found`` for one that is not
    there, ``conflict`` for a stored Slot that is not free.
    """
    stored = await read_all("Slot", {one.id for one in asked.slots if one.id}, context)
    by_schedule: dict[str, str] = {}
    for one in asked.slots:
        if one.id and one.id not in stored:
            raise not_found("Slot", one.id)
        by_schedule[one.schedule or _schedule_of(stored[one.id])] = "" if stands else one.id
    if len(by_schedule) > _SCHEDULES_MAX:
        text = f"An appointment is in {_SCHEDULES_MAX} Schedules at most."
        raise FhirError(Issue("value", text, "Appointment.slot"))
    if not by_schedule:
        by_schedule = dict.fromkeys(await _of_people(asked, context), "")
    for id in by_schedule.values():
        if id:
            _check_slot(stored[id], asked)
    rules = await governed(by_schedule, asked.proposal, context)
    places = [
        Place(schedule, by_schedule[schedule], found.actors, found.rules, found.active)
        for schedule, found in rules.items()
    ]
    slots = [SlotAsked(one.slot, one.schedule) for one in places]
    return replace(asked, slots=slots), places


def _schedule_of(slot: Resource) -> str:
    target = slot.get("schedule", {}).get("reference", "")
    return "/".join(target.partition("/_history/")[0].split("/")[-2:])


def _check_slot(slot: Resource, asked: Asked) -> None:
    """A stored Slot that is asked for covers the appointment, and is free."""
    if slot["status"] != "free":
        raise gone(f"Slot/{slot['id']} is not free.")
    start, end = (instant_of(slot[name]) for name in ("start", "end"))
    if not (start and end and start <= asked.start and asked.end <= end):
        text = f"Slot/{slot['id']} does not cover the time of the appointment."
        raise FhirError(Issue("value", text, "Appointment.slot"))


async def _of_people(asked: Asked, context: Context) -> list[str]:
    """Return the active Schedules of those who take part, one for each."""
    actors = [one for one in actors_of(asked.proposal) if not one.startswith("HealthcareService/")]
    if not actors:
        text = "Say with whom: by contained Slots with a schedule, or by participants."
        raise FhirError(Issue("required", text, "Appointment.participant"))
    asked_for = (("actor", ",".join(actors)), ("_count", str(_SCHEDULES_MAX)))
    found = [
        one
        for one in await search("Schedule", asked_for, context)
        if one.get("active") is not False
    ]
    chosen = []
    for actor in actors:
        named = sorted(one["id"] for one in found if actor in schedule_actors(one))
        if named:
            chosen.append(f"Schedule/{named[0]}")
    if not chosen:
        text = f"None of {', '.join(actors)} has an active Schedule."
        raise FhirError(Issue("business-rule", text), status=409)
    return list(dict.fromkeys(chosen))


async def moved_to(
    places: Sequence[Place], schedule: str, asked: Asked, context: Context
) -> list[Place]:
    """Return ``places`` with ``schedule`` in the place of the one that is of the same kind of
    actor; of a single place, of that."""
    [found] = (await governed([schedule], asked.proposal, context)).values()
    new = Place(schedule, "", found.actors, found.rules, found.active)
    kinds = {one.partition("/")[0] for one in found.actors}
    same = [one for one in places if kinds & {actor.partition("/")[0] for actor in one.actors}]
    others = same if len(places) > 1 else list(places)
    if len(others) != 1:
        text = f"{schedule} can take the place of {len(others)} Schedules of the appointment; "
        text += "expected one."
        raise FhirError(Issue("value", text, "Parameters.parameter"))
    return [new if one is others[0] else one for one in places]


def slots_of(
    asked: Asked, places: Iterable[Place], own: Collection[str], status: str
) -> Iterator[Resource]:
    """Yield the Slots that are made for ``asked``: in each of ``places`` whose Slot is not among
    ``own``, and for the buffers of all."""
    lengths = [
        (one, timedelta(minutes=one.rules.before), timedelta(minutes=one.rules.after))
        for one in places
    ]
    for place, _, _ in lengths:
        if place.slot not in own:
            yield slot_of(asked, place.schedule, SLOT_STATUS[status], asked.start, asked.end)
    for place, before, after in lengths:
        if before:
            yield slot_of(asked, place.schedule, _BUFFER, asked.start - before, asked.start)
        if after:
            yield slot_of(asked, place.schedule, _BUFFER, asked.end, asked.end + after)


def with_people(appointment: Resource, places: Iterable[Place]) -> Resource:
    """Return ``appointment`` with the actors of those ``places`` of whom none takes part."""
    there = set(actors_of(appointment))
    for place in places:
        if not there & set(place.actors):
            people = [one for one in place.actors if not one.startswith("HealthcareService/")]
            appointment = with_actors(appointment, people[:1], ())
    return appointment


def check_active(places: Iterable[Place]) -> None:
    """Raise ``business-rule`` for a Schedule that is not active: it guards nobody's time."""
    for place in places:
        if not place.active:
            raise against_rules(f"{place.schedule} is not active.")


def check_times(
    start: datetime, end: datetime, places: Iterable[Place], now: datetime, *, strictly: bool
) -> None:
    """Raise ``business-rule`` where a rule of one of ``places`` does not offer the time: too soon,
    too far ahead, too long, or closed. A Slot that somebody has put there is open whatever the
    hours say.

    ``strictly`` asks also for a start and a length that are offered: the front desk may fit
    somebody in between.
    """
    if end - start > LONGEST:  # before its days are looked at one by one
        raise against_rules(f"An appointment is {_said(LONGEST)} long at most.")
    for place in places:
        rules = place.rules
        if start < now + rules.notice:
            text = f"{place.schedule} is to be asked {_said(rules.notice)} before the start."
            raise against_rules(text)
        if start > now + rules.horizon:
            text = f"{place.schedule} gives out no times more than {_said(rules.horizon)} ahead."
            raise against_rules(text)
        if place.slot:
            continue
        low, high = floor_minute(start), ceil_minute(end)
        if opened(rules, low, high) != [(low, high)]:
            raise against_rules(f"{place.schedule} is closed at that time, or in a part of it.")
        if strictly and not _is_offered(low, high - low, rules):
            raise against_rules(f"{place.schedule} offers no time that begins, or lasts, so.")


def _is_offered(minute: int, length: int, rules: Rules) -> bool:
    if rules.duration is not None and length != rules.duration:
        return False
    return rules.interval is None or is_aligned(minute, rules, rules.interval)


def check_cutoff(what: str, start: datetime, places: Iterable[Place], now: datetime) -> None:
    """Raise ``business-rule`` where it is too late for a patient to ``cancel`` or ``reschedule``
    what begins at ``start``."""
    for place in places:
        rules = place.rules
        cutoff = rules.cancel_cutoff if what == "cancel" else rules.reschedule_cutoff
        if cutoff is not None and now > start - cutoff:
            text = f"Less than {_said(cutoff)} before the start only the clinic can {what} it."
            raise against_rules(text)


def _said(length: timedelta) -> str:
    """Return ``length`` in words.

    >>> _said(timedelta(minutes=150))
    '2 hours 30 minutes'
    """
    minutes = length // timedelta(minutes=1)
    parts = (
        (minutes // 1440, "day"),
        (minutes % 1440 // 60, "hour"),
        (minutes % 60, "minute"),
    )
    words = [f"{count} {name}{'s' if count > 1 else ''}" for count, name in parts if count]
    return " ".join(words) or "0 minutes"
