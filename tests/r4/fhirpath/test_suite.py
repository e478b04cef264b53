# https://github.com/FHIR/fhir-test-cases (r4/fhirpath)
"""The official test suite of FHIRPath for R4, and each test of it that we answer differently."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fhir_server.r4.definitions import Definitions
from fhir_server.r4.fhirpath.check import checked
from fhir_server.r4.fhirpath.engine import compiled
from fhir_server.r4.fhirpath.environment import Environment, truth
from fhir_server.r4.fhirpath.faults import FhirPathError
from fhir_server.r4.fhirpath.model import Model, Node, Value, system, type_name
from fhir_server.r4.fhirpath.moments import Moment
from fhir_server.r4.json import decode
from fhir_server.r4.questions import Answers, Canonical
from fhir_server.r4.xml import Xml
from tests.r4.fhirpath.conftest import NOW

_BOUNDARY = "0.0034 has the bounds 0.00335 and 0.00345: to one place, 0.0 is not above the one"
_MINUTES = "an hour without minutes ends at its minute 59, not at its minute 0"
_OTHER_INPUT = "the input that is there has another version than the one that is tested"
DIFFERENT = {
    "testPlusDate19": "the second and its fraction are one part, and 0.1 s is added as it is",
    "LowBoundaryDecimal15": _BOUNDARY,
    "HighBoundaryDecimal15": _BOUNDARY,
    "HighBoundaryDecimal16": _BOUNDARY,
    "HighBoundaryDateTimeMillisecond1": _MINUTES,
    "HighBoundaryDateTimeMillisecond3": _MINUTES,
    "testFHIRPathAsFunction14": _OTHER_INPUT,
    "testFHIRPathAsFunction19": _OTHER_INPUT,
    "testFHIRPathAsFunction21": "dom-3 and others of R4 call as() on several items",
}
# The suite's own files of these names are not there; what is tested of them is.
OWN_INPUTS: dict[str, dict[str, Any]] = {
    "parameters-example-types.xml": {
        "resourceType": "Parameters",
        "parameter": [
            {"name": "string", "valueString": "string"},
            {"name": "integer", "valueInteger": 1},
            {"name": "uuid", "valueUuid": "urn:uuid:79a14950-442c-11ed-b878-0242ac120002"},
            {"name": "decimal", "valueDecimal": Decimal("1.0")},
        ],
    },
    "patient-example-period.xml": {
        "resourceType": "Patient",
        "identifier": [{"period": {"start": "2021-12", "end": "2021-12-31"}}],
    },
}
# Where the JSON that is there lacks what is tested, and the XML has it.
IN_XML = {"observation-example.xml"}
KNOWN: Answers = {Canonical("StructureDefinition", "http://trash"): None}


class Suite:
    """The inputs of the suite, read once."""

    def __init__(self, folder: Path, model: Model) -> None:
        self._folder = folder
        self._model = model
        self._inputs: dict[str, Node] = {}

    def input(self, case: dict[str, Any]) -> Node | None:
        name = case["inputfile"]
        if name is None:
            return None
        if name not in self._inputs:
            self._inputs[name] = self._model.resource(self._resource(name, case["input"]))
        return self._inputs[name]

    def _resource(self, name: str, file: str | None) -> dict[str, Any]:
        if name in OWN_INPUTS:
            return OWN_INPUTS[name]
        if name in IN_XML:
            text = (self._folder / "examples" / name).read_bytes()
            return Xml(self._model.definitions).decode(text)
        assert file is not None
        return decode((self._folder / file).read_bytes())

    def passes(self, case: dict[str, Any]) -> bool:
        node = self.input(case)
        environment = Environment(self._model, resource=node, now=NOW, known=KNOWN)
        try:
            expression = compiled(case["expression"])
            if case["invalid"] == "semantic":
                checked(expression, node.type if node else "", self._model)
            found = expression.evaluate(node if node else [], environment)
        except FhirPathError:
            return case["invalid"] is not None
        return case["invalid"] is None and _is_expected(found, case)


def _is_expected(found: list[Value], case: dict[str, Any]) -> bool:
    outputs = case["outputs"]
    if case["predicate"]:
        return [_written(truth(found) is True)] == [one["value"] for one in outputs]
    texts = [_written(system(one)) for one in found]
    expected = [_expected(one) for one in outputs]
    if not case["ordered"]:
        return sorted(texts) == sorted(expected)
    types = [type_name(one)[1].lower() for one in found]
    wanted = [one["type"] and one["type"].lower() for one in outputs]
    return texts == expected and all(
        want in (None, has) for want, has in zip(wanted, types, strict=True)
    )


def _expected(output: dict[str, Any]) -> str:
    if output["type"] == "decimal":
        return f"{Decimal(output['value']):f}"
    return str(output["value"])


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Moment):
        return f"{'@T' if value.type == 'Time' else '@'}{value}"
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


@pytest.fixture(scope="module")
def cases(shared: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((shared / "fhirpath/tests.json").read_bytes())
    return found


def test_the_suite(cases: list[dict[str, Any]], shared: Path, model: Model) -> None:
    """All pass but those whose reason is given, and each of those does not."""
    suite = Suite(shared / "fhirpath", model)

    different = sorted({case["name"] for case in cases if not suite.passes(case)})

    assert different == sorted(DIFFERENT)
    assert len(cases) - len(DIFFERENT) >= 0.98 * len(cases)


def test_what_is_valid_passes_the_check(
    cases: list[dict[str, Any]], shared: Path, model: Model, definitions: Definitions
) -> None:
    """The check refuses no expression of the suite that means something."""
    suite = Suite(shared / "fhirpath", model)
    refused = []
    for case in cases:
        node = suite.input(case)
        if case["invalid"] or node is None:
            continue
        try:
            checked(compiled(case["expression"]), node.type, model)
        except FhirPathError as error:
            refused.append((case["name"], str(error)))

    assert refused == []
