"""Whatever frees a time says so: a rule leaves an event in the transaction that does it.

Section 6 of design/scheduling.md. A hold says it when it is made: its end comes without a write.
"""

from collections.abc import Sequence

from fhir_server.features.scheduling.extensions import is_server_made
from fhir_server.features.scheduling.subjects import Json, Subject, actors_of, ids_of, subject_of
from fhir_server.features.scheduling.waiting import codes, entry_version, time_name
from fhir_server.store.offers import Freed
from fhir_server.store.rules import NOTHING_SAID, Inside, Seen, Verdict


class Freeing:
    """The rule that no free time is forgotten, and nobody asked for one twice."""

    types = frozenset(("Appointment", "Slot"))
    refuses = False

    async def __call__(self, seen: Sequence[Seen], inside: Inside) -> Verdict:
        """Leave an event for each time that the changes ``seen`` free or hold; refuse nothing."""
        if inside.settings.scheduling_enforce == "off" or not inside.settings.scheduling_waitlist:
            return NOTHING_SAID
        events: list[Freed] = []
        for one in seen:
            events += await _events(one, inside)
        await inside.offers.put(events)
        return NOTHING_SAID


async def _events(seen: Seen, inside: Inside) -> list[Freed]:
    bases, change = inside.table.base_urls, seen.change
    before, after = seen.before, seen.after
    was, now = subject_of(before, bases), subject_of(after, bases)
    holder = f"{change.type}/{change.id}"
    found = []
    if before is not None and was is not None and _is_freed(before, was, now, inside):
        version = before["meta"]["versionId"]
        found.append(await _event(f"freed|{holder}|{version}", before, was, inside))
    if after is not None and now is not None and now.expires is not None and was != now:
        held = await _event(f"hold|{holder}", after, now, inside)
        found.append(held)
        if entry_version(after):
            await inside.offers.ask(time_name(held), change.id, held.end)
    return found


def _is_freed(before: Json, was: Subject, now: Subject | None, inside: Inside) -> bool:
    """Whether a time that is still to come is left. A Slot that was made for an appointment goes
    with that, which says it."""
    if was.start <= inside.now or is_server_made(before):
        return False
    return now is None or (was.start, was.end, was.actors) != (now.start, now.end, now.actors)


async def _event(id: str, resource: Json, subject: Subject, inside: Inside) -> Freed:
    bases = inside.table.base_urls
    is_hold = id.startswith("hold|")
    actors = {one for one in subject.actors if not one.startswith("Patient/")}
    slots = set(subject.slots)
    if resource["resourceType"] == "Slot":
        slots = {f"Slot/{resource['id']}"}
        schedules = await inside.read("Schedule", ids_of("Schedule", subject.schedules))
        actors = {one for schedule in schedules.values() for one in actors_of(schedule, bases)}
    return Freed(
        id,
        "hold" if is_hold else "freed",
        subject.expires if is_hold and subject.expires is not None else inside.now,
        subject.start,
        subject.end,
        f"{resource['resourceType']}/{resource['id']}",
        sorted(actors),
        sorted(slots),
        sorted(codes(resource.get("serviceType"))),
    )
