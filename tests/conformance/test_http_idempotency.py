"""https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-idempotency-key-header, over HTTP"""

import httpx
import pytest

from tests.http.conftest import diagnostics_of

KEY = {"Idempotency-Key": '"8e03978e-40d5-43dd-bc93-6894a57f9324"'}
BARE = {"Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}
TOLD = ("etag", "location", "last-modified", "content-type", "content-length")
PATIENT = {"resourceType": "Patient"}
BUNDLE = {
    "resourceType": "Bundle",
    "type": "transaction",
    "entry": [{"resource": PATIENT, "request": {"method": "POST", "url": "Patient"}}],
}


async def test_a_create_sent_again_is_answered_as_the_first(http: httpx.AsyncClient) -> None:
    """Status, ETag, Location, Last-Modified and body; with quotes or without it is one key."""
    first = await http.post("Patient", json=PATIENT, headers=KEY)
    second = await http.post("Patient", json=PATIENT, headers=BARE)
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.content == first.content
    assert [second.headers[one] for one in TOLD] == [first.headers[one] for one in TOLD]
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert (await http.get("Patient?_summary=count")).json()["total"] == 1


async def test_a_transaction_sent_again_is_answered_as_the_first(http: httpx.AsyncClient) -> None:
    """All of its entries."""
    first = await http.post("", json=BUNDLE, headers=KEY)
    second = await http.post("", json=BUNDLE, headers=KEY)
    assert (first.status_code, second.content) == (200, first.content)
    assert (await http.get("Patient?_summary=count")).json()["total"] == 1


async def test_the_first_answer_in_another_format(http: httpx.AsyncClient) -> None:
    """The request is the same when its resource comes as XML."""
    first = await http.post("Patient", json=PATIENT, headers=KEY)
    second = await http.post(
        "Patient",
        content=b'<Patient xmlns="http://hl7.org/fhir"/>',
        headers=KEY | {"Content-Type": "application/fhir+xml", "Accept": "application/fhir+xml"},
    )
    assert second.status_code == 201
    assert second.headers["location"] == first.headers["location"]
    assert second.content.startswith(b"<")


@pytest.mark.parametrize(
    ("method", "url", "body"),
    [
        ("POST", "Patient", PATIENT | {"active": True}),
        ("PUT", "Patient/p", PATIENT | {"id": "p"}),
        ("POST", "", BUNDLE),
        ("DELETE", "Patient/p", None),
    ],
)
async def test_another_request_under_the_key_is_422(
    http: httpx.AsyncClient, method: str, url: str, body: object
) -> None:
    """Another body, another URL, another method: nothing is written."""
    await http.post("Patient", json=PATIENT, headers=KEY)
    answer = await http.request(method, url, json=body, headers=KEY)
    assert answer.status_code == 422
    assert "new key" in diagnostics_of(answer)
    assert (await http.get("Patient?_summary=count")).json()["total"] == 1


@pytest.mark.parametrize("key", ["", "k" * 256, "a b", "é", '"a', "a, b"])
async def test_what_is_no_key_is_400(http: httpx.AsyncClient, key: str) -> None:
    """And nothing is written without the promise that was asked for."""
    headers = [(b"Idempotency-Key", key.encode())]
    answer = await http.post("Patient", json=PATIENT, headers=headers)
    assert answer.status_code == 400
    assert "Idempotency-Key" in diagnostics_of(answer)
    assert (await http.get("Patient?_summary=count")).json()["total"] == 0
