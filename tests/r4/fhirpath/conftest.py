"""The model of R4, and evaluation in one line."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from fhir_server.r4.definitions import Definitions
from fhir_server.r4.fhirpath.engine import compiled
from fhir_server.r4.fhirpath.environment import Environment
from fhir_server.r4.fhirpath.model import Model, Value

NOW = datetime(2024, 2, 29, 13, 5, 30, 250_000, tzinfo=UTC)
Evaluate = Callable[..., list[Value]]


@pytest.fixture(scope="session")
def model(definitions: Definitions) -> Model:
    """Shapes of the R4 definitions."""
    return Model(definitions)


@pytest.fixture(scope="session")
def evaluate(model: Model) -> Evaluate:
    """``evaluate(text, resource)`` -> values."""

    def run(text: str, json: dict[str, Any] | None = None, **around: Any) -> list[Value]:
        node = model.resource(json) if json is not None else None
        environment = Environment(model, resource=node, now=NOW, **around)
        return compiled(text).evaluate([] if node is None else node, environment)

    return run
