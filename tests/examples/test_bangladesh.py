"""profiles/bd.core: who is right and who is wrong by the rules of the Bangladesh pack."""

from collections.abc import Callable
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import offline_judge
from fhir_server.r4.json import decode
from tests.conftest import ROOT

PACK = "urn:fhir-server:bd.core:StructureDefinition:"
NATIONAL = "https://fhir.dghs.gov.bd/core/StructureDefinition/"
GEO = "https://fhir.dghs.gov.bd/core/CodeSystem/bd-geocodes"
NUMBER = "http://dghs.gov.bd/identifier/"
CLINIC = decode((ROOT / "examples" / "dhaka-clinic" / "clinic.json").read_bytes())
PATIENTS = {
    one["resource"]["id"]: one["resource"]
    for one in CLINIC["entry"]
    if one["resource"]["resourceType"] == "Patient"
}

Json = dict[str, Any]


def place(extension: str, code: str) -> Json:
    coding = [{"system": GEO, "code": code}]
    return {"url": NATIONAL + extension, "valueCodeableConcept": {"coding": coding}}


REGISTERED: Json = {
    "resourceType": "Patient",
    "identifier": [
        {"system": NUMBER + "uhid", "value": "98000123456"},
        {"system": NUMBER + "nid", "value": "1234567890"},
    ],
    "name": [
        {
            "use": "official",
            "text": "Abul Kashem",
            "_text": {
                "extension": [
                    {"url": NATIONAL + "bd-name-en", "valueString": "Abul Kashem"},
                    {"url": NATIONAL + "bd-name-bn", "valueString": "আবুল কাশেম"},
                ]
            },
        }
    ],
    "gender": "male",
    "birthDate": "1985-05-20",
    "address": [
        {
            "extension": [place("bd-divisions", "30"), place("bd-upazillas", "30262548")],
            "district": "3026",
            "country": "BD",
        }
    ],
}
CONDITION: Json = {
    "resourceType": "Condition",
    "clinicalStatus": {
        "coding": [
            {
                "system": "http://terminology.hl7.org/CodeSystem/condition-clinical",
                "code": "active",
            }
        ]
    },
    "code": {
        "coding": [
            {"system": "http://id.who.int/icd/release/11/mms", "code": "5A11"},
            {"system": "http://hl7.org/fhir/sid/icd-10", "code": "E11.9"},
        ]
    },
    "subject": {"reference": "Patient/x"},
}
RESULT: Json = {
    "resourceType": "Observation",
    "status": "final",
    "category": [
        {
            "coding": [
                {
                    "system": "http://terminology.hl7.org/CodeSystem/observation-category",
                    "code": "laboratory",
                }
            ]
        }
    ],
    "code": {"coding": [{"system": "http://loinc.org", "code": "4548-4"}]},
    "subject": {"reference": "Patient/x"},
    "effectiveDateTime": "2026-01-12",
    "valueQuantity": {"value": 7, "unit": "%"},
}


@lru_cache(maxsize=8)
def judge(profile: str) -> Any:
    return offline_judge((), (PACK + profile,))[0]


def errors(resource: Json, profile: str) -> list[tuple[str, str]]:
    """Expression and sentence of each error, by the pack's ``profile``."""
    return [
        (one.expression, one.diagnostics)
        for one in judge(profile).issues(resource)
        if one.severity == "error"
    ]


def at(resource: Json, *steps: str | int) -> Any:
    found: Any = resource
    for step in steps:
        found = found[step]
    return found


def without(*steps: str | int) -> Callable[[Json], None]:
    def change(resource: Json) -> None:
        del at(resource, *steps[:-1])[steps[-1]]

    return change


def put(value: Any, *steps: str | int) -> Callable[[Json], None]:
    def change(resource: Json) -> None:
        at(resource, *steps[:-1])[steps[-1]] = value

    return change


def more(value: Any, *steps: str | int) -> Callable[[Json], None]:
    def change(resource: Json) -> None:
        at(resource, *steps).append(value)

    return change


