# https://hl7.org/fhir/R4/fhirpath.html
"""Search expressions as paths with known types."""

from functools import cache
from typing import Any

import pytest

from fhir_server.artifacts import artifacts_root
from fhir_server.r4.definitions import load_definitions
from fhir_server.r4.fhirpath.grammar import expression
from fhir_server.r4.paths import PathCompiler

PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "telecom": [
        {"system": "phone", "value": "1"},
        {"system": "email", "value": "a@b"},
        {"value": "2"},
    ],
    "name": [{"given": ["Eve", None, "Ada"]}, {"family": "Roy"}],
    "deceasedDateTime": "2020",
    "link": [
        {"other": {"reference": "Patient/1"}},
        {"other": {"reference": "RelatedPerson/1"}},
        {"other": {"reference": "#p"}},
        {"other": {"type": "Patient", "identifier": {"value": "9"}}},
        {"other": {"reference": "http://x/fhir/Patient/3"}},
    ],
    "contained": [{"resourceType": "Patient", "id": "p"}],
    "extension": [{"url": "http://x", "valueString": "y"}, {"url": "http://z", "valueCode": "c"}],
}
OBSERVATION: dict[str, Any] = {
    "resourceType": "Observation",
    "effectivePeriod": {"start": "2020"},
    "valueQuantity": {"value": 1},
    "component": [{"valueString": "a"}, {"valueQuantity": {"value": 2}}],
}
BUNDLE = {"resourceType": "Bundle", "entry": [{"resource": {"id": "a"}}, {"resource": {"id": "b"}}]}


@cache
def compiler(type: str) -> PathCompiler:
    return PathCompiler(load_definitions(artifacts_root()).types, type)


def values(text: str, resource: dict[str, Any]) -> list[tuple[str, Any]]:
    paths = compiler(resource["resourceType"]).paths(expression(text))
    return [(path.type, value) for path in paths for value in path.values(resource, resource)]


PATIENT_CASES: dict[str, list[tuple[str, Any]]] = {
    "Patient.telecom.where(system='email').value": [("string", "a@b")],
    "Patient.telecom.where(system != 'email').value": [("string", "1")],
    "Patient.telecom.where(system='phone' and value='1').value": [("string", "1")],
    "Patient.telecom.where(system.exists()).value": [("string", "1"), ("string", "a@b")],
    "Patient.name.given": [("string", "Eve"), ("string", "Ada")],
    "Patient.name[0].given": [("string", "Eve"), ("string", "Ada")],
    "Patient.name.first().given": [("string", "Eve"), ("string", "Ada")],
    "Patient.deceased": [("dateTime", "2020")],
    "(Patient.deceased as dateTime)": [("dateTime", "2020")],
    "Patient.deceased as boolean": [],
    "Patient.deceased.ofType(dateTime)": [("dateTime", "2020")],
    "Patient.deceased.as(FHIR.dateTime)": [("dateTime", "2020")],
    "Patient.deceased.exists() and Patient.deceased != false": [("boolean", True)],
    "Patient.name.exists()": [("boolean", True)],
    "Patient.gender.exists()": [("boolean", False)],
    "Patient.where(deceased is dateTime).name.family": [("string", "Roy")],
    "Patient.where(deceased is boolean).name.family": [],
    "Patient.where(hasExtension('http://x')).name.family": [("string", "Roy")],
    "Patient.where(hasExtension('http://q')).name.family": [],
    "Patient.extension('http://x').value as string": [("string", "y")],
    "Patient.extension.where(url = 'http://z').value.as(code)": [("code", "c")],
    "Person.name | Patient.name.family | RelatedPerson.name": [("string", "Roy")],
    "Resource.id | DomainResource.name.family": [("string", "Roy")],
    "Patient.contained.id": [("string", "p")],
    "Practitioner.deceased.exists() and Practitioner.active != false": [],
}


@pytest.mark.parametrize(("text", "expected"), PATIENT_CASES.items(), ids=PATIENT_CASES)
def test_values_of_a_patient(text: str, expected: list[tuple[str, Any]]) -> None:
    """A path leads to values, each with the FHIR type that its definition gives it."""
    assert values(text, PATIENT) == expected


