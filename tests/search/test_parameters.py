# https://hl7.org/fhir/R4/searchparameter.html
"""The table of all search parameters."""

from dataclasses import replace

import pytest

from fhir_server.artifacts import artifacts_root
from fhir_server.r4.definitions import Definitions, SearchParameter, load_definitions
from fhir_server.search.parameters import ParameterTable, parameter_table
from tests.search.matching import found_by


def test_every_definition_with_an_expression_is_served(table: ParameterTable) -> None:
    """Each type has all parameters of its own and of its base types, and nothing else."""
    definitions = table.definitions
    for type in definitions.resource_types:
        base = definitions.types[type].base
        bases = {type, "Resource", *([base] if base else [])}
        expected = {
            one.code
            for one in definitions.search_parameters
            if one.expression and bases & set(one.base)
        }
        assert set(table.of(type)) == expected


SINGLE = {
    ("Observation", "date"): True,  # a choice, of which there is one
    ("Observation", "status"): True,
    ("Observation", "patient"): True,
    ("Observation", "value-quantity"): True,
    ("Observation", "code"): False,  # a concept has several codings
    ("Observation", "category"): False,
    ("Observation", "combo-value-quantity"): False,
    ("Observation", "code-value-quantity"): False,
    ("Patient", "birthdate"): True,
    ("Patient", "family"): False,
    ("Patient", "deceased"): True,
    ("Bundle", "composition"): True,
    ("Encounter", "date"): True,
    ("QuestionnaireResponse", "questionnaire"): False,  # url, and url with version
    ("Condition", "onset-date"): True,
    ("Procedure", "date"): True,
}


@pytest.mark.parametrize(("parameter", "expected"), SINGLE.items(), ids=map(str, SINGLE))
def test_single(table: ParameterTable, parameter: tuple[str, str], expected: bool) -> None:
    """A parameter is single if no resource can have two keys for it."""
    type, code = parameter

    assert table.of(type)[code].single is expected


def test_equal_parameters_share_a_field(table: ParameterTable) -> None:
    """What reads the same elements in the same way is stored once."""
    patient = table.of("Patient")

    assert patient["phonetic"].field == patient["name"].field == "keys.name"
    assert patient["family"].field == "keys.family"
    assert patient["_id"].field == "_id"
    assert patient["_lastUpdated"].field == "last_updated"
    assert patient["_id"].key is None


def test_targets_are_those_of_definition_and_element(table: ParameterTable) -> None:
    """A reference can point at what both the parameter and the element allow."""
    observation = table.of("Observation")

    assert observation["patient"].targets == ("Patient",)
    assert set(observation["subject"].targets) == {"Patient", "Group", "Device", "Location"}
    assert observation["status"].targets == ()


def definitions_with(*parameters: SearchParameter) -> Definitions:
    return replace(load_definitions(artifacts_root()), search_parameters=parameters)


@pytest.mark.parametrize(
    ("type", "expression"),
    [
        ("token", "Patient.nothing"),
        ("token", "Patient.name.all(use = 'x')"),
        ("token", "Patient."),
        ("quantity", "Patient.name"),
    ],
)
def test_what_cannot_be_served_stops_the_start(type: str, expression: str) -> None:
    """An expression that is not supported is named together with its definition."""
    bad = SearchParameter("http://x/SearchParameter/bad", "bad", type, ("Patient",), expression)

    with pytest.raises(ValueError, match="http://x/SearchParameter/bad"):
        parameter_table(definitions_with(bad))


CORE = "http://hl7.org/fhir/us/core/"
RACE = f"{CORE}StructureDefinition/us-core-race"
OMB = "urn:oid:2.16.840.1.113883.6.238"
US_CORE = {
    "race": ("token", f"Patient.extension.where(url = '{RACE}').extension.value.code"),
    "race-text": (
        "string",
        f"Patient.extension.where(url = '{RACE}').extension.where(url = 'text').valueString",
    ),
    "asserted": ("date", "Patient.extension.where(url = 'http://asserted').valueDateTime"),
}
RACES = {
    ("race", "2106-3"): True,
    ("race", f"{OMB}|2106-3"): True,
    ("race", f"{OMB}|"): True,
    ("race", "http://other|2106-3"): False,
    ("race", "2106-4"): False,
    ("race:missing", "false"): True,
    ("race-text", "whi"): True,
    ("race-text", "2106"): False,
    ("asserted", "2020-05"): True,
    ("asserted", "2021"): False,
}


@pytest.mark.parametrize(("parameter", "expected"), RACES.items(), ids=map(str, RACES))
def test_parameters_of_us_core(
    table: ParameterTable, parameter: tuple[str, str], expected: bool
) -> None:
    """What a profile reads from extensions is found by code, by system, by text and by date."""
    added = tuple(
        SearchParameter(f"{CORE}{code}", code, type, ("Patient",), text)
        for code, (type, text) in US_CORE.items()
    )
    definitions = table.definitions
    known = replace(definitions, search_parameters=(*definitions.search_parameters, *added))
    parts = [
        {"url": "ombCategory", "valueCoding": {"system": OMB, "code": "2106-3"}},
        {"url": "text", "valueString": "White"},
    ]
    patient = {
        "resourceType": "Patient",
        "extension": [
            {"url": RACE, "extension": parts},
            {"url": "http://asserted", "valueDateTime": "2020-05-05"},
        ],
    }

    assert found_by(parameter_table(known), patient, parameter) is expected
