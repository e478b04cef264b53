"""search-type: ``GET [base]/[type]?…`` and ``POST [base]/[type]/_search``.

https://hl7.org/fhir/R4/http.html#search

``total`` is there when the client asks for it (``_total=accurate``), and when the first page holds
everything; counting costs a look at every match, so it is not done unasked.
"""

from fhir_server.context import Context
from fhir_server.interactions.links import CURSOR, page_links
from fhir_server.interactions.parameters import Subset
from fhir_server.messages import Request, Response
from fhir_server.outcome import operation_outcome
from fhir_server.r4.bundles import bundle, entry
from fhir_server.r4.json import decode, encode
from fhir_server.search.page import cursor
from fhir_server.search.parse import Limits, SearchQuery, parse
from fhir_server.search.plan import Lists, plan, with_lists
from fhir_server.store.documents import Stored


async def search_type(request: Request, context: Context) -> Response:
    """Return a page of the resources of the type that meet all parameters."""
    query = search_query(request, context)
    if query.lists:
        query = with_lists(query, await _lists(query, context), context.parameters)
    wanted = plan(query, context.parameters, page_key=context.page_key)
    page = await context.store.search(wanted)
    after = cursor(page.after, wanted.subject, context.page_key) if page.after else ""
    understood = query.understood
    if query.cursor:
        understood = (*understood, (CURSOR, query.cursor))
    subset = Subset(wanted.summary, frozenset(wanted.elements))
    entries = [_match(one, subset, request, context) for one in page.entries]
    if query.ignored:
        outcome = encode(operation_outcome(query.ignored))
        entries.append(entry("", outcome, search={"mode": "outcome"}))
    links = page_links(request.base_url, request.type, understood, after)
    return Response(200, bundle("searchset", entries, links=links, total=page.total))


def search_query(request: Request, context: Context) -> SearchQuery:
    """Return the search that the parameters of ``request`` ask for."""
    settings = context.settings
    return parse(
        request.type,
        request.parameters,
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


def _match(stored: Stored, subset: Subset, request: Request, context: Context) -> bytes:
    return entry(
        f"{request.base_url}/{stored.type}/{stored.id}",
        subset.applied(stored.json, context.definitions),
        search={"mode": "match"},
    )
