# https://hl7.org/fhir/R4/search.html#token
"""Token parameters."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.outcome import FhirError
from fhir_server.search.escape import escape
from fhir_server.search.parameters import ParameterTable
from fhir_server.search.token import compile_token
from tests.search.matching import found_by

LOINC = "http://loinc.org"
CODINGS: dict[str, dict[str, Any]] = {
    "glucose": {"system": LOINC, "code": "15074-8"},
    "other": {"system": LOINC, "code": "2339-0"},
    "local": {"code": "15074-8"},
    "longer": {"system": LOINC, "code": "15074-80"},
    "spaced": {"system": LOINC, "code": "15074-8 b"},
}
ALL = set(CODINGS)

# https://hl7.org/fhir/R4/search.html#token, the four forms of a value
CASES = {
    "15074-8": {"glucose", "local"},
    f"{LOINC}|15074-8": {"glucose"},
    "|15074-8": {"local"},
    f"{LOINC}|": ALL - {"local"},
    "http://other|15074-8": set(),
    "http://other|": set(),
    f"2339-0,{LOINC}|15074-8": {"glucose", "other"},
    "LOINC": set(),
}


def observation(*codings: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Observation", "code": {"coding": list(codings)}, "status": "final"}


@pytest.mark.parametrize(("value", "expected"), CASES.items(), ids=CASES)
def test_value_forms(table: ParameterTable, value: str, expected: set[str]) -> None:
    """A token value matches by code, by system, by both, or by the absence of a system."""
    found = {
        name
        for name, coding in CODINGS.items()
        if found_by(table, observation(coding), ("code", value))
    }
    assert found == expected


@pytest.mark.parametrize(("value", "expected"), CASES.items(), ids=CASES)
def test_not_finds_everything_else(table: ParameterTable, value: str, expected: set[str]) -> None:
    """``:not`` is the complement, and includes what has no such element at all."""
    found = {
        name
        for name, coding in CODINGS.items()
        if found_by(table, observation(coding), ("code:not", value))
    }
    assert found == ALL - expected
    assert found_by(table, {"resourceType": "Observation"}, ("code:not", value))


def test_both_bounds_hold_for_one_coding(table: ParameterTable) -> None:
    """Codes below and above the one asked for do not add up to a match."""
    around = observation({"code": "1"}, {"code": "9"})

    assert not found_by(table, around, ("code", "5"))


def test_a_code_has_the_system_of_its_value_set(table: ParameterTable) -> None:
    """The system of an element of type code is implicit, and may be asked for or left out."""
    final = observation()
    system = "http://hl7.org/fhir/observation-status"

    assert found_by(table, final, ("status", "final"))
    assert found_by(table, final, ("status", f"{system}|final"))
    assert found_by(table, final, ("status", f"{system}|"))
    assert not found_by(table, final, ("status", "http://other|final"))
    assert not found_by(table, final, ("status", f"{system}|amended"))


def test_case_counts_unless_the_element_is_a_string(table: ParameterTable) -> None:
    """Codes are compared with case; a token on a string is not."""
    library = {"resourceType": "Library", "version": "1.0-Beta", "status": "draft"}

    assert found_by(table, library, ("version", "1.0-BETA"))
    assert found_by(table, library, ("version", "1.0-Beta"))
    assert found_by(table, library, ("version", "|1.0-Beta"))
    with pytest.raises(FhirError, match="no system"):
        found_by(table, library, ("version", "urn:x|1.0-Beta"))
    assert not found_by(table, library, ("status", "Draft"))


def test_booleans_and_contacts(table: ParameterTable) -> None:
    """A boolean is the word for it; a contact is its value, whatever kind of contact it is."""
    patient = {
        "resourceType": "Patient",
        "active": True,
        "deceasedDateTime": "2020",
        "telecom": [{"system": "phone", "value": "555"}, {"system": "email", "value": "a@b"}],
    }
    assert found_by(table, patient, ("active", "true"), ("deceased", "true"))
    assert found_by(table, patient, ("telecom", "555"), ("email", "a@b"), ("phone", "555"))
    assert not found_by(table, patient, ("email", "555"))
    assert not found_by(table, patient, ("active", "false"))
    assert found_by(table, patient, ("telecom", "phone|555"), ("telecom", "email|a@b"))
    assert found_by(table, patient, ("telecom", "phone|"))
    assert not found_by(table, patient, ("telecom", "email|555"))
    assert not found_by(table, patient, ("telecom", "fax|"))
    assert not found_by(table, patient, ("telecom", "|555"))
    values = "http://terminology.hl7.org/CodeSystem/special-values"
    assert found_by(table, patient, ("active", f"{values}|true"), ("active", "|true"))


@pytest.mark.parametrize(
    ("type", "code", "value"),
    [
        ("Patient", "active", "http://x|true"),
        ("Patient", "active", "true|"),
        ("Patient", "deceased", "true|http://terminology.hl7.org/CodeSystem/special-values"),
        ("Library", "version", "http://x|1"),
    ],
)
def test_a_system_of_what_has_none_is_refused(
    table: ParameterTable, type: str, code: str, value: str
) -> None:
    """Nothing could be found by it: that is a mistake, and no empty answer."""
    with pytest.raises(FhirError, match="has no system"):
        found_by(table, {"resourceType": type}, (code, value))


@pytest.mark.parametrize("value", ["a|b|c", "|", "", r"a\b"])
def test_what_is_no_token_is_refused(value: str) -> None:
    """More than one bar, or neither code nor system, is refused with value."""
    with pytest.raises(FhirError) as caught:
        compile_token("keys.code", value)

    assert caught.value.issues[0].code == "value"


TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20)
LONG = st.just("x" * 1500)


@given(system=st.just("") | TEXTS, code=TEXTS | LONG)
def test_a_token_finds_what_was_indexed_from_it(
    table: ParameterTable, system: str, code: str
) -> None:
    """For every coding, the query written from it finds it, and its negation does not."""
    written = observation({"system": system, "code": code} if system else {"code": code})
    value = f"{escape(system)}|{escape(code)}"

    for asked in (value, escape(code), *([f"{escape(system)}|"] if system else [])):
        assert found_by(table, written, ("code", asked))
        assert not found_by(table, written, ("code:not", asked))
    assert not found_by(table, written, ("code", f"{escape(code)}x"))
