"""What the tests of this folder share."""

import pytest

from fhir_server.app import specification
from fhir_server.artifacts import artifacts_root
from fhir_server.validation.structure import StructureValidator


@pytest.fixture(scope="session")
def structural() -> StructureValidator:
    """The validator of the form of resources."""
    return specification(artifacts_root(None), ()).validator
