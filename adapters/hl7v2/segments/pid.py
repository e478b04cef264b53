"""PID, PD1 and NK1 to Patient.

HL7 v2.5.1, 3.4.2; design/hl7v2.md, section 13.
"""

from typing import Any

from adapters.hl7v2.codes import code, concept
from adapters.hl7v2.datatypes import (
    cx,
    date,
    date_time,
    has_time,
    name_text,
    readable,
    span,
    typed_cx,
    whole,
    xad,
    xpn,
    xtn,
    yes_no,
)
from adapters.hl7v2.message import Segment, Value
from adapters.hl7v2.references import xcn, xon
from adapters.hl7v2.rows import Filled, Row, Table
from adapters.hl7v2.scene import Scene
from adapters.hl7v2.segments.uscore import race_and_ethnicity

Json = dict[str, Any]

EXTENSION = "http://hl7.org/fhir/StructureDefinition/"
US_SSN = "http://hl7.org/fhir/sid/us-ssn"
ANIMAL = EXTENSION + "patient-animal"
NO_PERSON = frozenset(("AN", "VN", "BCT", "ANON", "ACSN", "PLAC", "FILL", "PGN", "FGN"))


def _coded(value: Value, scene: Scene) -> Json | None:
    made = concept()(value, scene)
    return {"valueCodeableConcept": made} if made else None


def _country(value: Value, scene: Scene) -> list[Json] | None:
    made = concept()(value, scene)
    return [{"url": "code", "valueCodeableConcept": made}] if made else None


def _language(value: Value, scene: Scene) -> Json | None:
    made = concept("PrimaryLanguage", "0296")(value, scene)
    return {"language": made} if made else None


def _place(value: Value, scene: Scene) -> Json | None:
    said = readable(value, scene)
    return {"text": said} if said else None


def _social_security(value: Value, scene: Scene) -> Json | None:
    system = US_SSN if scene.profile.us_core else ""
    return typed_cx("SS", system)(value, scene)


def _licence(value: Value, scene: Scene) -> Json | None:
    made = typed_cx("DL")(value, scene)
    if made and value[2]:
        made.pop("extension", None)  # DLN.2 is the issuing authority, not a check digit
        made["assigner"] = {"display": value[2]}
    return made


def _has_no_number(segment: Segment, scene: Scene) -> bool:
    return not segment.value(3)


PATIENT = Table(
    "Patient",
    "PID",
    [
        Row("PID-3*", "identifier[+]", cx),
        Row("PID-2*", "identifier[+]", cx, when=_has_no_number),
        Row("PID-4*", "identifier[+]", cx, when=_has_no_number),
        Row("PID-5*", "name[]", xpn),
        Row("PID-9*", "name[]", xpn),
        Row("PID-6", f"extension[{EXTENSION}patient-mothersMaidenName]", name_text, "valueString"),
        Row("PID-7", "birthDate", date),
        Row("PID-7", f"_birthDate.extension[{EXTENSION}patient-birthTime]", has_time,
            "valueDateTime", when=lambda segment, scene: len(segment.text(7)) > 8),
        Row("PID-8", "gender", code("AdministrativeSex", "unknown", "0001")),
        Row("PID-11*", "address[]", xad),
        Row("PID-13*", "telecom[]", xtn("home")),
        Row("PID-14*", "telecom[]", xtn("work")),
        Row("PID-40*", "telecom[]", xtn()),
        Row("PID-15", "communication*", _language),
        Row("PID-16", "maritalStatus", concept("MaritalStatus", "0002")),
        Row("PID-17", f"extension[{EXTENSION}patient-religion]", concept("Religion", "0006"),
            "valueCodeableConcept"),
        Row("PID-19", "identifier[+]", _social_security),
        Row("PID-20", "identifier[+]", _licence),
        Row("PID-23", f"extension[{EXTENSION}patient-birthPlace]", _place, "valueAddress"),
        Row("PID-26", f"extension[{EXTENSION}patient-citizenship]", _country, "extension"),
        Row("PID-39", f"extension[{EXTENSION}patient-citizenship]", _country, "extension",
            unless="PID-26"),
        Row("PID-28", f"extension[{EXTENSION}patient-nationality]", _country, "extension"),
        Row("PID-25", "multipleBirthInteger", whole),
        Row("PID-24", "multipleBirthBoolean", yes_no, unless="PID-25"),
        Row("PID-29", "deceasedDateTime", date_time),
        Row("PID-30", "deceasedBoolean", yes_no, unless="PID-29"),
    ],
)  # fmt: skip

