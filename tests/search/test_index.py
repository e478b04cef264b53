# https://hl7.org/fhir/R4/search.html
"""What is written beside a resource."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.search.index import index
from fhir_server.search.parameters import ParameterTable

OBSERVATION: dict[str, Any] = {
    "resourceType": "Observation",
    "id": "o",
    "meta": {"security": [{"system": "http://s", "code": "R"}], "tag": [{"code": "t"}]},
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "1-8"}, {"code": "x"}]},
    "subject": {"reference": "Patient/p"},
    "encounter": {"reference": "Encounter/e/_history/2"},
    "performer": [{"reference": "Practitioner/d"}, {"reference": "http://x/Practitioner/far"}],
    "effectiveDateTime": "2020-05-05",
    "valueQuantity": {"value": Decimal("6.30"), "code": "mmol/L"},
    "method": {"text": "by hand"},
}


def test_keys_of_an_observation(table: ParameterTable) -> None:
    """Keys have the shapes that the modules of their types define, bare where single."""
    keys = index(OBSERVATION, table).keys

    assert keys["code"] == ["1-8\x1fhttp://loinc.org", "x\x1f"]
    assert keys["code:system"] == ["http://loinc.org"]
    assert keys["status"] == "final\x1f"
    assert keys["patient"] == keys["subject"] == "Patient/p"
    assert keys["encounter"] == "Encounter/e"
    assert keys["encounter:version"] == "Encounter/e/_history/2"
    assert keys["date"] == {
        "l": datetime(2020, 5, 5, tzinfo=UTC),
        "h": datetime(2020, 5, 6, tzinfo=UTC),
    }
    assert keys["value-quantity"] == {"l": Decimal("6.30"), "h": Decimal("6.30"), "c": "mmol/L"}
    assert keys["method"] == []  # there, with nothing to search
    assert "specimen" not in keys
    assert "_id" not in keys
    assert "_lastUpdated" not in keys


def test_compartments_come_from_the_definitions(table: ParameterTable) -> None:
    """A resource is where its references put it, on this server, and nowhere else."""
    indexed = index(OBSERVATION, table)

    assert indexed.compartments == ("Encounter/e", "Patient/p", "Practitioner/d")
    assert indexed.labels == ("http://s|R",)


@pytest.mark.parametrize("type", ["Patient", "Practitioner", "Encounter", "Device"])
def test_a_resource_is_in_its_own_compartment(table: ParameterTable, type: str) -> None:
    """Patient/1 is in the compartment of Patient/1."""
    assert index({"resourceType": type, "id": "1"}, table).compartments == (f"{type}/1",)


def test_a_linked_patient_is_in_both_compartments(table: ParameterTable) -> None:
    """A patient that refers to another patient is in the compartment of either."""
    patient = {
        "resourceType": "Patient",
        "id": "b",
        "link": [{"other": {"reference": "Patient/a"}, "type": "seealso"}],
    }
    assert index(patient, table).compartments == ("Patient/a", "Patient/b")


def test_the_resource_is_left_alone(table: ParameterTable) -> None:
    """Indexing reads; two parameters that share keys do not share what happens to them."""
    before = repr(OBSERVATION)
    first = index(OBSERVATION, table)
    first.keys["code"].append("mine")

    assert repr(OBSERVATION) == before
    assert index(OBSERVATION, table).keys["code"] == ["1-8\x1fhttp://loinc.org", "x\x1f"]


def test_the_cost_grows_with_the_resource_only(table: ParameterTable) -> None:
    """Very many elements are walked once each, and their keys are copied once."""
    component = {"code": {"coding": [{"code": "1"}]}, "valueQuantity": {"value": 1}}
    huge = {"resourceType": "Observation", "component": [component] * 5_000}
    names = [{"family": "a-" * 20_000}, {"family": "ü " * 20_000}]

    assert len(index(huge, table).keys["combo-value-quantity"]) == 5_000
    parts = index({"resourceType": "Patient", "name": names}, table).keys["family:part"]
    assert len(parts) <= 20


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.decimals(-9, 9, places=1),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ("coding", "code", "system", "value", "reference", "start", "event", "low", "given")
            )
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
MEMBERS = (
    *("id", "meta", "identifier", "status", "code", "subject", "component", "valueQuantity"),
    *("effectivePeriod", "effectiveTiming", "effectiveDateTime", "extension", "name", "telecom"),
    *("performer", "entry", "valueString", "url", "useContext", "relatedArtifact", "address"),
)


@given(
    type=st.sampled_from(("Observation", "Patient", "Bundle", "Questionnaire", "CarePlan")),
    members=st.dictionaries(st.sampled_from(MEMBERS), JSON, max_size=6),
)
def test_no_resource_makes_it_fail(
    table: ParameterTable, type: str, members: dict[str, Any]
) -> None:
    """Whatever stands where something else should has no key; the rest is indexed."""
    index({"resourceType": type, **members}, table)
