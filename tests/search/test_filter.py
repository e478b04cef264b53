# https://hl7.org/fhir/R4/search_filter.html
"""``_filter``: its grammar and its operators."""

import json
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.outcome import FhirError
from fhir_server.search.filter import OPERATORS, filter_tree
from fhir_server.search.parameters import ParameterTable
from fhir_server.search.string import fold
from tests.search.matching import found_by

LOINC, UCUM = "http://loinc.org", "http://unitsofmeasure.org"
SETS = "http://hl7.org/fhir/ValueSet/"
VERIFICATION = "http://terminology.hl7.org/CodeSystem/condition-ver-status"

PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "p1",
    "name": [{"given": ["Péter", "James"], "family": "Carpet, Jr"}],
    "birthDate": "2014-10-12",
    "gender": "male",
    "generalPractitioner": [{"reference": "Practitioner/7"}],
}
OBSERVATION: dict[str, Any] = {
    "resourceType": "Observation",
    "id": "o1",
    "status": "final",
    "code": {"coding": [{"system": LOINC, "code": "1234-5"}], "text": "Glucose"},
    "valueQuantity": {"value": Decimal("5.4"), "system": UCUM, "code": "mg/dL"},
    "effectivePeriod": {"start": "2020-01-10", "end": "2020-02-10"},
}
CONDITION: dict[str, Any] = {
    "resourceType": "Condition",
    "verificationStatus": {"coding": [{"system": VERIFICATION, "code": "provisional"}]},
}
RISK = {"resourceType": "RiskAssessment", "prediction": [{"probabilityDecimal": Decimal("0.4")}]}
VALUE_SET = {"resourceType": "ValueSet", "url": "http://a.example/fhir/x"}

DOCUMENT = {
    "resourceType": "DocumentReference",
    "relatesTo": [
        {"code": "appends", "target": {"reference": "DocumentReference/4"}},
        {"code": "signs", "target": {"reference": "DocumentReference/5"}},
    ],
}

CASES: list[tuple[dict[str, Any], str, bool]] = [
    (PATIENT, 'name co "pet"', True),
    (PATIENT, "name co pet", True),
    (PATIENT, 'given eq "peter" and birthdate ge 2014-10-10', True),
    (PATIENT, 'given eq "pete"', False),
    (PATIENT, 'given sw "pete"', True),
    (PATIENT, 'given ew "eter"', True),
    (PATIENT, 'given ew "pete"', False),
    (PATIENT, 'given ne "peter"', False),
    (PATIENT, 'given ne "paul"', True),
    (PATIENT, 'address ne "paul"', False),
    (PATIENT, 'given gt "peteq"', True),
    (PATIENT, 'given gt "peter"', False),
    (PATIENT, 'given ge "PETER"', True),
    (PATIENT, 'given le "james"', True),
    (PATIENT, 'given lt "james"', False),
    (PATIENT, 'family eq "carpet, jr"', True),
    (PATIENT, 'family eq "Carpet\\u002c Jr"', True),
    (PATIENT, "birthdate eq 2014", True),
    (PATIENT, "birthdate ne 2014", False),
    (PATIENT, "birthdate lt 2014-10-12", False),
    (PATIENT, "birthdate sa 2014-10-11", True),
    (PATIENT, "birthdate eb 2014-10-11", False),
    (PATIENT, "gender eq male", True),
    (PATIENT, "gender eq http://hl7.org/fhir/administrative-gender|male", True),
    (PATIENT, "gender ne male", False),
    (PATIENT, f"gender in {SETS}administrative-gender", True),
    (PATIENT, f"gender ni {SETS}administrative-gender", False),
    (PATIENT, "death-date pr true", False),
    (PATIENT, "death-date pr false", True),
    (PATIENT, "birthdate pr true", True),
    (PATIENT, "general-practitioner re Practitioner/7", True),
    (PATIENT, "general-practitioner eq 7", True),
    (PATIENT, "general-practitioner re Practitioner/8", False),
    (PATIENT, "_id eq p1", True),
    (PATIENT, "_id ne p1", False),
    (PATIENT, "_lastUpdated po 2026", True),
    (PATIENT, "_lastUpdated po 2025", False),
    (PATIENT, "not (gender eq male)", False),
    (PATIENT, "not(gender eq female) and not (gender eq other)", True),
    (PATIENT, "gender eq female or gender eq male and birthdate eq 2013", False),
    (PATIENT, "gender eq male or (gender eq female and birthdate eq 2013)", True),
    (PATIENT, "  ( gender eq male )  ", True),
    (PATIENT, "((gender eq male)and(birthdate eq 2014))", True),
    (OBSERVATION, f"code eq {LOINC}|1234-5", True),
    (OBSERVATION, f"code eq {LOINC}|1234-6", False),
    (OBSERVATION, 'code sw "gluc"', True),
    (OBSERVATION, 'code co "ucos"', True),
    (OBSERVATION, 'code ew "cose"', True),
    (OBSERVATION, 'code ew "ucos"', False),
    (OBSERVATION, "code-value-quantity[code eq 1234-5].value-quantity gt 5", True),
    (OBSERVATION, "code-value-quantity[code eq 1234-6].value-quantity gt 5", False),
    (OBSERVATION, "code-value-quantity[code ne 1234-6].value-quantity gt 6", False),
    (OBSERVATION, f"code-value-quantity[code eq {LOINC}|].value-quantity pr true", True),
    (OBSERVATION, "code-value-quantity[code eq 1234-6].value-quantity pr true", False),
    (OBSERVATION, "code-value-quantity[code eq 1234-6].value-quantity pr false", True),
    (OBSERVATION, "code-value-quantity.value-quantity pr true", True),
    (
        OBSERVATION,
        "code-value-quantity[code eq x or not (code ne 1234-5)].value-quantity lt 6",
        True,
    ),
    (DOCUMENT, "relationship[relation eq appends].relatesto re DocumentReference/4", True),
    (DOCUMENT, "relationship[relation eq appends].relatesto re DocumentReference/5", False),
    (DOCUMENT, "relationship[relation eq signs].relatesto pr false", False),
    (OBSERVATION, f"value-quantity eq 0.054|{UCUM}|g/L", True),
    (OBSERVATION, f"value-quantity gt 0.06|{UCUM}|g/L", False),
    (OBSERVATION, "value-quantity ap 5", True),
    (OBSERVATION, "date po 2020-02", True),
    (OBSERVATION, "date po 2020-03", False),
    (OBSERVATION, "date eq 2020-02", False),
    (OBSERVATION, f"code-value-quantity eq {LOINC}|1234-5$5.4", True),
    (CONDITION, f"verification-status ss {VERIFICATION}|unconfirmed", True),
    (CONDITION, f"verification-status ss {VERIFICATION}|confirmed", False),
    (CONDITION, f"verification-status sb {VERIFICATION}|provisional", True),
    (RISK, "probability ge 0.4", True),
    (RISK, "probability gt 0.4", False),
    (VALUE_SET, "url co example/fhir", True),
    (VALUE_SET, "url co EXAMPLE", False),
    (VALUE_SET, "url ew fhir/x", True),
    (VALUE_SET, "url ew fhir", False),
    (VALUE_SET, "url sw http://a.example/fhir", True),
    (VALUE_SET, "url eq http://a.example/fhir", False),
]


