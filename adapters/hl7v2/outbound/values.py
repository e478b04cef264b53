"""FHIR datatypes to those of v2: the converters of ``datatypes.py`` the other way round.

HL7 v2.5.1, 2.A. Every writer is total: what v2 cannot say is left out.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote
from uuid import UUID

from adapters.hl7v2.outbound.fields import Marks
from adapters.hl7v2.vocabulary import V2_SYSTEM, name_of, source, uri_part

Json = Mapping[str, Any]

IDENTIFIER_TYPE = V2_SYSTEM + "0203"
_AUTHORITY = "urn:hl7v2:authority:"
_OID = re.compile(r"[0-2](\.(0|[1-9]\d*))+")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")
_TIME = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d):(\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d))?)?)?"
)
_FRACTION_CHARACTERS = 5  # DTM has four digits, and the point
_CODINGS_MAX = 3


def dtm(text: object) -> str:
    """Return a date, dateTime or instant as DTM; "" for what is none.

    >>> dtm("2026-03"), dtm("2026-03-01T08:00:00.5Z")
    ('202603', '20260301080000.5+0000')
    """
    found = _TIME.fullmatch(str(text))
    if not found:
        return ""
    *parts, fraction, offset = found.groups()
    written = "".join(part for part in parts if part) + (fraction or "")[:_FRACTION_CHARACTERS]
    return written + ("+0000" if offset == "Z" else (offset or "").replace(":", ""))


def authority(system: str) -> tuple[str, str, str]:
    """Return the namespace, the universal id and its type that a system is.

    >>> authority("urn:oid:1.2.3"), authority("urn:hl7v2:authority:ACME")
    (('', '1.2.3', 'ISO'), ('ACME', '', ''))
    """
    rest = system.rpartition(":")[2]
    if system.startswith("urn:oid:") and _OID.fullmatch(rest):
        return "", rest, "ISO"
    if system.startswith("urn:uuid:") and _is_uuid(rest):
        return "", rest, "UUID"
    if system.startswith(_AUTHORITY):
        name = unquote(system.removeprefix(_AUTHORITY))
        if uri_part(name) == system.removeprefix(_AUTHORITY):
            return name, "", ""
    return ("", system, "URI") if _URI.fullmatch(system) else (system, "", "")


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def period_of(value: Json) -> tuple[str, str]:
    """Return start and end as DTM."""
    period = value.get("period", {})
    return dtm(period.get("start", "")), dtm(period.get("end", ""))


def type_of(identifier: Json) -> str:
    """Return the type of an Identifier by table 0203."""
    for coding in identifier.get("type", {}).get("coding", ()):
        if coding.get("system") == IDENTIFIER_TYPE:
            return str(coding.get("code", ""))
    return ""


def cx(identifier: Json, marks: Marks) -> str:
    """Return an Identifier as CX; "" without a value."""
    if not identifier.get("value"):
        return ""
    named = marks.subs(*authority(str(identifier.get("system", ""))))
    start, end = period_of(identifier)
    number, kind = marks.text(identifier["value"]), marks.text(type_of(identifier))
    return marks.components(number, "", "", named, kind, "", start, end)


def ei_parts(identifier: Json) -> tuple[str, str, str, str]:
    """Return the four parts of EI."""
    return (str(identifier.get("value", "")), *authority(str(identifier.get("system", ""))))


def ei(identifier: Json | None, marks: Marks) -> str:
    """Return an Identifier as EI."""
    return marks.leaves(*ei_parts(identifier)) if identifier and identifier.get("value") else ""


def own(type: str, id: str, marks: Marks) -> dict[str, Any]:
    """Return what a resource without an identifier is called by others: its place here."""
    return {"system": f"{marks.base}/{type}" if marks.base else "", "value": id}


# ------------------------------------------------------------------------------ names, addresses


def xpn(name: Json, marks: Marks) -> str:
    """Return a HumanName as XPN; one that is text alone becomes the family name."""
    given = [str(one) for one in name.get("given", ())]
    suffix = [*map(str, name.get("suffix", ())), "", ""]
    family = str(name.get("family", ""))
    if not (family or given):
        family = str(name.get("text", ""))
    if not (family or given or suffix[0] or name.get("prefix")):
        return ""
    start, end = period_of(name)
    return marks.components(
        *map(marks.text, (family, *_two(given), suffix[0])),
        marks.text(" ".join(map(str, name.get("prefix", ())))),
        marks.text(suffix[1]),
        source("NameType", str(name.get("use", ""))),
        *("", "", "", "", start, end),
        marks.text(" ".join(suffix[2:]).strip()),
    )


def _two(given: Sequence[str]) -> tuple[str, str]:
    return (given[0] if given else ""), " ".join(given[1:])


def xad(address: Json, marks: Marks) -> str:
    """Return an Address as XAD; one that is text alone becomes its first line."""
    lines = [str(one) for one in address.get("line", ())]
    named = [str(address.get(one, "")) for one in ("city", "state", "postalCode", "country")]
    if not any((*lines, *named, address.get("district"))):
        lines = [str(address.get("text", ""))]
    kind = source("AddressType[Use]", str(address.get("use", ""))) or source(
        "AddressType[Type]", str(address.get("type", ""))
    )
    start, end = period_of(address)
    city, state, code, country = map(marks.text, named)
    first, second = map(marks.text, (*lines[:2], "", "")[:2])
    more = marks.text(", ".join(lines[2:]))
    written = (first, second, city, state, code, country)
    if not any((*written, more, address.get("district"))):
        return ""
    district = marks.text(address.get("district", ""))
    return marks.components(
        *written, kind, "", district, "", "", "", start, end, "", "", "", "", more
    )


HOME, WORK, ANY = 13, 14, 40
_EQUIPMENT = {"phone": "PH", "fax": "FX", "pager": "BP", "email": "Internet", "sms": "CP"}
_SILENT_USES = {"email": "NET", "pager": "BPN"}


def xtn(point: Json, marks: Marks) -> tuple[int, str]:
    """Return the field of PID that a ContactPoint belongs to, and it as XTN; "" for a url.

    PID-13 and PID-14 say *home* and *work* by themselves: what says neither goes to PID-40.
    """
    system, value = str(point.get("system", "phone")), str(point.get("value", ""))
    use = str(point.get("use", ""))
    kind = _EQUIPMENT.get(system, "")
    if not value or not kind:
        return HOME, ""
    code = source("TelecommunicationUseCode", use) if use else ""
    if use == "mobile" and system == "phone":
        kind = "CP"
    field = WORK if use == "work" else HOME
    if not code:
        code = _SILENT_USES.get(system, "")
        field = HOME if code else ANY
    rank = str(point.get("rank", ""))
    if system == "email":
        parts = ["", code, kind, value]
    else:
        # XTN.1 is for those who know no XTN.12; an @ in it would make it an address.
        parts = ["" if "@" in value else value, code, kind, *[""] * 8, value]
    return field, marks.leaves(*parts, *[""] * (17 - len(parts)), rank)


# ------------------------------------------------------------------------------------------ codes


def cwe(concept: Json | None, marks: Marks, map: str = "", table: str = "") -> str:
    """Return a CodeableConcept as CWE.

    ``map`` names the guide's map by which the field is read: the first triplet is for codes of
    v2's own ``table`` then, since it is read as one of them whatever its system says.
    """
    if not concept:
        return ""
    codings = [one for one in concept.get("coding", ()) if one.get("code")]
    text = str(concept.get("text", ""))
    if not codings:
        text = text or _display(concept)
        return marks.leaves("", text, *[""] * 6, text) if text else ""
    triplets: list[tuple[str, ...]] = [_triplet(one) for one in codings]
    if map:
        triplets = _led(codings, triplets, map, table)
    triplets = triplets[:_CODINGS_MAX]
    parts = [""] * 14
    for (first, version), said in zip(((0, 6), (3, 7), (9, 12)), triplets, strict=False):
        parts[first : first + 3] = said[:3]
        parts[version] = said[3]
    parts[8] = text
    return marks.leaves(*parts)


def _led(
    codings: Sequence[Json], triplets: list[tuple[str, ...]], map: str, table: str
) -> list[tuple[str, ...]]:
    for coding, triplet in zip(codings, triplets, strict=True):
        if coding.get("system") == V2_SYSTEM + table:
            return [triplet, *(one for one in triplets if one is not triplet)]
    for coding in codings:
        if code := source(map, str(coding["code"]), str(coding.get("system", ""))):
            return [(code, str(coding.get("display", "")), f"HL7{table}", ""), *triplets]
    return [("", "", "", ""), *triplets]


def _triplet(coding: Json) -> tuple[str, str, str, str]:
    names = [str(coding.get(one, "")) for one in ("code", "display", "system", "version")]
    return names[0], names[1], name_of(names[2]), names[3]


def _display(concept: Json) -> str:
    return next((str(one["display"]) for one in concept.get("coding", ()) if "display" in one), "")


def code_of(concept: Json | None, map: str, table: str) -> str:
    """Return the code of v2's ``table`` that a CodeableConcept has or means; "" for none."""
    for coding in (concept or {}).get("coding", ()):
        code = str(coding.get("code", ""))
        if coding.get("system") == V2_SYSTEM + table:
            return code
        if map and (found := source(map, code, str(coding.get("system", "")))):
            return found
    return ""


