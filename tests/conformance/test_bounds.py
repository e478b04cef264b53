# https://hl7.org/fhir/R4/http.html#general and section 12 of ARCHITECTURE.md
"""What one request can cost, and what a browser may send."""

import asyncio
import json
import time

import httpx
import pytest

from fhir_server.messages import Request
from tests.conftest import Fhir

PATIENT = {"resourceType": "Patient", "id": "p", "active": True}


def entry(id: str, *, active: bool) -> dict[str, object]:
    """An entry that writes a patient, if it is still at version 1."""
    resource = {"resourceType": "Patient", "id": id, "active": active}
    request = {"method": "PUT", "url": f"Patient/{id}", "ifMatch": 'W/"1"'}
    return {"resource": resource, "request": request}


async def test_what_a_bundle_relies_on_stays_until_it_is_written(fhir: Fhir) -> None:
    """Of two bundles, each changing what the other wants unchanged, exactly one wins."""
    for turn in range(10):
        x, y = f"x{turn}", f"y{turn}"
        for id in (x, y):
            body = {"resourceType": "Patient", "id": id, "active": True}
            await fhir(Request("update", "Patient", id, body=body))
        bundles = [
            [entry(x, active=True), entry(y, active=False)],
            [entry(y, active=True), entry(x, active=False)],
        ]
        answers = await asyncio.gather(
            *(
                fhir(
                    Request(
                        "transaction",
                        body={"resourceType": "Bundle", "type": "transaction", "entry": one},
                    )
                )
                for one in bundles
            )
        )
        assert sorted(one.status for one in answers) == [200, 412]


HEADERS = {
    "a version of 5,000 digits": ({"If-Match": f'W/"{"9" * 5000}"'}, 400),
    "a version that is none of ours": ({"If-Match": 'W/"abc"'}, 412),
    "ten thousand versions": ({"If-Match": "1," * 10_000 + "1"}, 400),
    "thirty thousand versions": ({"If-Match": "1," * 30_000 + "1"}, 431),
    "a page of another site": ({"Sec-Fetch-Site": "cross-site"}, 403),
}


@pytest.mark.parametrize(("headers", "status"), HEADERS.values(), ids=HEADERS)
async def test_hostile_headers(
    http: httpx.AsyncClient, headers: dict[str, str], status: int
) -> None:
    """Each is refused at once, and the next request works."""
    await http.put("Patient/p", json=PATIENT)
    began = time.perf_counter()
    answer = await http.put("Patient/p", json=PATIENT, headers=headers)

    assert answer.status_code == status
    assert time.perf_counter() - began < 1
    assert (await http.get("Patient/p")).json()["meta"]["versionId"] == "1"


async def test_many_members_and_one_twice(http: httpx.AsyncClient) -> None:
    """A duplicate among 100,000 members is found in less than a second or two."""
    members = ",".join(f'"m{n}":1' for n in range(100_000))
    began = time.perf_counter()
    answer = await http.post(
        "Patient",
        content=f'{{"resourceType":"Patient",{members},"m5":2}}',
        headers={"Content-Type": "application/fhir+json"},
    )

    assert answer.status_code == 400
    assert "m5" in answer.text
    assert time.perf_counter() - began < 5


async def test_the_answer_to_a_bundle_is_bounded(fhir: Fhir) -> None:
    """Searches in the entries of a batch do not add up without end; each says so for itself."""
    text = "x" * 500_000
    for n in range(3):
        basic = {"resourceType": "Basic", "id": f"b{n}", "code": {"text": text}}
        await fhir(Request("update", "Basic", f"b{n}", body=basic))
    entries = [{"request": {"method": "GET", "url": "Basic"}} for _ in range(60)]
    body = {"resourceType": "Bundle", "type": "batch", "entry": entries}
    answer = await fhir(Request("transaction", body=body))
    statuses = [one["response"]["status"][:3] for one in json.loads(answer.body)["entry"]]

    assert answer.status == 200
    assert set(statuses) == {"200", "413"}
    assert len(answer.body) < 60_000_000
