"""Stored conformance resources by what they are called.

https://hl7.org/fhir/R4/references.html#canonical
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from fhir_server.context import Context
from fhir_server.outcome import FhirError, Issue
from fhir_server.r4.json import decode
from fhir_server.search.escape import escape
from fhir_server.search.parse import parse
from fhir_server.search.plan import plan
from fhir_server.search.wanted import Artifact

_NUMBERS = re.compile("[0-9]+")
_SAME_URL_MAX = 20  # versions of one definition that are compared


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
