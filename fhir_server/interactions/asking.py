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
ROUNDS_MAX = 10
"""How far value sets may take in each other: each level is parsed again."""
BYTES_MAX = 8 * 1024 * 1024
"""What all of that may come to; decoding a megabyte takes some 10 ms."""
_BYTES_OF_ID = 400  # an id of a hierarchy, in work: 20,000 of them

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
    room = BYTES_MAX
    for _ in range(ROUNDS_MAX):
        query = read(known)
        if not query.wanted:
            return query
        if len(known) + len(query.wanted) > LOOKUPS_MAX:
            raise _too_much(f"leads to more than {LOOKUPS_MAX} other resources")
        for one in sorted(query.wanted):
            known[one], bytes = await _looked_up(one, context)
            room -= bytes
            if room < 0:
                raise _too_much(f"leads to more than {BYTES_MAX >> 20} MB of other resources")
    raise _too_much(f"leads through more than {ROUNDS_MAX} levels of other resources")


def _too_much(what: str) -> FhirError:
    return FhirError(Issue("too-costly", f"What this search names {what}."), status=400)


async def _looked_up(wanted: Wanted, context: Context) -> tuple[Any, int]:
    """Return what is known of ``wanted``, and the bytes that it took."""
    if isinstance(wanted, Kin):
        ids = await context.store.kin(wanted)
        return ids, _BYTES_OF_ID * len(ids)
    type, name = wanted
    if not name.startswith(f"{type}/"):
        return await of_url(wanted, context)
    found = await context.store.read(type, name.removeprefix(f"{type}/"))
    if found is None or found.deleted:
        return None, 0
    return decode(found.json), len(found.json)


async def of_url(wanted: Artifact, context: Context) -> tuple[Mapping[str, Any] | None, int]:
    """Return the stored definition that its canonical means, and the bytes that it took."""
    url, _, version = wanted.name.partition("|")
    if not url:
        return None, 0
    parameters = [("url", escape(url)), *([("version", escape(version))] if version else [])]
    query = parse(wanted.type, parameters, context.parameters, count_default=_SAME_URL_MAX)
    page = await context.store.search(plan(query, context.parameters))
    found = [decode(one.json) for one in page.entries]
    bytes = sum(len(one.json) for one in page.entries)
    return _best(one for one in found if version in ("", one.get("version"))), bytes


async def stored_maps(
    context: Context, parameter: str, systems: Iterable[str], most: int
) -> list[dict[str, Any]]:
    """Return the stored ConceptMaps that have one of ``systems`` as ``parameter``.

    Raises ``too-costly`` where there are more than ``most``.
    """
    value = ",".join(escape(one) for one in sorted(systems))
    if not value:
        return []
    query = parse("ConceptMap", [(parameter, value)], context.parameters, count_default=most + 1)
    page = await context.store.search(plan(query, context.parameters))
    if len(page.entries) > most:
        text = f"More than {most} maps fit what is asked for; name one by its url."
        raise FhirError(Issue("too-costly", text), status=422)
    return [decode(one.json) for one in page.entries]


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
