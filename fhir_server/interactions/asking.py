"""Searches that need something from the database before they can be compiled.

What ``parse`` says it wants (``search/wanted.py``) is looked up, and the search is parsed again
with what is known of it, until nothing is wanted: a value set may take in another, which takes in a
code system.
"""

from collections.abc import Callable
from typing import Any

from fhir_server.context import Context
from fhir_server.interactions.stored import of_url
from fhir_server.interactions.terms import Terms
from fhir_server.outcome import FhirError, Issue
from fhir_server.r4.expansion import Shelved
from fhir_server.r4.json import decode
from fhir_server.r4.packages import CONFORMANCE
from fhir_server.r4.selections import asked as asked_codes
from fhir_server.r4.selections import settled
from fhir_server.search.parse import SearchQuery
from fhir_server.search.wanted import CODES_MAX, Kin, Known, Listing, Wanted
from fhir_server.store import concepts

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
        for one in sorted(query.wanted, key=repr):
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
    if isinstance(wanted, Listing):
        listed = await _listed(wanted, context)
        return listed, _BYTES_OF_ID * len(listed or ())
    type, name = wanted
    if type == "CodeSystem" and not name.startswith(f"{type}/"):
        found = await (await Terms.of(context)).artifact(type, name)
        if isinstance(found, Shelved):
            return found, 0
    if not name.startswith(f"{type}/"):
        found, bytes = await of_url(wanted, context)
        if found is None and type == "ValueSet":  # one that follows from its url
            return await (await Terms.of(context)).artifact(type, name), _BYTES_OF_ID
        return found, bytes
    # A definition is the server's own knowledge; a List says what is true of somebody.
    store = context.store.as_server if type in CONFORMANCE else context.store
    found = await store.read(type, name.removeprefix(f"{type}/"))
    if found is None or found.deleted:
        return None, 0
    return decode(found.json), len(found.json)


async def _listed(wanted: Listing, context: Context) -> frozenset[str] | None:
    """Return the codes of a large system that are wanted; ``None`` for too many."""
    terms = await Terms.of(context)
    system = await terms.system(wanted.system)
    if not isinstance(system, Shelved) or system.shelf is None:
        return None
    known = await terms.concepts(system, asked_codes(wanted.codes))
    codes = settled(wanted.codes, known)
    place = concepts.Wanted(system.shelf, codes)
    page = await context.store.concepts.codes(place, CODES_MAX + 1)
    return None if len(page) > CODES_MAX else frozenset(page)
