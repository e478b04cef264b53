"""A sender's own maps of codes: a ConceptMap as a table to look codes up in.

https://hl7.org/fhir/R4/conceptmap.html; design/hl7v2.md, section 16.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

Json = dict[str, Any]

# What the target is to the source, where a code may be written in place of the other: the same, or
# one that says less. What says more (narrower, specializes) the sender has not said.
MAPPING = frozenset(("relatedto", "equivalent", "equal", "wider", "subsumes"))


class Image(dict[str, Any]):
    """A Coding that a sender's map has put first. It is not what the sender said: resources are
    found again by that, so that a map may come, change and go."""


@dataclass(frozen=True)
class CodeTable:
    """(system, code) -> Coding; system "" stands for any."""

    codes: Mapping[tuple[str, str], Mapping[str, Any]]

    @cached_property
    def systems(self) -> frozenset[str]:
        """The systems of the images: a code of one of them needs no image."""
        return frozenset(str(one["system"]) for one in self.codes.values() if "system" in one)

    def image(self, system: str, code: str) -> Mapping[str, Any] | None:
        """Return what the table makes of a code; None if it has no image."""
        return self.codes.get((system, code)) or self.codes.get(("", code))


def code_table(concept_map: Mapping[str, Any]) -> CodeTable:
    """Return a ConceptMap as a table; of several targets of a code the first that may stand for it.

    A target that depends on something else, and what a group says of codes that it does not list,
    are left out: a code is mapped by its own entry.

    >>> table = code_table({"group": [{"target": "http://loinc.org", "element": [{"code": "CREA",
    ...     "target": [{"code": "2160-0", "equivalence": "equivalent"}]}]}]})
    >>> table.image("urn:any", "CREA")
    {'system': 'http://loinc.org', 'code': '2160-0'}
    """
    codes: dict[tuple[str, str], Mapping[str, Any]] = {}
    for source, code, coding in _entries(concept_map):
        codes.setdefault((source, code), coding)
    return CodeTable(codes)


def renaming(concept_map: Mapping[str, Any]) -> dict[str, str]:
    """Return code -> code of a ConceptMap, for the verb ``translate``: whatever their systems."""
    found: dict[str, str] = {}
    for _, code, coding in _entries(concept_map):
        found.setdefault(code, coding["code"])
    return found


def _entries(concept_map: Mapping[str, Any]) -> Iterator[tuple[str, str, Json]]:
    for group in concept_map.get("group", ()):
        system = group.get("target", "")
        for element in group.get("element", ()):
            for target in element.get("target", ()):
                fits = target.get("equivalence") in MAPPING and not target.get("dependsOn")
                if fits and "code" in target and "code" in element:
                    coding = {"system": system, "code": target["code"]}
                    coding["display"] = target.get("display", "")
                    named = {name: value for name, value in coding.items() if value}
                    yield group.get("source", ""), element["code"], named


def plain(value: Any) -> Any:
    """Return ``value`` with each :class:`Image` as the Coding that it is."""
    if isinstance(value, dict):
        return {name: plain(member) for name, member in value.items()}
    if isinstance(value, list):
        return [plain(member) for member in value]
    return value