@pytest.mark.parametrize("patient", PATIENTS.values(), ids=PATIENTS)
def test_the_patients_of_the_sample_clinic_are_right(patient: Json) -> None:
    """Everybody in the sample clinic keeps the rules for records of patients."""
    assert errors(patient, "bd-patient") == []


RIGHT: dict[str, tuple[Json, str, Callable[[Json], None] | None]] = {
    "registered": (REGISTERED, "bd-patient-registered", None),
    "registered, without a Bangla name": (
        *(REGISTERED, "bd-patient-registered"),
        without("name", 0, "_text", "extension", 1),
    ),
    "a record of a registered patient": (REGISTERED, "bd-patient", None),
    "an older national ID": (
        *(REGISTERED, "bd-patient"),
        put("19851234567890123", "identifier", 1, "value"),
    ),
    "a number in Bangla digits": (
        *(REGISTERED, "bd-patient"),
        put("১২৩৪৫৬৭৮৯০", "identifier", 1, "value"),
    ),
    "no number at all": (REGISTERED, "bd-patient", without("identifier")),
    "no address": (REGISTERED, "bd-patient", without("address")),
    "another clinic's number": (
        *(REGISTERED, "bd-patient-registered"),
        more({"system": "https://fhir.example.org/bd/clinic-number", "value": "1"}, "identifier"),
    ),
    "a link of merged records": (
        *(REGISTERED, "bd-patient-registered"),
        put([{"other": {"reference": "Patient/y"}, "type": "replaces"}], "link"),
    ),
    "an ICD-11 code beside one of ICD-10": (CONDITION, "bd-condition", None),
    "an ICD-11 code with a suffix": (
        *(CONDITION, "bd-condition"),
        put("BA00.Z", "code", "coding", 0, "code"),
    ),
    "a laboratory result": (RESULT, "bd-lab-result", None),
}


@pytest.mark.parametrize(("resource", "profile", "change"), RIGHT.values(), ids=RIGHT)
def test_what_keeps_the_rules(
    resource: Json, profile: str, change: Callable[[Json], None] | None
) -> None:
    """What the rules allow has no error."""
    changed = deepcopy(resource)
    if change is not None:
        change(changed)

    assert errors(changed, profile) == []