RACE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-race"
ASSERTED = "http://hl7.org/fhir/StructureDefinition/condition-assertedDate"
EXTENDED: dict[str, Any] = {
    "resourceType": "Patient",
    "extension": [
        {
            "url": RACE,
            "extension": [
                {"url": "ombCategory", "valueCoding": {"system": "urn:oid:1", "code": "2106-3"}},
                {"url": "detailed", "valueCoding": {"code": "1010-8"}},
                {"url": "text", "valueString": "White"},
            ],
        },
        {"url": ASSERTED, "valueDateTime": "2020-05-05"},
        {"url": "http://use", "valuePeriod": {"start": "2021", "end": "2022"}},
    ],
}
# Expressions of search parameters that US Core 5 and JP Core define, and forms beside them.
EXTENSION_CASES: dict[str, list[tuple[str, Any]]] = {
    f"Patient.extension.where(url = '{RACE}').extension.value.code": [
        ("code", "2106-3"),
        ("code", "1010-8"),
    ],
    f"Patient.extension.where(url = '{RACE}').extension.where(url = 'detailed').value.code": [
        ("code", "1010-8")
    ],
    f"Patient.extension.where(url = '{RACE}').extension.where(url = 'text').valueString": [
        ("string", "White")
    ],
    f"Patient.extension.where(url = '{ASSERTED}').valueDateTime": [("dateTime", "2020-05-05")],
    "Patient.extension('http://use').valuePeriod.start": [("dateTime", "2021")],
    "Patient.extension('http://use').value.start": [("dateTime", "2021")],
}


@pytest.mark.parametrize(("text", "expected"), EXTENSION_CASES.items(), ids=range(6))
def test_values_of_extensions(text: str, expected: list[tuple[str, Any]]) -> None:
    """What one of the forms of a value has is asked of those, and one form can be named."""
    assert values(text, EXTENDED) == expected


def test_resolve_looks_at_the_text_and_at_what_is_contained() -> None:
    """The type of a target is known from its text, its type element, or what is contained."""
    found = values("Patient.link.other.where(resolve() is Patient)", PATIENT)

    assert [value for _, value in found] == [PATIENT["link"][at]["other"] for at in (0, 2, 3, 4)]


def test_choice_elements_have_the_type_of_their_member() -> None:
    """Each member of a choice element carries its type to the index."""
    assert values("Observation.effective", OBSERVATION) == [("Period", {"start": "2020"})]
    assert values(
        "(Observation.value as Quantity) | (Observation.component.value as Quantity)", OBSERVATION
    ) == [("Quantity", {"value": 1}), ("Quantity", {"value": 2})]


def test_a_position_picks_one_item() -> None:
    """``[0]`` is the first entry only, and the path then leads to one value at most."""
    assert values("Bundle.entry[0].resource", BUNDLE) == [("Resource", {"id": "a"})]
    (path,) = compiler("Bundle").paths(expression("Bundle.entry[0].resource"))
    assert not path.many


def test_many_says_whether_a_list_is_on_the_way() -> None:
    """Cardinalities of the definitions decide, not what a resource happens to have."""
    many = {
        text: compiler("Patient").paths(expression(text))[0].many
        for text in ("Patient.birthDate", "Patient.name.family", "Patient.maritalStatus.coding")
    }

    assert many == {
        "Patient.birthDate": False,
        "Patient.name.family": True,
        "Patient.maritalStatus.coding": True,
    }


def test_a_path_from_an_element_can_go_back_to_the_resource() -> None:
    """``%resource`` begins at the whole resource, as composites of MolecularSequence need it."""
    of = compiler("Patient")
    (start,) = of.paths(expression("Patient.name"))
    (path,) = of.paths(expression("%resource.telecom.value"), start)

    assert path.values(PATIENT["name"][0], PATIENT) == ["1", "a@b", "2"]


UNSUPPORTED = (
    *("Patient.", "Patient.name.", "Patient.name[", "Patient.name[x]", "(Patient.name", "Patient)"),
    *("Patient.nothing", "Nothing.name", "Patient.name.where(x", "Patient.name.all(use='x')"),
    *("Patient.name + 1", "Patient.name.where()", "'", "Patient.name.where(use ~ 'x')", ""),
    *("Patient.extension.valueNothing", "Patient.extension.value.nothing"),
    *("%other.name", "Patient.name.extension(url)", "(" * 60 + "Patient" + ")" * 60),
)


@pytest.mark.parametrize("text", UNSUPPORTED)
def test_what_is_not_supported_is_refused(text: str) -> None:
    """An expression outside the subset raises at once, so that a server does not start with it."""
    with pytest.raises(ValueError, match=r"\w"):
        compiler("Patient").paths(expression(text))
