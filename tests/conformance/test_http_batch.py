"""https://hl7.org/fhir/R4/http.html#transaction"""

from typing import Any

import httpx
import pytest

from fhir_server.app import Server
from fhir_server.r4.json import decode
from tests.http.conftest import BASE, diagnostics_of, outcome_of

PATIENT = {"resourceType": "Patient", "id": "p", "active": True}


def entry(method: str, url: str, resource: Any = None, **request: str) -> dict[str, Any]:
    """Return a Bundle entry that asks for one interaction."""
    made: dict[str, Any] = {"request": {"method": method, "url": url, **request}}
    return made if resource is None else {"resource": resource, **made}


def bundle(*entries: dict[str, Any], type: str = "batch") -> dict[str, Any]:
    """Return the Bundle of ``entries``."""
    made: dict[str, Any] = {"resourceType": "Bundle", "type": type}
    return {**made, "entry": list(entries)} if entries else made


def statuses(answer: httpx.Response) -> list[int]:
    """Return the status of each entry of the answer."""
    return [int(one["response"]["status"][:3]) for one in answer.json().get("entry", [])]


# name -> (entry, status). On a server with Patient/p in version 1, and Patient/gone deleted.
ENTRIES = {
    "read": (entry("GET", "Patient/p"), 200),
    "read, absolute": (entry("GET", f"{BASE}/Patient/p"), 200),
    "read, leading slash": (entry("GET", "/Patient/p"), 200),
    "read, unchanged": (entry("GET", "Patient/p", ifNoneMatch='W/"1"'), 304),
    "read of nothing": (entry("GET", "Patient/nobody"), 404),
    "read of what was deleted": (entry("GET", "Patient/gone"), 410),
    "vread": (entry("GET", "Patient/p/_history/1"), 200),
    "history": (entry("GET", "Patient/p/_history"), 200),
    "search": (entry("GET", "Patient?_id=p"), 200),
    "search by post": (entry("POST", "Patient/_search?_id=p"), 200),
    "unknown parameter": (entry("GET", "Patient?nonsense=1"), 400),
    "head": (entry("HEAD", "Patient/p"), 200),
    "create": (entry("POST", "Patient", PATIENT), 201),
    "update": (entry("PUT", "Patient/q", {**PATIENT, "id": "q"}), 201),
    "update of another id": (entry("PUT", "Patient/r", PATIENT), 400),
    "update that conflicts": (entry("PUT", "Patient/p", PATIENT, ifMatch='W/"9"'), 412),
    "update without a resource": (entry("PUT", "Patient/s"), 400),
    "create without a resource": (entry("POST", "Patient"), 400),
    "invalid resource": (entry("POST", "Patient", {**PATIENT, "nonsense": 1}), 400),
    "wrong type": (entry("POST", "Patient", {"resourceType": "Person"}), 400),
    "unknown type": (entry("GET", "Patiens/1"), 404),
    # Fault 16: read as Patient/p; searched for another text; refused.
    "escaped slash": (entry("GET", "Patient%2Fp"), 404),
    "value not in UTF-8": (entry("GET", "Patient?name=%ff"), 400),
    "with a format": (entry("GET", "Patient/p?_format=json"), 200),
    "path traversal": (entry("GET", "Patient/../metadata"), 404),
    "delete": (entry("DELETE", "Patient/nobody"), 204),
    "nowhere": (entry("GET", "a/b/c/d/e"), 404),
    "wrong method": (entry("DELETE", "Patient/p/_history"), 405),
    "another server": (entry("GET", "http://elsewhere.example/fhir/Patient/p"), 400),
    "bundle in bundle": (entry("POST", "/", bundle()), 400),
}


@pytest.fixture(autouse=True)
async def _patients(http: httpx.AsyncClient) -> None:
    """Patient/p is there; Patient/gone was."""
    await http.put("Patient/p", json=PATIENT)
    await http.put("Patient/gone", json={**PATIENT, "id": "gone"})
    await http.delete("Patient/gone")


