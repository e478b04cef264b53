"""Searches that need something from the database before they can be compiled.

What ``parse`` says it wants (``search/wanted.py``) is looked up, and the search is parsed again
with what is known of it, until nothing is wanted: a value set may take in another, which takes in a
code system.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fhir_server.context import Context
from fhir_server.outcome import FhirError, Issue
from fhir_server.r4.json import decode
from fhir_server.search.escape import escape
from fhir_server.search.parse import SearchQuery, parse
from fhir_server.search.plan import plan
from fhir_server.search.wanted import Artifact, Kin, Known, Wanted

LOOKUPS_MAX = 100
"""The resources that one search may have looked up before it is run."""

_NUMBERS = re.compile("[0-9]+")
_SAME_URL_MAX = 20  # versions of one definition that are compared


async def asked(
    read: Callable[[Known], SearchQuery], context: Context, known: dict[Wanted, Any] | None = None
) -> SearchQuery:
    """Return what ``read`` parses once it has everything that it wants.

    ``known`` is added to, for searches that want the same.

    Raises ``too-costly`` for a search that wants too much.
    """
    known = {} if known is None else known
    while wanted := (query := read(known)).wanted:
        if len(known) + len(wanted) > LOOKUPS_MAX:
            text = f"What this search names leads to more than {LOOKUPS_MAX} other resources."
            raise FhirError(Issue("too-costly", text), status=400)
        for one in sorted(wanted):
            known[one] = await _looked_up(one, context)
    return query


async def _looked_up(wanted: Wanted, context: Context) -> Any:
    if isinstance(wanted, Kin):
        return await context.store.kin(wanted)
    type, name = wanted
    if name.startswith(f"{type}/"):
        found = await context.store.read(type, name.removeprefix(f"{type}/"))
        return decode(found.json) if found and not found.deleted else None
    return _best(await _of_url(wanted, context))


async def _of_url(wanted: Artifact, context: Context) -> list[Mapping[str, Any]]:
    """Return the stored versions of a definition that its canonical can mean."""
    url, _, version = wanted.name.partition("|")
    if not url:
        return []
    parameters = [("url", escape(url)), *([("version", escape(version))] if version else [])]
    query = parse(wanted.type, parameters, context.parameters, count_default=_SAME_URL_MAX)
    page = await context.store.search(plan(query, context.parameters))
    found = [decode(one.json) for one in page.entries]
    return [one for one in found if version in ("", one.get("version"))]


def _best(found: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the one that is meant without a version: active before others, then the newest."""

    def rank(one: Mapping[str, Any]) -> tuple[bool, list[int], str, str]:
        version = str(one.get("version", ""))
        updated = str(one.get("meta", {}).get("lastUpdated", ""))
        return (
            one.get("status") == "active",
            [*map(int, _NUMBERS.findall(version))],
            version,
            updated,
        )

    return max(found, key=rank, default=None)
