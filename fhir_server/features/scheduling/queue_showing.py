"""``$queue``: who waits, and how long; ``$board-link``: who may see the board of a place.

design/scheduling.md, section 7. Staff see the Encounters; others who have signed in see numbers.
"""

from collections.abc import Container, Iterable, Mapping
from datetime import UTC, datetime, time
from typing import Any
from urllib.parse import urlencode

from fhir_server.context import Context
from fhir_server.features.scheduling import queue
from fhir_server.features.scheduling.queue_page import PATH, board_key, edition_name
from fhir_server.features.scheduling.queue_resources import (
    DEFINITION,
    base_of,
    duration,
    expected,
    read,
)
from fhir_server.features.scheduling.queue_settling import settled
from fhir_server.features.scheduling.queue_words import LANGUAGES
from fhir_server.features.scheduling.zones import zone_of_place
from fhir_server.interactions.admitting import check_part
from fhir_server.interactions.parameters import known_only, value_of
from fhir_server.messages import Request, Resource, Response
from fhir_server.operations.bodies import parameters_in, parameters_out
from fhir_server.outcome import invalid_value
from fhir_server.registry import Operation
from fhir_server.store.documents import instant
from fhir_server.store.queues import Entry

_SHOWN_MAX = 500
_MEASURED_MAX = 2_000  # of one queue and day
_FHIR = "/fhir"

Part = dict[str, Any]


async def show_queue(request: Request, context: Context) -> Response:
    """Return who is served and who waits: number, people ahead, predicted wait; and how long it
    took today. ``service`` (an id) is one queue of the place; all of them without it."""
    known_only(request, ("service",))
    location = (await read("Location", request.id, context)).resource
    service = value_of(request, "service").removeprefix("HealthcareService/")
    if service:
        await read("HealthcareService", service, context)
    queues, now = context.store.queues, context.now()
    waiting = await queues.waiting(request.id, service or None, now, _SHOWN_MAX)
    called = await queues.called(request.id, service or None, now, _SHOWN_MAX)
    is_staff = context.rights is None or context.rights.allows("Encounter", "u")
    waiting, waiting_seen = await settled(waiting, context)
    called, called_seen = await settled(called, context)
    seen = waiting_seen | called_seen if is_staff else frozenset[str]()
    of_late = {
        one: await expected(queues, request.id, one, context)
        for one in sorted({one.service for one in waiting} | {service})
    }
    out: list[Part] = [{"name": "waiting", "valueUnsignedInt": len(waiting)}]
    out += [_entry(one, (), seen) for one in called]
    ahead: dict[str, int] = {}
    for one in waiting:
        before = ahead.setdefault(one.service, 0)
        ahead[one.service] += 1
        said: list[Part] = [{"name": "ahead", "valueUnsignedInt": before}]
        if (wait := of_late[one.service].wait_s(before)) is not None:
            said.append({"name": "predicted-wait", "valueDuration": duration(wait)})
        out.append(_entry(one, said, seen))
    if is_staff:
        out += [
            await _metrics(location, one, of_late[one], context)
            for one in of_late
            if one or not service
        ]
    return Response(200, parameters_out(out))


def _entry(entry: Entry, said: Iterable[Mapping[str, Any]], seen: Container[str]) -> Part:
    parts: list[Any] = [
        {"name": "token", "valueString": entry.token},
        {"name": "state", "valueCode": entry.state},
        *said,
    ]
    if entry.counter:
        parts.append({"name": "counter", "valueString": entry.counter})
    if entry.id in seen:
        parts.append({"name": "arrived", "valueInstant": instant(entry.arrived)})
        reference = {"reference": f"Encounter/{entry.id}"}
        parts.append({"name": "encounter", "valueReference": reference})
    if entry.service:
        reference = {"reference": f"HealthcareService/{entry.service}"}
        parts.append({"name": "service", "valueReference": reference})
    return {"name": "entry", "part": parts}


async def _metrics(
    location: Resource, service: str, of_late: queue.Expected, context: Context
) -> Part:
    """Return how it went in one queue since the local day began."""
    zone = await zone_of_place(location, context)
    today = queue.local_day(context.now(), zone)
    since = datetime.combine(today, time(), zone).astimezone(UTC)
    found = await context.store.queues.finished(location["id"], service, since, _MEASURED_MAX)
    result = queue.measured(found)
    parts: list[Part] = []
    if service:
        reference = {"reference": f"HealthcareService/{service}"}
        parts.append({"name": "service", "valueReference": reference})
    parts.append({"name": "served", "valueUnsignedInt": result.served})
    parts.append({"name": "counters", "valueUnsignedInt": of_late.counters})
    for name, seconds in (
        ("wait-median", result.wait_median_s),
        ("wait-90", result.wait_90_s),
        ("service-median", result.service_median_s),
    ):
        if seconds is not None:
            parts.append({"name": name, "valueDuration": duration(seconds)})
    return {"name": "today", "part": parts}


async def board_link(request: Request, context: Context) -> Response:
    """Return where the board of a place is shown; with ``renew`` all links before are void."""
    known_only(request, ())
    check_part(Request("update", "Encounter"), context)
    given = parameters_in(request, context, {"renew": "valueBoolean", "lang": "valueCode"})
    await read("Location", request.id, context)
    name, queues = edition_name(request.id), context.store.queues
    if given.get("renew") is True:
        edition = await queues.number(name, None)
    else:
        edition = await queues.edition(name)
    query = {"key": board_key(context.page_key, request.id, edition)}
    if "lang" in given:
        if given["lang"] not in LANGUAGES:
            raise invalid_value("lang", given["lang"], ", ".join(LANGUAGES))
        query["lang"] = given["lang"]
    site = (request.base_url or base_of(context)).removesuffix(_FHIR)
    url = f"{site}{PATH}{request.id}?{urlencode(query)}"
    return Response(200, parameters_out([{"name": "url", "valueUrl": url}]))


OPERATIONS = (
    Operation(
        "$queue",
        DEFINITION + "queue",
        show_queue,
        on=("Location",),
        instance=True,
        whole=False,
        needs="r",
    ),
    Operation(
        "$board-link",
        DEFINITION + "board-link",
        board_link,
        on=("Location",),
        instance=True,
        whole=False,
        affects_state=True,
        needs="r",
    ),
)
