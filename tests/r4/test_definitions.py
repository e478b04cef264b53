"""https://hl7.org/fhir/R4/structuredefinition.html"""

from pathlib import Path

import pytest

from fhir_server.r4.definitions import Definitions, load_definitions


def test_every_resource_type_is_there(definitions: Definitions) -> None:
    """R4 has 148 resource types, of which Resource and DomainResource are abstract."""
    types = definitions.resource_types

    assert len(types) == 146
    assert {"Patient", "Appointment", "Claim", "Parameters", "Bundle"} <= set(types)
    assert not {"Resource", "DomainResource"} & set(types)


def test_an_element_is_as_the_snapshot_says(definitions: Definitions) -> None:
    """Cardinality, choice, types with targets, binding and summary of two elements."""
    elements = {one.name: one for one in definitions.types["Observation"].elements["Observation"]}
    status, value, subject = elements["status"], elements["value"], elements["subject"]

    assert (status.min, status.max, status.is_list, status.is_summary) == (1, 1, False, True)
    assert status.binding == ("required", "http://hl7.org/fhir/ValueSet/observation-status")
    assert value.is_choice
    assert ("valueQuantity", "Quantity") in [(name, type.code) for name, type in value.members()]
    assert "Patient" in subject.types[0].targets


def test_every_type_that_is_named_is_defined(definitions: Definitions) -> None:
    """No element has a type, and no reference a target, that the definitions lack."""
    missing = {
        name
        for type in definitions.types.values()
        for elements in type.elements.values()
        for element in elements
        for one in element.types
        for name in (one.code, *one.targets)
        if name not in definitions.types
    }

    assert missing == set()


def test_compartments(definitions: Definitions) -> None:
    """All five, with the parameters by which a type belongs to one."""
    assert set(definitions.compartments) == {
        *("Patient", "Encounter", "Practitioner", "RelatedPerson", "Device"),
    }
    assert definitions.compartments["Patient"]["Appointment"] == ("actor",)


# Sets that take in a system which is not, or cannot be, listed whole.
OPEN = {
    "http://hl7.org/fhir/ValueSet/mimetypes",
    "http://hl7.org/fhir/ValueSet/ucum-units",
    "http://loinc.org/vs/LL379-9",
}


def test_every_required_binding_can_be_enforced(definitions: Definitions) -> None:
    """The codes of every required value set are known, but for four."""
    bound = {
        element.binding[1]
        for type in definitions.types.values()
        for elements in type.elements.values()
        for element in elements
        if element.binding and element.binding[0] == "required"
    }

    assert {url for url in bound if definitions.codes(url) is None} == OPEN


def test_an_expansion(definitions: Definitions) -> None:
    """A value set over a whole code system has its codes, children included."""
    system = "http://hl7.org/fhir/administrative-gender"
    genders = definitions.codes("http://hl7.org/fhir/ValueSet/administrative-gender")
    statuses = definitions.codes("http://hl7.org/fhir/ValueSet/issue-type")

    assert genders == frozenset((system, code) for code in ("male", "female", "other", "unknown"))
    assert statuses is not None
    assert ("http://hl7.org/fhir/issue-type", "not-found") in statuses  # below "processing"
    assert definitions.codes("http://example.org/nothing") is None


@pytest.mark.parametrize("suffix", [".json", ".ndjson"])
def test_both_forms_of_a_package_are_read(tmp_path: Path, suffix: str) -> None:
    """A file for each resource, as guides are published, or one for each type, as ours are."""
    package = tmp_path / "profiles" / "p"
    package.mkdir(parents=True)
    (tmp_path / "terminology").mkdir()
    (package / "package.json").write_text("{}")
    (package / f"CodeSystem-a{suffix}").write_text(
        '{"resourceType":"CodeSystem","url":"http://a","content":"complete","concept":[{"code":"x"}]}'
    )
    (package / f"ValueSet-a{suffix}").write_text(
        '{"resourceType":"ValueSet","url":"http://b","compose":{"include":[{"system":"http://a"}]}}'
    )

    assert load_definitions(tmp_path).codes("http://b") == frozenset([("http://a", "x")])


@pytest.mark.parametrize("text", [b"{}", b"no JSON"])
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: bytes) -> None:
    """Whoever starts the server is told which file of the artifacts it is."""
    folder = tmp_path / "profiles" / "a"
    folder.mkdir(parents=True)
    (folder / "ValueSet-broken.json").write_bytes(text)
    with pytest.raises(ValueError, match=r"ValueSet-broken\.json"):
        load_definitions(tmp_path)
