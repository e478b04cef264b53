"""search-type with ``_contained``: what lies in other resources, of whatever type those are.

https://hl7.org/fhir/R4/search.html#contained

Results are ordered by the type of what was stored, then by its id, as over several types.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fhir_server.context import Context
from fhir_server.interactions.parameters import Subset
from fhir_server.interactions.searchset import Asked, entries_of, searchset
from fhir_server.messages import Request, Response
from fhir_server.r4.bundles import entry
from fhir_server.r4.json import decode, encode
from fhir_server.search.contained import contained_plans, containers, searched
from fhir_server.search.page import digest
from fhir_server.search.parse import CURSOR, REST, SearchQuery
from fhir_server.search.plan import window
from fhir_server.search.several import several
from fhir_server.search.wanted import Wanted
from fhir_server.store.documents import Shown

_MATCH = {"mode": "match"}


async def search_contained(
    request: Request,
    query: SearchQuery,
    context: Context,
    within: str = "",
    known: dict[Wanted, Any] | None = None,
) -> Response:
    """Return a page of what ``query`` finds in other resources, and with ``both`` beside them.

    ``within`` is the compartment that is searched; everything by default. ``known`` is what was
    looked up for ``query``.
    """
    existing = frozenset(await context.store.indexes.existing())
    types = [type for type in containers(context.parameters) if type in existing]
    if query.contained == "both" and query.type in existing and query.type not in types:
        types = sorted((*types, query.type))
    plans = contained_plans(query, context.parameters, types, within)
    place = f"{within}/{query.type}" if within else query.type
    subject = digest(f"{place} contained", query.understood)
    part = window(query.cursor, query.rest, subject, context.link_key)
    wanted = several(plans, part.after, part.until, backward=part.backward)
    page = await context.store.search_types(wanted)
    subset = Subset(query.summary, frozenset(query.elements))
    matches = None
    if query.contained_type == "contained":
        matches = await _contained(page.entries, query, subset, request, context)
        # Containers are what was counted.
        page = replace(page, total=None if page.total is None else len(matches))
    here = ((CURSOR, query.cursor), (REST, query.rest))
    asked = Asked(place, subject, query.understood, here, query.ignored, tuple(known or ()))
    return searchset(page, asked, subset, request, context, matches)


async def _contained(
    found: tuple[Shown, ...],
    query: SearchQuery,
    subset: Subset,
    request: Request,
    context: Context,
) -> list[bytes]:
    """Return an entry for each contained resource, and for those that are not, if both count."""
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
            entries += entries_of((one,), "match", subset, request, context)
        entries += [
            entry(f"{url}#{name}", subset.applied(json, context.definitions), search=_MATCH)
            for name, json in _parts(one, inside.get((one.type, one.id), ()))
        ]
    return entries


def _parts(stored: Shown, names: Sequence[str]) -> list[tuple[str, bytes]]:
    """Return those resources that ``stored`` contains under ``names``, as JSON."""
    if not names:
        return []
    resource = decode(stored.json)
    by_id = {one.get("id"): one for one in resource.get("contained", ())}
    return [(name, encode(by_id[name])) for name in names if name in by_id]
