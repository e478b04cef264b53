"""Patient to PID, PD1 and NK1.

HL7 v2.5.1, 3.4.2, 3.4.5 and 3.4.10; the rows of ``segments/pid.py`` the other way round. PID-40 is
of v2.7, and used here as many do before: for numbers that are neither of home nor of work.
"""

from collections.abc import Mapping
from typing import Any

from adapters.hl7v2.outbound.fields import Marks, joined
from adapters.hl7v2.outbound.values import cwe, cx, dtm, own, type_of, xad, xcn, xpn, xtn
from adapters.hl7v2.segments.pid import EXTENSION, NO_PERSON
from adapters.hl7v2.vocabulary import source

Json = Mapping[str, Any]

_YES_NO = {True: "Y", False: "N"}


def extension_of(element: Json, url: str) -> Json:
    """Return the extension with ``url``; {} for none."""
    return next((one for one in element.get("extension", ()) if one.get("url") == url), {})


def pid_of(patient: Json, marks: Marks, set_id: str = "1") -> dict[int, str]:
    """Return the fields of PID by number."""
    numbers = [one for one in patient.get("identifier", ()) if one.get("value")]
    if not any(type_of(one) not in NO_PERSON for one in numbers):
        numbers = [*numbers, own("Patient", str(patient.get("id", "unknown")), marks)]
    fields = {
        1: set_id,
        3: marks.repeated(cx(one, marks) for one in numbers),
        5: marks.repeated(xpn(one, marks) for one in patient.get("name", ())),
        6: _maiden_name(patient, marks),
        7: dtm(_birth_time(patient) or patient.get("birthDate", "")),
        8: source("AdministrativeSex", str(patient.get("gender", ""))),
        11: marks.repeated(xad(one, marks) for one in patient.get("address", ())),
        15: _language(patient, marks),
        16: cwe(patient.get("maritalStatus"), marks, "MaritalStatus", "0002"),
        **_telecom(patient, marks),
        **_extensions(patient, marks),
    }
    return {number: text for number, text in fields.items() if text}


def _maiden_name(patient: Json, marks: Marks) -> str:
    found = extension_of(patient, EXTENSION + "patient-mothersMaidenName")
    return marks.text(found.get("valueString", ""))


def _birth_time(patient: Json) -> str:
    beside = patient.get("_birthDate", {})
    return str(extension_of(beside, EXTENSION + "patient-birthTime").get("valueDateTime", ""))


def _language(patient: Json, marks: Marks) -> str:
    spoken = patient.get("communication", ())
    first: Json = next((one for one in spoken if one.get("preferred")), next(iter(spoken), {}))
    return cwe(first.get("language"), marks, "PrimaryLanguage", "0296")


def _telecom(element: Json, marks: Marks) -> dict[int, str]:
    fields: dict[int, list[str]] = {}
    for point in element.get("telecom", ()):
        number, text = xtn(point, marks)
        fields.setdefault(number, []).append(text)
    return {number: marks.repeated(texts) for number, texts in fields.items()}


def _extensions(patient: Json, marks: Marks) -> dict[int, str]:
    """Return the fields of what R4 says by extensions and by choices."""
    place = extension_of(patient, EXTENSION + "patient-birthPlace").get("valueAddress", {})
    religion = extension_of(patient, EXTENSION + "patient-religion")
    dead = patient.get("deceasedBoolean")
    several = patient.get("multipleBirthBoolean")
    if "multipleBirthInteger" in patient:
        several = True
    if "deceasedDateTime" in patient:
        dead = True
    return {
        17: cwe(religion.get("valueCodeableConcept"), marks, "Religion", "0006"),
        23: marks.text(place.get("text", "") or place.get("city", "")),
        24: _YES_NO.get(several, ""),  # type: ignore[arg-type]
        25: str(patient.get("multipleBirthInteger", "")),
        26: _country(patient, "patient-citizenship", marks),
        28: _country(patient, "patient-nationality", marks),
        29: dtm(patient.get("deceasedDateTime", "")),
        30: _YES_NO.get(dead, ""),  # type: ignore[arg-type]
    }


def _country(patient: Json, name: str, marks: Marks) -> str:
    found = extension_of(extension_of(patient, EXTENSION + name), "code")
    return cwe(found.get("valueCodeableConcept"), marks)


def patient_segments(patient: Json, marks: Marks) -> list[str]:
    """Return PID, PD1 where there is a practitioner, and NK1 for each contact."""
    segments = [joined("PID", pid_of(patient, marks), marks)]
    practitioners = marks.repeated(
        xcn(one, marks)
        for one in patient.get("generalPractitioner", ())
        if one.get("type", "Practitioner") == "Practitioner"
    )
    if practitioners:
        segments.append(joined("PD1", {4: practitioners}, marks))
    return segments


def relatives(patient: Json, marks: Marks) -> list[str]:
    """Return an NK1 for each contact of the Patient."""
    return [
        joined("NK1", {1: str(number), **_contact(one, marks)}, marks)
        for number, one in enumerate(patient.get("contact", ()), 1)
    ]


def _contact(contact: Json, marks: Marks) -> dict[int, str]:
    relationships = contact.get("relationship", ())
    telecom = _telecom(contact, marks)
    home = marks.repeated(telecom.get(number, "") for number in (13, 40))
    return {
        2: xpn(contact.get("name", {}), marks),
        3: cwe(next(iter(relationships), None), marks, "Relationship", "0063"),
        4: xad(contact.get("address", {}), marks),
        5: home,
        6: telecom.get(14, ""),
        7: cwe(next(iter(relationships[1:]), None), marks, "ContactRole", "0131"),
        8: dtm(contact.get("period", {}).get("start", "")),
        9: dtm(contact.get("period", {}).get("end", "")),
        15: source("AdministrativeSex", str(contact.get("gender", ""))),
    }
