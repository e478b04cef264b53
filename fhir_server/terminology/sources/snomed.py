"""A SNOMED CT release in RF2 -> concepts.

https://hl7.org/fhir/R4/snomedct.html, https://confluence.ihtsdotools.org/display/DOCRELFMT

Of the snapshot files are read:

====================================  ============================================================
``sct2_Concept_Snapshot``             the concepts, active or not
``sct2_Description_Snapshot``         what they are called, in each language
``sct2_Relationship_Snapshot``        ``is a``, and the attributes, as properties by their own ids
``der2_cRefset_Language…Snapshot``    which of the names are preferred
``der2_Refset_Simple…Snapshot``       which concepts are in which reference set: ``refset``
====================================  ============================================================

A release has millions of lines in the order of their ids. They are put in order of concepts
outside (:class:`Lines`, which a temporary database does), so that one concept is in memory at once.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import re2 as re

from fhir_server.terminology.sources.source import (
    Concept,
    Source,
    Unreadable,
    checked,
    head,
    property_of,
)

SNOMED_CT = "http://snomed.info/sct"
IS_A = "116680003"
_FULLY_SPECIFIED = "900000000000003001"
_DEFINITION = "900000000000550004"
_PREFERRED = "900000000000548007"
_PRIMITIVE = "900000000000074008"
_CORE_MODULE = "900000000000207008"
_TYPES = {
    _FULLY_SPECIFIED: "Fully specified name",
    "900000000000013009": "Synonym",
}
US_ENGLISH = "900000000000509007"
"""The language reference set of US English, which the international release has."""

# Kind of line -> the name of its files, the columns that are kept, which of them is the concept.
FILES: Mapping[str, tuple[str, tuple[str, ...], str]] = {
    "concept": (
        r"sct2_Concept_Snapshot_.*\.txt",
        ("id", "active", "moduleId", "definitionStatusId"),
        "id",
    ),
    "description": (
        r"sct2_Description_Snapshot-.*\.txt",
        ("conceptId", "id", "active", "languageCode", "typeId", "term"),
        "conceptId",
    ),
    "relationship": (
        r"sct2_Relationship_Snapshot_.*\.txt",
        ("sourceId", "active", "typeId", "destinationId"),
        "sourceId",
    ),
    "refset": (
        r"der2_Refset_.*SimpleSnapshot.*\.txt|der2_Refset_SimpleSnapshot.*\.txt",
        ("referencedComponentId", "active", "refsetId"),
        "referencedComponentId",
    ),
    "language": (
        r"der2_cRefset_LanguageSnapshot-.*\.txt",
        ("referencedComponentId", "active", "refsetId", "acceptabilityId"),
        "referencedComponentId",
    ),
}
_RELEASE = re.compile(r".*_(?P<namespace>[A-Z]{2,3}[0-9]*)_(?P<date>[0-9]{8})\.txt")
_ID = re.compile("[0-9]{6,18}")


class Lines(Protocol):
    """The lines of all files, in the order of concepts; each as the columns of :data:`FILES`."""

    def concepts(self) -> Iterator[tuple[str, ...]]:
        """Yield the concepts in the order of their ids."""

    def of(self, kind: str, id: str) -> Sequence[tuple[str, ...]]:
        """Return the lines of ``kind`` that are about ``id``, in their order."""


def kind_of(name: str) -> str:
    """Return which of :data:`FILES` the file ``name`` is, or ``""``."""
    return next((kind for kind, (form, _, _) in FILES.items() if re.fullmatch(form, name)), "")


def columns(lines: Iterable[str], kind: str, file: str) -> Iterator[tuple[str, ...]]:
    """Yield the columns that are kept of each line. RF2 has tabs, and nothing is quoted."""
    waiting = iter(lines)
    header = next(waiting, "").rstrip("\r\n").removeprefix("\ufeff").split("\t")
    _, wanted, _ = FILES[kind]
    if missing := [one for one in wanted if one not in header]:
        raise Unreadable(f"{file} has no column {', '.join(missing)}.")
    places = [header.index(one) for one in wanted]
    for number, line in enumerate(waiting, 2):
        parts = line.rstrip("\r\n").split("\t")
        if len(parts) != len(header):
            raise Unreadable(
                f"{file}, line {number}: {len(parts)} columns; the header has {len(header)}."
            )
        yield tuple(parts[place] for place in places)


def version_of(names: Iterable[str], module: str = _CORE_MODULE) -> str:
    """Return the version as FHIR wants it, from the date in the files' names, or ``""``."""
    dates = {found["date"] for name in names if (found := _RELEASE.fullmatch(name))}
    return f"{SNOMED_CT}/{module}/version/{max(dates)}" if dates else ""


