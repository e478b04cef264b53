"""Searches that need something from the database before they can be compiled.

What ``parse`` says it wants (``search/wanted.py``) is looked up, and the search is parsed again
with what is known of it, until nothing is wanted: a value set may take in another, which takes in a
code system.
"""

from collections.abc import Callable
from typing import Any

from fhir_server.context import Context
from fhir_server.interactions.defining import stored_definition
from fhir_server.outcome import FhirError, Issue
from fhir_server.r4.json import decode
from fhir_server.search.parse import SearchQuery
from fhir_server.search.wanted import Kin, Known, Wanted

LOOKUPS_MAX = 100
"""The resources that one search may have looked up before it is run."""
ROUNDS_MAX = 10
"""How far value sets may take in each other: each level is parsed again."""
BYTES_MAX = 8 * 1024 * 1024
"""What all of that may come to; decoding a megabyte takes some 10 ms."""
_BYTES_OF_ID = 400  # an id of a hierarchy, in work: 20,000 of them


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
        return await stored_definition(type, name, context)
    found = await context.store.read(type, name.removeprefix(f"{type}/"))
    if found is None or found.deleted:
        return None, 0
    return decode(found.json), len(found.json)
