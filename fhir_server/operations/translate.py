"""``ConceptMap/$translate``: a code as another system says it.

https://hl7.org/fhir/R4/conceptmap-operation-translate.html
"""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from fhir_server.context import Context
from fhir_server.interactions.stored import stored_maps
from fhir_server.interactions.terms import Terms
from fhir_server.messages import Request, Response
from fhir_server.operations import named
from fhir_server.operations.asked import RESOURCES, Given, given
from fhir_server.operations.bodies import parameters_out
from fhir_server.operations.named import Coded, canonical, coding_of
from fhir_server.outcome import FhirError, Issue, shown
from fhir_server.registry import Operation
from fhir_server.terminology.judging import INLINE
from fhir_server.terminology.translating import (
    Asked,
    Match,
    dependencies_of,
    match_parameter,
    translated,
)

_TABLE = {
    "url": "uri",
    "conceptMap": "Resource ConceptMap",
    "conceptMapVersion": "string",
    "code": "code",
    "system": "uri",
    "version": "string",
    "source": "uri",
    "target": "uri",
    "coding": "Coding",
    "codeableConcept": "CodeableConcept",
    "targetsystem": "uri",
    "dependency": "parts",
    "reverse": "boolean",
    RESOURCES: "Resource",
}
_MAPS_MAX = 20  # maps that one leads to, or that are tried where none is named
_CODINGS_MAX = 100
_MATCHES_MAX = 1000
Map = dict[str, Any]


async def translate(request: Request, context: Context) -> Response:
    """Return all matches, and whether there is one that says the same or nearly the same.

    Without a map, those that are here for the named ``source`` or ``target`` value set are tried,
    or else all for the ``targetsystem``. Raises ``not-found`` where there is none, ``required``
    without a code.
    """
    asked = given(request, context, _TABLE)
    inline = asked.one("conceptMap")
    if request.id:
        inline = await named.instance(request, context)
    terms = await Terms.of(context, named.brought(asked, inline))
    codes = _codes(asked)
    maps = await _maps(asked, inline, codes, terms)
    found: list[tuple[Match, str]] = []
    for one in codes:
        wish = Asked(
            one.system,
            one.code,
            one.version,
            frozenset(filter(None, [asked.text("targetsystem")])),
            dependencies_of(asked.many("dependency")),
            asked.one("reverse", False),
        )
        found += await _all(maps, wish, terms)
    return Response(200, parameters_out(_answer(found)))


async def _all(maps: Iterable[Map], wish: Asked, terms: Terms) -> list[tuple[Match, str]]:
    """Return what ``maps`` make of one code, and those that they refer to."""
    waiting, seen = list(maps), set()
    most = max(_MAPS_MAX, len(waiting))
    found: list[tuple[Match, str]] = []
    while waiting:
        one = waiting.pop(0)
        name = str(one.get("url", ""))
        if name in seen:
            continue
        seen.add(name)
        if len(seen) > most:
            text = f"Maps refer to each other over more than {most} maps."
            raise FhirError(Issue("too-costly", text), status=422)
        matches, others = await asyncio.to_thread(translated, one, wish)
        found += [(match, "" if name == INLINE else name) for match in matches]
        for other in others:
            waiting.append(await _map(other, terms))
    return found


def _answer(found: list[tuple[Match, str]]) -> list[dict[str, Any]]:
    if len(found) > _MATCHES_MAX:
        text = f"There are {len(found):,} matches, more than {_MATCHES_MAX:,}."
        raise FhirError(Issue("too-costly", text), status=422)
    result = any(match.is_match for match, _ in found)
    parameters: list[dict[str, Any]] = [{"name": "result", "valueBoolean": result}]
    words = dict.fromkeys(match.comment for match, _ in found if match.comment)
    if not found:
        words = {"The maps that concern the code have nothing for it.": None}
    if words:
        parameters.append({"name": "message", "valueString": " ".join(words)})
    return parameters + [match_parameter(match, source) for match, source in found]


def _codes(asked: Given) -> list[Coded]:
    ways = [name for name in ("code", "coding", "codeableConcept") if name in asked.values]
    if len(ways) != 1:
        raise named.required(asked, "one of code, coding and codeableConcept")
    if ways[0] == "code":
        if "system" not in asked.values:
            raise named.required(asked, "the system of the code")
        return [Coded(asked.text("system"), asked.text("code"), asked.text("version"))]
    if ways[0] == "coding":
        one = coding_of(asked.one("coding"))
        return [replace(one, version=one.version or asked.text("version"))]
    codings = asked.one("codeableConcept").get("coding", ())
    if not 0 < len(codings) <= _CODINGS_MAX:
        raise named.required(asked, f"1 to {_CODINGS_MAX} codings in the codeableConcept")
    return [coding_of(one) for one in codings]


async def _maps(
    asked: Given, inline: Map | None, codes: Iterable[Coded], terms: Terms
) -> list[Map]:
    """Return the maps to use: the one that is named, or those that fit."""
    if inline is not None:
        return [named.named(inline)]
    if url := asked.text("url"):
        return [await _map(canonical(url, asked.text("conceptMapVersion")), terms)]
    names = ("source", "target", "targetsystem")
    if not any(name in asked.values for name in names):
        raise named.required(asked, "a url, a conceptMap, a source, a target or a targetsystem")
    here, there = ("target", "source") if asked.one("reverse", False) else ("source", "target")
    systems = frozenset(one.system for one in codes if one.system)
    stored = await stored_maps(terms.context, f"{here}-system", systems, _MAPS_MAX)
    known = {one.get("url") for one in stored}
    loaded = (
        dict(one)
        for one in terms.context.definitions.concept_maps
        if one["url"] not in known
        and any(part.get(here) in systems for part in one.get("group", ()))
    )
    found = [
        one
        for one in (*stored, *loaded)
        if asked.text("source") in ("", _end(one, here))
        and asked.text("target") in ("", _end(one, there))
    ]
    if not found:
        raise FhirError(Issue("not-found", "No ConceptMap here fits what is asked for."))
    return found


def _end(concept_map: Map, end: str) -> str:
    """Return the value set that ``concept_map`` has as its source or target."""
    found = concept_map.get(f"{end}Canonical") or concept_map.get(f"{end}Uri") or ""
    return str(found).partition("|")[0]


async def _map(name: str, terms: Terms) -> Map:
    found = await terms.artifact("ConceptMap", name)
    if found is None:
        raise FhirError(Issue("not-found", f"The map {shown(name, most=200)} is not here."))
    return dict(found)


TRANSLATE = Operation(
    "$translate",
    "http://hl7.org/fhir/OperationDefinition/ConceptMap-translate",
    translate,
    ("ConceptMap",),
    instance=True,
    needs="signed-in",
)
