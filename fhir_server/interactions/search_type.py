"""search-type: ``GET [base]/[type]?…`` and ``POST [base]/[type]/_search``.

https://hl7.org/fhir/R4/http.html#search

``total`` is there when the client asks for it (``_total=accurate``), and when the first page holds
everything; counting costs a look at every match, so it is not done unasked.

Where more comes along (``_include``, ``_revinclude``) than a page holds, ``next`` leads to pages
with the rest of it, and then on to the next matches.
"""

from functools import partial
from typing import Any

from fhir_server.context import Context
from fhir_server.interactions.asking import asked
from fhir_server.interactions.links import page_links
from fhir_server.interactions.parameters import Subset
from fhir_server.interactions.search_contained import search_contained
from fhir_server.messages import Parameters, Request, Response
from fhir_server.outcome import Issue, operation_outcome
from fhir_server.r4.bundles import bundle, entry
from fhir_server.r4.json import encode
from fhir_server.search.page import cursor
from fhir_server.search.parse import CURSOR, REST, Given, Limits, SearchQuery, parse
from fhir_server.search.plan import Plan, plan, rest_subject
from fhir_server.search.wanted import Wanted
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
    query = await search_query(type, request.parameters, request, context)
    if query.contained != "false":
        return await search_contained(request, query, context, within)
    wanted = plan(query, context.parameters, page_key=context.page_key, within=within)
    page = await context.store.search(wanted)
    place = f"{within}/{type}" if within else type
    understood, after, rest = _following(query, wanted, page, context)
    links = page_links(request.base_url, place, (*understood, *request.format), after, rest)
    entries = _entries(query, wanted, page, request, context)
    return Response(200, bundle("searchset", entries, links=links, total=page.total))


def _following(
    query: SearchQuery, wanted: Plan, page: Page, context: Context
) -> tuple[Parameters, str, str]:
    """Return the parameters of this page, the cursor of the next, and that of what still belongs
    to this one."""
    place = page.included.after
    after = cursor(page.after, wanted.subject, context.page_key) if page.after else ""
    rest = (*place, *(page.after or ())) if place else ()
    here = tuple(
        (name, text) for name, text in ((CURSOR, query.cursor), (REST, query.rest)) if text
    )
    more = cursor(rest, rest_subject(wanted.subject), context.page_key) if rest else ""
    return (*query.understood, *here), after, more


def _entries(
    query: SearchQuery, wanted: Plan, page: Page, request: Request, context: Context
) -> list[bytes]:
    """Return the entries of the page: matches, what comes along, and what is to be said of it."""
    subset = Subset(wanted.summary, frozenset(wanted.elements))
    # The elements are those of what is searched for; what comes along has others.
    along = Subset(wanted.summary)
    entries = [match_entry(one, "match", subset, request, context) for one in page.entries]
    entries += [
        match_entry(one, "include", along, request, context) for one in page.included.entries
    ]
    if issues := (*query.ignored, *_said_of(page.included)):
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


async def search_query(
    type: str,
    parameters: Parameters,
    request: Request,
    context: Context,
    known: dict[Wanted, Any] | None = None,
) -> SearchQuery:
    """Return the search of ``type`` that ``parameters`` ask for, as ``request`` wants it read.

    ``known`` has what was looked up for other searches of the request, and is added to.
    """
    settings = context.settings
    read = partial(
        parse,
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
    )
    now = context.now()
    return await asked(lambda known: read(given=Given(now, known)), context, known)


def match_entry(
    stored: Stored, mode: str, subset: Subset, request: Request, context: Context
) -> bytes:
    """Return the entry of ``stored``; ``mode`` is why it is there: ``match`` or ``include``."""
    return entry(
        f"{request.base_url}/{stored.type}/{stored.id}",
        subset.applied(stored.json, context.definitions),
        search={"mode": mode},
    )
