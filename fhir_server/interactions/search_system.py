"""search-system: ``GET [base]?…`` and ``POST [base]/_search``, over several types at once.

https://hl7.org/fhir/R4/http.html#search

``_type`` says which types; without it, all. The parameters are those that all of these types have.
Results are ordered by type, then by id: a page goes on where the one before ended.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from fhir_server.context import Context
from fhir_server.interactions.links import page_links
from fhir_server.interactions.parameters import Subset, value_of
from fhir_server.interactions.search_type import match_entry, search_query
from fhir_server.messages import Request, Response
from fhir_server.outcome import FhirError, Issue, nearest, operation_outcome, shown
from fhir_server.r4.bundles import bundle, entry
from fhir_server.r4.json import encode
from fhir_server.search.chain import HAS
from fhir_server.search.page import cursor, digest, foreign_page, values_of
from fhir_server.search.parameters import ID
from fhir_server.search.parse import CURSOR, SearchQuery
from fhir_server.search.plan import Plan, plan
from fhir_server.store.search import Page

TYPE = "_type"
# What orders or follows the matches of one type, and is not served over several.
_OF_ONE_TYPE = ("_sort", "_include", "_revinclude", "_rest")
_OF_EVERY_TYPE = ("_count", "_total", "_summary", "_elements", HAS)


async def search_system(request: Request, context: Context) -> Response:
    """Return a page of the resources of all types, or of those in ``_type``."""
    return await search_types(request, context, context.definitions.resource_types)


async def search_types(
    request: Request, context: Context, members: Collection[str], within: str = ""
) -> Response:
    """Return a page of what meets all parameters, of those of ``members`` that ``_type`` names.

    ``within`` is the compartment that is searched; everything by default.
    """
    types = _types(request, context, members)
    given = tuple(pair for pair in request.parameters if pair[0] not in (TYPE, CURSOR))
    _check_common(given, types, context)
    known = search_query(types[0], given, request, context) if types else None
    existing = await context.store.indexes.existing()
    queries = [search_query(type, given, request, context) for type in types if type in existing]
    plans = [plan(query, context.parameters, within=within) for query in queries]
    place = f"{within}/*" if within else ""
    named = value_of(request, TYPE)
    understood = (*(((TYPE, named),) if named else ()), *(known.understood if known else ()))
    subject = digest(place, understood)
    start = value_of(request, CURSOR)
    first = _from(plans, values_of(start, subject, context.page_key) if start else ())
    counted = [one for one in plans if one.total == "accurate"]
    page = await context.store.search_types(first, counted)
    after = cursor(page.after, subject, context.page_key) if page.after else ""
    here = (*understood, *(((CURSOR, start),) if start else ()))
    total = page.total
    if total is None and not start and not page.after:
        total = len(page.entries)
    links = page_links(request.base_url, place, (*here, *request.format), after)
    entries = _entries(page, known, plans, request, context)
    return Response(200, bundle("searchset", entries, links=links, total=total))


def _entries(
    page: Page,
    known: SearchQuery | None,
    plans: Sequence[Plan],
    request: Request,
    context: Context,
) -> list[bytes]:
    subset = Subset(plans[0].summary, frozenset(plans[0].elements)) if plans else Subset()
    entries = [match_entry(one, "match", subset, request, context) for one in page.entries]
    if known and known.ignored:
        outcome = encode(operation_outcome(known.ignored))
        entries.append(entry("", outcome, search={"mode": "outcome"}))
    return entries


def _types(request: Request, context: Context, members: Collection[str]) -> tuple[str, ...]:
    """Return the types that are searched, in alphabetical order."""
    named = value_of(request, TYPE)
    if not named:
        return tuple(sorted(members))
    types = sorted(set(named.split(",")))
    for type in types:
        if type not in members:
            near = nearest(type, context.definitions.resource_types)
            text = f"_type names {shown(type)}, which is not among what is searched.{near}"
            raise FhirError(Issue("value", text))
    return tuple(types)


def _check_common(given: Sequence[tuple[str, str]], types: Sequence[str], context: Context) -> None:
    """Refuse the parameters that only some of ``types`` have."""
    common = set.intersection(*(set(context.parameters.of(type)) for type in types))
    for name, _ in given:
        code = name.partition(":")[0].partition(".")[0]
        if code in _OF_ONE_TYPE:
            text = f"{code} is not served yet in a search over several types; search one type."
            raise FhirError(Issue("not-supported", text))
        if code not in common and code not in _OF_EVERY_TYPE:
            text = (
                f"Not all of the types that are searched have {shown(code)}; name those that do in "
                f"_type.{nearest(code, common)}"
            )
            raise FhirError(Issue("not-supported", text))


def _from(plans: Sequence[Plan], key: Sequence[Any]) -> list[Plan]:
    """Return the plans of what comes after ``key``: a type, then the key inside that type."""
    if not key:
        return list(plans)
    type, *inside = key
    rest = [one for one in plans if one.type >= type]
    if inside and rest and rest[0].type == type:
        if len(inside) != len([one for one in rest[0].sort if one.code != ID]) + 1:
            raise foreign_page()  # written by a release that had another order
        rest[0] = replace(rest[0], after=tuple(inside))
    return rest
