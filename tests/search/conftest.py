"""What the search tests share: the table of all R4 parameters, made once."""

import pytest

from fhir_server.artifacts import artifacts_root
from fhir_server.r4.definitions import load_definitions
from fhir_server.search.parameters import ParameterTable, parameter_table

BASE = "https://here.example/fhir"


@pytest.fixture(scope="session")
def table() -> ParameterTable:
    """The table of a server whose base is ``https://here.example/fhir``."""
    return parameter_table(load_definitions(artifacts_root()), (BASE,))
