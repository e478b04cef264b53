"""What Schedules are about: people, places, organizations, services, as far as was read. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fhir_server.features.scheduling.parameters import Json, named_services
from fhir_server.features.scheduling.parts import reference
from fhir_server.features.scheduling.subjects import actors_of, practitioner_of
from fhir_server.features.scheduling.wanted import Token

ROLE = "PractitionerRole"


@dataclass(slots=True)
class Surroundings:
    """What was read, by reference (``Schedule/1``); ``roles`` are those of the Schedules and of
    their people, ``actors`` people, places and things. ``bases`` are what this server is called."""

    bases: Sequence[str]
    schedules: dict[str, Json] = field(default_factory=dict)
    roles: dict[str, Json] = field(default_factory=dict)
    services: dict[str, Json] = field(default_factory=dict)
    actors: dict[str, Json] = field(default_factory=dict)

    def people(self, schedule: Json) -> list[str]:
        """Return whose time ``schedule`` gives; of a role it is the practitioner's, if it has
        one."""
        found = []
        for one in actors_of(schedule, self.bases):
            role = self.roles.get(one)
            found.append((practitioner_of(role, self.bases) if role is not None else "") or one)
        return list(dict.fromkeys(found))

    def kind(self, schedule: Json) -> str:
        """Return the type of whose time ``schedule`` gives, ``""`` for nobody's."""
        found = next(iter(self.people(schedule)), "").partition("/")[0]
        return "Practitioner" if found == ROLE else found

    def locations(self, schedule: Json) -> list[str]:
        """Return where ``schedule`` gives time: as it says, else as its roles and services do."""
        own = list(self._keys(schedule.get("actor"), "Location"))
        others = (key for one in self._about(schedule) for key in self._locations(one))
        return own or list(dict.fromkeys(others))

    def organizations(self, schedule: Json) -> list[str]:
        """Return whose it is: of its roles, its services and its places."""
        about = [*self._about(schedule), *(self.actors.get(one) for one in self.people(schedule))]
        listed = [
            one.get(name)
            for one in about
            if one is not None
            for name in ("organization", "providedBy", "managingOrganization", "owner")
        ]
        return list(self._keys(listed, "Organization"))

    def specialties(self, schedule: Json, service: Json | None) -> set[Token]:
        """Return the specialties of the Schedule, of its roles, and of the service."""
        roles = [one.get("specialty") for one in self._roles(schedule)]
        return codes(schedule.get("specialty"), (service or {}).get("specialty"), *roles)

    def types(self, schedule: Json, service: Json | None) -> set[Token]:
        """Return the types of visit: those of the service, else those of the Schedule."""
        return codes((service or {}).get("type")) or codes(schedule.get("serviceType"))

    def _roles(self, schedule: Json) -> list[Json]:
        """Return the roles that ``schedule`` names; where it names a person, that person's."""
        named = actors_of(schedule, self.bases)
        own = [self.roles[one] for one in named if one in self.roles]
        return own or [
            one for one in self.roles.values() if practitioner_of(one, self.bases) in named
        ]

    def _about(self, schedule: Json) -> list[Json]:
        services = (self.services.get(one) for one in named_services(schedule, self.bases))
        return [*self._roles(schedule), *(one for one in services if one is not None)]

    def _locations(self, of: Json) -> Iterator[str]:
        yield from self._keys(of.get("location"), "Location")

    def _keys(self, elements: Any, type: str) -> Iterator[str]:
        for one in elements or ():
            if key := reference(one, type, self.bases):
                yield key


def codes(*concepts: Any) -> set[Token]:
    """Return system and code of each coding in lists of CodeableConcepts."""
    return {
        (str(coding.get("system", "")), str(coding.get("code", "")))
        for listed in concepts
        for concept in listed or ()
        for coding in concept.get("coding", ())
    }


def display(resource: Json | None) -> str:
    """Return what a person, a place or a thing is called, ``""`` where nothing says."""
    found: Any = (resource or {}).get("name") or (resource or {}).get("deviceName") or ""
    if isinstance(found, list):
        found = found[0] if found else {}
    if isinstance(found, dict):
        parts = [*found.get("prefix", ()), *found.get("given", ()), found.get("family", "")]
        found = found.get("text") or " ".join(filter(None, parts)) or found.get("name", "")
    return found if isinstance(found, str) else ""
