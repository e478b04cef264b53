# http://hl7.org/fhirpath/N1/#indexer-expression
"""One walk through a resource finds what each path by itself means."""

from typing import Any

import pytest

from fhir_server.r4.fhirpath.grammar import expression
from fhir_server.r4.paths import PathCompiler
from fhir_server.search.parameters import ParameterTable
from fhir_server.search.tree import Found, Tree

PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "name": [
        {"use": "old", "given": ["Eve", "Ada"], "family": "Roy"},
        {"use": "official", "given": ["Bo"], "family": "Das"},
        {"use": "official", "family": "Sen"},
    ],
    "maritalStatus": {"coding": [{"code": "M"}, {"code": "S"}]},
}
CASES = {
    "Patient.name[0].given": ["Eve", "Ada"],
    "Patient.name[1].family": ["Das"],
    "Patient.name.given[0]": ["Eve"],
    "Patient.name[0].given[1]": ["Ada"],
    "Patient.name.first().given.first()": ["Eve"],
    "Patient.name.where(use = 'official').first().family": ["Das"],
    "Patient.name.where(use = 'official')[1].family": ["Sen"],
    "Patient.name[1].where(use = 'official').given": ["Bo"],
    "Patient.maritalStatus.coding[1].code": ["S"],
    "Patient.name[7].family": [],
}


@pytest.mark.parametrize(("text", "expected"), CASES.items(), ids=CASES)
def test_positions(table: ParameterTable, text: str, expected: list[str]) -> None:
    """A position is counted among all that the path before it leads to, in whatever it lies."""
    (path,) = PathCompiler(table.definitions.types, "Patient").paths(expression(text))
    tree, found = Tree(), Found()
    tree.add(path, lambda value: [value], "k")

    tree.walk(PATIENT, PATIENT, found)

    assert path.values(PATIENT, PATIENT) == expected
    assert found.get("k", []) == expected
