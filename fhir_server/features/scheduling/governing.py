"""The rules of Schedules for one appointment: the same for all who may see these.

Section 2 of design/scheduling.md. ``parameters.py`` reads what is looked up here.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from fhir_server.context import Context
from fhir_server.features.scheduling.holidays import holidays_of
from fhir_server.features.scheduling.looking import read, unseen
from fhir_server.features.scheduling.parameters import (
    ALIAS,
    PARAMETERS,
    Json,
    Rules,
    defaults_of,
    named_services,
    rules,
)
from fhir_server.features.scheduling.parts import minutes, whole
from fhir_server.features.scheduling.subjects import places_of
from fhir_server.messages import Resource
from fhir_server.outcome import not_found
from fhir_server.r4.json import decode_stored

_PLACED = ("HealthcareService", "Practitioner", "PractitionerRole", "Location", "Device")


@dataclass(frozen=True, slots=True)
class Governed:
    """Whose time a Schedule is (``actors``), whether it is ``active``, and its ``rules``."""

    actors: Sequence[str]
    active: bool
    rules: Rules


async def read_all(type: str, ids: Collection[str], context: Context) -> dict[str, Resource]:
    """Return those of ``type`` that are there and may be seen, by their ids."""
    found = await context.store.read_all(type, sorted(ids)) if ids else []
    return {one.id: decode_stored(one.json) for one in found if not one.deleted}


async def governed(
    schedules: Iterable[str], proposal: Resource, context: Context
) -> dict[str, Governed]:
    """Return of each of ``schedules`` (``Schedule/1``) whose time it is, and its rules for what
    ``proposal`` (an Appointment) is about. Raises ``not-found`` for one that is not there,
    ``extension`` where its parameters cannot be used."""
    bases = context.parameters.base_urls
    wanted = list(schedules)
    found = await read_all("Schedule", {_id(one) for one in wanted}, context)
    for one in wanted:
        if _id(one) not in found:
            raise not_found("Schedule", _id(one))
    asked_for = named_services(proposal, bases)
    services = {id: _service(found[id], asked_for, bases) for id in (_id(one) for one in wanted)}
    places = {id: places_of(found[id], bases) for id in services}
    needed = {*services.values(), *(one for some in places.values() for one in some)}
    there: dict[str, Json] = {}
    for type in _PLACED:
        there |= await read(type, needed, context)
        there |= await unseen(type, needed - there.keys(), context)
    holidays, defaults = holidays_of(context.settings), defaults_of(context.settings)
    return {
        f"Schedule/{id}": Governed(
            actors_of(found[id]),
            found[id].get("active") is not False,
            rules(
                found[id],
                there.get(service),
                [there[one] for one in places[id] if one in there],
                holidays,
                defaults,
                bases,
            ),
        )
        for id, service in services.items()
    }


def actors_of(schedule: Mapping[str, Any]) -> list[str]:
    """Return whom ``schedule`` is of, as ``Type/id``."""
    targets = (one.get("reference", "") for one in schedule.get("actor", ()))
    return ["/".join(one.split("/")[-2:]) for one in targets if one]


def durations_of(schedule: Resource) -> list[timedelta]:
    """Return how long appointments of ``schedule`` last, of all services that it has."""
    found = []
    for url in (PARAMETERS, ALIAS):
        for group in whole(schedule).parts(url):
            for part in group.parts("duration"):
                with suppress(ValueError):  # it offers nothing, and says so where it is asked
                    found.append(timedelta(minutes=_duration(part)))
    return found


_duration = minutes(1, 31 * 1440)


def _service(schedule: Resource, asked_for: Sequence[str], bases: Sequence[str]) -> str:
    """Return the service by which ``schedule`` is asked: one of those ``asked_for``, else its only
    one."""
    own = named_services(schedule, bases)
    named = [one for one in asked_for if one in own or not own]
    return next(iter(named), own[0] if len(own) == 1 else "")


def _id(reference: str) -> str:
    return reference.partition("/")[2]
