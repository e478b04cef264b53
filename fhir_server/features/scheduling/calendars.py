"""Which Schedules stand behind what is booked, and what room they have: looked up in a transaction.

Section 4 of design/scheduling.md.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from fhir_server.features.scheduling.holidays import holidays_of
from fhir_server.features.scheduling.parameters import defaults_of, named_services, rules
from fhir_server.features.scheduling.subjects import (
    Json,
    Subject,
    actors_of,
    ids_of,
    places_of,
    practitioner_of,
    schedules_of,
)
from fhir_server.settings import Settings
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
    """The Schedules that are in use, by id; who has which of the roles; the services that may be
    meant, and by id of the Schedule those who may say its time zone."""

    schedules: Mapping[str, Json]
    slots: Mapping[str, Json]
    roles: Mapping[str, Json]
    services: Mapping[str, Json]
    places: Mapping[str, Sequence[Json]]
    settings: Settings
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
                if actor and actor not in found and (id in own or actor in named):
                    found[actor] = self._calendar(id, schedule, subject)
        return found

    def _calendar(self, id: str, schedule: Json, subject: Subject) -> Calendar:
        """Raises ``extension`` (422) where the rules of the Schedule cannot be read."""
        service = self.services.get(service_of(schedule, subject, self.bases).partition("/")[2])
        if service is None and "extension" not in schedule:
            return Calendar(f"Schedule/{id}")
        found = rules(
            *(schedule, service, self.places.get(id, ()), holidays_of(self.settings)),
            *(defaults_of(self.settings), self.bases),
        )
        return Calendar(
            *(found.schedule, found.capacity),
            timedelta(minutes=found.before),
            timedelta(minutes=found.after),
            found.limits_at(subject.start),
        )

    def _own(self, subject: Subject) -> set[str]:
        """Return the ids of the Schedules of the Slots of ``subject``."""
        slots = [self.slots[one] for one in ids_of("Slot", subject.slots) if one in self.slots]
        return ids_of("Schedule", subject.schedules) | schedules_of(slots, self.bases)

    def _person(self, actor: str) -> str:
        """Return whose time that of ``actor`` is: of a role the practitioner's; where it is not
        filled, or not here, its own, which nobody else is given either."""
        type, _, id = actor.partition("/")
        role = self.roles.get(id) if type == _ROLE else None
        return (practitioner_of(role, self.bases) if role is not None else "") or actor


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
    meant = {service_of(one, two, bases) for one in schedules.values() for two in wanted}
    services = await inside.read("HealthcareService", ids_of("HealthcareService", meant))
    limiting = {id: one for id, one in schedules.items() if services or "extension" in one}
    places = await _places(limiting, inside)
    return Calendars(schedules, slots, roles, services, places, inside.settings, bases)


def service_of(schedule: Json, subject: Subject, bases: Sequence[str]) -> str:
    """Return for what service ``subject`` takes its time: the first that it names and the Schedule
    has; else the only one that the Schedule has; ``""`` for none."""
    own = named_services(schedule, bases)
    named = [one for one in subject.services if one in own or not own]
    return next(iter(named), own[0] if len(own) == 1 else "")


async def _places(schedules: Mapping[str, Json], inside: Inside) -> dict[str, list[Json]]:
    """Return by the id of each of ``schedules`` those who may say its time zone."""
    keys = {id: places_of(one, inside.table.base_urls) for id, one in schedules.items()}
    found: dict[str, Json] = {}
    for type in sorted({key.partition("/")[0] for some in keys.values() for key in some}):
        ids = ids_of(type, [key for some in keys.values() for key in some])
        found |= {f"{type}/{id}": one for id, one in (await inside.read(type, ids)).items()}
    return {id: [found[key] for key in some if key in found] for id, some in keys.items()}