PRIMARY_CARE = Table(
    "Patient",
    "PD1",
    [
        Row("PD1-3*", "generalPractitioner[]", xon),
        Row("PD1-4*", "generalPractitioner[]", xcn),
        Row("PD1-6", f"extension[{EXTENSION}patient-disability]", concept("", "0295"),
            "valueCodeableConcept"),
        Row("PD1-14", f"extension[{EXTENSION}patient-congregation]", readable, "valueString"),
    ],
)  # fmt: skip


def numbers(pid: Segment, scene: Scene) -> list[tuple[str, str]]:
    """Return the identifiers that name the person, in the order in which they decide.

    PID-3 in the order of the profile, without types that name no person; PID-2, then PID-4, if
    PID-3 is empty.
    """
    for field in (3, 2, 4):
        scene.at(pid, field)
        found = [cx(value, scene) for value in pid.values(field)]
        usable = [one for one in found if one and _type(one) not in NO_PERSON]
        if usable:
            order = {kind: at for at, kind in enumerate(scene.profile.identity.order)}
            usable.sort(key=lambda one: order.get(_type(one), len(order)))
            pairs = [(str(one["system"]), str(one["value"])) for one in usable]
            return list(dict.fromkeys(pairs))
    return []


def _type(identifier: Json) -> str:
    codings = identifier.get("type", {}).get("coding", [{}])
    return str(codings[0].get("code", "")).upper()


def finish_patient(pid: Segment, filled: Filled, scene: Scene) -> None:
    """Add what single rows cannot say: the county of PID-12, the animal, race and ethnicity."""
    county = pid.text(12)
    addresses = filled.set.get("address[pid-11]")
    if county:
        without = [one for one in addresses or () if "district" not in one]
        if without:
            without[0]["district"] = county
        elif not addresses:
            filled.set["address[pid-11]"] = [{"id": "pid-11.1", "district": county}]
    _animal(pid, filled, scene)
    if scene.profile.us_core:
        filled.set.update(race_and_ethnicity(pid, scene))


def _animal(pid: Segment, filled: Filled, scene: Scene) -> None:
    parts = []
    for field, url in ((35, "species"), (36, "breed")):
        value = pid.value(field)
        made = _coded(value, scene) if value else None
        if made:
            parts.append({"url": url, **made})
    if parts and parts[0]["url"] == "species":
        filled.set[f"extension[{ANIMAL}]"] = [{"url": ANIMAL, "extension": parts}]


# ------------------------------------------------------------------------------------------ NK1

_RELATIVE_TELECOM = ((5, xtn("")), (6, xtn("work")), (40, xtn("")), (41, xtn("")))


def contact(nk1: Segment, scene: Scene) -> Json | None:
    """Return a member of Patient.contact; None if it has nothing that R4 asks of one."""
    made: Json = {}
    relationships = []
    for field, map, table in ((3, "Relationship", "0063"), (7, "ContactRole", "0131")):
        value = nk1.value(field)
        scene.at(nk1, field)
        if value and (found := concept(map, table)(value, scene)):
            relationships.append(found)
    if relationships:
        made["relationship"] = relationships
    for place, field, convert in (("name", 2, xpn), ("address", 4, xad)):
        value = nk1.value(field)
        scene.at(nk1, field)
        if value and (found := convert(value, scene)):
            made[place] = found
    telecom: list[Json] = []
    for field, converter in _RELATIVE_TELECOM:
        scene.at(nk1, field)
        for value in nk1.values(field):
            telecom += converter(value, scene) or []
    if telecom:
        made["telecom"] = telecom
    _more(nk1, made, scene)
    if made.keys() & {"name", "telecom", "address", "organization"}:
        return made
    if made:
        scene.at(nk1, 2)
        scene.note("contact-incomplete", "A relative without name, address or number is left out.")
    return None


def _more(nk1: Segment, made: Json, scene: Scene) -> None:
    gender = nk1.value(15)
    scene.at(nk1, 15)
    if gender and isinstance(found := code("AdministrativeSex", "", "0001")(gender, scene), str):
        made["gender"] = found
    organization = nk1.value(13)
    if organization and (named := xon(organization, scene)):
        made["organization"] = named
    start, end = nk1.value(8), nk1.value(9)
    valid = span(date_time(start, scene) if start else None, date_time(end, scene) if end else None)
    if valid:
        made["period"] = valid
