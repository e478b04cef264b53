# https://hl7.org/fhir/R4/search.html#modifiers
"""Modifiers of tokens: texts, types of identifiers, value sets, hierarchies."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.outcome import FhirError
from fhir_server.search.escape import escape
from fhir_server.search.parameters import ParameterTable
from fhir_server.search.string import fold
from tests.search.matching import found_by

V2 = "http://terminology.hl7.org/CodeSystem/v2-0203"
VERIFICATION = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
ACTS = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
STATUS = "http://hl7.org/fhir/observation-status"
SETS = "http://hl7.org/fhir/ValueSet/"

CONDITION = {
    "resourceType": "Condition",
    "code": {
        "text": "Rheumatoid  ÁRTHRITIS, both hands",
        "coding": [{"system": "http://snomed.info/sct", "code": "69896004", "display": "RA"}],
    },
    "verificationStatus": {"coding": [{"system": VERIFICATION, "code": "provisional"}]},
    "subject": {"reference": "Patient/p"},
}
PATIENT = {
    "resourceType": "Patient",
    "gender": "female",
    "active": True,
    "identifier": [
        {
            "type": {"coding": [{"system": V2, "code": "MR"}], "text": "Hospital number"},
            "system": "http://hospital",
            "value": "446053",
        },
        {"type": {"coding": [{"system": V2, "code": "DL"}]}, "value": "12"},
    ],
}
OBSERVATION = {"resourceType": "Observation", "status": "final", "code": {"text": "খ"}}
ENCOUNTER = {"resourceType": "Encounter", "class": {"system": ACTS, "code": "ACUTE"}}

CASES: list[tuple[dict[str, Any], str, str, bool]] = [
    (CONDITION, "code:text", "rheumatoid arthritis", True),
    (CONDITION, "code:text", "Ra", True),
    (CONDITION, "code:text", "arthritis", False),
    (CONDITION, "code:text", "69896004", False),
    (OBSERVATION, "code:text", "খ", True),
    (OBSERVATION, "code:text", "ক", False),
    (PATIENT, "identifier:text", "hospital NUM", True),
    (PATIENT, "identifier:text", "446053", False),
    (PATIENT, "identifier:of-type", f"{V2}|MR|446053", True),
    (PATIENT, "identifier:of-type", f"{V2}|DL|446053", False),
    (PATIENT, "identifier:of-type", f"{V2}|MR|12", False),
    (PATIENT, "identifier:of-type", f"{V2}|MR|1,{V2}|DL|12", True),
    (CONDITION, "verification-status:in", f"{SETS}condition-ver-status", True),
    (CONDITION, "verification-status:in", f"{SETS}condition-ver-status|4.0.1", True),
    (CONDITION, "verification-status:in", "ValueSet/condition-ver-status", True),
    (CONDITION, "verification-status:in", f"{SETS}condition-clinical", False),
    (CONDITION, "verification-status:not-in", f"{SETS}condition-clinical", True),
    (CONDITION, "verification-status:not-in", f"{SETS}condition-ver-status", False),
    (CONDITION, "severity:not-in", f"{SETS}condition-ver-status", True),
    (PATIENT, "gender:in", f"{SETS}administrative-gender", True),
    (PATIENT, "gender:in", f"{SETS}observation-status", False),
    (PATIENT, "gender:not-in", f"{SETS}administrative-gender", False),
    (CONDITION, "verification-status:below", f"{VERIFICATION}|unconfirmed", True),
    (CONDITION, "verification-status:below", f"{VERIFICATION}|provisional", True),
    (CONDITION, "verification-status:below", f"{VERIFICATION}|confirmed", False),
    (CONDITION, "verification-status:above", f"{VERIFICATION}|provisional", True),
    (CONDITION, "verification-status:above", f"{VERIFICATION}|unconfirmed", False),
    (ENCOUNTER, "class:below", f"{ACTS}|IMP", True),
    (ENCOUNTER, "class:below", f"{ACTS}|AMB", False),
    (OBSERVATION, "status:below", f"{STATUS}|final", True),
    (OBSERVATION, "status:below", f"{STATUS}|amended", False),
]


@pytest.mark.parametrize(("resource", "name", "value", "expected"), CASES)
def test_modifiers(
    table: ParameterTable, resource: dict[str, Any], name: str, value: str, expected: bool
) -> None:
    """Each modifier finds what its row of the table in the specification says."""
    assert found_by(table, resource, (name, value)) is expected


REFUSED = [
    ("Condition", "code:in", f"{SETS}mimetypes", "cannot be expanded"),
    ("Condition", "code:in", "http://no.such/set", "is not here"),
    ("Condition", "code:in", f"{SETS}condition-ver-status|9", "is not here"),
    ("Condition", "code:in", "ValueSet/$where", "is not here"),
    ("Condition", "code:in", "{}", "is not here"),
    ("Condition", "code:below", "http://snomed.info/sct|1", "is not known whole"),
    ("Condition", "code:below", "69896004", "system|code"),
    ("Condition", "code:above", f"{VERIFICATION}|nonsense", "a code of"),
    ("Condition", "code:of-type", "a|b|c", "has no modifier"),
    ("Patient", "identifier:in", f"{SETS}administrative-gender", "has no modifier"),
    ("Patient", "active:text", "t", "has no modifier"),
    ("Patient", "_id:in", f"{SETS}administrative-gender", "has no modifier"),
    ("Patient", "identifier:of-type", "MR|446053", "system|code|value"),
    ("Patient", "identifier:of-type", "|MR|446053", "system|code|value"),
    ("Patient", "identifier:text", "x" * 300, "characters"),
    ("Location", "partof:below", "Patient/1", "the id of a Location"),
    ("Observation", "patient:below", "Patient/1", "has no modifier"),
]


@pytest.mark.parametrize(("type", "name", "value", "expected"), REFUSED)
def test_refusals(table: ParameterTable, type: str, name: str, value: str, expected: str) -> None:
    """What is not known whole is refused with a sentence, never taken for empty."""
    with pytest.raises(FhirError, match=expected.replace("|", r"\|")) as caught:
        found_by(table, {"resourceType": type}, (name, value))

    assert caught.value.status == 400


URL = "http://example.org/PlanDefinition/p"
BELOW = [
    (f"{URL}|1", True),
    (f"{URL}|1.2", True),
    (f"{URL}|1.2.3", True),
    (f"{URL}|1.20", False),
    (f"{URL}|2", False),
    (URL, True),
]


@pytest.mark.parametrize(("value", "expected"), BELOW)
def test_versions_of_canonicals(table: ParameterTable, value: str, expected: bool) -> None:
    """``url|1.2`` with :below finds that version and those that refine it."""
    plan = {"resourceType": "CarePlan", "instantiatesCanonical": [f"{URL}|1.2.3"]}

    assert found_by(table, plan, ("instantiates-canonical:below", value)) is expected


TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20)


@given(text=TEXTS, other=TEXTS, system=TEXTS, code=TEXTS)
def test_a_modifier_finds_what_was_indexed(
    table: ParameterTable, text: str, other: str, system: str, code: str
) -> None:
    """The query written from a text or a typed identifier finds it, that of another does not."""
    identifier = {"type": {"coding": [{"system": system, "code": code}]}, "value": text}
    patient = {"resourceType": "Patient", "identifier": [identifier]}
    asked = "|".join(map(escape, (system, code, text)))

    assert found_by(table, patient, ("identifier:of-type", asked))
    assert not found_by(table, patient, ("identifier:of-type", f"{asked}x"))
    if fold(text):
        observation = {"resourceType": "Observation", "code": {"coding": [{"display": text}]}}
        assert found_by(table, observation, ("code:text", escape(text)))
        begins = fold(text).startswith(fold(other))
        assert not fold(other) or begins is found_by(
            table, observation, ("code:text", escape(other))
        )
