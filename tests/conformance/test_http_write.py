"""https://hl7.org/fhir/R4/http.html#update"""

from typing import Any

import httpx
import pytest

from fhir_server.app import Server
from fhir_server.r4.json import decode
from tests.http.conftest import BASE, diagnostics_of, outcome_of

PATIENT = {"resourceType": "Patient", "id": "p", "active": True}
OTHER = {**PATIENT, "active": False}
META = {
    "versionId": "77",
    "lastUpdated": "1999-01-01T00:00:00Z",
    "source": "urn:x:y",
    "tag": [{"system": "urn:t", "code": "keep"}],
    "profile": ["http://example.org/p"],
}
LOCATION = f"{BASE}/Patient/"


# -------------------------------------------------------------------------------------- create


async def test_a_create_says_where_and_which_version(http: httpx.AsyncClient) -> None:
    """201, and a Location with the new logical id and version id; ETag and Last-Modified."""
    created = await http.post("Patient", json={"resourceType": "Patient", "active": True})
    resource = created.json()

    assert created.status_code == 201
    assert created.headers["location"] == f"{LOCATION}{resource['id']}/_history/1"
    assert created.headers["etag"] == 'W/"1"'
    assert "last-modified" in created.headers
    assert (await http.get(created.headers["location"])).json() == resource


async def test_a_create_ignores_the_id_and_the_version_it_is_sent(http: httpx.AsyncClient) -> None:
    """The server ignores id, versionId and lastUpdated, fills them in, and keeps other metadata."""
    created = (await http.post("Patient", json={**PATIENT, "meta": META})).json()
    meta = created["meta"]

    assert created["id"] != "p"
    assert meta["versionId"] == "1"
    assert meta["lastUpdated"] > "2020"
    assert {k: v for k, v in meta.items() if k not in ("versionId", "lastUpdated")} == {
        k: v for k, v in META.items() if k not in ("versionId", "lastUpdated")
    }
    assert (await http.get("Patient/p")).status_code == 404


async def test_equal_creates_make_two_resources(http: httpx.AsyncClient) -> None:
    """A create is not idempotent: each one gets an id of its own."""
    ids = {(await http.post("Patient", json=PATIENT)).json()["id"] for _ in range(3)}

    assert len(ids) == 3


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_type_that_is_not_of_r4_is_not_found(http: httpx.AsyncClient, method: str) -> None:
    """404: resource type not supported."""
    path = "Patiens" if method == "POST" else "Patiens/p"
    answer = await http.request(method, path, json={"resourceType": "Patiens", "id": "p"})

    assert answer.status_code == 404
    assert "Patient" in diagnostics_of(answer)


# -------------------------------------------------------------------------------------- update


async def test_an_update_of_a_new_id_creates(http: httpx.AsyncClient) -> None:
    """201 with Location, ETag and Last-Modified where the client chose the id."""
    answer = await http.put("Patient/p", json=PATIENT)

    assert answer.status_code == 201
    assert answer.headers["location"] == f"{LOCATION}p/_history/1"
    assert answer.headers["etag"] == 'W/"1"'
    assert "last-modified" in answer.headers


async def test_an_update_makes_a_new_version(http: httpx.AsyncClient) -> None:
    """200 with the new version in ETag and meta; client values of both are ignored."""
    await http.put("Patient/p", json=PATIENT)
    answer = await http.put("Patient/p", json={**OTHER, "meta": META})

    assert answer.status_code == 200
    assert answer.headers["etag"] == 'W/"2"'
    assert answer.json()["meta"]["versionId"] == "2"
    assert answer.json()["meta"]["lastUpdated"] > "2020"
    assert answer.json()["meta"]["tag"] == META["tag"]


async def test_content_comes_back_as_it_was_sent(http: httpx.AsyncClient, server: Server) -> None:
    """The same content when it is subsequently read: decimals, siblings, order of arrays."""
    text = (
        b'{"resourceType":"Observation","id":"o","status":"final","code":{"text":"\xc3\xa9 \xf0\x9f'
        b'\x98\x80"},"valueQuantity":{"value":1.00},"component":[{"code":{"text":"b"},'
        b'"valueQuantity":{"value":1.0e-3}},{"code":{"text":"a"},"valueQuantity":{"value":-0.0}}],'
        b'"_status":{"id":"s"}}'
    )
    await http.put("Observation/o", content=text, headers={"Content-Type": "application/json"})
    read = (await http.get("Observation/o")).content

    for literal in (b'"value":1.00}', b'"value":1.0e-3}', b'"value":-0.0}', b"\xf0\x9f\x98\x80"):
        assert literal in read
    sent, got = decode(text), decode(read)
    got.pop("meta")
    assert got == sent


