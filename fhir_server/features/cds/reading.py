"""Reads what a client did not send: our own store through the front door, within the time left.

design/cds.md, section 3.2. Another server is asked only where a client is registered with it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from fhir_server.context import Context
from fhir_server.features.cds.elements import codes, text
from fhir_server.features.cds.prefetch import (
    LATE,
    MEASURED,
    MEASURED_AS,
    RESOURCES_MAX,
    TEMPLATES,
    UNKNOWN,
    Fetched,
    filled,
    is_plain_id,
    of_resource,
    wanted,
)
from fhir_server.features.cds.request import HookRequest
from fhir_server.features.cds.resolve import wanted_medication
from fhir_server.messages import Request
from fhir_server.outcome import FhirError
from fhir_server.r4.json import decode
from fhir_server.settings import Settings

Get = Callable[[str], Awaitable[dict[str, Any]]]
"""A path with its query, such as ``Patient/1`` -> the resource; raises :class:`Unread`."""

_REFERENCES_MAX = 100
MEASURED_ROWS = 20
"""Observations that are read of a patient to find the newest value of each code."""


class Unread(Exception):
    """Something could not be read; the answer says so, and goes on."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where missing data can be read: the base URL, and how."""

    base: str
    get: Get


def own_bases(settings: Settings) -> tuple[str, ...]:
    """Return what this server is called by its settings."""
    if settings.base_url:
        return (settings.base_url.rstrip("/"),)
    hosts = dict.fromkeys((settings.host, "127.0.0.1", "localhost"))
    return tuple(f"http://{host}:{settings.port}/fhir" for host in hosts)


def own_source(context: Context, base: str) -> Source:
    """Return our own store: every read passes the front door, like any other request."""

    async def get(path: str) -> dict[str, Any]:
        place, _, query = path.partition("?")
        parts = place.split("/")
        try:
            if query:
                given = tuple(parse_qsl(query, keep_blank_values=True))
                if not any(name == "_count" for name, _ in given):
                    given = (*given, ("_count", str(context.settings.page_entries_max)))
                request = Request("search-type", parts[0], parameters=given, base_url=base)
            else:
                request = Request("read", parts[0], parts[1], base_url=base)
            response = await context.perform(request, context)
        except (FhirError, IndexError) as error:
            raise Unread(str(error)) from error
        return decode(response.body, depth_max=context.settings.depth_max)

    return Source(base, get)


async def completed(
    known: Mapping[str, Fetched],
    request: HookRequest,
    source: Source | None,
    *,
    pages_max: int,
    seconds: float,
) -> dict[str, Fetched]:
    """Return ``known`` with what could be read in ``seconds``; everything is asked for at once."""
    found = dict(known)
    if source is None:
        return found
    asked: dict[str, Awaitable[Mapping[str, Fetched]]] = {}
    missing = wanted(known)
    measured = [key for key in missing if key in MEASURED]
    if measured and is_plain_id(request.patient):
        asked["measured"] = _read_measured(source, request.patient, measured)
    for key, template in missing.items():
        path = None if key in MEASURED else filled(template, request.context)
        if path is not None:
            asked[key] = _named(key, _read(source, path, pages_max))
    for key, one in known.items():
        if one.state == "incomplete" and one.next and key not in MEASURED:
            asked[key] = _named(key, _further(source, one, pages_max - 1))
    there, late = await _in_time(asked, seconds)
    for key in late:
        found.update(dict.fromkeys(measured if key == "measured" else (key,), LATE))
    for read in there:
        found.update(read)
    return found


async def _in_time(
    asked: Mapping[str, Awaitable[Mapping[str, Fetched]]], seconds: float
) -> tuple[list[Mapping[str, Fetched]], list[str]]:
    """Return what is there in ``seconds``, all asked for at once, and the keys of what was late.

    What could not be read is in neither.
    """
    tasks = {asyncio.ensure_future(one): key for key, one in asked.items()}
    if not tasks:
        return [], []
    done, late = await asyncio.wait(tasks, timeout=max(seconds, 0.001))
    for task in late:
        task.cancel()
    if late:
        await asyncio.wait(late)
    there = []
    for task in done:
        error = task.exception()
        if error is not None and not isinstance(error, Unread):
            raise error
        if error is None:
            there.append(task.result())
    return there, [tasks[task] for task in late]