@pytest.mark.parametrize(("one", "status"), ENTRIES.values(), ids=ENTRIES)
async def test_each_entry_is_answered_like_a_request(
    http: httpx.AsyncClient, server: Server, one: dict[str, Any], status: int
) -> None:
    """200 for the batch, and the status that the entry would have alone; an outcome if not 2xx."""
    answer = await http.post("", json=bundle(one))

    assert answer.status_code == 200, answer.text
    assert answer.json()["type"] == "batch-response"
    assert statuses(answer) == [status], answer.text
    [response] = answer.json()["entry"]
    if status >= 400:
        assert response["response"]["outcome"]["resourceType"] == "OperationOutcome"
        assert response["response"]["outcome"]["issue"][0]["severity"] == "error"
    assert server.context.validate(decode(answer.content)) == (), answer.text


async def test_the_answers_are_in_the_order_of_the_request(http: httpx.AsyncClient) -> None:
    """One entry for each entry in the request, in the same order, whatever succeeds."""
    answer = await http.post("", json=bundle(*(one for one, _ in ENTRIES.values())))

    assert statuses(answer) == [status for _, status in ENTRIES.values()]


async def test_one_failure_does_not_touch_the_others(http: httpx.AsyncClient) -> None:
    """The success or failure of one change does not alter that of another."""
    wrong = entry("PUT", "Patient/b", {**PATIENT, "id": "b", "nonsense": 1})
    good = [entry("PUT", f"Patient/{id}", {**PATIENT, "id": id}) for id in "ac"]
    answer = await http.post("", json=bundle(good[0], wrong, good[1]))

    assert statuses(answer) == [201, 400, 201]
    assert [(await http.get(f"Patient/{id}")).status_code for id in "abc"] == [200, 404, 200]


async def test_an_entry_says_location_and_etag(http: httpx.AsyncClient) -> None:
    """The HTTP status code, and the location and ETag header values."""
    answer = await http.post("", json=bundle(entry("POST", "Patient", PATIENT)))
    response = answer.json()["entry"][0]["response"]
    read = await http.get(response["location"])

    assert response["etag"] == read.headers["etag"] == 'W/"1"'
    assert response["lastModified"] == read.json()["meta"]["lastUpdated"]


async def test_the_resource_of_a_get_is_in_its_entry(http: httpx.AsyncClient) -> None:
    """A read gives the resource, a search a searchset, a history a history; HEAD gives none."""
    urls = ["Patient/p", "Patient?_id=p", "Patient/p/_history", "metadata"]
    answer = await http.post("", json=bundle(*(entry("GET", url) for url in urls[:3])))
    resources = [one["resource"] for one in answer.json()["entry"]]

    assert resources[0] == (await http.get("Patient/p")).json()
    assert [one.get("type") for one in resources] == [None, "searchset", "history"]
    head = await http.post("", json=bundle(entry("HEAD", "Patient/p")))
    assert "resource" not in head.json()["entry"][0]


PREFERENCES = {"": False, "return=minimal": False, "return=representation": True}


@pytest.mark.parametrize("type", ["batch", "transaction"])
@pytest.mark.parametrize(("prefer", "whole"), PREFERENCES.items(), ids=PREFERENCES)
async def test_the_client_chooses_what_comes_back(
    http: httpx.AsyncClient, prefer: str, whole: bool, type: str
) -> None:
    """A resource may be included in the entry, as specified by the Prefer header."""
    body = bundle(entry("POST", "Patient", PATIENT), type=type)
    answer = await http.post("", json=body, headers={"Prefer": prefer} if prefer else {})

    assert ("resource" in answer.json()["entry"][0]) is whole


async def test_prefer_outcome_gives_an_outcome_per_entry(http: httpx.AsyncClient) -> None:
    """return=OperationOutcome: what happened, in response.outcome."""
    body = bundle(entry("POST", "Patient", PATIENT), entry("DELETE", "Patient/p"))
    answer = await http.post("", json=body, headers={"Prefer": "return=OperationOutcome"})

    for one in answer.json()["entry"]:
        assert one["response"]["outcome"]["resourceType"] == "OperationOutcome", answer.text
        assert "resource" not in one