# ------------------------------------------------------------------------------------- references


def _named(reference: Json, marks: Marks) -> tuple[dict[str, Any], str]:
    """Return the identifier and the display of a Reference; a literal one is known by its place."""
    identifier = dict(reference.get("identifier", {}))
    display = str(reference.get("display", ""))
    if not identifier.get("value"):
        type, _, id = str(reference.get("reference", "")).rpartition("/")
        identifier = own(type.rpartition("/")[2], id, marks) if type and id else {}
    return identifier, display


def xcn(reference: Json | None, marks: Marks) -> str:
    """Return a Reference to a person as XCN: number, and the display as name."""
    identifier, display = _named(reference or {}, marks)
    if not (identifier or display):
        return ""
    number = marks.text(identifier.get("value", ""))
    named = marks.subs(*authority(str(identifier.get("system", ""))))
    kind = marks.text(type_of(identifier))
    name = marks.text(display)
    return marks.components(number, name, *[""] * 6, named if number else "", *[""] * 3, kind)


def ndl(reference: Json | None, marks: Marks) -> str:
    """Return a Reference to a person as NDL."""
    identifier, display = _named(reference or {}, marks)
    number, *system = ei_parts(identifier)
    return marks.subs(number, display, *[""] * 6, *(system if number else ()))


def pl(reference: Json | None, marks: Marks) -> str:
    """Return a Reference to a place as PL: the display as point of care, the number in PL.10."""
    identifier, display = _named(reference or {}, marks)
    number = marks.subs(*ei_parts(identifier)) if identifier.get("value") else ""
    return marks.components(marks.text(display), *[""] * 8, number)
