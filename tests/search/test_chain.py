"""https://hl7.org/fhir/R4/search.html#chaining and https://hl7.org/fhir/R4/search.html#has

Names of parameters as selections and joins. That they find what they should is in
``tests/interactions/test_chains.py``.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.outcome import FhirError
from fhir_server.search.chain import Join, Link, Selection
from fhir_server.search.parameters import ParameterTable
from fhir_server.search.parse import parse

PATIENT = Link("keys.patient", literal=True, canonical=False)


def joins(table: ParameterTable, type: str, name: str, value: str = "x") -> tuple[Join, ...]:
    """Return the joins of the search for one parameter."""
    found = parse(type, [(name, value)], table, count_default=10).joins
    return tuple(one for one in found if isinstance(one, Join))


def test_a_chain_is_a_selection_of_each_type_that_has_the_parameter(table: ParameterTable) -> None:
    """A subject can be a patient, group, device or location; the types without it are left out."""
    [join] = joins(table, "Observation", "subject.birthdate", "2000")

    # Only patients have one, and what refers to patients has a field of its own.
    assert (join.link.field, join.reverse) == ("keys.patient", False)
    assert [one.type for one in join.selections] == ["Patient"]
    [join] = joins(table, "Observation", "subject.identifier", "2000")
    assert {one.type for one in join.selections} == {"Patient", "Group", "Device", "Location"}


def test_the_last_step_is_an_ordinary_parameter(table: ParameterTable) -> None:
    """What a chain ends in is compiled as it would be in a search of that type."""
    for name, value in {"name:exact": "A,B", "birthdate": "ge2000", "_id": "1"}.items():
        [join] = joins(table, "Observation", f"subject:Patient.{name}", value)
        [plain] = parse("Patient", [(name, value)], table, count_default=10).filters
        assert join.selections == (Selection("Patient", plain),)


def test_reverse_chains_and_chains_stand_in_each_other(table: ParameterTable) -> None:
    """``_has`` in ``_has``, a chain in ``_has``, ``_has`` in a chain."""
    [outer] = joins(table, "Patient", "_has:Observation:patient:_has:AuditEvent:entity:agent")
    [selection] = outer.selections
    assert (outer.link, outer.reverse, selection.type) == (PATIENT, True, "Observation")
    [inner] = selection.joins
    assert isinstance(inner, Join)
    assert inner.reverse
    assert inner.selections[0].type == "AuditEvent"

    [outer] = joins(table, "Patient", "_has:Observation:patient:device:Device.manufacturer")
    [inner] = outer.selections[0].joins
    assert isinstance(inner, Join)
    assert not inner.reverse
    [outer] = joins(table, "Encounter", "patient._has:Group:member:_id")
    [inner] = outer.selections[0].joins
    assert isinstance(inner, Join)
    assert inner.selections[0].type == "Group"


def test_a_definition_is_referred_to_by_its_url(table: ParameterTable) -> None:
    """A canonical is no literal reference."""
    [join] = joins(table, "QuestionnaireResponse", "questionnaire.title")

    assert join.link == Link("keys.questionnaire", literal=False, canonical=True)


REFUSED = {
    "subjct.name": "Did you mean subject",
    "code.name": "no reference parameter 'code'",
    "subject.nme": "Did you mean name",
    "subject:Patent.name": "Did you mean Patient",
    "subject:Patient.nme": "Patient has no search parameter 'nme'",
    "subject:Patient.name:below": ":exact",
    "subject.": "without a search parameter ''",
    ".name": "no search parameter ''",
    "subject..name": "without a search parameter ''",
    "_has": "_has:[type]",
    "_has:Observation": "_has:[type]",
    "_has:Observation:patient": "_has:[type]",
    "_has:Foo:patient:code": "_has:[type]",
    "_has:Provenance:targt:agent": "Did you mean target",
    "_has:Encounter:patient:class": "never refers to a resource of Observation",
    "_has:Provenance:target:": "no search parameter ''",
    ".".join(["subject:Patient"] + ["link:Patient"] * 50 + ["name"]): "at most 8 steps",
    "_has:Observation:has-member:" * 50 + "code": "at most 8 steps",
    "focus.focus.focus._id": "name the types",
}


@pytest.mark.parametrize(("name", "sentence"), REFUSED.items(), ids=[one[:40] for one in REFUSED])
def test_refusals(table: ParameterTable, name: str, sentence: str) -> None:
    """What cannot be followed is 400, with the place where it goes wrong and the nearest names."""
    with pytest.raises(FhirError) as caught:
        joins(table, "Observation", name)

    assert caught.value.status == 400
    assert sentence in caught.value.issues[0].diagnostics


STEPS = st.sampled_from(
    ["subject", "subject:Patient", "_has:Observation:patient", "_has", "name", "", "x", ":", "$ne"]
)


@given(st.lists(st.tuples(STEPS, st.sampled_from([".", ":"])), min_size=1, max_size=30), st.text())
def test_any_name_is_a_search_or_a_refusal(
    table: ParameterTable, steps: list[tuple[str, str]], value: str
) -> None:
    """Whatever a name is made of, it is understood or refused with 400."""
    name = "".join(step + sign for step, sign in steps)[:-1]
    status = 400
    try:
        joins(table, "Observation", name, value)
    except FhirError as error:
        status = error.status
    assert status == 400
