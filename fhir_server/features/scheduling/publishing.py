"""``$bulk-publish``: free times for everybody, where a setting says so. Section 2 of
design/scheduling.md.

Whoever asks is nobody in particular, so this reads as the server, and answers with what
``published.py`` lets through: nothing of a patient. What was made is answered again for as long as
clients may keep it; strangers who ask often cost little.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from fhir_server.context import Context
from fhir_server.features.scheduling.claims import Room
from fhir_server.features.scheduling.diaries import (
    Diary,
    diaries,
    found,
    openings_of,
    taken_by,
    with_starts,
)
from fhir_server.features.scheduling.extensions import moment
from fhir_server.features.scheduling.parts import reference
from fhir_server.features.scheduling.published import (
    free_slots,
    is_public,
    is_then,
    lines,
    manifest,
    published_schedule,
    shown,
)
from fhir_server.features.scheduling.slots import ceil_minute, floor_minute
from fhir_server.interactions.admitting import OPEN, as_server
from fhir_server.interactions.parameters import known_only, value_of
from fhir_server.messages import Request, Resource, Response
from fhir_server.outcome import FhirError, Issue, invalid_value
from fhir_server.r4.json import encode
from fhir_server.registry import Operation, Registry
from fhir_server.store.documents import instant

_DEFINITION = "urn:fhir-server:OperationDefinition:"
_JSON = "application/json"
_NDJSON = "application/fhir+ndjson"
_SETTING = "scheduling_publish"
_NIGHT = timedelta(days=1)


@dataclass(slots=True)
class Publication:
    """What this process has published, by file: until when, and its bytes."""

    files: dict[tuple[str, str], tuple[datetime, bytes]] = field(default_factory=dict)
    diaries: tuple[datetime, list[Diary]] | None = None
    making: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def manifest(self, request: Request, context: Context) -> Response:
        """Return the manifest. https://hl7.org/fhir/uv/bulkdata/ names its parts."""
        known_only(request, ("_since",))
        body = encode(manifest(request.base_url, _days(context), context.now()))
        age = timedelta(seconds=context.settings.scheduling_publish_seconds)
        return Response(200, body, headers=_age(age), media_type=_JSON)

    async def file(self, request: Request, context: Context) -> Response:
        """Return one file as NDJSON. Raises ``not-found`` for a day that is not published."""
        known_only(request, ("type", "date"))
        type, day = value_of(request, "type"), value_of(request, "date")
        if type not in ("Location", "Schedule", "Slot"):
            raise invalid_value("type", type, "Location, Schedule or Slot")
        if type == "Slot" and day not in {one.isoformat() for one in _days(context)}:
            raise FhirError(Issue("not-found", "The times of this day are not published."))
        key = (type, day if type == "Slot" else "")
        async with self.making:
            now = context.now()
            kept = self.files.get(key)
            if kept is None or not now < kept[0]:
                body = lines(await self._resources(type, day, as_server(context)))
                until = now + timedelta(seconds=context.settings.scheduling_publish_seconds)
                self.files = {name: one for name, one in self.files.items() if now < one[0]}
                kept = self.files[key] = (until, body)
        return Response(200, kept[1], headers=_age(kept[0] - now), media_type=_NDJSON)

    async def _resources(self, type: str, day: str, context: Context) -> list[Resource]:
        known = await self._known(context)
        if type == "Schedule":
            return [published_schedule(one) for one in known]
        if type == "Location":
            places = {
                place["id"]: place
                for one in known
                for place in one.places
                if place["resourceType"] == "Location"
            }
            return [shown(places[id]) for id in sorted(places)]
        return await _slots(known, date.fromisoformat(day), context)

    async def _known(self, context: Context) -> list[Diary]:
        now = context.now()
        if self.diaries is None or not now < self.diaries[0]:
            bases = context.parameters.base_urls
            public = [one for one in await found("Schedule", (), context) if is_public(one, bases)]
            until = now + timedelta(seconds=context.settings.scheduling_publish_seconds)
            self.diaries = (until, await diaries(public, context))
        return self.diaries[1]


def register(registry: Registry) -> None:
    """Add the operations."""
    publication = Publication()
    for name, handler in (
        ("bulk-publish", publication.manifest),
        ("bulk-publish-file", publication.file),
    ):
        registry.operation(
            Operation(f"${name}", _DEFINITION + name, handler, setting=_SETTING, needs=OPEN)
        )


def _days(context: Context) -> list[date]:
    zone = ZoneInfo(context.settings.scheduling_timezone)
    today = context.now().astimezone(zone).date()
    return [today + timedelta(days=n) for n in range(context.settings.scheduling_publish_days)]


def _age(left: timedelta) -> tuple[tuple[str, str], ...]:
    return (("Cache-Control", f"public, max-age={left // timedelta(seconds=1)}"),)


async def _slots(known: list[Diary], day: date, context: Context) -> list[Resource]:
    """Return the free times of ``day``: those that rules offer, and the Slots of clients where no
    rule says how long an appointment is."""
    zone = ZoneInfo(context.settings.scheduling_timezone)
    low, high = (
        datetime.combine(day + timedelta(days=n), time(), zone).astimezone(context.now().tzinfo)
        for n in (0, 1)
    )
    stored = await _stored(low, high, context)
    # An appointment may begin on this day and end on the next.
    span = (low, high + timedelta(days=1))
    slots: list[Resource] = []
    for diary in known:
        own = stored.get(diary.key, [])
        for opening in openings_of(diary, context):
            if opening.rules.duration:
                offered = await with_starts(opening, span, own, context)
                slots += [one for one in free_slots(offered) if is_then(one, low, high)]
            else:
                room = Room(diary.key, opening.rules.capacity, high)
                taken = await taken_by(diary, room, span, opening.rules, context)
                slots += [shown(one) for one in own if _is_free(one, taken, low, high, context)]
                break
    return slots


def _is_free(
    slot: Resource,
    taken: list[tuple[int, int]],
    low: datetime,
    high: datetime,
    context: Context,
) -> bool:
    start, end = moment(slot.get("start")), moment(slot.get("end"))
    if start is None or end is None or start < context.now() or not is_then(slot, low, high):
        return False
    return not any(
        begin < floor_minute(end) and ceil_minute(start) < until for begin, until in taken
    )


async def _stored(low: datetime, high: datetime, context: Context) -> dict[str, list[Resource]]:
    """Return the free Slots that clients have put there, by Schedule; one of the night before may
    go on in the morning."""
    bases = context.parameters.base_urls
    asked = (
        ("status", "free"),
        ("start", f"ge{instant(low - _NIGHT)}"),
        ("start", f"lt{instant(high)}"),
    )
    by_schedule: dict[str, list[Resource]] = {}
    for one in await found("Slot", asked, context):
        key = reference(one.get("schedule"), "Schedule", bases)
        by_schedule.setdefault(key, []).append(one)
    return by_schedule
