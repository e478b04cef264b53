"""``Appointment/$find``: the times that can be booked, as proposed Appointments.

https://profiles.ihe.net/ITI/Scheduling/ITI-115.html; section 3 of design/scheduling.md.
"""

from collections.abc import Sequence
from datetime import timedelta
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from fhir_server.context import Context
from fhir_server.features.scheduling.candidates import candidates
from fhir_server.features.scheduling.extensions import moment
from fhir_server.features.scheduling.looking import read, referring
from fhir_server.features.scheduling.offering import (
    Combination,
    Known,
    Offer,
    last_moment,
    limit_ids,
    offers,
)
from fhir_server.features.scheduling.parameters import Json
from fhir_server.features.scheduling.parts import reference
from fhir_server.features.scheduling.proposals import ids, keep, starts_of, template
from fhir_server.features.scheduling.slots import Interval, ceil_minute, floor_minute, union
from fhir_server.features.scheduling.wanted import TABLE, UNSERVED, Wanted, wanted
from fhir_server.messages import Request, Response
from fhir_server.operations.asked import given
from fhir_server.outcome import FhirError, Issue, not_found, operation_outcome
from fhir_server.r4.bundles import bundle, entry
from fhir_server.r4.json import encode
from fhir_server.registry import Operation, Registry

_GRANULE_MAX = timedelta(hours=1)
_SLOT_MAX = timedelta(days=31)
_SLOTS_MAX = 10_000
_MATCH, _OUTCOME = {"mode": "match"}, {"mode": "outcome"}


def register(registry: Registry) -> None:
    """Add the operation."""
    registry.operation(FIND)


async def find(request: Request, context: Context) -> Response:
    """Return a searchset of proposed Appointments, each with the Slots that it would take.

    ``total`` counts all that could be proposed, also beyond ``_count``. Raises ``value`` (400) for
    a range that is too long and where nothing says how long an appointment is.
    """
    settings = context.settings
    asked = given(request, context, TABLE, UNSERVED)
    zone = ZoneInfo(settings.scheduling_timezone)
    bases = context.store.keys.table.base_urls
    question = wanted(asked, zone, settings.scheduling_find_days_max, bases)
    await _check_patients(question, context)
    found = await candidates(question, context)
    known = await _known(found.combinations, question, context)
    first, total = offers(found.combinations, question, known, context.now())
    templates = [template(one, question.patients) for one in found.combinations]
    first = _within(first, templates, settings.page_bytes_max)
    id = context.new_id()
    if first:
        await keep(first, templates, id, context)
    issues = [_warning(one) for one in found.issues]
    if not found.combinations:
        issues.append(Issue("not-found", "No active Schedule is as asked for.", "", "information"))
    entries = list(_entries(first, templates, id, request))
    if issues:
        outcome = encode(operation_outcome(issues))
        entries.append(entry("", outcome, search=_OUTCOME))
    query = f"?{urlencode(request.parameters)}" if request.parameters else ""
    links = (("self", f"{request.base_url}/Appointment/$find{query}"),)
    return Response(200, bundle("searchset", entries, links=links, total=total))


def _within(first: list[Offer], templates: Sequence[Json], most: int) -> list[Offer]:
    """Return as many of ``first`` as an answer of ``most`` bytes has room for, and one at least:
    each Appointment and each of its Slots says what it is for, and that may be long."""
    sizes: dict[int, int] = {}
    total = 0
    for count, one in enumerate(first):
        if one.place not in sizes:
            said = templates[one.place]
            sizes[one.place] = len(encode(dict(said))) * (1 + 3 * len(said["slots"]))
        total += sizes[one.place] * len(one.starts)
        if total > most and count:
            return first[:count]
    return first


def _warning(issue: Issue) -> Issue:
    return Issue(issue.code, issue.diagnostics, issue.expression, "warning")


