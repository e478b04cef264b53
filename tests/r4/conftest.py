"""The definitions, read once for the tests of this folder."""

from pathlib import Path

import pytest

from fhir_server.r4.definitions import Definitions, load_definitions


@pytest.fixture(scope="session")
def definitions() -> Definitions:
    """The R4 definitions of the checkout."""
    return load_definitions(Path(__file__).resolve().parents[2])
