"""search-system: ``GET [base]?…`` and ``POST [base]/_search``, over several types at once.

https://hl7.org/fhir/R4/http.html#search

``_type`` says which types; without it, all that may be searched. The parameters are those that all
of these types have, also in ``_sort``. Without ``_sort`` results are ordered by type, then as in a
search of that type.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from fhir_server.context import Context
from fhir_server.interactions.admitting import check_named, may_search
from fhir_server.interactions.links import unpacked_request
from fhir_server.interactions.parameters import Subset, value_of
from fhir_server.interactions.search_type import search_query
from fhir_server.interactions.searchset import Asked, searchset
from fhir_server.messages import Parameters, Request, Response
from fhir_server.outcome import FhirError, Issue, nearest, shown
from fhir_server.search.chain import HAS
from fhir_server.search.include import NAMES as INCLUDES
from fhir_server.search.page import EXPLAIN, digest
from fhir_server.search.parse import CURSOR, REST
from fhir_server.search.plan import plan, window
from fhir_server.search.several import check_sort, several
from fhir_server.search.special import DOCUMENTATION
from fhir_server.search.wanted import Wanted

TYPE = "_type"
_OWN = (TYPE, CURSOR, REST)  # read here, not with the parameters of each type
_OF_ONE_TYPE = ("_contained", "_containedType", "_query")  # not served over several
_OF_EVERY_TYPE = (
    *("_count", "_total", "_summary", "_elements", "_sort", EXPLAIN, HAS),
    *INCLUDES,
    *DOCUMENTATION,
)


async def search_system(request: Request, context: Context) -> Response:
    """Return a page of the resources of all types, or of those in ``_type``."""
    return await search_types(request, context, context.definitions.resource_types)


async def search_types(
    request: Request, context: Context, members: Collection[str], within: str = ""
) -> Response:
    """Return a page of what meets all parameters, of those of ``members`` that ``_type`` names.

    ``within`` is the compartment that is searched; everything by default.
    """
    place = f"{within}/*" if within else ""
    request = unpacked_request(request, place, context.link_key)
    named, cursor, rest = (value_of(request, name) for name in _OWN)
    types = _types(named, context, members)
    given, ignored = _common(request, types, context)
    looked_up: dict[Wanted, Any] = {}
    known = await search_query((types[0], *types), given, request, context, looked_up)
    check_sort(known.sort, {type: context.parameters.of(type) for type in types})
    understood = (*(((TYPE, named),) if named else ()), *known.understood)
    subject = digest(place, understood)
    part = window(cursor, rest, subject, context.link_key)
    existing = await context.store.indexes.existing()
    strict = replace(request, prefer={})  # what one type has understood no other may leave out
    plans = []
    for type in types:
        if type in existing and may_search(type, context):
            query = await search_query((type, *types), known.understood, strict, context, looked_up)
            plans.append(plan(query, context.parameters, within=within))
    wanted = several(
        plans,
        part.after,
        part.until,
        backward=part.backward,
        is_sorted=bool(known.sort),
        rest=part.rest,
    )
    page = await context.store.search_types(wanted)
    here = ((CURSOR, cursor), (REST, rest))
    said = (*ignored, *known.ignored)
    asked = Asked(place, subject, understood, here, said, tuple(looked_up))
    subset = Subset(known.summary, frozenset(known.elements))
    return searchset(page, asked, subset, request, context)


def _types(named: str, context: Context, members: Collection[str]) -> tuple[str, ...]:
    """Return the types that are searched, in alphabetical order."""
    if not named:
        return tuple(sorted(members))
    types = sorted(set(named.split(",")))
    for type in types:
        if type not in members:
            near = nearest(type, context.definitions.resource_types)
            text = f"_type names {shown(type)}, which is not among what is searched.{near}"
            raise FhirError(Issue("value", text))
    check_named(types, context)
    return tuple(types)


def _common(
    request: Request, types: Sequence[str], context: Context
) -> tuple[Parameters, tuple[Issue, ...]]:
    """Return the parameters that all of ``types`` have, and what is to be said of the others.

    Raises ``not-supported`` for others, unless the client prefers lenient handling.
    """
    tables = [context.parameters.of(type) for type in types]
    common = set.intersection(*map(set, tables))
    given, ignored = [], []
    for name, value in request.parameters:
        code = name.partition(":")[0].partition(".")[0]
        if name in _OWN:
            continue
        if code in _OF_ONE_TYPE:
            text = f"{code} is not served yet in a search over several types; search one type."
            raise FhirError(Issue("not-supported", text))
        refused = _uncommon(code, common) if code not in _OF_EVERY_TYPE else ""
        if not refused and code == "_sort" and value:
            others = [one.strip().removeprefix("-") for one in value.split(",")]
            refused = next((_uncommon(one, common) for one in others if one not in common), "")
        if not refused:
            given.append((name, value))
        elif request.prefer.get("handling") == "lenient":
            ignored.append(Issue("not-supported", f"Ignored: {refused}", severity="warning"))
        else:
            raise FhirError(Issue("not-supported", refused))
    return tuple(given), tuple(ignored)


def _uncommon(code: str, common: Collection[str]) -> str:
    """Return why ``code`` cannot be asked of all types, or ``""``."""
    if code in common:
        return ""
    return (
        f"Not all of the types that are searched have {shown(code)}; name those that do in "
        f"{TYPE}.{nearest(code, common)}"
    )
