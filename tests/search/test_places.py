"""design/security.md, section 3.1: what is written beside a resource for access alone."""

from fhir_server.r4.compartments import BESIDE
from fhir_server.search.digests import field_digests
from fhir_server.search.index import index
from fhir_server.search.parameters import COMPARTMENTS, ParameterTable
from tests.search.conftest import BASE


def test_it_is_written_beside_the_resource(table: ParameterTable) -> None:
    """Access asks what is written in ``compartments``; a message about a patient has both."""
    resource = {
        "resourceType": "Communication",
        "id": "1",
        "subject": {"reference": "Patient/3"},
        "sender": {"reference": "Practitioner/1"},
        "recipient": [{"reference": f"{BASE}/Patient/2"}],
    }
    found = index(resource, table).compartments

    assert "Patient/3" in found
    assert {"party:Practitioner/1", "party:Patient/2"} <= set(found)


def test_no_search_of_a_compartment_finds_more_by_it(table: ParameterTable) -> None:
    """The types that get a patient here are in no patient's compartment for those who search."""
    assert not (BESIDE - {"Communication"}) & set(table.compartment_types("Patient"))


def test_what_is_stored_without_it_is_indexed_again(table: ParameterTable) -> None:
    """The digest of the compartments of these types is not that of types without it."""
    mine, others = (
        {field_digests(table, type)[COMPARTMENTS] for type in types}
        for types in (("Task", "Binary"), ("Questionnaire", "Slot"))
    )
    assert len(mine) >= 1
    assert not mine & others
