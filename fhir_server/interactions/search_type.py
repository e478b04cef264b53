"""search-type: ``GET [base]/[type]?…`` and ``POST [base]/[type]/_search``.

https://hl7.org/fhir/R4/http.html#search

``total`` is there when the client asks for it (``_total=accurate``), and when the first page holds
everything; counting costs a look at every match, so it is not done unasked.

Where more comes along (``_include``, ``_revinclude``) than a page holds, ``next`` leads to pages
with the rest of it, and then on to the next matches.
"""

from fhir_server.context import Context
from fhir_server.interactions.links import (
    Neighbours,
    page_links,
    said_of_links,
    unpacked_request,
)
from fhir_server.interactions.parameters import Subset
from fhir_server.messages import Parameters, Request, Response
from fhir_server.outcome import Issue, operation_outcome
from fhir_server.r4.bundles import bundle, entry
from fhir_server.r4.json import decode, encode
from fhir_server.search.page import AFTER, UNTIL, Edge, cursor
from fhir_server.search.parse import CURSOR, REST, Limits, SearchQuery, parse
from fhir_server.search.plan import Lists, Plan, plan, rest_subject, with_lists
from fhir_server.store.documents import Stored
from fhir_server.store.includes import Included
from fhir_server.store.search import Page


async def search_type(request: Request, context: Context) -> Response:
    """Return a page of the resources of the type that meet all parameters."""
    return await search_one(request, request.type, context)


async def search_one(request: Request, type: str, context: Context, within: str = "") -> Response:
    """Return a page of the resources of ``type`` that meet all parameters of ``request``.

    ``within`` is the compartment that is searched, such as ``Patient/1``; everything by default.
    """
    place = f"{within}/{type}" if within else type
    request = unpacked_request(request, place, context.page_key)
    query = search_query(type, request.parameters, request, context)
    if query.lists:
        query = with_lists(query, await _lists(query, context), context.parameters)
    wanted = plan(query, context.parameters, page_key=context.page_key, within=within)
    page = await context.store.search(wanted)
    here = tuple(
        (name, text) for name, text in ((CURSOR, query.cursor), (REST, query.rest)) if text
    )
    others = neighbours(page, wanted.subject, context.page_key, is_rest=wanted.rest is not None)
    links = page_links(request, place, (*query.understood, *here), others, context.page_key)
    said = (*query.ignored, *said_of_links(links, place, context.settings.url_bytes_max))
    entries = _entries(wanted, page, said, request, context)
    return Response(200, bundle("searchset", entries, links=links, total=page.total))


def neighbours(page: Page, subject: str, page_key: bytes, *, is_rest: bool) -> Neighbours:
    """Return the pages beside ``page``.

    Behind it comes the rest of what it includes, if there is more of it, and then the next matches.
    ``is_rest`` says that the page has such a rest itself: before it is the page it is the rest of.
    """

    def link(direction: str, edge: Edge | None) -> Parameters:
        if edge is None:
            return ()
        return ((CURSOR, cursor((direction, *edge.key), subject, page_key)),)

    place = page.included.after
    here = link(AFTER, page.before)
    if place:
        until = page.after.key if page.after else ()
        rest = cursor((*place, *until), rest_subject(subject), page_key)
        next = (*here, (REST, rest))
    else:
        next = link(AFTER, page.after)
    if is_rest:
        return Neighbours(next, here)
    return Neighbours(next, link(UNTIL, page.before) or None)


def _entries(
    wanted: Plan, page: Page, said: tuple[Issue, ...], request: Request, context: Context
) -> list[bytes]:
    """Return the entries of the page: matches, what comes along, and what is to be said of it."""
    subset = Subset(wanted.summary, frozenset(wanted.elements))
    # The elements are those of what is searched for; what comes along has others.
    along = Subset(wanted.summary)
    entries = [match_entry(one, "match", subset, request, context) for one in page.entries]
    entries += [
        match_entry(one, "include", along, request, context) for one in page.included.entries
    ]
    if issues := (*said, *_said_of(page.included)):
        outcome = encode(operation_outcome(issues))
        entries.append(entry("", outcome, search={"mode": "outcome"}))
    return entries


def _said_of(included: Included) -> tuple[Issue, ...]:
    if included.after:
        text = "More comes along with these matches than one page holds: the next link leads to it."
        return (Issue("incomplete", text, severity="information"),)
    if not included.complete:
        text = "More comes along than can be followed; include less, or ask for it by itself."
        return (Issue("too-costly", text, severity="warning"),)
    return ()


def search_query(
    type: str, parameters: Parameters, request: Request, context: Context
) -> SearchQuery:
    """Return the search of ``type`` that ``parameters`` ask for, as ``request`` wants it read."""
    settings = context.settings
    return parse(
        type,
        parameters,
        context.parameters,
        count_default=settings.page_entries,
        lenient=request.prefer.get("handling") == "lenient",
        limits=Limits(
            settings.search_parameters_max,
            settings.search_values_max,
            settings.search_value_characters_max,
            count_max=settings.page_entries_max,
        ),
        now=context.now(),
    )


async def _lists(query: SearchQuery, context: Context) -> Lists:
    """Return the lists that the search names, as far as they exist."""
    found = {}
    for id in dict.fromkeys(id for ids in query.lists for id in ids):
        stored = await context.store.read("List", id)
        if stored and not stored.deleted:
            found[id] = decode(stored.json)
    return found


def match_entry(
    stored: Stored, mode: str, subset: Subset, request: Request, context: Context
) -> bytes:
    """Return the entry of ``stored``; ``mode`` is why it is there: ``match`` or ``include``."""
    return entry(
        f"{request.base_url}/{stored.type}/{stored.id}",
        subset.applied(stored.json, context.definitions),
        search={"mode": mode},
    )