async def _named(key: str, reading: Awaitable[Fetched]) -> Mapping[str, Fetched]:
    return {key: await reading}


async def _read_measured(
    source: Source, patient: str, keys: Sequence[str]
) -> Mapping[str, Fetched]:
    """Return the newest values of ``keys``, by one look-up for all of them where that is enough.

    What was measured most often may fill the page: the others are asked for again, without it.
    There are several rows of each, since the newest may be one that does not count.
    """
    found: dict[str, Fetched] = {}
    left = list(keys)
    while left:
        listed = ",".join(f"http://loinc.org|{MEASURED[key]}" for key in left)
        path = f"Observation?patient={patient}&code={listed}&_sort=-date&_count={MEASURED_ROWS}"
        page = of_resource(await source.get(path))
        now = _by_key(page.resources, left)
        if not page.next or not now:
            return dict.fromkeys(keys, Fetched("empty")) | found | now
        found |= now
        # Of two units of one thing only the newest value counts, whichever it is in.
        known = {MEASURED_AS.get(key, key) for key in found}
        left = [key for key in left if MEASURED_AS.get(key, key) not in known]
    return dict.fromkeys(keys, Fetched("empty")) | found


def _by_key(rows: Iterable[dict[str, Any]], keys: Iterable[str]) -> dict[str, Fetched]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        for code in codes(row.get("code")):
            found.setdefault(code, []).append(row)
    return {
        key: Fetched("data", tuple(found[MEASURED[key]])) for key in keys if MEASURED[key] in found
    }


async def _read(source: Source, path: str, pages_max: int) -> Fetched:
    try:
        resource = await source.get(path)
    except Unread:
        return UNKNOWN
    found = of_resource(resource)
    return await _further(source, found, pages_max - 1) if found.next else found


async def _further(source: Source, begun: Fetched, pages_max: int) -> Fetched:
    """Follow the pages behind ``begun``, on the same server only."""
    found = begun
    for _ in range(pages_max):
        path = _below(found.next, source.base)
        if not path or len(found.resources) >= RESOURCES_MAX:
            break
        try:
            more = of_resource(await source.get(path))
        except Unread:
            break
        resources = (*found.resources, *more.resources)
        found = Fetched("incomplete" if more.next else "data", resources, more.next)
        if not more.next:
            break
    return found


def _below(url: str, base: str) -> str:
    """Return ``url`` below ``base``, or ``""`` for another place."""
    if url.startswith(f"{base}?"):
        return ""
    return url[len(base) + 1 :] if url.startswith(f"{base}/") and not urlsplit(url).fragment else ""


async def with_medications(
    orders: Iterable[Mapping[str, Any]],
    resources: dict[str, Mapping[str, Any]],
    source: Source | None,
    seconds: float,
    bases: Sequence[str] = (),
) -> dict[str, Mapping[str, Any]]:
    """Return ``resources`` with the Medications that ``orders`` refer to, if they can be read.

    ``bases`` are what the source is called, where its own base is not all.
    """
    if not bases and source is not None and source.base:
        bases = (source.base,)
    named = {one for order in orders if (one := wanted_medication(order, resources, bases))}
    missing = sorted(one for one in named if is_plain_id(one.partition("/")[2]))
    if source is None or not missing:
        return resources
    ids = ",".join(one.partition("/")[2] for one in missing[:_REFERENCES_MAX])
    try:
        async with asyncio.timeout(max(seconds, 0.001)):
            bundle = of_resource(await source.get(f"Medication?_id={ids}"))
    except (TimeoutError, Unread):
        return resources
    return {**resources, **{f"Medication/{text(one, 'id')}": one for one in bundle.resources}}


_CHART = ("medications", "statements", "allergies")


async def read_chart(source: Source, patient: str, pages_max: int) -> dict[str, Fetched]:
    """Return what the store knows of ``patient``, read one after the other: in a transaction there
    is one at a time."""
    if not is_plain_id(patient):
        return {"medications": UNKNOWN, "allergies": UNKNOWN}
    found = {"patient": await _read(source, f"Patient/{patient}", 1)}
    for key in _CHART:
        path = filled(TEMPLATES[key], {"patientId": patient})
        found[key] = await _read(source, path or "", pages_max)
    with suppress(Unread):
        found |= await _read_measured(source, patient, tuple(MEASURED))
    return found
