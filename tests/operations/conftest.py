"""What tests of exports have: a clinic, a client that may do everything, rights that are given."""

from dataclasses import replace

import pytest

from fhir_server.app import Server
from tests.operations.exports import (
    Exporting,
    Granted,
    observation,
    patient,
    stored,
)


@pytest.fixture
def granted() -> Granted:
    """Rights that the test gives and takes."""
    return Granted()


@pytest.fixture
def client(server: Server) -> Exporting:
    """Whoever may do everything."""
    return Exporting(server)


@pytest.fixture
async def clinic(server: Server) -> Server:
    """Patients a, b and c; d is a directory. Two observations each, one of both a and c."""
    both = observation("ac", "a", performer=[{"reference": "Patient/c"}])
    await stored(
        server,
        *(patient(id) for id in "abc"),
        *(observation(f"{id}{n}", id) for id in "abc" for n in (1, 2)),
        both,
        {"resourceType": "Practitioner", "id": "doctor"},
        {"resourceType": "ValueSet", "id": "v", "status": "draft"},
    )
    return server


@pytest.fixture
def judged(clinic: Server, granted: Granted) -> Server:
    """The clinic, where ``granted`` says who may do what."""
    return replace(clinic, context=replace(clinic.context, access=granted))
