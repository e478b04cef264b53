"""https://hl7.org/fhir/R4/http.html#read"""

from fhir_server.messages import Request, Resource
from tests.conftest import Fhir

PATIENT: Resource = {"resourceType": "Patient", "id": "p", "active": True}


async def test_what_was_written_is_read(fhir: Fhir) -> None:
    """A resource comes back with its id, version and time, and otherwise as it was sent."""
    written = await fhir(Request("update", "Patient", "p", body=PATIENT))
    read = await fhir(Request("read", "Patient", "p"))

    assert (written.status, read.status) == (201, 200)
    assert read.body == written.body
    assert (read.version, read.last_updated) == (1, written.last_updated)


async def test_a_resource_that_never_was_is_not_found(fhir: Fhir) -> None:
    """Status 404, and an OperationOutcome that names the resource."""
    read = await fhir(Request("read", "Patient", "nobody"))

    assert read.status == 404
    assert b"Patient/nobody does not exist" in read.body