@pytest.mark.parametrize(("resource", "text", "expected"), CASES)
def test_operators(
    table: ParameterTable, resource: dict[str, Any], text: str, expected: bool
) -> None:
    """Each operator does what its row says, and logic goes from left to right."""
    assert found_by(table, resource, ("_filter", text)) is expected


REFUSED: dict[str, tuple[str, str]] = {
    "name": ("value", "column 5"),
    "name co": ("value", "column 5"),
    "name co ": ("value", "column 9"),
    "name xx y": ("value", "column 6"),
    'name co "pet': ("value", "column 9"),
    'name co ""': ("value", "column 9"),
    'name co "\\x"': ("value", "column 9"),
    'name co "\\ud800"': ("value", "column 9"),
    "name co a b": ("value", "column 11"),
    "(name co a": ("value", "column 11"),
    "name co a)": ("value", "column 10"),
    "not name co a": ("value", "column 4"),
    "name co a and": ("value", "column 14"),
    "name co a & name co b": ("value", "column 11"),
    "{}": ("value", "column 1"),
    "$where eq 1": ("value", "column 1"),
    "nam eq x": ("not-supported", "column 1"),
    "gender co male": ("not-supported", "column 1"),
    "gender eq male and birthdate eq x": ("value", "column 20"),
    "birthdate co 2014": ("not-supported", "column 1"),
    "birthdate pr maybe": ("value", "column 1"),
    "general-practitioner.nam co x": ("not-supported", "without a search parameter 'nam'"),
    "general-practitioner:Practitioner.nam co x": ("not-supported", "Did you mean name?"),
    "general-practitioner:Practitione.name co x": ("not-supported", "no resource type"),
    "name[use eq official].family eq x": ("not-supported", "only references and composites"),
    "link[type eq refer].other re Patient/1": ("not-supported", "leads to"),
    "general-practitioner[name co x] re 1": ("value", "column 32"),
    "general-practitioner[name co x.y": ("value", "closing bracket"),
    "general-practitioner. eq 1": ("value", "column 22"),
    "name:exact eq x": ("value", "column 5"),
    "link." * 10 + "name eq x": ("too-costly", "8 steps"),
    "(" * 12 + "name eq x" + ")" * 12: ("value", "parentheses"),
    " and ".join(["name eq x"] * 101): ("value", "at most 100 tests"),
}


@pytest.mark.parametrize(("text", "expected"), REFUSED.items(), ids=range(len(REFUSED)))
def test_refusals(table: ParameterTable, text: str, expected: tuple[str, str]) -> None:
    """What cannot be read is 400 with its column; what is not answered says what would be."""
    with pytest.raises(FhirError) as caught:
        found_by(table, PATIENT, ("_filter", text))

    issue = caught.value.issues[0]
    assert (caught.value.status, issue.code) == (400, expected[0])
    assert expected[1] in issue.diagnostics
    assert "column" in issue.diagnostics or issue.code == "too-costly"


@given(
    st.text(max_size=60)
    | st.lists(
        st.sampled_from(
            ['"a"', "name", "(", ")", "not", "and", "or", "eq", "co", "x", " ", "[", ".", '"']
        ),
        max_size=20,
    ).map(" ".join)
)
def test_any_text_is_a_tree_or_a_refusal(text: str) -> None:
    """No text makes the reader fail otherwise."""
    with suppress(FhirError):
        filter_tree(text)


NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20)


@given(NAMES, st.sampled_from(["eq", "sw", "co", "ew"]))
def test_a_filter_finds_what_it_was_written_from(
    table: ParameterTable, name: str, operator: str
) -> None:
    """A filter written from a name finds it; its negation does not."""
    patient = {"resourceType": "Patient", "name": [{"text": name}]}
    text = f"name {operator} {json.dumps(name)}"

    if fold(name):
        assert found_by(table, patient, ("_filter", text))
        assert not found_by(table, patient, ("_filter", f"not ({text})"))


def test_every_operator_has_a_case() -> None:
    """The table above leaves no operator out."""
    assert {word for _, text, _ in CASES for word in text.split()} >= set(OPERATORS) - {"le"}
