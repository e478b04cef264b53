# https://hl7.org/fhir/R4/conformance-rules.html#constraints
"""All invariants of R4 on the official examples, which they must hold for."""

import gzip
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fhir_server.r4.definitions import Constraint, Definitions, Element
from fhir_server.r4.fhirpath.check import checked
from fhir_server.r4.fhirpath.engine import compiled
from fhir_server.r4.fhirpath.environment import Environment
from fhir_server.r4.fhirpath.faults import FhirPathError
from fhir_server.r4.fhirpath.model import Model
from fhir_server.r4.fhirpath.published import CORRECTED, invariant
from fhir_server.r4.json import decode
from tests.r4.fhirpath.walk import foci

# Warnings on names with blanks in them and on resources without a narrative; and four narratives of
# blanks only, which both txt-1 and txt-2 refuse (they have one expression).
BROKEN_THERE = {
    "cmd-0": 18,
    "csd-0": 1,
    "nsd-0": 718,
    "pdf-0": 6,
    "vsd-0": 15,
    "dom-6": 1722,
    "txt-1": 4,
    "txt-2": 4,
}


def elements(definitions: Definitions) -> Iterator[Element]:
    for type in definitions.types.values():
        yield type.root
        for children in type.elements.values():
            yield from children


def constraints(definitions: Definitions) -> set[Constraint]:
    return {one for element in elements(definitions) for one in element.constraints}


def test_every_invariant_is_an_expression(definitions: Definitions) -> None:
    """All that R4 publishes can be compiled."""
    texts = {one.expression for one in constraints(definitions) if one.expression}

    for text in texts:
        invariant(text)
    assert len(texts) > 190


def test_what_is_corrected_is_published(definitions: Definitions) -> None:
    """A correction of what is nowhere would correct nothing."""
    assert CORRECTED.keys() <= {one.expression for one in constraints(definitions)}


def test_invariants_name_what_their_types_have(model: Model) -> None:
    """But for one: ChargeItemDefinition has no name, and its invariant speaks of it."""
    wrong = []
    for type in model.definitions.types.values():
        for one in type.root.constraints:
            try:
                checked(compiled(one.expression), type.name, model)
            except FhirPathError as error:
                wrong.append((one.key, str(error).partition(".")[0]))

    assert wrong == [("cid-0", "ChargeItemDefinition has no element 'name'")]


def test_the_official_examples_keep_all_of_them(shared: Path, model: Model) -> None:
    """But for two kinds of warnings and blank narratives, which are counted."""
    lines = gzip.decompress((shared / "examples/examples-702.ndjson.gz").read_bytes()).splitlines()
    broken: Counter[str] = Counter()
    count = 0
    for line in lines:
        for focus in foci(model, model.resource(decode(line))):
            for one in focus.constraints:
                count += 1
                if not invariant(one.expression).test(focus.node, focus.environment):
                    broken[one.key] += 1
    assert len(lines) == 702
    assert count > 20_000
    assert broken == BROKEN_THERE


BROKEN: dict[str, tuple[str, dict[str, Any]]] = {
    "per-1": ("Period", {"start": "2020-03", "end": "2020-01-31"}),
    "qty-3": ("Quantity", {"value": 1, "code": "mg"}),
    "att-1": ("Attachment", {"data": "aGVsbG8="}),
    "cpt-2": ("ContactPoint", {"value": "1"}),
    "rng-2": (
        "Range",
        {
            "low": {"value": 1, "system": "http://unitsofmeasure.org", "code": "g"},
            "high": {"value": 999, "system": "http://unitsofmeasure.org", "code": "mg"},
        },
    ),
    "rat-1": ("Ratio", {"numerator": {"value": 1}}),
    "ref-1": ("Reference", {"reference": "#nobody"}),
    "ext-1": ("Extension", {"url": "http://x"}),
    "age-1": ("Age", {"value": -1, "code": "a", "system": "http://unitsofmeasure.org"}),
    "ait-2": (
        "AllergyIntolerance",
        {
            "resourceType": "AllergyIntolerance",
            "clinicalStatus": {"coding": [{"code": "active"}]},
            "verificationStatus": {
                "coding": [
                    {
                        "system": "http://terminology.hl7.org/CodeSystem/"
                        "allergyintolerance-verification",
                        "code": "entered-in-error",
                    }
                ]
            },
        },
    ),
    "dom-3": (
        "Patient",
        {"resourceType": "Patient", "contained": [{"resourceType": "Device", "id": "d"}]},
    ),
    "bdl-7": (
        "Bundle",
        {
            "resourceType": "Bundle",
            "type": "collection",
            "entry": [{"fullUrl": "urn:uuid:1"}, {"fullUrl": "urn:uuid:1"}],
        },
    ),
    "ras-2": (
        "RiskAssessment.prediction",
        {"resourceType": "RiskAssessment", "prediction": [{"probabilityDecimal": 101}]},
    ),
    "que-12": (
        "Questionnaire.item",
        {"resourceType": "Questionnaire", "item": [{"type": "string", "enableWhen": [{}, {}]}]},
    ),
    "pat-1": ("Patient.contact", {"resourceType": "Patient", "contact": [{"gender": "male"}]}),
}


@pytest.mark.parametrize("key", BROKEN)
def test_what_breaks_an_invariant_is_found(key: str, model: Model) -> None:
    """One fault for each, and no other invariant of the element is broken by it."""
    place, json = BROKEN[key]
    type, _, below = place.partition(".")
    root = model.resource(json) if "resourceType" in json else model.node(type, json)
    node = root.member(below)[0] if below else root
    environment = Environment(model, resource=root)
    element = next(one for one in elements(model.definitions) if one.path == place)
    published = {one.key: one for one in element.constraints}
    for name in node.shape.names:
        root_element = model.definitions.types[name].root
        published |= {one.key: one for one in root_element.constraints}

    found = [
        one.key
        for one in published.values()
        if one.severity == "error" and not invariant(one.expression).test(node, environment)
    ]

    assert found == [key]


def test_a_correction_holds_where_the_published_invariant_does_not(model: Model) -> None:
    """Each of them gives nothing, or false, on what is valid."""
    valid: dict[str, tuple[str, dict[str, Any]]] = {
        "fullUrl.contains('/_history/').not()": ("Element", {}),
        "start.hasValue().not() or end.hasValue().not() or (start <= end)": (
            "Period",
            {"start": "2020-01-31", "end": "2020-01"},
        ),
        "reference.startsWith('#').not() or (reference.substring(1).trace('url') in"
        " %rootResource.contained.id.trace('ids'))": ("Reference", {"display": "x"}),
    }
    for text, (type, json) in valid.items():
        node = model.node(type, json)
        environment = Environment(model, resource=node)
        assert not compiled(text).test(node, environment)
        assert invariant(text).test(node, environment)
