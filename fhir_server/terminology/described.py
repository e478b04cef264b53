"""What ``$lookup`` tells of a concept.

https://hl7.org/fhir/R4/codesystem-operation-lookup.html
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from fhir_server.terminology.judging import display_in

Concept = Mapping[str, Any]
Parameter = dict[str, Any]

EVERYTHING = "*"
_PARENTS = ("parent", "subsumedBy")
_KIN = (*_PARENTS, "child")


def described(
    system: Mapping[str, Any],
    concept: Concept,
    kin: Mapping[str, Collection[str]],
    wanted: Collection[str] = (),
    language: str = "",
) -> list[Parameter]:
    """Return the parameters that ``$lookup`` answers with.

    ``kin`` are the codes that are directly above (``parent``) and below (``child``), as far as they
    were looked up. ``wanted`` are the properties that the client asks for; none is the usual ones.
    """
    found: list[Parameter] = [
        {"name": "name", "valueString": system.get("title") or system.get("name") or system["url"]}
    ]
    if version := system.get("version"):
        found.append({"name": "version", "valueString": version})
    display = display_in(concept, language) or concept["code"]
    found.append({"name": "display", "valueString": display})
    found += _designations(concept, wanted)
    return found + list(_properties(concept, kin, wanted))


def _designations(concept: Concept, wanted: Collection[str]) -> Iterator[Parameter]:
    languages = [one.removeprefix("lang.") for one in wanted if one.startswith("lang.")]
    for one in concept.get("designation", ()):
        if not _takes(wanted, "designation") and one.get("language") not in languages:
            continue
        parts: list[Parameter] = []
        if "language" in one:
            parts.append({"name": "language", "valueCode": one["language"]})
        if "use" in one:
            parts.append({"name": "use", "valueCoding": one["use"]})
        parts.append({"name": "value", "valueString": one["value"]})
        yield {"name": "designation", "part": parts}


def _properties(
    concept: Concept, kin: Mapping[str, Collection[str]], wanted: Collection[str]
) -> Iterator[Parameter]:
    if "definition" in concept and _takes(wanted, "definition"):
        yield _property("definition", "valueString", concept["definition"])
    for name, codes in kin.items():
        if _takes(wanted, name):
            for code in codes:
                yield _property(name, "valueCode", code)
    for one in concept.get("property", ()):
        if one["code"] not in _KIN and _takes(wanted, one["code"]):
            for member, value in one.items():
                if member.startswith("value"):
                    yield _property(one["code"], member, value)


def _takes(wanted: Collection[str], name: str) -> bool:
    return not wanted or name in wanted or EVERYTHING in wanted


def _property(code: str, member: str, value: Any) -> Parameter:
    return {"name": "property", "part": [{"name": "code", "valueCode": code}, _part(member, value)]}


def _part(member: str, value: Any) -> Parameter:
    return {"name": "value", member: value}
