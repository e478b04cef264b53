"""Which Schedules stand behind what is booked, and what room they have: looked up in a transaction.

Section 4 of design/scheduling.md.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from fhir_server.features.scheduling.subjects import (
    Json,
    Subject,
    actors_of,
    ids_of,
    practitioner_of,
    schedules_of,
)
from fhir_server.store.rules import Inside

_ROLE = "PractitionerRole"


@dataclass(frozen=True, slots=True)
class Calendar:
    """What of an actor's time a Schedule lets others have: ``count`` at a time, with so much
    ``before`` and ``after`` each. ``limits`` are the ids under which appointments are counted, and
    how many there may be."""

    schedule: str
    count: int = 1
    before: timedelta = timedelta(0)
    after: timedelta = timedelta(0)
    limits: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Calendars:
    """The Schedules that are in use, by id, and who has which of the roles."""

    schedules: Mapping[str, Json]
    slots: Mapping[str, Json]
    roles: Mapping[str, Json]
    bases: Sequence[str]

    def calendars(self, subject: Subject) -> dict[str, Calendar]:
        """Return what ``subject`` takes, by actor: of those who have an active Schedule."""
        named = {self._person(one) for one in subject.actors}
        own = sorted(self._own(subject))
        found: dict[str, Calendar] = {}
        for id in [*own, *sorted(self.schedules.keys() - set(own))]:
            schedule = self.schedules.get(id)
            if schedule is None or schedule.get("active") is False:
                continue
            for actor in map(self._person, actors_of(schedule, self.bases)):
                if actor and (id in own or actor in named):
                    found.setdefault(actor, _calendar(id, schedule, subject.start))
        return found

    def _own(self, subject: Subject) -> set[str]:
        """Return the ids of the Schedules of the Slots of ``subject``."""
        slots = [self.slots[one] for one in ids_of("Slot", subject.slots) if one in self.slots]
        return ids_of("Schedule", subject.schedules) | schedules_of(slots, self.bases)

    def _person(self, actor: str) -> str:
        """Return whose time that of ``actor`` is: of a role the practitioner's."""
        type, _, id = actor.partition("/")
        if type != _ROLE:
            return actor
        role = self.roles.get(id)
        return practitioner_of(role, self.bases) if role is not None else ""


async def calendars(subjects: Iterable[Subject], inside: Inside) -> Calendars:
    """Return the calendars that ``subjects`` need."""
    bases = inside.table.base_urls
    wanted = list(subjects)
    named = {one for subject in wanted for one in subject.actors}
    slots = await inside.read("Slot", {id for one in wanted for id in ids_of("Slot", one.slots)})
    roles = dict(await inside.read(_ROLE, ids_of(_ROLE, named)))
    people = {practitioner_of(one, bases) for one in roles.values()} - {""}
    # Whoever has a role may have a Schedule as himself, and in another role.
    named |= people
    practitioners = {one for one in named if one.startswith("Practitioner/")}
    others = await inside.referring(_ROLE, "practitioner", practitioners)
    roles |= others
    asked = {one for one in named if not one.startswith("Patient/")}
    asked |= {f"{_ROLE}/{id}" for id in others}
    schedules = dict(await inside.referring("Schedule", "actor", asked))
    of_slots = ids_of("Schedule", [key for one in wanted for key in one.schedules])
    of_slots |= schedules_of(slots.values(), bases)
    schedules |= await inside.read("Schedule", of_slots - schedules.keys())
    unknown = {
        id
        for one in schedules.values()
        for id in ids_of(_ROLE, actors_of(one, bases))
        if id not in roles
    }
    roles |= await inside.read(_ROLE, unknown)
    return Calendars(schedules, slots, roles, bases)


def _calendar(id: str, schedule: Json, start: datetime) -> Calendar:
    return Calendar(f"Schedule/{id}")
