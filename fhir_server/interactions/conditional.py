"""Conditional references: ``Patient?identifier=…`` in the place of ``Patient/1``.

https://hl7.org/fhir/R4/http.html#trules

They are resolved at the end of a transaction, so that they find what it has just written. Exactly
one resource must match.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

from fhir_server.context import Context
from fhir_server.interactions.entries import CONDITIONAL
from fhir_server.messages import Resource
from fhir_server.outcome import FhirError, Issue, shown
from fhir_server.search.parse import parse
from fhir_server.search.plan import plan
from fhir_server.store.changes import Change


async def resolved(change: Change, urls: frozenset[str], context: Context) -> Change:
    """Return ``change`` with each of ``urls`` replaced by the one resource that it finds.

    Raises status 412 where none or several match.
    """
    assert change.resource is not None
    places = {url: await _place(url, context) for url in sorted(urls)}
    return replace(change, resource=_replaced(change.resource, places))


async def _place(url: str, context: Context) -> str:
    match = CONDITIONAL.fullmatch(url)
    assert match is not None
    type, query = match.group(1), match.group(2)
    if type not in context.definitions.resource_types:
        raise FhirError(Issue("value", f"The reference {shown(url)} names no resource type."))
    wanted = parse(
        type,
        parse_qsl(query, keep_blank_values=True),
        context.parameters,
        count_default=2,
    )
    page = await context.store.search(plan(wanted, context.parameters))
    if len(page.entries) != 1:
        count = "no resource" if not page.entries else "several resources"
        raise FhirError(
            Issue(
                "multiple-matches" if page.entries else "not-found",
                f"The conditional reference {shown(url)} finds {count}; it must find exactly one.",
            ),
            status=412,
        )
    return f"{type}/{page.entries[0].id}"


def _replaced(value: Any, places: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_replaced(one, places) for one in value]
    if not isinstance(value, dict):
        return value
    result: Resource = {name: _replaced(one, places) for name, one in value.items()}
    if value.get("reference") in places:
        result["reference"] = places[value["reference"]]
    return result
