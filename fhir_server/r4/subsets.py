"""Parts of a resource: ``_summary`` and ``_elements``.

https://hl7.org/fhir/R4/search.html#summary
https://hl7.org/fhir/R4/search.html#elements

What is left out is said: a subset carries the tag ``SUBSETTED``, so that nobody writes it back.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import re2 as re

from fhir_server.outcome import FhirError, Issue, invalid_value, nearest, shown
from fhir_server.r4.definitions import Definitions, Element

Resource = dict[str, Any]

SUMMARIES = ("true", "text", "data", "count", "false")
SUBSETTED = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
    "code": "SUBSETTED",
}
# Elements that can turn a resource into its opposite: an order not to give a medicine, a refuted
# diagnosis. A part of a resource without them could harm somebody.
_NEGATING = frozenset({"modifierExtension", "doNotPerform", "verificationStatus"})
_ALWAYS = ("resourceType", "id", "meta")
_NAME = re.compile(r"[A-Za-z0-9\.]{1,200}(?:\[x\])?")


def summary_word(value: str) -> str:
    """Return the ``value`` of ``_summary``. Raises ``value`` for another word than the five."""
    if value not in SUMMARIES:
        raise invalid_value("_summary", value, f"one of {', '.join(SUMMARIES)}")
    return value


def element_names(value: str, types: Collection[str], definitions: Definitions) -> tuple[str, ...]:
    """Return the elements that the ``value`` of ``_elements`` names, each as its base name.

    A name is that of a top-level element of one of ``types``: ``name``, also ``Patient.name``, and
    for ``value[x]`` one of ``value``, ``value[x]`` and ``valueString``.

    Raises ``value`` for what cannot be a name, ``not-supported`` for what none of the types has.
    """
    known: dict[str, str] = {"resourceType": "resourceType"}
    for type in types:
        for element in definitions.types[type].elements[type]:
            known |= dict.fromkeys((element.name, *_members(element)), element.name)
    found: dict[str, None] = {}
    for text in value.split(","):
        name = text.strip()
        if not _NAME.fullmatch(name):
            raise invalid_value("_elements", value, "names of elements with commas between them")
        head, point, rest = name.partition(".")
        base = rest if point and head in types else name
        if "." in base:
            text = (
                f"_elements names {shown(name)}; it takes elements of the first level, as {head}."
            )
            raise FhirError(Issue("not-supported", text))
        base = base.removesuffix("[x]")
        if base not in known:
            what = next(iter(types)) if len(types) == 1 else "None of the types"
            text = f"_elements: {what} has no element {shown(name)}.{nearest(base, known)}"
            raise FhirError(Issue("not-supported", text))
        found[known[base]] = None
    return tuple(found)


def subset(
    resource: Resource,
    definitions: Definitions,
    *,
    summary: str = "",
    elements: Collection[str] = (),
) -> Resource:
    """Return the part of ``resource`` that ``summary`` (one of SUMMARIES) or ``elements`` ask for.

    ``elements`` are names of top-level elements (``name``, ``value`` for ``value[x]``); what is
    mandatory is kept beside them, and what turns the rest into its opposite. Unchanged, and not
    tagged, where everything is asked for.
    """
    type = resource["resourceType"]
    if elements:
        return tagged(_named(resource, definitions, frozenset(elements)))
    if summary == "true":
        return tagged(_summary(resource, definitions, type, type))
    if summary == "text":
        return tagged(_named(resource, definitions, frozenset({"text"})))
    if summary == "data":
        return tagged({name: value for name, value in resource.items() if name != "text"})
    return resource


def is_subset(resource: Resource) -> bool:
    """Whether ``resource``, which is valid, says that it is a part only."""
    tags = resource.get("meta", {}).get("tag", [])
    return any(tag.get("code") == SUBSETTED["code"] for tag in tags)


def whole(resource: Resource) -> Resource:
    """Return ``resource``, which is whole again, without the tag that says that it is a part."""
    meta = dict(resource.get("meta", {}))
    tags = [tag for tag in meta.pop("tag", []) if tag.get("code") != SUBSETTED["code"]]
    if tags:
        meta["tag"] = tags
    rest = {name: value for name, value in resource.items() if name != "meta"}
    return rest | {"meta": meta} if meta else rest


def tagged(resource: Resource) -> Resource:
    """Return ``resource`` with the tag that says that it is a part only."""
    meta = resource.get("meta", {})
    tags = [tag for tag in meta.get("tag", []) if tag.get("code") != SUBSETTED["code"]]
    return {**resource, "meta": {**meta, "tag": [*tags, SUBSETTED]}}


def _named(resource: Resource, definitions: Definitions, wanted: frozenset[str]) -> Resource:
    type = resource["resourceType"]
    kept = set(_ALWAYS)
    for element in definitions.types[type].elements[type]:
        if element.name in wanted or element.min > 0 or element.name in _NEGATING:
            kept.update(_members(element))
    return {name: value for name, value in resource.items() if name in kept}


def _members(element: Element) -> Iterator[str]:
    """Yield the JSON members of ``element``, and the sibling that carries extensions."""
    names = [name for name, _ in element.members()] or [element.name]
    for name in names:
        yield name
        yield f"_{name}"


def _summary(value: Resource, definitions: Definitions, type: str, path: str) -> Resource:
    """Return ``value`` with the elements that the definition of ``path`` marks as summary."""
    known = _by_member(definitions, type, path)
    kept: Resource = {}
    for name, member in value.items():
        if name in _ALWAYS and path == type:
            kept[name] = member
            continue
        element, member_type = known.get(name.removeprefix("_"), (None, ""))
        if element is None or not (element.is_summary or element.is_modifier):
            continue
        part = _each(member, definitions, element, member_type)
        if part not in ({}, []):
            kept[name] = part
    return kept


def _each(value: Any, definitions: Definitions, element: Element, type: str) -> Any:
    if isinstance(value, list):
        return [_each(one, definitions, element, type) for one in value]
    if type == "Extension":
        return value  # a modifier extension says all it has to say, or nothing
    if element.content_reference is not None and isinstance(value, Mapping):
        inside = element.content_reference
        return _summary(dict(value), definitions, inside.partition(".")[0], inside)
    definition = definitions.types.get(type)
    if not isinstance(value, Mapping) or definition is None or definition.kind == "primitive-type":
        return value
    if type in ("BackboneElement", "Element"):
        inside = element.path
        return _summary(dict(value), definitions, inside.partition(".")[0], inside)
    if definition.kind == "complex-type":
        return _summary(dict(value), definitions, type, type)
    return value


def _by_member(definitions: Definitions, type: str, path: str) -> dict[str, tuple[Element, str]]:
    return {
        name: (element, member_type)
        for element in definitions.types[type].elements.get(path, ())
        for name, member_type in _typed_members(element)
    }


def _typed_members(element: Element) -> Iterator[tuple[str, str]]:
    if element.content_reference is not None:
        yield element.name, ""
    for name, type in element.members():
        yield name, type.code