def _entries(
    first: Sequence[Offer], templates: Sequence[Json], id: str, request: Request
) -> list[bytes]:
    """Return an entry for each offer: an Appointment, or a collection of those of a series."""
    entries = []
    for offer, named in zip(first, ids(id, first), strict=True):
        made = starts_of(offer, named, templates[offer.place])
        urls = [f"{request.base_url}/Appointment/{one}" for one in named]
        if len(made) == 1:
            entries.append(entry(urls[0], encode(made[0]), search=_MATCH))
            continue
        inside = [entry(url, encode(one)) for url, one in zip(urls, made, strict=True)]
        entries.append(entry("", bundle("collection", inside), search=_MATCH))
    return entries


async def _check_patients(question: Wanted, context: Context) -> None:
    """Refuse patients that who asks does not see: their free times say when they are busy."""
    found = await read("Patient", question.patients, context)
    for one in question.patients:
        if one not in found:
            raise not_found("Patient", one.partition("/")[2])


async def _known(combinations: Sequence[Combination], question: Wanted, context: Context) -> Known:
    """Return what is taken of the actors of ``combinations`` in the time of ``question``."""
    every = {id(one): one for some in combinations for one in some}.values()
    _check_cost(len(every), question, context)
    actors = {actor for one in every for actor in one.actors}
    if context.settings.scheduling_patients:
        actors.update(question.patients)
    around = [minutes for one in every for minutes in (one.rules.before, one.rules.after)]
    buffer = timedelta(minutes=max(around, default=0)) + _GRANULE_MAX
    low, high = question.start - buffer, last_moment(question) + buffer
    store = context.store.granules
    # One after the other: inside a transaction its session takes one command at a time.
    taken = await store.taken(actors, low, high)
    limits = await store.granules(limit_ids(combinations, question))
    free = await _free({one.rules.schedule for one in every}, question, context)
    but = await _ignored(question, context)
    by_actor: dict[str, list[Json]] = {}
    for one in taken:
        by_actor.setdefault(one["_id"].partition("|")[0], []).append(one)
    return Known(by_actor, limits, free, but, context.settings.scheduling_granule_minutes)


def _check_cost(schedules: int, question: Wanted, context: Context) -> None:
    """Refuse a series of so many weeks and Schedules that nobody would wait for it."""
    settings = context.settings
    most = settings.scheduling_find_schedules_max * settings.scheduling_find_days_max
    days = (last_moment(question) - question.start).days + 1
    if schedules * days > max(most, days):
        text = f"{schedules} Schedules for {days} days are too much at once; ask for fewer."
        raise FhirError(Issue("too-costly", text))


async def _free(
    schedules: set[str], question: Wanted, context: Context
) -> dict[str, list[Interval]]:
    """Return when there are free Slots, by Schedule: it is open then, whatever its hours say."""
    found: dict[str, list[Interval]] = {}
    since = question.start - _SLOT_MAX
    asked = (
        *(("status", "free"), ("_elements", "schedule,start,end")),
        *(("start", f"ge{since.isoformat()}"), ("start", f"lt{last_moment(question).isoformat()}")),
    )
    slots = await referring("Slot", "schedule", schedules, _SLOTS_MAX, context, asked)
    for one in slots.values():
        start, end = moment(one.get("start")), moment(one.get("end"))
        key = reference(one.get("schedule"), "Schedule", context.store.keys.table.base_urls)
        if start is not None and end is not None:
            found.setdefault(key, []).append((ceil_minute(start), floor_minute(end)))
    return {key: union(some) for key, some in found.items()}


async def _ignored(question: Wanted, context: Context) -> set[str]:
    """Return who counts as gone: the appointment that is to be moved, and its Slots."""
    if not question.ignored:
        return set()
    found = await read("Appointment", (question.ignored,), context)
    if question.ignored not in found:
        raise not_found("Appointment", question.ignored.partition("/")[2])
    bases = context.store.keys.table.base_urls
    slots = found[question.ignored].get("slot", ())
    return {question.ignored, *filter(None, (reference(one, "Slot", bases) for one in slots))}


FIND = Operation(
    "$find",
    "urn:fhir-server:OperationDefinition:appointment-find",
    find,
    on=("Appointment",),
    needs="s",
)
"""Whoever may search Appointments may look for times; which Schedules are seen is up to rights."""
