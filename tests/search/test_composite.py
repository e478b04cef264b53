# https://hl7.org/fhir/R4/search.html#composite
"""Composite parameters."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.outcome import FhirError
from fhir_server.search.escape import escape
from fhir_server.search.index import index
from fhir_server.search.parameters import ParameterTable
from tests.search.matching import found_by

LOINC = "http://loinc.org"


def part(code: str, value: Any) -> dict[str, Any]:
    coding = {"system": LOINC, "code": code}
    return {"code": {"coding": [coding, {"code": f"my-{code}"}]}, "valueQuantity": value}


PRESSURE = {
    "resourceType": "Observation",
    "component": [
        part("8480-6", {"value": 107, "code": "mm[Hg]"}),
        part("8462-4", {"value": Decimal("60.0"), "code": "mm[Hg]"}),
    ],
}
CASES = [
    (f"{LOINC}|8480-6$107", True),
    ("8480-6$gt100", True),
    ("8480-6$lt100", False),
    ("8480-6$60", False),
    ("my-8462-4$60", True),
    ("8462-4$60||mm[Hg]", True),
    ("8462-4$ne60||mm[Hg]", False),
    (f"{LOINC}|$ge107", True),
    ("http://other|$ge107", False),
    ("8480-6$1,8462-4$60", True),
]


@pytest.mark.parametrize("name", ["component-code-value-quantity", "combo-code-value-quantity"])
@pytest.mark.parametrize(("value", "expected"), CASES)
def test_parts_are_of_one_element(
    table: ParameterTable, name: str, value: str, expected: bool
) -> None:
    """Code and value must be those of the same component."""
    assert found_by(table, PRESSURE, (name, value)) is expected


def test_the_whole_resource_is_an_element_too(table: ParameterTable) -> None:
    """``code-value-*`` pair the code of the observation with its own value, of every type."""
    code = {"coding": [{"code": "1"}]}
    values = {
        "valueString": ("code-value-string", "1$EVE", "1$eva"),
        "valueDateTime": ("code-value-date", "1$2020-05", "1$2021"),
    }
    stored: dict[str, Any] = {"valueString": "Evelyn", "valueDateTime": "2020-05-05"}
    for member, (name, yes, no) in values.items():
        observation = {"resourceType": "Observation", "code": code, member: stored[member]}
        assert found_by(table, observation, (name, yes))
        assert not found_by(table, observation, (name, no))


def test_components_from_the_resource(table: ParameterTable) -> None:
    """MolecularSequence pairs each variant with the one chromosome of the sequence."""
    sequence = {
        "resourceType": "MolecularSequence",
        "referenceSeq": {"chromosome": {"coding": [{"code": "7"}]}},
        "variant": [{"start": 1, "end": 9}, {"start": 5, "end": 20}],
    }
    name = "chromosome-variant-coordinate"

    assert found_by(table, sequence, (name, "7$lt2$lt10"))
    assert not found_by(table, sequence, (name, "7$lt2$gt10"))


def test_the_definitions_of_relationship_are_the_wrong_way_round(table: ParameterTable) -> None:
    """DocumentReference ``relationship`` is code and target, whatever its components claim."""
    relates = [{"code": "replaces", "target": {"reference": "DocumentReference/1"}}]
    document = {"resourceType": "DocumentReference", "relatesTo": relates}

    assert found_by(table, document, ("relationship", "replaces$DocumentReference/1"))
    assert not found_by(table, document, ("relationship", "appends$DocumentReference/1"))


@pytest.mark.parametrize("value", ["1", "1$2$3", "$", "1$"])
def test_the_number_of_parts_is_checked(table: ParameterTable, value: str) -> None:
    """Too few, too many or empty parts are refused with value."""
    with pytest.raises(FhirError) as caught:
        found_by(table, PRESSURE, ("component-code-value-quantity", value))

    assert caught.value.issues[0].code == "value"


def test_combinations_are_limited(table: ParameterTable) -> None:
    """A resource made of nothing but codings does not fill the database."""
    codings = [{"code": str(at)} for at in range(200)]
    huge = {
        "resourceType": "Observation",
        "code": {"coding": codings},
        "valueCodeableConcept": {"coding": codings},
    }
    assert len(index(huge, table).keys["code-value-concept"]) == 1000


CODES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12)
VALUES = st.decimals(-100, 100, places=1)


@given(codes=st.lists(CODES, min_size=2, max_size=2, unique=True), first=VALUES, second=VALUES)
def test_a_composite_finds_what_was_indexed_from_it(
    table: ParameterTable, codes: list[str], first: Decimal, second: Decimal
) -> None:
    """Each pair of one element is found; with another value, or one of the other element, not."""
    one, other = (escape(f"c{code}") for code in codes)
    parts = zip(codes, (first, second), strict=True)
    component = [part(f"c{code}", {"value": value}) for code, value in parts]
    written = {"resourceType": "Observation", "component": component}
    name = "component-code-value-quantity"

    assert found_by(table, written, (name, f"{one}${first}"))
    assert found_by(table, written, (name, f"{LOINC}|{other}$eq{second}"))
    assert not found_by(table, written, (name, f"{one}$ne{first}"))
    assert not found_by(table, written, (name, f"{one}$gt{first}"))
    assert not found_by(table, written, (name, f"{one}x${first}"))
    assert found_by(table, written, (name, f"{one}${second}")) is (first == second)
