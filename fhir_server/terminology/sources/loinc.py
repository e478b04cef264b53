"""LOINC's distribution, as Regenstrief publishes it -> concepts.

https://hl7.org/fhir/R4/loinc.html; the files are described in the LOINC Users' Guide.

=================================  ===============================================================
file                               what is taken from it
=================================  ===============================================================
``Loinc.csv``                      the terms, with their fields as properties
``LoincPartLink_Primary.csv``      the parts of each term, as Codings, in the place of their names
``Part.csv``                       the parts themselves, ``LP…``
``ComponentHierarchyBySystem.csv`` who is below whom (until 2.72 ``MultiAxialHierarchy.csv``)
``AnswerList.csv``                 answer lists ``LL…`` and answers ``LA…``; the property ``LIST``
``LoincAnswerListLink.csv``        which list answers which term: ``answer-list``
``…LinguisticVariant.csv``         displays in other languages
=================================  ===============================================================

All but the first may be missing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from sys import intern
from typing import TypeVar

import re2 as re

from fhir_server.terminology.sources.source import (
    Concept,
    Row,
    Source,
    checked,
    head,
    property_of,
    rows,
)

T = TypeVar("T")

LOINC = "http://loinc.org"
TERMS = "Loinc.csv"
_HIERARCHIES = ("ComponentHierarchyBySystem.csv", "MultiAxialHierarchy.csv")
_VARIANT = re.compile(r"([a-z]{2,3})([A-Z]{2})[0-9]*LinguisticVariant\.csv")
_PART_FIELDS = ("COMPONENT", "PROPERTY", "TIME_ASPCT", "SYSTEM", "SCALE_TYP", "METHOD_TYP")
# Fields that are properties under their own name: https://hl7.org/fhir/R4/loinc.html
_TEXT_FIELDS = (
    *("CLASS", "CLASSTYPE", "STATUS", "ORDER_OBS", "EXAMPLE_UCUM_UNITS", "EXAMPLE_UNITS"),
    *("VersionLastChanged", "VersionFirstReleased", "CHNG_TYPE", "CONSUMER_NAME", "FORMULA"),
    *("SURVEY_QUEST_TEXT", "SURVEY_QUEST_SRC", "UNITSREQUIRED", "HL7_FIELD_SUBFIELD_ID"),
    *("EXTERNAL_COPYRIGHT_NOTICE", "PanelType", "AskAtOrderEntry", "AssociatedObservations"),
    *("HL7_ATTACHMENT_STRUCTURE", "ValidHL7AttachmentRequest", "STATUS_REASON", "STATUS_TEXT"),
    *("COMMON_TEST_RANK", "COMMON_ORDER_RANK"),
)
_NAMES = ("SHORTNAME", "DisplayName", "CONSUMER_NAME")
_COPYRIGHT = (
    "This content LOINC® is copyright © 1995 Regenstrief Institute, Inc. and the LOINC Committee, "
    "and available at no cost under the license at http://loinc.org/terms-of-use"
)
_INACTIVE = property_of("inactive", valueBoolean=True)

Read = Callable[[str], Iterable[Sequence[str]]]
"""The lines of a file of the distribution, by its name; none where it is not there."""


@dataclass(slots=True)
class _Links:
    """What other files say of a code."""

    parents: dict[str, list[str]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    parts: dict[str, list[tuple[str, str, str]]] = field(default_factory=dict)
    answer_lists: dict[str, list[str]] = field(default_factory=dict)
    names: dict[str, list[tuple[str, str]]] = field(default_factory=dict)


def loinc(names: Iterable[str], read: Read, version: str) -> Source:
    """Return LOINC from the files ``names`` of its distribution."""
    present = sorted({name.rpartition("/")[2] for name in names})
    declared = [{"code": one, "type": "string"} for one in _TEXT_FIELDS]
    declared += [{"code": one, "type": "Coding"} for one in (*_PART_FIELDS, "answer-list")]
    declared += [{"code": one, "type": "code"} for one in ("parent", "LIST")]
    uri = "http://hl7.org/fhir/concept-properties#inactive"
    declared.append({"code": "inactive", "uri": uri, "type": "boolean"})
    resource = head(
        *(LOINC, version, "LOINC", "LOINC"),
        caseSensitive=False,
        compositional=False,
        versionNeeded=False,
        hierarchyMeaning="is-a",
        publisher="Regenstrief Institute, Inc.",
        copyright=_COPYRIGHT,
        valueSet=f"{LOINC}/vs",
        property=declared,
    )
    return Source(resource, checked(_concepts(present, read), "LOINC"))


def _concepts(present: Sequence[str], read: Read) -> Iterator[Concept]:
    links = _links(present, read)
    for row in rows(read(TERMS), TERMS, ("LOINC_NUM", "STATUS", "LONG_COMMON_NAME")):
        yield _term(row, links)
    parts = set()
    if "Part.csv" in present:
        for row in rows(read("Part.csv"), "Part.csv", ("PartNumber", "PartName")):
            parts.add(row["PartNumber"])
            yield _part(row, links)
    # What only groups others in the hierarchy is in no other file.
    for code, text in links.texts.items():
        if code.startswith("LP") and code not in parts:
            yield _plain(code, text, _parents(code, links))
    yield from _answers(present, read)


def _links(present: Sequence[str], read: Read) -> _Links:
    links = _Links()
    for name in present:
        if name in _HIERARCHIES:
            needed = ("IMMEDIATE_PARENT", "CODE", "CODE_TEXT")
            for row in rows(read(name), name, ("CODE", "CODE_TEXT")):
                code = intern(row["CODE"])
                links.texts.setdefault(code, row.get("CODE_TEXT", code))
                if parent := row.get(needed[0]):
                    _more(links.parents, code, intern(parent))
        elif name == "LoincPartLink_Primary.csv":
            for row in rows(read(name), name, ("LoincNumber", "PartNumber", "Property")):
                what = intern(row["Property"].rpartition("/")[2])
                part = (what, intern(row["PartNumber"]), intern(row.get("PartName", "")))
                _more(links.parts, row["LoincNumber"], part)
        elif name == "LoincAnswerListLink.csv":
            for row in rows(read(name), name, ("LoincNumber", "AnswerListId")):
                _more(links.answer_lists, row["LoincNumber"], intern(row["AnswerListId"]))
        elif found := _VARIANT.fullmatch(name):
            language = intern(f"{found[1]}-{found[2]}")
            for row in rows(read(name), name, ("LOINC_NUM",)):
                if text := row.get("LONG_COMMON_NAME") or row.get("LinguisticVariantDisplayName"):
                    _more(links.names, row["LOINC_NUM"], (language, text))
    return links


def _more(found: dict[str, list[T]], code: str, value: T) -> None:
    if value not in (values := found.setdefault(code, [])):
        values.append(value)


def _parents(code: str, links: _Links) -> list[dict[str, object]]:
    return [property_of("parent", valueCode=one) for one in links.parents.get(code, ())]


def _term(row: Row, links: _Links) -> Concept:
    code = row["LOINC_NUM"]
    properties = _parents(code, links)
    if row["STATUS"] == "DEPRECATED":
        properties.append(_INACTIVE)
    linked = {}
    for name, part, text in links.parts.get(code, ()):
        linked[name] = property_of(name, valueCoding=_coding(part, text))
    for name in _PART_FIELDS:
        if name in linked:
            properties.append(linked[name])
        elif name in row:
            properties.append(property_of(name, valueString=row[name]))
    properties += [property_of(one, valueString=row[one]) for one in _TEXT_FIELDS if one in row]
    for one in links.answer_lists.get(code, ()):
        properties.append(property_of("answer-list", valueCoding=_coding(one, "")))
    return _concept(
        code,
        row.get("LONG_COMMON_NAME") or row.get("SHORTNAME", code),
        properties,
        definition=row.get("DefinitionDescription", ""),
        designation=_designations(row, links.names.get(code, ())),
    )


def _designations(row: Row, translated: Iterable[tuple[str, str]]) -> list[dict[str, object]]:
    own = [("en", row[one]) for one in _NAMES if one in row]
    return [{"language": a, "value": b} for a, b in dict.fromkeys([*own, *translated])]


def _part(row: Row, links: _Links) -> Concept:
    code = row["PartNumber"]
    properties = _parents(code, links)
    if row.get("Status") == "DEPRECATED":
        properties.append(_INACTIVE)
    return _plain(code, row.get("PartDisplayName") or row.get("PartName", code), properties)


def _answers(present: Sequence[str], read: Read) -> Iterator[Concept]:
    """Yield the answer lists, and the answers with the lists that they are in."""
    if "AnswerList.csv" not in present:
        return
    name = "AnswerList.csv"
    lists: dict[str, str] = {}
    answers: dict[str, tuple[str, list[str]]] = {}
    for row in rows(read(name), name, ("AnswerListId", "AnswerListName")):
        lists.setdefault(row["AnswerListId"], row.get("AnswerListName", ""))
        if answer := row.get("AnswerStringId"):
            _, places = answers.setdefault(answer, (row.get("DisplayText", answer), []))
            places.append(row["AnswerListId"])
    for code, text in lists.items():
        yield _plain(code, text or code, [])
    for code, (text, places) in answers.items():
        inside = [property_of("LIST", valueCode=one) for one in dict.fromkeys(places)]
        yield _plain(code, text, inside)


def _plain(code: str, display: str, properties: list[dict[str, object]]) -> Concept:
    return _concept(code, display, properties)


def _concept(
    code: str, display: str, properties: list[dict[str, object]], **more: object
) -> Concept:
    found: Mapping[str, object] = {"property": properties, **more}
    return {
        "code": code,
        "display": display,
        **{name: value for name, value in found.items() if value},
    }


def _coding(code: str, display: str) -> dict[str, str]:
    return {"system": LOINC, "code": code, **({"display": display} if display else {})}