ADDRESS = "Patient.address[0]"
WRONG: dict[str, tuple[Json, str, Callable[[Json], None], str]] = {
    "no gender": (REGISTERED, "bd-patient", without("gender"), "Patient"),
    "no name": (REGISTERED, "bd-patient", without("name"), "Patient"),
    "a name without text": (
        *(REGISTERED, "bd-patient"),
        put([{"family": "Kashem"}], "name"),
        "Patient.name[0]",
    ),
    "a name in Bangla only": (
        REGISTERED,
        "bd-patient",
        put("আবুল কাশেম", "name", 0, "text"),
        "Patient",
    ),
    "a national ID that is too short": (
        *(REGISTERED, "bd-patient"),
        put("12345", "identifier", 1, "value"),
        "Patient.identifier[1]",
    ),
    "a national ID with a letter": (
        *(REGISTERED, "bd-patient"),
        put("12345678X0", "identifier", 1, "value"),
        "Patient.identifier[1]",
    ),
    "a national ID without a value": (
        *(REGISTERED, "bd-patient"),
        without("identifier", 1, "value"),
        "Patient.identifier[1]",
    ),
    "two national IDs": (
        *(REGISTERED, "bd-patient"),
        more({"system": NUMBER + "nid", "value": "1234567891"}, "identifier"),
        "Patient.identifier[2]",
    ),
    "a birth registration number of 16 digits": (
        *(REGISTERED, "bd-patient"),
        more({"system": NUMBER + "brn", "value": "2021000000000100"}, "identifier"),
        "Patient.identifier[2]",
    ),
    "no country": (REGISTERED, "bd-patient", without("address", 0, "country"), ADDRESS),
    "a division that is none": (
        *(REGISTERED, "bd-patient"),
        put("31", "address", 0, "extension", 0, "valueCodeableConcept", "coding", 0, "code"),
        f"{ADDRESS}.extension[0].value",
    ),
    "an upazila that is none": (
        *(REGISTERED, "bd-patient"),
        put("30269999", "address", 0, "extension", 1, "valueCodeableConcept", "coding", 0, "code"),
        f"{ADDRESS}.extension[1].value",
    ),
    "two divisions": (
        *(REGISTERED, "bd-patient"),
        more(place("bd-divisions", "20"), "address", 0, "extension"),
        f"{ADDRESS}.extension[2]",
    ),
    "registered without a unique health ID": (
        *(REGISTERED, "bd-patient-registered"),
        without("identifier", 0),
        "Patient",
    ),
    "a unique health ID without a value, as in the guide's example": (
        *(REGISTERED, "bd-patient-registered"),
        without("identifier", 0, "value"),
        "Patient.identifier[0]",
    ),
    "registered with two names": (
        *(REGISTERED, "bd-patient-registered"),
        more({**REGISTERED["name"][0], "text": "Kashem"}, "name"),
        "Patient",
    ),
    "registered under a name that is not official": (
        *(REGISTERED, "bd-patient-registered"),
        put("usual", "name", 0, "use"),
        "Patient.name[0].use",
    ),
    "registered without the English name": (
        *(REGISTERED, "bd-patient-registered"),
        without("name", 0, "_text", "extension", 0),
        "Patient.name[0].text",
    ),
    "registered without an upazila": (
        *(REGISTERED, "bd-patient-registered"),
        without("address", 0, "extension", 1),
        ADDRESS,
    ),
    "registered with the name of a district": (
        *(REGISTERED, "bd-patient-registered"),
        put("Dhaka", "address", 0, "district"),
        f"{ADDRESS}.district",
    ),
    "a diagnosis of ICD-10 only": (
        *(CONDITION, "bd-condition"),
        without("code", "coding", 0),
        "Condition.code",
    ),
    "two stem codes": (
        *(CONDITION, "bd-condition"),
        more({"system": "http://id.who.int/icd/release/11/mms", "code": "5A10"}, "code", "coding"),
        "Condition.code.coding[2]",
    ),
    "a code of another form": (
        *(CONDITION, "bd-condition"),
        put("E11.9", "code", "coding", 0, "code"),
        "Condition.code.coding[0]",
    ),
    "a result without LOINC": (
        *(RESULT, "bd-lab-result"),
        put("http://example.org", "code", "coding", 0, "system"),
        "Observation.code",
    ),
    "a result of another category": (
        *(RESULT, "bd-lab-result"),
        put("imaging", "category", 0, "coding", 0, "code"),
        "Observation",
    ),
}


@pytest.mark.parametrize(("resource", "profile", "change", "where"), WRONG.values(), ids=WRONG)
def test_what_breaks_a_rule(
    resource: Json, profile: str, change: Callable[[Json], None], where: str
) -> None:
    """One fault each: it is found where it is."""
    changed = deepcopy(resource)
    change(changed)

    assert {expression for expression, _ in errors(changed, profile)} == {where}


def test_an_upazila_outside_of_its_division_is_said() -> None:
    """It may be a slip of either code, so it is a warning."""
    changed = deepcopy(REGISTERED)
    put("20", "address", 0, "extension", 0, "valueCodeableConcept", "coding", 0, "code")(changed)
    found = [one for one in judge("bd-patient").issues(changed) if "bd-adr-1" in one.diagnostics]

    assert [(one.severity, one.expression) for one in found] == [("warning", ADDRESS)]


def test_the_guides_own_example_lacks_a_value(shared: Path) -> None:
    """The patient of the national guide has a unique health ID without its value."""
    example = decode((shared / "bd-core" / "Patient-BDPatientExample.json").read_bytes())
    del example["meta"]

    assert [where for where, _ in errors(example, "bd-patient")] == ["Patient.identifier[0]"]
    example["identifier"][0]["value"] = "98000123456"
    assert errors(example, "bd-patient-registered") == []
