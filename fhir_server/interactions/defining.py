"""Conformance resources by their canonical: what the packages on disk define, then what is stored.

https://hl7.org/fhir/R4/references.html#canonical

What is found is kept (``store/conformance.py``) until a conformance resource changes anywhere, so
that validating against a profile that was used before asks the database once a second at most.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from fhir_server.context import Context
from fhir_server.messages import Resource
from fhir_server.r4.expansion import Listed
from fhir_server.r4.json import decode_stored
from fhir_server.r4.published import rank_of
from fhir_server.r4.questions import Canonical
from fhir_server.search.escape import escape
from fhir_server.search.parse import parse
from fhir_server.search.plan import plan
from fhir_server.store.documents import Stored

_SAME_URL_MAX = 20  # versions of one definition that are compared
_LEAST_BYTES = 100  # of what is remembered of a canonical that means nothing here
_UNKNOWN = object()
_BYTES_APART = 100_000  # the hierarchy of a code system of more is made in a thread

Definition = Mapping[str, Any]


async def definitions(
    questions: Iterable[Canonical], context: Context
) -> dict[Canonical, Definition | None]:
    """Return the resource that each canonical means, ``None`` where there is none."""
    memory = await context.store.conformance.memory()
    found: dict[Canonical, Definition | None] = {}
    for one in questions:
        answer = memory.get(one, _UNKNOWN)
        if answer is _UNKNOWN:
            answer, size = await _definition(one, context)
            memory.put(one, answer, size + _LEAST_BYTES + len(one.url))
        found[one] = answer
    return found


async def definition(type: str, canonical: str, context: Context) -> Definition | None:
    """Return the resource of ``type`` that ``canonical`` means, or ``None``."""
    question = Canonical(type, canonical)
    return (await definitions([question], context))[question]


async def _definition(question: Canonical, context: Context) -> tuple[Definition | None, int]:
    if question.type not in context.definitions.resource_types:
        return None, 0
    found = await asyncio.to_thread(context.published.find, question.type, question.url)
    if found is not None:
        return found, 0
    return await stored_definition(question.type, question.url, context)


async def stored_definition(
    type: str, canonical: str, context: Context
) -> tuple[Definition | None, int]:
    """Return the stored resource that ``canonical`` means, and the bytes that were read for it.

    Without a version, that is an active one before others, then the newest. What belongs to a
    package that is not complete is not looked at.
    """
    url, _, version = canonical.partition("|")
    if not url:
        return None, 0
    parameters = [("url", escape(url)), *([("version", escape(version))] if version else [])]
    query = parse(type, parameters, context.parameters, count_default=_SAME_URL_MAX)
    page = await context.store.as_server.search(plan(query, context.parameters))
    parts = await context.store.parts()
    rows = [await decoded(one, context) for one in page.entries]
    found = [one for one in rows if version in ("", one.get("version")) and parts.is_whole(one)]
    return max(found, key=_rank, default=None), sum(len(one.json) for one in page.entries)


async def decoded(stored: Stored, context: Context) -> Resource:
    """Return the resource of a stored version, which is decoded once for as long as there is room.

    Nobody may change it: others have the same. A CodeSystem with its concepts is a :class:`Listed`.
    """
    # A resource that was removed for good and made again has the same numbers at another time.
    key = stored.type, stored.id, stored.version, stored.last_updated
    memory = context.store.conformance.decoded
    if (kept := memory.get(key)) is not None:
        return kept  # type: ignore[no-any-return]
    found = decode_stored(stored.json)
    if stored.type == "CodeSystem" and "concept" in found:
        is_large = len(stored.json) > _BYTES_APART
        found = await asyncio.to_thread(Listed, found) if is_large else Listed(found)
    memory.put(key, found, len(stored.json) + _LEAST_BYTES)
    return found


def _rank(one: Definition) -> tuple[bool, list[int], str, str]:
    version, updated = str(one.get("version", "")), str(one.get("meta", {}).get("lastUpdated", ""))
    return rank_of(str(one.get("status")), version, updated)
