"""Which Schedules could give what ``$find`` is asked for: all the kinds of actors, in the order of
preference of each.

Section 3 of design/scheduling.md. Different kinds of actors are all wanted; of one kind that is
repeated anyone will do. A Location with a Schedule of its own is an actor; one without is where the
others are to be.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from math import prod
from typing import Any

from fhir_server.context import Context
from fhir_server.features.scheduling.holidays import holidays_of
from fhir_server.features.scheduling.looking import (
    read,
    referring,
    resolved,
    search,
    unseen,
)
from fhir_server.features.scheduling.offering import Candidate, Combination, duration_of
from fhir_server.features.scheduling.parameters import (
    ALIAS,
    SERVICE,
    SERVICE_ALIAS,
    Json,
    Rules,
    defaults_of,
    named_services,
    rules,
)
from fhir_server.features.scheduling.parts import whole
from fhir_server.features.scheduling.subjects import actors_of, places_of, practitioner_of
from fhir_server.features.scheduling.surroundings import ROLE, Surroundings, codes, display
from fhir_server.features.scheduling.wanted import Token, Wanted
from fhir_server.outcome import FhirError, Issue, not_found
from fhir_server.r4.references import target
from fhir_server.search.escape import escape

_COMBINATIONS_MAX = 1000
_SAID_MAX = 20
_ACTORS = ("Practitioner", "Location", "Device")


@dataclass(frozen=True, slots=True)
class Found:
    """Combinations of Schedules that could give a time, the best first, and what is to be said of
    those that cannot."""

    combinations: Sequence[Combination]
    issues: Sequence[Issue] = ()


async def candidates(wanted: Wanted, context: Context) -> Found:
    """Return the combinations of Schedules for ``wanted``, as far as who asks may see them.

    Raises ``not-found`` for what is named and not there; ``extension`` and ``value`` where no
    Schedule has rules that can be used; ``too-costly`` where too many would have to be looked at.
    """
    around = Surroundings(context.store.keys.table.base_urls)
    kinds = await _kinds(wanted, around, context)
    issues: list[Issue] = []
    listed = [
        _candidates(kind, place == 0, (wanted, around, context), issues)
        for place, kind in enumerate(kinds)
    ]
    _check_combinations(prod(map(len, listed)))
    combinations = []
    for some in _by_preference(listed):
        try:
            duration_of(some)
            combinations.append(some)
        except FhirError as error:
            issues += error.issues
    said = list(dict.fromkeys(issues))[:_SAID_MAX]
    if said and not combinations:
        raise FhirError(*said)
    return Found(combinations, said)


def _by_preference(kinds: Sequence[Sequence[Candidate]]) -> Iterator[Combination]:
    """Yield one of each kind, in all ways that are about one service; what is preferred first."""
    ways = product(*(range(len(one)) for one in kinds)) if kinds else ()
    for places in sorted(ways, key=lambda one: (sum(one), one)):
        some = tuple(kind[place] for kind, place in zip(kinds, places, strict=True))
        if len({one.rules.service for one in some} - {""}) < 2:
            yield some


async def _kinds(wanted: Wanted, around: Surroundings, context: Context) -> list[list[Json]]:
    """Return the Schedules of each kind of actor that is wanted; read what they refer to."""
    if wanted.schedules:
        named = [one.key for one in wanted.schedules]
        around.schedules = await read("Schedule", named, context)
        for one in named:
            if one not in around.schedules:
                raise not_found("Schedule", one.partition("/")[2])
            if around.schedules[one].get("active") is False:
                raise FhirError(Issue("value", f"{one} is not active."))
        await _read_around(wanted, around, context)
        return _by_kind([around.schedules[one] for one in named], around)
    practitioners = await resolved(wanted.practitioners, "Practitioner", context)
    locations = await resolved(wanted.locations, "Location", context)
    areas = [key for one in wanted.addresses for key in await _area(one, context)]
    await _read_schedules(wanted, (practitioners, [*locations, *areas]), around, context)
    await _read_around(wanted, around, context)
    found = [one for one in around.schedules.values() if one.get("active") is not False]
    if wanted.organizations:
        keys = await resolved(wanted.organizations, "Organization", context)
        found = _preferred(found, keys, around.organizations)
    if wanted.addresses:
        found = _preferred(found, areas, around.locations)
    return _people_and_rooms(found, practitioners, locations, wanted, around)


def _people_and_rooms(
    found: Sequence[Json],
    practitioners: Sequence[str],
    locations: Sequence[str],
    wanted: Wanted,
    around: Surroundings,
) -> list[list[Json]]:
    others = [one for one in found if around.kind(one) != "Location"]
    rooms = [one for one in found if around.kind(one) == "Location"]
    people = _preferred(others, practitioners, around.people)
    if not wanted.locations:
        return [people if wanted.practitioners else list(found)]
    rooms = _preferred(rooms, locations, around.people)
    if not wanted.practitioners:
        return [[*_preferred(others, locations, around.locations), *rooms]]
    if rooms:
        return [people, rooms]
    return [[one for one in people if set(locations).intersection(around.locations(one))]]


def _by_kind(schedules: Iterable[Json], around: Surroundings) -> list[list[Json]]:
    kinds: dict[str, list[Json]] = {}
    for one in schedules:
        kinds.setdefault(around.kind(one), []).append(one)
    return list(kinds.values())


def _preferred(
    schedules: Sequence[Json], keys: Sequence[str], of: Callable[[Json], Iterable[str]]
) -> list[Json]:
    """Return those of ``schedules`` that are ``of`` one of ``keys``, in the order of these."""
    order = {key: place for place, key in reversed([*enumerate(keys)])}
    ranked = [
        (min(places), number, one)
        for number, one in enumerate(schedules)
        if (places := [order[key] for key in of(one) if key in order])
    ]
    return [one for _, _, one in sorted(ranked, key=lambda one: one[:2])]


async def _area(address: str, context: Context) -> list[str]:
    most = context.settings.scheduling_find_schedules_max
    found = await search("Location", (("address", escape(address)),), most, context)
    return [f"Location/{one['id']}" for one in found]


async def _read_schedules(
    wanted: Wanted,
    actors: tuple[Sequence[str], Sequence[str]],
    around: Surroundings,
    context: Context,
) -> None:
    """Read the Schedules of people and places, where such are wanted; else all of them."""
    most = context.settings.scheduling_find_schedules_max
    people, places = actors
    if not (wanted.practitioners or wanted.locations or wanted.addresses):
        found = await search("Schedule", (), most, context)
        around.schedules = {f"Schedule/{one['id']}": one for one in found}
        return
    keys = {*people, *places}
    if people:
        around.roles = await referring(ROLE, "practitioner", people, most, context)
        keys.update(around.roles)
    elif places:
        around.roles = await referring(ROLE, "location", places, most, context)
        services = await referring("HealthcareService", "location", places, most, context)
        keys.update(practitioner_of(one, around.bases) for one in around.roles.values())
        keys.update(around.roles, services)
    keys.discard("")
    around.schedules = await referring("Schedule", "actor", keys, most, context)


async def _read_around(wanted: Wanted, around: Surroundings, context: Context) -> None:
    """Read what the Schedules name, and what those do, where it is asked about."""
    most = context.settings.scheduling_find_schedules_max
    schedules = around.schedules.values()
    named = {key for one in schedules for key in places_of(one, around.bases)}
    around.roles |= await read(ROLE, named - around.roles.keys(), context)
    around.roles |= await unseen(ROLE, named - around.roles.keys(), context)
    people = {practitioner_of(one, around.bases) for one in around.roles.values()}
    about = wanted.specialties or wanted.organizations or wanted.locations or wanted.addresses
    if about and not wanted.schedules:
        doctors = [one for one in named if one.startswith("Practitioner/")]
        around.roles |= await referring(ROLE, "practitioner", doctors, 5 * most, context)
    services = {key for one in schedules for key in named_services(one, around.bases)}
    if wanted.service:
        services.add(wanted.service)
    # One after the other: inside a transaction its session takes one command at a time.
    around.services = await read("HealthcareService", services, context)
    if wanted.service and wanted.service not in around.services:
        raise not_found("HealthcareService", wanted.service.partition("/")[2])
    hidden = services - around.services.keys()
    around.services |= await unseen("HealthcareService", hidden, context)
    for type in _ACTORS:
        around.actors |= await read(type, named | people, context)
        around.actors |= await unseen(type, (named | people) - around.actors.keys(), context)
    around.actors |= around.roles


def _candidates(
    schedules: Sequence[Json],
    is_first: bool,
    known: tuple[Wanted, Surroundings, Context],
    issues: list[Issue],
) -> list[Candidate]:
    """Return a candidate for each of ``schedules`` and each service that it gives time for; add
    to ``issues`` what is wrong with the others.

    What is asked for by specialty and type of visit is asked of the first kind of actor alone.
    """
    wanted, around, context = known
    holidays, defaults = holidays_of(context.settings), defaults_of(context.settings)
    # Rules may be long: as many of them are read as can be combined, and no more.
    asked = list(islice(_ranked(schedules, is_first, wanted, around), _COMBINATIONS_MAX + 1))
    _check_combinations(len(asked))
    found = []
    for _, schedule, service in sorted(asked, key=lambda one: one[0]):
        keys = places_of(schedule, around.bases)
        places = [around.actors[key] for key in keys if key in around.actors]
        try:
            read = rules(schedule, service, places, holidays, defaults, around.bases)
        except FhirError as error:
            issues += error.issues
            continue
        found.append(_candidate(schedule, service, read, around))
    return found


def _ranked(
    schedules: Sequence[Json], is_first: bool, wanted: Wanted, around: Surroundings
) -> Iterator[tuple[tuple[int, int, int], Json, Json | None]]:
    """Yield each of ``schedules`` with each service that it is asked for, and how well it suits."""
    for number, schedule in enumerate(schedules):
        if not around.people(schedule):
            continue  # of a patient, say: nobody guards that time
        for service in _services(schedule, wanted, around):
            ranks = (0, 0)
            if is_first:
                ranks = (
                    _rank(wanted.specialties, around.specialties(schedule, service)),
                    _rank(wanted.visit_types, around.types(schedule, service)),
                )
            if -1 not in ranks:
                yield (*ranks, number), schedule, service


def _check_combinations(count: int) -> None:
    if count > _COMBINATIONS_MAX:
        text = f"More than {_COMBINATIONS_MAX:,} combinations of Schedules; ask for fewer of each."
        raise FhirError(Issue("too-costly", text))


def _rank(asked: Sequence[Token], there: set[Token]) -> int:
    """Return which of ``asked`` is the first that is ``there``, -1 for none; 0 where none is."""
    if not asked:
        return 0
    return next((place for place, one in enumerate(asked) if one in there), -1)


def _services(schedule: Json, wanted: Wanted, around: Surroundings) -> Iterator[Json | None]:
    """Yield the services that ``schedule`` is asked for; ``None`` is none in particular.

    Raises ``value`` where a Schedule that is named is not for the service that is named.
    """
    named = named_services(schedule, around.bases)
    if not wanted.service:
        own = [around.services[one] for one in named if one in around.services]
        yield from own
        if not own:
            yield None
        return
    service = around.services[wanted.service]
    types = codes(schedule.get("serviceType"))
    is_other = bool(types) and types.isdisjoint(codes(service.get("type")))
    if wanted.service in named or not (named or is_other):
        yield service
    elif wanted.schedules:
        text = f"Schedule/{schedule['id']} is not for {wanted.service}."
        raise FhirError(Issue("value", text))


def _candidate(
    schedule: Json, service: Json | None, read: Rules, around: Surroundings
) -> Candidate:
    named = actors_of(schedule, around.bases)
    places = [one for one in around.locations(schedule) if one not in named]
    given = {
        target(one["reference"], around.bases).key: one
        for one in schedule.get("actor", ())
        if "reference" in one
    }

    def actor(key: str) -> Json:
        shown = given.get(key, {}).get("display") or _called(key, around)
        return {"reference": key, **({"display": shown} if shown else {})}

    return Candidate(
        read,
        tuple(around.people(schedule)),
        tuple(map(actor, named)),
        tuple(map(actor, places)),
        _concepts(schedule, service),
    )


def _called(key: str, around: Surroundings) -> str:
    found = around.actors.get(key) or around.services.get(key)
    if key.startswith(f"{ROLE}/"):
        found = around.actors.get(practitioner_of(found or {}, around.bases))
    return display(found)


def _concepts(schedule: Json, service: Json | None) -> Mapping[str, Any]:
    """Return the elements of an Appointment that say what it is about."""
    found = {
        name: (service or {}).get(other) or schedule.get(name)
        for name, other in (
            *(("serviceCategory", "category"), ("serviceType", "type")),
            ("specialty", "specialty"),
        )
    }
    if service is not None:
        urls = [SERVICE]
        if any(whole(one).parts(ALIAS) for one in (schedule, service)):
            urls.append(SERVICE_ALIAS)
        key = {"reference": f"HealthcareService/{service['id']}"}
        said = [{"url": url, "valueReference": key} for url in urls]
        name = service.get("name")
        first, *rest = found["serviceType"] or [{"text": name} if name else {}]
        extension = [*first.get("extension", ()), *said]
        found["serviceType"] = [{**first, "extension": extension}, *rest]
    return {name: value for name, value in found.items() if value}