BAD_IDS: dict[str, Any] = {
    "absent": {"resourceType": "Patient"},
    "another": {"resourceType": "Patient", "id": "q"},
    "of another case": {"resourceType": "Patient", "id": "P"},
    "null": {"resourceType": "Patient", "id": None},
    "a number": {"resourceType": "Patient", "id": 1},
    "a list": {"resourceType": "Patient", "id": ["p"]},
}


@pytest.mark.parametrize("body", BAD_IDS.values(), ids=BAD_IDS)
async def test_an_update_without_the_id_of_the_url_is_refused(
    http: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    """400 with an OperationOutcome where no id is given, or the id disagrees with the URL."""
    answer = await http.put("Patient/p", json=body)

    assert answer.status_code == 400
    assert "id" in diagnostics_of(answer)
    assert (await http.get("Patient/p")).status_code == 404


async def test_an_unchanged_update_is_no_new_version(http: httpx.AsyncClient) -> None:
    """Idempotent: the same content again is 200 at the same version (ARCHITECTURE.md, 16.3)."""
    await http.put("Patient/p", json=PATIENT)
    again = await http.put("Patient/p", json=PATIENT)

    assert (again.status_code, again.headers["etag"]) == (200, 'W/"1"')


async def test_a_refused_update_leaves_the_resource_alone(http: httpx.AsyncClient) -> None:
    """A refusal has no effect: same version, same content."""
    before = await http.put("Patient/p", json=PATIENT)
    refused = await http.put("Patient/p", json={**OTHER, "nonsense": 1})

    assert refused.status_code in (400, 422)
    assert (await http.get("Patient/p")).content == before.content


# --------------------------------------------------------------------------------- concurrency

# If-Match, If-None-Match of an update of Patient/p, which is at version 2 -> status.
CONDITIONS = {
    "current": ({"If-Match": 'W/"2"'}, 200),
    "current, strong": ({"If-Match": '"2"'}, 200),
    "current, bare": ({"If-Match": "2"}, 200),
    "one of several": ({"If-Match": 'W/"9", W/"2"'}, 200),
    "any": ({"If-Match": "*"}, 200),
    "older": ({"If-Match": 'W/"1"'}, 412),
    "newer": ({"If-Match": 'W/"3"'}, 412),
    "leading zero": ({"If-Match": 'W/"02"'}, 412),
    "not a number": ({"If-Match": 'W/"abc"'}, 412),
    # RFC 9110, 8.8.3: any etagc may stand in a tag.
    "tag of another": ({"If-Match": '"a/b_c"'}, 412),
    "none there": ({"If-None-Match": "*"}, 412),
    "not this": ({"If-None-Match": 'W/"2"'}, 412),
    "not another": ({"If-None-Match": 'W/"1"'}, 200),
    "malformed": ({"If-Match": 'W/"2'}, 400),
}


@pytest.mark.parametrize(("headers", "status"), CONDITIONS.values(), ids=CONDITIONS)
async def test_a_precondition_decides(
    http: httpx.AsyncClient, headers: dict[str, str], status: int
) -> None:
    """412 where the version in If-Match is not the current one; nothing is written then."""
    await http.put("Patient/p", json=PATIENT)
    await http.put("Patient/p", json=OTHER)
    answer = await http.put("Patient/p", json=PATIENT, headers=headers)

    assert answer.status_code == status, answer.text
    assert (await http.get("Patient/p")).headers["etag"] == ('W/"3"' if status == 200 else 'W/"2"')
    if status == 412:
        assert outcome_of(answer)["issue"][0]["code"] == "conflict"


@pytest.mark.parametrize("tag", ["*", 'W/"1"'])
async def test_if_match_on_what_is_not_there_fails(http: httpx.AsyncClient, tag: str) -> None:
    """RFC 9110, 13.1.1: false when there is no current representation; nothing is created."""
    answer = await http.put("Patient/p", json=PATIENT, headers={"If-Match": tag})

    assert answer.status_code == 412
    assert (await http.get("Patient/p")).status_code == 404


@pytest.mark.parametrize("tag", ["*", 'W/"1"', 'W/"2"'])
async def test_if_match_on_what_is_deleted(http: httpx.AsyncClient, tag: str) -> None:
    """The ETag of the deletion allows bringing back to life; no other tag does."""
    await http.put("Patient/p", json=PATIENT)
    await http.delete("Patient/p")
    answer = await http.put("Patient/p", json=PATIENT, headers={"If-Match": tag})

    assert answer.status_code == (201 if tag == 'W/"2"' else 412), answer.text


async def test_a_deletion_can_be_conditional(http: httpx.AsyncClient) -> None:
    """If-Match holds for DELETE as for every method (RFC 9110, 13.1.1)."""
    await http.put("Patient/p", json=PATIENT)
    await http.put("Patient/p", json=OTHER)
    stale = await http.delete("Patient/p", headers={"If-Match": 'W/"1"'})
    current = await http.delete("Patient/p", headers={"If-Match": 'W/"2"'})

    assert (stale.status_code, current.status_code) == (412, 204)


# -------------------------------------------------------------------------------------- delete


async def test_what_is_deleted_is_gone_and_not_found_by_search(http: httpx.AsyncClient) -> None:
    """204 without a body; read is 410 afterwards, and search does not find it."""
    await http.put("Patient/p", json=PATIENT)
    deleted = await http.delete("Patient/p")

    assert (deleted.status_code, deleted.content) == (204, b"")
    assert "content-type" not in deleted.headers
    assert (await http.get("Patient/p")).status_code == 410
    assert "entry" not in (await http.get("Patient", params={"_id": "p"})).json()


async def test_deleting_again_has_no_effect(http: httpx.AsyncClient) -> None:
    """204 for what is deleted already, and no further version; 204 for what never was."""
    await http.put("Patient/p", json=PATIENT)
    for path in ("Patient/p", "Patient/p", "Patient/nobody"):
        assert (await http.delete(path)).status_code == 204

    assert (await http.get("Patient/p/_history")).json()["total"] == 2
    assert (await http.get("Patient/nobody")).status_code == 404


async def test_what_is_brought_back_continues_its_versions(http: httpx.AsyncClient) -> None:
    """An update of a deleted resource is 201, at the version behind the deletion."""
    await http.put("Patient/p", json=PATIENT)
    await http.delete("Patient/p")
    again = await http.put("Patient/p", json=PATIENT)

    assert (again.status_code, again.headers["etag"]) == (201, 'W/"3"')
    assert again.headers["location"] == f"{LOCATION}p/_history/3"
    assert (await http.get("Patient/p")).status_code == 200
    history = (await http.get("Patient/p/_history")).json()["entry"]
    assert [one["request"]["method"] for one in history] == ["PUT", "DELETE", "PUT"]


async def test_a_deletion_says_its_version(http: httpx.AsyncClient) -> None:
    """Servers MAY include an ETag on the delete response; it is that of the deletion."""
    await http.put("Patient/p", json=PATIENT)

    assert (await http.delete("Patient/p")).headers["etag"] == 'W/"2"'


# -------------------------------------------------------------------------------------- Prefer

PREFERENCES = {
    "": "Patient",
    "return=representation": "Patient",
    "return=minimal": "",
    "return=OperationOutcome": "OperationOutcome",
    'return="minimal"': "",
    "RETURN=minimal": "",  # RFC 7240, 2: names of preferences are case-insensitive
    "return = minimal": "",
    "respond-async, return=minimal": "",
    "handling=strict; x=y, return=OperationOutcome": "OperationOutcome",
    "return=nonsense": "Patient",
    "nonsense": "Patient",
}


@pytest.mark.parametrize("interaction", ["create", "update"])
@pytest.mark.parametrize(("prefer", "type"), PREFERENCES.items(), ids=PREFERENCES)
async def test_the_client_chooses_what_comes_back(
    http: httpx.AsyncClient, interaction: str, prefer: str, type: str
) -> None:
    """No body, the resource or an OperationOutcome; the headers are the same for all three."""
    headers = {"Prefer": prefer} if prefer else {}
    method, path = ("POST", "Patient") if interaction == "create" else ("PUT", "Patient/p")
    answer = await http.request(method, path, json=PATIENT, headers=headers)

    assert answer.status_code == 201
    assert (answer.json()["resourceType"] if answer.content else "") == type
    assert {"location", "etag", "last-modified"} <= set(answer.headers)
    if type == "OperationOutcome":
        assert outcome_of(answer)["issue"][0]["severity"] in ("information", "warning")


async def test_a_deletion_can_answer_with_an_outcome(http: httpx.AsyncClient) -> None:
    """200 if the response contains a payload."""
    await http.put("Patient/p", json=PATIENT)
    answer = await http.delete("Patient/p", headers={"Prefer": "return=OperationOutcome"})

    assert answer.status_code == 200
    assert outcome_of(answer)["issue"][0]["severity"] == "information"


async def test_a_failure_has_an_outcome_whatever_is_preferred(http: httpx.AsyncClient) -> None:
    """In case of failure a body with an OperationOutcome, also under return=minimal."""
    answer = await http.put("Patient/p", json=[], headers={"Prefer": "return=minimal"})

    assert answer.status_code == 400
    outcome_of(answer)