@pytest.mark.parametrize("type", ["batch", "transaction"])
async def test_nothing_may_be_asked(http: httpx.AsyncClient, server: Server, type: str) -> None:
    """It is not an error if the submitted bundle has no resources in it."""
    answer = await http.post("", json=bundle(type=type))

    assert (answer.status_code, answer.json()["type"]) == (200, f"{type}-response")
    assert server.context.validate(decode(answer.content)) == ()


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_the_base_takes_bundles_by_post(http: httpx.AsyncClient, method: str) -> None:
    """Any other method on [base] is refused, but GET, which is a search of the whole system."""
    assert (await http.request(method, "")).status_code in (400, 405)


async def test_a_transaction_is_all_or_nothing(http: httpx.AsyncClient) -> None:
    """One refusal refuses all: a single OperationOutcome that names the entry, and no effect."""
    good = entry("PUT", "Patient/a", {**PATIENT, "id": "a"})
    wrong = entry("PUT", "Patient/b", {**PATIENT, "id": "b", "nonsense": 1})
    answer = await http.post("", json=bundle(good, wrong, type="transaction"))

    assert answer.status_code == 400
    assert "Bundle.entry[1]" in diagnostics_of(answer)
    assert (await http.get("Patient/a")).status_code == 404


async def test_a_transaction_answers_in_the_order_of_the_request(http: httpx.AsyncClient) -> None:
    """Processed as DELETE, POST, PUT, GET; answered in the order of the entries."""
    body = bundle(
        entry("GET", "Patient/p"),
        entry("PUT", "Patient/a", {**PATIENT, "id": "a"}),
        entry("POST", "Patient", PATIENT),
        entry("DELETE", "Patient/p"),
        type="transaction",
    )
    answer = await http.post("", json=body)

    # Step 4 comes after step 1, so the resource that is read has just been deleted: all fail.
    assert answer.status_code == 410
    outcome_of(answer)
    body["entry"][0]["request"]["url"] = "Patient/a"
    answer = await http.post("", json=body)
    assert statuses(answer) == [200, 201, 201, 204], answer.text


DUPLICATES = {
    "two updates": [entry("PUT", "Patient/p", PATIENT)] * 2,
    "update and delete": [entry("PUT", "Patient/p", PATIENT), entry("DELETE", "Patient/p")],
    "under two urls": [entry("PUT", "Patient/p", PATIENT), entry("DELETE", f"{BASE}/Patient/p")],
}


@pytest.mark.parametrize("entries", DUPLICATES.values(), ids=DUPLICATES)
async def test_a_resource_appears_once(
    http: httpx.AsyncClient, entries: list[dict[str, Any]]
) -> None:
    """If any resource identities overlap in steps 1-3, the transaction SHALL fail."""
    answer = await http.post("", json=bundle(*entries, type="transaction"))

    assert answer.status_code == 400
    assert "Patient/p" in diagnostics_of(answer)
    assert (await http.get("Patient/p")).headers["etag"] == 'W/"1"'


async def test_references_follow_the_new_ids(http: httpx.AsyncClient) -> None:
    """The server SHALL update any references to a resource that it gives a new id."""
    urn = "urn:uuid:8c7e2a2e-0000-4000-8000-000000000001"
    observation = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "x"},
        "subject": {"reference": urn},
    }
    body = bundle(
        entry("POST", "Observation", observation),
        {"fullUrl": urn, **entry("POST", "Patient", PATIENT)},
        type="transaction",
    )
    answer = await http.post("", json=body, headers={"Prefer": "return=representation"})
    first, second = [one["resource"] for one in answer.json()["entry"]]

    assert first["subject"]["reference"] == f"Patient/{second['id']}"


async def test_a_failed_conditional_reference_fails_the_transaction(
    http: httpx.AsyncClient,
) -> None:
    """If there are no matches, or multiple matches, the transaction fails."""
    for id in "ab":
        resource = {**PATIENT, "id": id, "identifier": [{"value": "two"}]}
        await http.put(f"Patient/{id}", json=resource)
    for url, status in (("two", 412), ("none", 412)):
        basic = {
            "resourceType": "Basic",
            "code": {"text": "x"},
            "subject": {"reference": f"Patient?identifier={url}"},
        }
        answer = await http.post("", json=bundle(entry("POST", "Basic", basic), type="transaction"))
        assert answer.status_code == status
        assert f"Patient?identifier={url}" in diagnostics_of(answer)
    assert "entry" not in (await http.get("Basic")).json()
