"""What comes after a booking and leaves no time for it: a block, or other hours. Section 4 of
design/scheduling.md.

An Appointment is never moved by that: it is marked with the extension ``conflicts-with``, which
says what it is. A block over booked time is refused, unless somebody overrides it; then the rule
marks the appointments in the same transaction. Other hours are written as they are; what does not
fit them is marked by a second look a minute later, when what was being booked meanwhile is there.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from fhir_server.context import Context
from fhir_server.features.scheduling.claims import is_live
from fhir_server.features.scheduling.diaries import by_key, diaries, found, openings_of, with_roles
from fhir_server.features.scheduling.extensions import (
    CONFLICTS_WITH,
    extensions,
    is_server_made,
    moment,
)
from fhir_server.features.scheduling.slots import Interval, ceil_minute, floor_minute, opened, union
from fhir_server.features.scheduling.states import LIVE
from fhir_server.features.scheduling.subjects import Json, ids_of
from fhir_server.messages import NO_ENTRY, Resource
from fhir_server.store.changes import Change
from fhir_server.store.documents import instant
from fhir_server.store.offers import Freed
from fhir_server.store.rules import NOTHING_SAID, Inside, Seen, Verdict

BLOCK = "busy-unavailable"
BLOCKED, RULES, TAKEN_UP = "blocked", "rules", "taken up"
"""The kinds of the events that are left here."""
_LOOK_AGAIN = timedelta(seconds=60)
_KEPT = timedelta(days=1)
_AHEAD = timedelta(days=400)
_LONGEST = timedelta(days=31)
# What of a Schedule or a HealthcareService says when there is time.
_HOURS = ("extension", "availableTime", "notAvailable", "planningHorizon", "active", "actor")


class Conflicts:
    """The rule that marks what a block that was overridden stands over."""

    types = frozenset(("Appointment", "Slot", "Schedule", "HealthcareService"))
    refuses = False

    async def __call__(self, seen: Sequence[Seen], inside: Inside) -> Verdict:
        """Mark, and leave events; refuse nothing."""
        if inside.settings.scheduling_enforce == "off":
            return NOTHING_SAID
        events: list[Freed] = []
        then: dict[str, Change] = {}
        for one in seen:
            before, after = one.before, one.after
            if after is None:
                continue
            if one.change.type == "Slot":
                marked = await _marked(one, after, then, inside)
                then |= marked
                events += [_event(BLOCKED, one, after, inside)] if marked else []
            elif one.change.type == "Appointment":
                # With a reason of its own the scheduling rule writes it; the mark is seen then.
                if _has_moved(before, after) and not one.change.override:
                    then[one.change.id] = _change(one, unmarked(after))
            else:
                events += [_event(kind, one, after, inside) for kind in _said(before, after)]
        await inside.offers.put(events)
        return Verdict(then=list(then.values()))


async def _marked(
    seen: Seen, slot: Resource, then: Mapping[str, Change], inside: Inside
) -> dict[str, Change]:
    """Return the changes that mark who has the time of ``slot``, where it was overridden; those
    that others have been marked by are ``then``."""
    if not seen.change.override or slot.get("status") != BLOCK:
        return {}
    key = f"Slot/{seen.change.id}"
    booking = (await inside.granules.bookings({key})).get(key)
    granules = await inside.granules.granules(booking["g"] if booking is not None else ())
    holders = {
        one["a"]
        for granule in granules.values()
        for one in granule["h"]
        if is_live(one, inside.now)
    }
    there = await inside.read("Appointment", ids_of("Appointment", holders))
    there |= {id: one.resource for id, one in then.items() if id in there and one.resource}
    return {
        id: _change(seen, marked(one, key))
        for id, one in sorted(there.items())
        if not is_marked(one, key)
    }


def _change(seen: Seen, appointment: Resource) -> Change:
    record = seen.change.record
    if record is not None:
        record = replace(record, entry=NO_ENTRY, also=None)
    version = frozenset((appointment["meta"]["versionId"],))
    return Change(
        *("update", "Appointment", appointment["id"], appointment), if_match=version, record=record
    )


def _said(before: Json | None, after: Json) -> Iterator[str]:
    """Yield what is left to be done after a change of a Schedule or a HealthcareService."""
    was: Json = before or {"active": False}
    is_in_use = after["resourceType"] == "Schedule" and after.get("active") is not False
    if is_in_use and (was.get("active") is False or was.get("actor") != after.get("actor")):
        yield TAKEN_UP
    if before is not None and any(before.get(name) != after.get(name) for name in _HOURS):
        yield RULES


def _has_moved(before: Json | None, after: Json) -> bool:
    times = ("start", "end")
    return (
        before is not None
        and any(before.get(name) != after.get(name) for name in times)
        and any(extensions(after, CONFLICTS_WITH))
    )


def _event(kind: str, seen: Seen, resource: Json, inside: Inside) -> Freed:
    key = f"{seen.change.type}/{seen.change.id}"
    now = inside.now
    due = now + _LOOK_AGAIN if kind == RULES else now
    return Freed(f"{kind}|{key}", kind, due, now, now + _KEPT, key)


def is_marked(appointment: Json, key: str) -> bool:
    """Whether ``appointment`` is marked as one that ``key`` leaves no time for."""
    return any(
        one.get("valueReference", {}).get("reference") == key
        for one in extensions(appointment, CONFLICTS_WITH)
    )


def marked(appointment: Resource, key: str) -> Resource:
    """Return ``appointment`` marked so."""
    said = {"url": CONFLICTS_WITH, "valueReference": {"reference": key}}
    return {**appointment, "extension": [*appointment.get("extension", ()), said]}


def unmarked(appointment: Resource, key: str = "") -> Resource:
    """Return ``appointment`` without the mark of ``key``, or without any."""
    rest = [
        one
        for one in appointment.get("extension", ())
        if one.get("url") != CONFLICTS_WITH
        or (key and one.get("valueReference", {}).get("reference") != key)
    ]
    made = {name: one for name, one in appointment.items() if name != "extension"}
    return {**made, "extension": rest} if rest else made


async def ahead(actors: Collection[str], context: Context) -> list[Resource]:
    """Return the appointments that ``actors`` have from now on."""
    if not actors:
        return []
    now = context.now()
    asked = (
        ("actor", ",".join(sorted(actors))),
        ("status", ",".join(sorted(LIVE))),
        ("date", f"ge{instant(now)}"),
        ("date", f"lt{instant(now + _AHEAD)}"),
    )
    return await found("Appointment", asked, context)


async def during(slot: Json, context: Context) -> list[Resource]:
    """Return the appointments in the time of ``slot``, as far as who asks may see them."""
    start, end = moment(slot.get("start")), moment(slot.get("end"))
    reference = str(slot.get("schedule", {}).get("reference", ""))
    if start is None or end is None or not reference.startswith("Schedule/"):
        return []
    some = await diaries((await by_key([reference], context)).values(), context)
    actors = await with_roles((person for one in some for person in one.people), context)
    return [
        one for one in await ahead(actors, context) if _starts(one) < end and start < _ends(one)
    ]


def _starts(appointment: Json) -> datetime:
    found = moment(appointment["start"])
    assert found is not None, "it was found by its start"
    return found


def _ends(appointment: Json) -> datetime:
    return moment(appointment.get("end")) or _starts(appointment)


async def outside_hours(key: str, context: Context) -> tuple[list[Resource], list[Resource]]:
    """Return the appointments ahead of those whose time ``key`` (``Schedule/1``, or a
    HealthcareService) gives out: those that lie outside all their hours, and the others.

    Where no hours are said nothing is outside, and neither is what took a Slot of a client's.
    """
    type = key.partition("/")[0]
    if type == "Schedule":
        changed = list((await by_key([key], context)).values())
    else:
        changed = await found("Schedule", (("actor", key),), context)
    outside: dict[str, Resource] = {}
    inside: dict[str, Resource] = {}
    people = {one for diary in await diaries(changed, context) for one in diary.people}
    for person in sorted(people):
        actors = await with_roles([person], context)
        some = await ahead(actors, context)
        now = context.now()
        open = await _open(actors, now, now + _AHEAD + _LONGEST, context) if some else None
        own = await _with_own_slots(some, context) if open is not None else set()
        for one in some if open is not None else ():
            fits = one["id"] in own or _fits(one, open or ())
            (inside if fits else outside)[one["id"]] = one
    return list(outside.values()), [one for id, one in inside.items() if id not in outside]


async def _open(
    actors: Collection[str], low: datetime, high: datetime, context: Context
) -> list[Interval] | None:
    """Return when one of the Schedules of ``actors`` is open; ``None`` where none says hours."""
    schedules = await found("Schedule", (("actor", ",".join(actors)),), context)
    openings = [
        opening
        for one in await diaries(schedules, context)
        for opening in openings_of(one, context)
    ]
    if not any(one.rules.windows for one in openings):
        return None
    span = (floor_minute(low), ceil_minute(high))
    return union(interval for one in openings for interval in opened(one.rules, *span))


async def are_open(
    actors: Collection[str], start: datetime, end: datetime, context: Context
) -> bool:
    """Whether ``start`` to ``end`` lies in the hours of each of ``actors`` who says hours."""
    for actor in actors:
        open = await _open(await with_roles([actor], context), start, end, context)
        if open is not None and (floor_minute(start), ceil_minute(end)) not in open:
            return False
    return True


def _fits(appointment: Json, open: Collection[Interval]) -> bool:
    start, end = floor_minute(_starts(appointment)), ceil_minute(_ends(appointment))
    return any(low <= start and end <= high for low, high in open)


async def _with_own_slots(some: Sequence[Json], context: Context) -> set[str]:
    """Return the ids of those that took a Slot which a client had put there."""
    named: Mapping[str, list[str]] = {
        one["id"]: [str(slot.get("reference", "")) for slot in one.get("slot", ())] for one in some
    }
    keys = {key for slots in named.values() for key in slots if key.startswith("Slot/")}
    there = await by_key(keys, context)
    return {
        id
        for id, slots in named.items()
        if any(key in there and not is_server_made(there[key]) for key in slots)
    }
