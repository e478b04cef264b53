"""What invariants cost: microseconds for all of them on a resource, and for one evaluation.

Run by ``make bench``. Skipped without the official examples (../shared/data/examples).
"""

import gzip
import time
from pathlib import Path
from typing import Any

import pytest

from fhir_server.artifacts import artifacts_root
from fhir_server.r4.definitions import load_definitions
from fhir_server.r4.fhirpath.model import Model
from fhir_server.r4.fhirpath.published import invariant
from fhir_server.r4.json import decode
from tests.r4.fhirpath.walk import foci

ROUNDS = 200
MEASURED = {
    *(("Patient", "example"), ("Observation", "example"), ("Observation", "blood-pressure")),
    *(("Bundle", "lipids"), ("Questionnaire", "bb"), ("Communication", "fm-solicited")),
}


@pytest.fixture(scope="module")
def resources(shared: Path) -> list[dict[str, Any]]:
    """The examples that are measured."""
    text = gzip.decompress((shared / "examples/examples-702.ndjson.gz").read_bytes())
    found = [decode(line) for line in text.splitlines()]
    return [one for one in found if (one["resourceType"], one.get("id")) in MEASURED]


def test_invariants_of_a_resource(resources: list[dict[str, Any]]) -> None:
    """Print the best of some rounds. Finding the elements is the caller's, and not counted."""
    model = Model(load_definitions(artifacts_root()))
    for resource in resources:
        seconds, evaluations = min(_round(model, resource) for _ in range(ROUNDS))
        print(
            f"{resource['resourceType']}/{resource['id']}: {evaluations} invariants in "
            f"{seconds * 1e6:.0f} µs, {seconds * 1e6 / evaluations:.1f} µs each"
        )


def _round(model: Model, resource: dict[str, Any]) -> tuple[float, int]:
    elements = list(foci(model, model.resource(resource)))
    count = 0
    begun = time.perf_counter()
    for focus in elements:
        for one in focus.constraints:
            invariant(one.expression).test(focus.node, focus.environment)
            count += 1
    return time.perf_counter() - begun, count
