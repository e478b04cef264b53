"""A table with a header row, as a spreadsheet gives it -> concepts.

====================  ==========================================================================
column                what it is
====================  ==========================================================================
``code``              the code; needed
``display``           the display
``definition``        the definition
``parent``            the code that it is a kind of; several are parted by ``|``
``status``            as FHIR has it: ``active``, ``retired``, …
``display:bn``        the display in a language (BCP 47)
any other             a property of this name, as text; several values are parted by ``|``
====================  ==========================================================================
"""

from collections.abc import Iterable, Iterator, Sequence

import re2 as re

from fhir_server.outcome import shown
from fhir_server.terminology.sources.source import (
    Concept,
    Resource,
    Row,
    Source,
    Unreadable,
    checked,
    head,
    property_of,
    rows,
)

_OWN = ("code", "display", "definition", "parent", "status")
_LANGUAGE = "display:"
_PROPERTY = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]{0,63}")
_CODE = re.compile(r"[^\s]+(?: [^\s]+)*")  # https://hl7.org/fhir/R4/datatypes.html#code
_NAME = re.compile(r"[^A-Za-z0-9_]+")


def table(
    lines: Iterable[Sequence[str]], header: Sequence[str], url: str, version: str, title: str
) -> Source:
    """Return the code system ``url`` of a table; ``header`` is its first line, also in ``lines``.

    Raises :class:`Unreadable` for a column that is no name of a property.
    """
    names = [name.strip().removeprefix("\ufeff") for name in header]
    others = [one for one in names if one not in _OWN and not one.startswith(_LANGUAGE)]
    for one in others:
        if not _PROPERTY.fullmatch(one):
            raise Unreadable(f"The column {shown(one)} is no name of a property.")
    return Source(
        _head(names, others, url, version, title),
        checked(_concepts(rows(lines, title, ("code",)), others, title), title),
    )


def _head(
    names: Sequence[str], others: Sequence[str], url: str, version: str, title: str
) -> Resource:
    declared = [{"code": one, "type": "string"} for one in others]
    if "parent" in names:
        declared.append({"code": "parent", "type": "code"})
    if "status" in names:
        uri = "http://hl7.org/fhir/concept-properties#status"
        declared.append({"code": "status", "uri": uri, "type": "code"})
    meaning = "is-a" if "parent" in names else ""
    name = _NAME.sub("_", title).strip("_") or "CodeSystem"
    return head(url, version, name, title, hierarchyMeaning=meaning, property=declared)


def _concepts(found: Iterator[Row], others: Sequence[str], title: str) -> Iterator[Concept]:
    for row in found:
        code = row.get("code", "")
        if not _CODE.fullmatch(code):
            raise Unreadable(f"{title}, line {row['#']}: {shown(code)} is no code.")
        concept: Concept = {name: row[name] for name in _OWN[:3] if name in row}
        if properties := list(_properties(row, others)):
            concept["property"] = properties
        if designations := list(_designations(row)):
            concept["designation"] = designations
        yield concept


def _properties(row: Row, others: Sequence[str]) -> Iterator[dict[str, object]]:
    for parent in _parted(row.get("parent", "")):
        yield property_of("parent", valueCode=parent)
    if "status" in row:
        yield property_of("status", valueCode=row["status"])
    for name in others:
        for value in _parted(row.get(name, "")):
            yield property_of(name, valueString=value)


def _designations(row: Row) -> Iterator[dict[str, str]]:
    for name, value in row.items():
        if name.startswith(_LANGUAGE):
            yield {"language": name.removeprefix(_LANGUAGE), "value": value}


def _parted(text: str) -> list[str]:
    return [one.strip() for one in text.split("|") if one.strip()]
