"""search-type: ``GET [base]/[type]?…`` and ``POST [base]/[type]/_search``.

https://hl7.org/fhir/R4/http.html#search

``total`` is there when the client asks for it (``_total=accurate``), and when the first page holds
everything; counting costs a look at every match, so it is not done unasked.

Where more comes along (``_include``, ``_revinclude``) than a page holds, ``next`` leads to pages
with the rest of it, and then on to the next matches.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from fhir_server.context import Context
from fhir_server.interactions.asking import asked
from fhir_server.interactions.links import unpacked_request
from fhir_server.interactions.parameters import Subset
from fhir_server.interactions.search_contained import search_contained
from fhir_server.interactions.searchset import Asked, searchset
from fhir_server.messages import Parameters, Request, Response
from fhir_server.search.parse import CURSOR, REST, Given, Limits, SearchQuery, parse
from fhir_server.search.plan import plan
from fhir_server.search.wanted import Wanted


async def search_type(request: Request, context: Context) -> Response:
    """Return a page of the resources of the type that meet all parameters."""
    return await search_one(request, request.type, context)


async def search_one(request: Request, type: str, context: Context, within: str = "") -> Response:
    """Return a page of the resources of ``type`` that meet all parameters of ``request``.

    ``within`` is the compartment that is searched, such as ``Patient/1``; everything by default.
    """
    place = f"{within}/{type}" if within else type
    request = unpacked_request(request, place, context.link_key)
    known: dict[Wanted, Any] = {}
    query = await search_query(type, request.parameters, request, context, known)
    if query.contained != "false":
        return await search_contained(request, query, context, within, known)
    wanted = plan(query, context.parameters, page_key=context.link_key, within=within)
    page = await context.store.searched(wanted)
    here = ((CURSOR, query.cursor), (REST, query.rest))
    question = Asked(place, wanted.subject, query.understood, here, query.ignored, tuple(known))
    subset = Subset(wanted.summary, frozenset(wanted.elements))
    return searchset(page, question, subset, request, context)


def may_explain(context: Context) -> bool:
    """Whether a search may ask to be explained: how much was looked at says how much there is."""
    return context.settings.is_explaining and context.store.plan is None


async def search_query(
    type: str | Sequence[str],
    parameters: Parameters,
    request: Request,
    context: Context,
    known: dict[Wanted, Any] | None = None,
) -> SearchQuery:
    """Return the search of ``type`` that ``parameters`` ask for, as ``request`` wants it read.

    Where several types are searched at once, ``type`` is the one that is meant here, and behind it
    all of them. ``known`` has what was looked up for other searches of the request, and is added
    to.
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
            explain=may_explain(context),
        ),
    )
    now = context.now()
    return await asked(lambda known: read(given=Given(now, known)), context, known)
