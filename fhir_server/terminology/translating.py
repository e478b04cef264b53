"""What a code becomes by a ConceptMap.

https://hl7.org/fhir/R4/conceptmap-operation-translate.html, https://hl7.org/fhir/R4/conceptmap.html
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Parameter = dict[str, Any]

# What an equivalence of source and target is, seen from the target.
_REVERSED = {
    "wider": "narrower",
    "narrower": "wider",
    "subsumes": "specializes",
    "specializes": "subsumes",
}
_NO_MATCH = ("unmatched", "disjoint")


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be translated. ``targets`` are systems that a match may be of; empty is any.

    ``dependencies`` are (element, system, code): what else is known in the client's context.
    """

    system: str
    code: str
    version: str = ""
    targets: frozenset[str] = frozenset()
    dependencies: frozenset[tuple[str, str, str]] = frozenset()
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """One translation; ``system`` and ``code`` are empty where there is none."""

    equivalence: str
    system: str = ""
    code: str = ""
    display: str = ""
    version: str = ""
    products: tuple[Mapping[str, Any], ...] = ()
    comment: str = ""

    @property
    def is_match(self) -> bool:
        """Whether it says that there is a translation."""
        return bool(self.code) and self.equivalence not in _NO_MATCH


def translated(concept_map: Mapping[str, Any], asked: Asked) -> tuple[list[Match], list[str]]:
    """Return what ``concept_map`` makes of the code, and the canonicals of the maps that it refers
    to for a code that it does not know itself."""
    matches: list[Match] = []
    others: list[str] = []
    for group in concept_map.get("group", ()):
        if not _concerns(group, asked):
            continue
        if asked.reverse:
            matches += _reversed(group, asked)
            continue
        elements = [one for one in group.get("element", ()) if one.get("code") == asked.code]
        if elements:
            for one in elements:
                matches += _targets(group, one, asked)
        elif unmapped := group.get("unmapped"):
            matches += _unmapped(group, unmapped, asked)
            if unmapped.get("mode") == "other-map" and "url" in unmapped:
                others.append(unmapped["url"])
    return matches, others


def _concerns(group: Mapping[str, Any], asked: Asked) -> bool:
    """Whether ``group`` is about the system of the code, in its version, and a wanted target."""
    here, there = ("target", "source") if asked.reverse else ("source", "target")
    if asked.system and group.get(here, asked.system) != asked.system:
        return False
    version = group.get(f"{here}Version")
    if asked.version and version and version != asked.version:
        return False
    return not asked.targets or group.get(there, "") in asked.targets


def _targets(group: Mapping[str, Any], element: Mapping[str, Any], asked: Asked) -> Iterator[Match]:
    for target in element.get("target", ()):
        if _applies(target, asked):
            yield Match(
                target.get("equivalence", "relatedto"),
                group.get("target", "") if "code" in target else "",
                target.get("code", ""),
                target.get("display", ""),
                group.get("targetVersion", ""),
                tuple(target.get("product", ())),
                target.get("comment", ""),
            )


def _applies(target: Mapping[str, Any], asked: Asked) -> bool:
    """Whether what ``target`` depends on is known to be so."""
    return all(
        (one["property"], one.get("system", ""), one["value"]) in asked.dependencies
        or (not one.get("system") and _has(asked, one["property"], one["value"]))
        for one in target.get("dependsOn", ())
    )


def _has(asked: Asked, element: str, value: str) -> bool:
    return any((name, code) == (element, value) for name, _, code in asked.dependencies)


def _reversed(group: Mapping[str, Any], asked: Asked) -> Iterator[Match]:
    for element in group.get("element", ()):
        for target in element.get("target", ()):
            if target.get("code") == asked.code and "code" in element:
                equivalence = target.get("equivalence", "relatedto")
                yield Match(
                    _REVERSED.get(equivalence, equivalence),
                    group.get("source", ""),
                    element["code"],
                    element.get("display", ""),
                    group.get("sourceVersion", ""),
                    (),
                    target.get("comment", ""),
                )


def _unmapped(
    group: Mapping[str, Any], unmapped: Mapping[str, Any], asked: Asked
) -> Iterator[Match]:
    target = group.get("target", "")
    match unmapped.get("mode"):
        case "provided":
            yield Match("inexact", target, asked.code)
        case "fixed" if "code" in unmapped:
            yield Match("inexact", target, unmapped["code"], unmapped.get("display", ""))


def match_parameter(match: Match, source: str) -> Parameter:
    """Return ``match``, found in the map ``source``, as a parameter of the answer."""
    parts: list[Parameter] = [{"name": "equivalence", "valueCode": match.equivalence}]
    if match.code:
        coding = {
            name: value
            for name, value in (
                ("system", match.system),
                ("version", match.version),
                ("code", match.code),
                ("display", match.display),
            )
            if value
        }
        parts.append({"name": "concept", "valueCoding": coding})
    parts += [_product(one) for one in match.products]
    if source:
        parts.append({"name": "source", "valueUri": source})
    return {"name": "match", "part": parts}


def _product(product: Mapping[str, Any]) -> Parameter:
    coding = {"system": product["system"]} if "system" in product else {}
    coding["code"] = product["value"]
    if "display" in product:
        coding["display"] = product["display"]
    return {
        "name": "product",
        "part": [
            {"name": "element", "valueUri": product["property"]},
            {"name": "concept", "valueCoding": coding},
        ],
    }


def dependencies_of(parts: Iterable[Sequence[Parameter]]) -> frozenset[tuple[str, str, str]]:
    """Return what the parameters ``dependency`` say: (element, system, code)."""
    found = set()
    for one in parts:
        named = {part.get("name"): part for part in one}
        element = str(named.get("element", {}).get("valueUri", ""))
        concept = named.get("concept", {}).get("valueCodeableConcept", {})
        for coding in concept.get("coding", ()):
            found.add((element, str(coding.get("system", "")), str(coding.get("code", ""))))
    return frozenset(found)
