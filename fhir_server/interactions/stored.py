"""Stored conformance resources by what they are called.

https://hl7.org/fhir/R4/references.html#canonical
"""

from collections.abc import Iterable, Mapping
from typing import Any

from fhir_server.context import Context
from fhir_server.interactions.defining import decoded, stored_definition
from fhir_server.outcome import FhirError, Issue
from fhir_server.search.escape import escape
from fhir_server.search.parse import parse
from fhir_server.search.plan import plan
from fhir_server.search.wanted import Artifact


async def of_url(wanted: Artifact, context: Context) -> tuple[Mapping[str, Any] | None, int]:
    """Return the stored definition that its canonical means, and the bytes that it took."""
    return await stored_definition(wanted.type, wanted.name, context)


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
    page = await context.store.as_server.search(plan(query, context.parameters))
    if len(page.entries) > most:
        text = f"More than {most} maps fit what is asked for; name one by its url."
        raise FhirError(Issue("too-costly", text), status=422)
    return [await decoded(one, context) for one in page.entries]
