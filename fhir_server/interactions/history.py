"""history of an instance, a type and the whole system.

https://hl7.org/fhir/R4/http.html#history

Parameters: ``_count``, ``_since``, ``_at``, ``_summary``, ``_elements``; ``_cursor`` stands in the
links that lead on, and is ours.
"""

from fhir_server.context import Context
from fhir_server.interactions.links import Neighbours, page_links
from fhir_server.interactions.parameters import count_of, known_only, subset_of, value_of
from fhir_server.messages import Request, Response
from fhir_server.outcome import not_found
from fhir_server.r4.bundles import bundle, entry
from fhir_server.r4.dates import date_range
from fhir_server.search.page import cursor, digest, values_of
from fhir_server.search.parse import CURSOR
from fhir_server.store.documents import Stored, instant
from fhir_server.store.history import Wanted

_PARAMETERS = ("_count", "_since", "_at", "_summary", "_elements", CURSOR)
_METHODS = {"create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE"}


async def history(request: Request, context: Context) -> Response:
    """Return a page of versions, newest first; deletions are entries without a resource."""
    known_only(request, _PARAMETERS)
    types = (request.type,) if request.type else context.definitions.resource_types
    subset = subset_of(request, types, context.definitions)
    place = "/".join(part for part in (request.type, request.id, "_history") if part)
    wanted = _wanted(request, context, place)
    page = await context.store.history(wanted)
    if (
        request.id
        and not page.entries
        and await context.store.read(request.type, request.id) is None
    ):
        raise not_found(request.type, request.id)
    after = ""
    if page.more and page.entries:
        last = page.entries[-1]
        key = (last.last_updated, last.type, last.id, last.version)
        after = cursor(key, _subject(request, place), context.link_key)
    entries = [
        _entry(
            version,
            subset.applied(version.json, context.definitions) if version.json else b"",
            request.base_url,
        )
        for version in page.entries
    ]
    others = Neighbours(((CURSOR, after),) if after else ())
    understood = tuple(one for one in request.parameters if one[0] in _PARAMETERS)
    links = page_links(request, place, understood, others)
    concerns = [place for version in page.entries for place in version.compartments]
    return Response(
        200, bundle("history", entries, links=links, total=page.total), concerns=concerns
    )


def _wanted(request: Request, context: Context, place: str) -> Wanted:
    since, at, text = (value_of(request, name) for name in ("_since", "_at", CURSOR))
    key = values_of(text, _subject(request, place), context.link_key) if text else None
    settings = context.settings
    return Wanted(
        type=request.type,
        id=request.id,
        count=count_of(request, settings.page_entries, settings.page_entries_max),
        # A plus sign that was not percent-encoded arrives as a space.
        since=date_range(since.replace(" ", "+"), "_since")[0] if since else None,
        at=date_range(at.replace(" ", "+"), "_at") if at else None,
        after=(key[0], key[1], key[2], key[3]) if key else None,
    )


def _subject(request: Request, place: str) -> str:
    """Return what a cursor belongs to: it is of no use for another question."""
    return digest(place, [one for one in request.parameters if one[0] in ("_since", "_at")])


def _entry(version: Stored, json: bytes, base_url: str) -> bytes:
    """https://hl7.org/fhir/R4/bundle.html#history"""
    created = version.interaction == "create"
    url = version.type if created else f"{version.type}/{version.id}"
    status = {"create": "201 Created", "delete": "204 No Content"}.get(version.interaction)
    if status is None:
        status = "201 Created" if version.created else "200 OK"
    return entry(
        f"{base_url}/{version.type}/{version.id}",
        json,
        request={"method": _METHODS[version.interaction], "url": url},
        response={
            "status": status,
            "etag": f'W/"{version.version}"',
            "lastModified": instant(version.last_updated),
        },
    )
