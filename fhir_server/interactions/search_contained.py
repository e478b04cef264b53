"""search-type with ``_contained``: what lies in other resources, of whatever type those are.

https://hl7.org/fhir/R4/search.html#contained

Results are ordered by the type of what was stored, then by its id, as over several types.
"""

from collections.abc import Sequence

from fhir_server.context import Context
from fhir_server.interactions.links import page_links
from fhir_server.interactions.parameters import Subset
from fhir_server.messages import Request, Response
from fhir_server.outcome import operation_outcome
from fhir_server.r4.bundles import bundle, entry
from fhir_server.r4.json import decode, encode
from fhir_server.search.contained import contained_plans, containers, searched
from fhir_server.search.page import cursor, digest, values_of
from fhir_server.search.parse import CURSOR, SearchQuery
from fhir_server.search.plan import following
from fhir_server.store.documents import Stored

_MATCH = {"mode": "match"}


async def search_contained(
    request: Request, query: SearchQuery, context: Context, within: str = ""
) -> Response:
    """Return a page of what ``query`` finds in other resources, and with ``both`` beside them.

    ``within`` is the compartment that is searched; everything by default.
    """
    existing = frozenset(await context.store.indexes.existing())
    types = [type for type in containers(context.parameters) if type in existing]
    if query.contained == "both" and query.type in existing and query.type not in types:
        types = sorted((*types, query.type))
    plans = contained_plans(query, context.parameters, types, within)
    place = f"{within}/{query.type}" if within else query.type
    subject = digest(f"{place} contained", query.understood)
    start = query.cursor
    first = following(plans, values_of(start, subject, context.page_key) if start else ())
    counted = [one for one in plans if one.total == "accurate"]
    page = await context.store.search_types(first, counted)
    entries = await _entries(page.entries, query, request, context)
    total = page.total
    if total is None and not start and not page.after:
        total = len(entries)
    if query.ignored:
        outcome = encode(operation_outcome(query.ignored))
        entries.append(entry("", outcome, search={"mode": "outcome"}))
    after = cursor(page.after, subject, context.page_key) if page.after else ""
    here = (*query.understood, *(((CURSOR, start),) if start else ()))
    links = page_links(request.base_url, place, (*here, *request.format), after)
    return Response(200, bundle("searchset", entries, links=links, total=total))


async def _entries(
    found: tuple[Stored, ...], query: SearchQuery, request: Request, context: Context
) -> list[bytes]:
    """Return an entry for each container or, where those are asked for, each contained resource."""
    subset = Subset(query.summary, frozenset(query.elements))
    if query.contained_type == "container":
        return [
            entry(
                f"{request.base_url}/{one.type}/{one.id}",
                subset.applied(one.json, context.definitions),
                search=_MATCH,
            )
            for one in found
        ]
    filter = searched(query, context.parameters)
    inside: dict[tuple[str, str], list[str]] = {}
    for type in dict.fromkeys(one.type for one in found):
        ids = [one.id for one in found if one.type == type]
        parts = await context.store.contained_ids((type, ids), query.type, filter)
        inside |= {(type, id): names for id, names in parts.items()}
    both = query.contained == "both"
    own = [one.id for one in found if both and one.type == query.type]
    plain = await context.store.own_ids((query.type, own), filter) if own else frozenset()
    entries = []
    for one in found:
        url = f"{request.base_url}/{one.type}/{one.id}"
        if both and one.type == query.type and one.id in plain:
            entries.append(entry(url, subset.applied(one.json, context.definitions), search=_MATCH))
        entries += [
            entry(f"{url}#{name}", subset.applied(json, context.definitions), search=_MATCH)
            for name, json in _parts(one, inside.get((one.type, one.id), ()))
        ]
    return entries


def _parts(stored: Stored, names: Sequence[str]) -> list[tuple[str, bytes]]:
    """Return those resources that ``stored`` contains under ``names``, as JSON."""
    if not names:
        return []
    resource = decode(stored.json)
    by_id = {one.get("id"): one for one in resource.get("contained", ())}
    return [(name, encode(by_id[name])) for name in names if name in by_id]
