"""Schedules with all that says when they have time, looked up; and when that is.

Section 2 of design/scheduling.md.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

from fhir_server.context import Context
from fhir_server.features.scheduling.claims import Room, has_room
from fhir_server.features.scheduling.extensions import moment
from fhir_server.features.scheduling.holidays import holidays_of
from fhir_server.features.scheduling.parameters import (
    Rules,
    defaults_of,
    named_services,
    rules,
)
from fhir_server.features.scheduling.slots import (
    Interval,
    ceil_minute,
    floor_minute,
    starts,
    union,
)
from fhir_server.features.scheduling.subjects import Json, actors_of, ids_of, practitioner_of
from fhir_server.messages import Request, Resource
from fhir_server.outcome import FhirError
from fhir_server.r4.json import decode
from fhir_server.store.granules import moment_of

_LOG = logging.getLogger("fhir_server.scheduling")
_AT_ONCE = 100
_PAGES_MAX = 10
_COUNT = ("_count", "1000")
_ROLE = "PractitionerRole"


@dataclass(frozen=True, slots=True)
class Diary:
    """A Schedule: whose time it gives out (``people``, roles as their practitioners), its
    ``services``, and its actors and places as far as they are here."""

    schedule: Resource
    people: Sequence[str] = ()
    services: Sequence[Resource] = ()
    places: Sequence[Resource] = ()

    @property
    def key(self) -> str:
        """Return ``Schedule/1``."""
        return f"Schedule/{self.schedule['id']}"


@dataclass(frozen=True, slots=True)
class Opening:
    """When a diary has time for ``service`` (``None``: for any), by ``rules``."""

    diary: Diary
    service: Resource | None
    rules: Rules
    starts: Sequence[datetime] = field(default=())


async def found(type: str, asked: Sequence[tuple[str, str]], context: Context) -> list[Resource]:
    """Return what a search finds, page after page, 10,000 at most."""
    resources: list[Resource] = []
    parameters = (*asked, _COUNT)
    for _ in range(_PAGES_MAX):
        answer = await context.perform(Request("search-type", type, parameters=parameters), context)
        bundle = decode(answer.body, depth_max=context.settings.depth_max)
        entries = bundle.get("entry", ())
        resources += [one["resource"] for one in entries if one["resource"]["resourceType"] == type]
        links = [one["url"] for one in bundle.get("link", ()) if one["relation"] == "next"]
        if not links:
            return resources
        parameters = tuple(parse_qsl(urlsplit(links[0]).query, keep_blank_values=True))
    _LOG.warning("%s", json.dumps(f"more {type} than are looked at"))
    return resources


async def by_key(keys: Iterable[str], context: Context) -> dict[str, Resource]:
    """Return what is at ``keys`` (``Location/1``), as far as it is there."""
    wanted = set(keys)
    resources: dict[str, Resource] = {}
    for type in sorted({one.partition("/")[0] for one in wanted}):
        ids = sorted(ids_of(type, wanted))
        for place in range(0, len(ids), _AT_ONCE):
            asked = (("_id", ",".join(ids[place : place + _AT_ONCE])),)
            some = await found(type, asked, context)
            resources |= {f"{type}/{one['id']}": one for one in some}
    return resources


async def with_roles(people: Iterable[str], context: Context) -> list[str]:
    """Return ``people`` and the roles that they have, as far as these may be searched."""
    actors = sorted(set(people))
    named = [one for one in actors if one.startswith("Practitioner/")]
    if named:
        roles = await found(_ROLE, (("practitioner", ",".join(named)),), context)
        actors += [f"{_ROLE}/{one['id']}" for one in roles]
    return actors


async def diaries(schedules: Iterable[Resource], context: Context) -> list[Diary]:
    """Return the diaries of ``schedules`` that are in use."""
    bases = context.parameters.base_urls
    used = [one for one in schedules if one.get("active") is not False]
    named = {key for one in used for key in (*_actors(one, bases), *named_services(one, bases))}
    known = await by_key({one for one in named if not one.startswith("Patient/")}, context)
    return [_diary(one, known, bases) for one in used]


def _actors(schedule: Json, bases: Sequence[str]) -> list[str]:
    everybody = [{**schedule, "actor": [one]} for one in schedule.get("actor", ())]
    return [key for one in everybody for key in actors_of(one, bases)]


def _diary(schedule: Resource, known: Mapping[str, Resource], bases: Sequence[str]) -> Diary:
    people = []
    for actor in actors_of(schedule, bases):
        is_role = actor.startswith(f"{_ROLE}/")
        people.append((practitioner_of(known.get(actor, {}), bases) if is_role else "") or actor)
    services = [known[one] for one in named_services(schedule, bases) if one in known]
    actors = [known[one] for one in _actors(schedule, bases) if one in known]
    actors.sort(key=lambda one: bool(one["resourceType"] == "Location"))
    return Diary(schedule, tuple(dict.fromkeys(people)), services, actors)


def openings_of(diary: Diary, context: Context) -> Iterator[Opening]:
    """Yield the rules of ``diary`` for each of its services; of rules that cannot be used none."""
    holidays, defaults = holidays_of(context.settings), defaults_of(context.settings)
    for service in diary.services or (None,):
        try:
            made = rules(
                *(diary.schedule, service, diary.places, holidays, defaults),
                bases=context.parameters.base_urls,
            )
        except FhirError:
            _LOG.warning("%s", json.dumps(f"the rules of {diary.key} cannot be used"))
            continue
        yield Opening(diary, service, made)


async def with_starts(
    opening: Opening, span: tuple[datetime, datetime], free: Iterable[Json], context: Context
) -> Opening:
    """Return ``opening`` with the starts that are free in ``span``; ``free`` are Slots of clients
    that are open whatever the hours say."""
    made = opening.rules
    if not made.duration or not opening.diary.people:
        return opening
    now, room = context.now(), _room(opening)
    taken = await taken_by(opening.diary, room, span, made, context)
    open = union(interval for one in free if (interval := _interval(one)) is not None)
    some = starts(made, span, now, taken, open)
    if made.limits:
        limits = {one: made.limits_at(one) for one in some}
        granules = await context.store.granules.granules(
            {id for ids in limits.values() for id in ids}
        )
        some = [
            one
            for one in some
            if all(
                has_room(granules.get(id), Room(opening.diary.key, most, one), now)
                for id, most in limits[one].items()
            )
        ]
    return Opening(opening.diary, opening.service, made, some)


def _room(opening: Opening) -> Room:
    return Room(opening.diary.key, opening.rules.capacity, opening.rules.planning[1])


async def taken_by(
    diary: Diary, room: Room, span: tuple[datetime, datetime], rules: Rules, context: Context
) -> list[Interval]:
    """Return when there is no ``room`` with those whose time ``diary`` gives out."""
    length = timedelta(minutes=context.settings.scheduling_granule_minutes)
    low = span[0] - timedelta(minutes=rules.before) - length
    high = span[1] + timedelta(minutes=rules.after)
    granules = await context.store.granules.taken(diary.people, low, high)
    now = context.now()
    return union(
        (floor_minute(begin), ceil_minute(begin + length))
        for one in granules
        if not has_room(one, room, now)
        for begin in (moment_of(one["_id"]),)
    )


def _interval(slot: Json) -> Interval | None:
    start, end = moment(slot.get("start")), moment(slot.get("end"))
    return None if start is None or end is None else (ceil_minute(start), floor_minute(end))
