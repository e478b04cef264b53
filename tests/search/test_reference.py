# https://hl7.org/fhir/R4/search.html#reference
"""Reference parameters."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.outcome import FhirError
from fhir_server.search.parameters import ParameterTable
from fhir_server.search.reference import compile_reference
from tests.search.conftest import BASE
from tests.search.matching import found_by

OTHER = "http://other.example/fhir/Patient/23"
UUID = "urn:uuid:187e0c12-8dd2-67e2-99b2-bf273c878281"
CASES = [
    ("subject", "23", "Patient/23", True),
    ("subject", "23", "Group/23", True),
    ("subject", "23", OTHER, False),
    ("subject", "Patient/23", "Patient/23", True),
    ("subject", "Patient/23", f"{BASE}/Patient/23", True),
    ("subject", f"{BASE}/Patient/23", "Patient/23", True),
    ("subject", "Patient/23", "Group/23", False),
    ("subject", "Patient/2", "Patient/23", False),
    ("subject", "Patient/23", "Patient/23/_history/4", True),
    ("subject", "Patient/23/_history/4", "Patient/23/_history/4", True),
    ("subject", "Patient/23/_history/5", "Patient/23/_history/4", False),
    ("subject", "Patient/23/_history/4", "Patient/23", False),
    ("subject", OTHER, OTHER, True),
    ("subject", "Patient/23", OTHER, False),
    ("subject", UUID, UUID, True),
    ("subject:Patient", "23", "Patient/23", True),
    ("subject:Patient", "23", "Group/23", False),
    ("subject:Patient", "Patient/23", "Patient/23", True),
    ("subject:Patient", OTHER, OTHER, True),
    ("patient", "23", "Patient/23", True),
    ("patient", "23", "Group/23", False),
    ("patient", "Group/23", "Group/23", False),
    ("subject", "p", "#p", False),
]


@pytest.mark.parametrize(("name", "value", "reference", "expected"), CASES)
def test_matching(
    table: ParameterTable, name: str, value: str, reference: str, expected: bool
) -> None:
    """Relative, absolute and versioned references match however they are written."""
    observation = {"resourceType": "Observation", "subject": {"reference": reference}}

    assert found_by(table, observation, (name, value)) is expected


def test_identifier(table: ParameterTable) -> None:
    """``:identifier`` is a token search on the identifier of the reference."""
    subject = {"identifier": {"system": "http://mrn", "value": "1"}}
    observation = {"resourceType": "Observation", "subject": subject}

    for value in ("1", "http://mrn|1", "http://mrn|"):
        assert found_by(table, observation, ("subject:identifier", value))
    for value in ("2", "|1", "http://other|"):
        assert not found_by(table, observation, ("subject:identifier", value))


def test_a_reference_without_address_is_not_missing(table: ParameterTable) -> None:
    """An identifier or a name alone is a subject, though none that can be looked up by address."""
    subjects: list[dict[str, Any]] = [{"display": "Eve"}, {"reference": "#p"}, {"identifier": {}}]
    for subject in subjects:
        observation = {"resourceType": "Observation", "subject": subject}
        assert found_by(table, observation, ("subject:missing", "false"))
    assert found_by(table, {"resourceType": "Observation"}, ("subject:missing", "true"))


def test_canonicals_match_with_and_without_version(table: ParameterTable) -> None:
    """A canonical is found by its url, and by its url with its version."""
    canonical = "http://acme.com/some|1.0"
    response = {"resourceType": "QuestionnaireResponse", "questionnaire": canonical}

    assert found_by(table, response, ("questionnaire", "http://acme.com/some"))
    assert found_by(table, response, ("questionnaire", "http://acme.com/some|1.0"))
    assert not found_by(table, response, ("questionnaire", "http://acme.com/some|2.0"))


def test_a_nested_resource_is_a_reference(table: ParameterTable) -> None:
    """The first entry of a document is found as the composition it is."""
    composition = {"resource": {"resourceType": "Composition", "id": "c"}}
    bundle = {"resourceType": "Bundle", "entry": [composition, {"resource": {"id": "x"}}]}

    assert found_by(table, bundle, ("composition", "Composition/c"))
    assert not found_by(table, bundle, ("composition", "x"))


@pytest.mark.parametrize(("name", "value"), [("subject", ","), ("subject:Patient", "Group/1")])
def test_what_is_no_reference_is_refused(table: ParameterTable, name: str, value: str) -> None:
    """An empty value, or a type against the modifier, is refused with value."""
    with pytest.raises(FhirError) as caught:
        found_by(table, {"resourceType": "Observation"}, (name, value))

    assert caught.value.issues[0].code == "value"


IDS = st.from_regex(r"[A-Za-z0-9\-.]{1,64}", fullmatch=True)


@given(id=IDS, type=st.sampled_from(("Patient", "Group", "Device")))
def test_a_reference_finds_what_was_indexed_from_it(
    table: ParameterTable, id: str, type: str
) -> None:
    """Every way to write a reference finds it; another id does not."""
    observation = {"resourceType": "Observation", "subject": {"reference": f"{type}/{id}"}}

    for value in (id, f"{type}/{id}", f"{BASE}/{type}/{id}"):
        assert found_by(table, observation, ("subject", value))
    assert found_by(table, observation, (f"subject:{type}", id))
    assert not found_by(table, observation, ("subject", f"{type}/x{id}"[:60]))
    assert not found_by(table, observation, ("subject:missing", "true"))


@given(id=IDS, version=st.integers(1, 99))
def test_a_versioned_reference_finds_what_was_indexed_from_it(
    table: ParameterTable, id: str, version: int
) -> None:
    """By its version and without; by another version, or as missing, it is not found."""
    text = f"Patient/{id}/_history/{version}"
    observation = {"resourceType": "Observation", "subject": {"reference": text}}

    for value in (text, f"{BASE}/{text}", f"Patient/{id}", id):
        assert found_by(table, observation, ("subject", value))
    assert not found_by(table, observation, ("subject", f"{text}0"))
    assert not found_by(table, observation, ("subject:missing", "true"))


@given(system=st.sampled_from(["http://a", "urn:oid:1.2"]), value=IDS)
def test_an_identifier_of_a_reference_finds_it(
    table: ParameterTable, system: str, value: str
) -> None:
    """The identifier finds it, its system alone as well; another one does not."""
    identifier = {"system": system, "value": value}
    observation = {"resourceType": "Observation", "subject": {"identifier": identifier}}

    for asked in (value, f"{system}|{value}", f"{system}|"):
        assert found_by(table, observation, ("subject:identifier", asked))
    for asked in (f"{value}x", f"|{value}", f"{system}x|{value}"):
        assert not found_by(table, observation, ("subject:identifier", asked))


NARROWER = {
    "Patient/1": {"keys.patient": "Patient/1"},
    "http://localhost:8080/fhir/Patient/1": {"keys.patient": "Patient/1"},
    "Group/1": {"keys.subject": "Group/1"},
    "http://other.example/Patient/1": {"keys.subject": "http://other.example/Patient/1"},
}


@pytest.mark.parametrize(("value", "expected"), NARROWER.items(), ids=NARROWER)
def test_what_refers_to_one_type_is_asked_where_that_is_kept(
    value: str, expected: dict[str, str]
) -> None:
    """``subject=Patient/1`` is ``patient=1``: the field that compound indexes begin with."""
    found = compile_reference(
        "keys.subject",
        value,
        targets=("Patient", "Group"),
        base_urls=("http://localhost:8080/fhir",),
        narrower={"Patient": "keys.patient"},
    )

    assert found == expected
    assert compile_reference(
        "keys.subject", "1", "Patient", targets=(), base_urls=(), narrower={"Patient": "keys.p"}
    ) == {"keys.p": "Patient/1"}
