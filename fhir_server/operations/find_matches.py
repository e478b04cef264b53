"""``CodeSystem/$find-matches``: the concepts that have given properties.

https://hl7.org/fhir/R4/codesystem-operation-find-matches.html
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fhir_server.context import Context
from fhir_server.interactions.terms import System, Terms
from fhir_server.messages import Request, Response
from fhir_server.operations import named
from fhir_server.operations.asked import RESOURCES, Given, given
from fhir_server.operations.bodies import parameters_out
from fhir_server.operations.named import canonical
from fhir_server.outcome import FhirError, Issue, shown
from fhir_server.r4.codes import property_text
from fhir_server.r4.expansion import Listed
from fhir_server.r4.selections import Both, Codes, Either, Having, Shown, holds, key
from fhir_server.registry import Operation
from fhir_server.store.concepts import Wanted
from fhir_server.terminology.judging import Concept

_TABLE = {
    "system": "uri",
    "version": "string",
    "property": "parts",
    "exact": "boolean",
    "compositional": "boolean",
    RESOURCES: "Resource",
}
_MATCHES_MAX = 100
_LOOKED_AT_MAX = 1000  # concepts of a large system among which the best are found
_PROPERTIES_MAX = 50


async def find_matches(request: Request, context: Context) -> Response:
    """Return the concepts that have all the properties; with ``exact`` false also those that have
    some of them, the best first, each with what it has not.

    Raises ``required`` without a system, a property or ``exact``; ``not-supported`` for what is to
    be put together of several codes.
    """
    asked = given(request, context, _TABLE)
    inline = await named.instance(request, context) if request.id else None
    terms = await Terms.of(context, named.brought(asked, inline))
    url = named.named(inline)["url"] if inline else asked.text("system")
    if not url or "exact" not in asked.values or "property" not in asked.values:
        raise named.required(asked, "a system, exact, and at least one property")
    if asked.one("compositional", False):
        text = "compositional is not served: there are no post-coordinated codes here."
        raise FhirError(Issue("not-supported", text))
    properties = _properties(asked)
    system = await named.code_system(terms, canonical(url, asked.text("version")))
    sets = [_set(code, value) for code, value, _ in properties]
    exact = asked.one("exact")
    codes: Codes = Both(tuple(sets)) if exact else Either(tuple(sets))
    found = await _found(system, codes, context)
    rated = sorted(
        ((sum(not holds(one, each) for one in sets), each["code"], each) for each in found),
        key=lambda one: one[:2],
    )
    matches = [_match(url, one, properties, sets) for _, _, one in rated[:_MATCHES_MAX]]
    return Response(200, parameters_out(matches))


def _properties(asked: Given) -> list[tuple[str, str, dict[str, Any]]]:
    """Return the code, the value as text, and the value as it was sent, of each property."""
    found = []
    for parts in asked.many("property"):
        by_name = {one["name"]: one for one in parts}
        if "subproperty" in by_name:
            text = "property.subproperty is not served: concepts have plain properties here."
            raise FhirError(Issue("not-supported", text))
        code = by_name.get("code", {}).get("valueCode")
        value = {k: v for k, v in by_name.get("value", {}).items() if k.startswith("value")}
        if not code or not value or by_name.keys() - {"code", "value"}:
            raise named.required(asked, "a code and a value in each property")
        text_value = property_text({"code": code, **value})
        found.append((code, text_value or "", value))
    if len(found) > _PROPERTIES_MAX:
        text = f"$find-matches takes at most {_PROPERTIES_MAX} properties."
        raise FhirError(Issue("too-costly", text), status=400)
    return found


def _set(code: str, value: str) -> Codes:
    if code == "code":
        return frozenset((value,))
    return Shown((value,)) if code == "display" else Having(code, (value,))


async def _found(system: System, codes: Codes, context: Context) -> Sequence[Concept]:
    if not isinstance(system, Listed):
        if system.shelf is None:
            text = f"The codes of {shown(system.get('url'))} have no properties here."
            raise FhirError(Issue("not-supported", text))
        wanted = Wanted(system.shelf, codes)
        return await context.store.concepts.page(wanted, 0, _LOOKED_AT_MAX)
    return await asyncio.to_thread(_held, system, codes)


def _held(system: Listed, codes: Codes) -> list[Concept]:
    concepts = (_keyed(system, one) for one in system.hierarchy.concepts.values())
    return [one for one in concepts if holds(codes, one)]


def _keyed(system: Listed, concept: Concept) -> Concept:
    """Return ``concept`` as a database would have it."""
    code = concept["code"]
    keys = {key("parent", one) for one in system.hierarchy.parents(code)}
    for one in concept.get("property", ()):
        if (text := property_text(one)) is not None:
            keys.add(key(one["code"], text))
    return {**concept, "keys": keys}


def _match(
    url: str,
    concept: Concept,
    properties: Sequence[tuple[str, str, Mapping[str, Any]]],
    sets: Collection[Codes],
) -> dict[str, Any]:
    coding = {"system": url, "code": concept["code"]}
    if "display" in concept:
        coding["display"] = concept["display"]
    parts: list[dict[str, Any]] = [{"name": "code", "valueCoding": coding}]
    for (code, _, value), one in zip(properties, sets, strict=True):
        if not holds(one, concept):
            parts.append(
                {
                    "name": "unmatched",
                    "part": [{"name": "code", "valueCode": code}, {"name": "value", **value}],
                }
            )
    return {"name": "match", "part": parts}


FIND_MATCHES = Operation(
    "$find-matches",
    "http://hl7.org/fhir/OperationDefinition/CodeSystem-find-matches",
    find_matches,
    ("CodeSystem",),
    instance=True,
    needs="signed-in",
)