def snomed(lines: Lines, version: str, dialect: str = US_ENGLISH) -> Source:
    """Return SNOMED CT from ``lines``; displays are those that ``dialect``, a language reference
    set, prefers."""
    declared = [
        _declared("inactive", "boolean", "http://hl7.org/fhir/concept-properties#inactive"),
        _declared("sufficientlyDefined", "boolean", "http://snomed.info/id/sufficientlyDefined"),
        _declared("moduleId", "code", "http://snomed.info/id/moduleId"),
        _declared("parent", "code", "http://hl7.org/fhir/concept-properties#parent"),
        _declared("refset", "code", ""),
    ]
    resource = head(
        *(SNOMED_CT, version, "SNOMED_CT", "SNOMED CT"),
        caseSensitive=False,
        compositional=True,
        versionNeeded=False,
        hierarchyMeaning="is-a",
        publisher="SNOMED International",
        valueSet=f"{SNOMED_CT}?fhir_vs",
        property=declared,
    )
    return Source(resource, checked(_concepts(lines, dialect), "SNOMED CT"))


def _declared(code: str, type: str, uri: str) -> dict[str, str]:
    return {"code": code, **({"uri": uri} if uri else {}), "type": type}


def _concepts(lines: Lines, dialect: str) -> Iterator[Concept]:
    for id, active, module, definition in lines.concepts():
        if not _ID.fullmatch(id):
            raise Unreadable(f"{id[:40]!r} is no id of a concept.")
        properties = [
            property_of("inactive", valueBoolean=active != "1"),
            property_of("sufficientlyDefined", valueBoolean=definition != _PRIMITIVE),
            property_of("moduleId", valueCode=module),
            *_related(lines, id),
        ]
        display, designations = _names(lines, id, dialect)
        concept: Concept = {"code": id, "display": display or id}
        if text := _definition(lines, id):
            concept["definition"] = text
        yield {**concept, "designation": designations, "property": properties}


def _related(lines: Lines, id: str) -> Iterator[dict[str, Any]]:
    found = [
        (type, other) for _, active, type, other in lines.of("relationship", id) if active == "1"
    ]
    for type, other in dict.fromkeys(found):
        yield property_of("parent" if type == IS_A else type, valueCode=other)
    for _, active, refset in lines.of("refset", id):
        if active == "1":
            yield property_of("refset", valueCode=refset)


def _active_names(lines: Lines, id: str) -> Iterator[tuple[str, str, str, str]]:
    for _, name, active, language, type, term in lines.of("description", id):
        if active == "1":
            yield name, language, type, term


def _definition(lines: Lines, id: str) -> str:
    found = (term for _, _, type, term in _active_names(lines, id) if type == _DEFINITION)
    return next(found, "")


def _names(lines: Lines, id: str, dialect: str) -> tuple[str, list[dict[str, Any]]]:
    """Return what a concept is shown as, and all that it is called.

    Shown is the synonym that the dialect prefers; else the fully specified name, then any.
    """
    preferred = full = first = ""
    designations = []
    for name, language, type, term in _active_names(lines, id):
        if type not in _TYPES:
            continue
        use = {"system": SNOMED_CT, "code": type, "display": _TYPES[type]}
        designations.append({"language": language, "use": use, "value": term})
        first = first or term
        if type == _FULLY_SPECIFIED:
            full = full or term
        elif not preferred and _is_preferred(lines, name, dialect):
            preferred = term
    return preferred or full or first, designations


def _is_preferred(lines: Lines, name: str, dialect: str) -> bool:
    return any(
        active == "1" and refset == dialect and how == _PREFERRED
        for _, active, refset, how in lines.of("language", name)
    )
