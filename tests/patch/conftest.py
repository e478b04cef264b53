"""What the tests of patches share."""

import pytest

from fhir_server.artifacts import artifacts_root
from fhir_server.patch.bounds import Bounds
from fhir_server.r4.definitions import Definitions, load_definitions

BOUNDS = Bounds(operations_max=1000, bytes_max=6_291_456, depth_max=100)


@pytest.fixture(scope="session")
def definitions() -> Definitions:
    """The definitions that the server ships with."""
    return load_definitions(artifacts_root())
