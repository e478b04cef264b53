"""https://hl7.org/fhir/uv/bulkdata/STU2/export.html#file-request"""

import json

import pytest

from fhir_server.app import Server
from fhir_server.messages import Request
from fhir_server.operations.export_work import work
from tests.http.conftest import application, client, exchange

ASYNC = {"Prefer": "respond-async"}


@pytest.fixture
async def complete(server: Server) -> str:
    """Where an export of a hundred patients is, which is complete, relative to the base."""
    for n in range(100):
        body = {"resourceType": "Patient", "id": f"p{n}", "name": [{"family": "Khatun"}]}
        await server.perform(Request("update", "Patient", f"p{n}", body=body))
    async with client(server) as http:
        begun = await http.get("$export", headers=ASYNC)
        assert begun.status_code == 202
        assert begun.json()["resourceType"] == "OperationOutcome"
        place = begun.headers["content-location"]
        waiting = await http.get(place)
        assert (waiting.status_code, waiting.content) == (202, b"")
        assert waiting.headers["x-progress"]
    while await work(server.context):
        pass
    return place.rpartition("/")[2]


async def test_manifest_and_files_are_what_they_are(server: Server, complete: str) -> None:
    """Whatever Accept says, the manifest is JSON and a file NDJSON, each with its media type; both
    are packed for who takes gzip, and nothing of them stays in caches."""
    app = application(server)
    for accept in ("application/json", "application/fhir+json", "application/fhir+xml", "*/*"):
        found = await exchange(app, "GET", complete, {"accept": accept})
        assert (found.status_code, found.headers["content-type"]) == (200, "application/json")
        assert found.headers["cache-control"] == "no-store"
    manifest = (await exchange(app, "GET", complete)).json()
    place = manifest["output"][0]["url"].rpartition("/")[2]
    plain = b""
    for accept in ("application/fhir+ndjson", "application/fhir+json", "application/fhir+xml"):
        got = await exchange(app, "GET", place, {"accept": accept})
        assert (got.status_code, got.headers["content-type"]) == (200, "application/fhir+ndjson")
        plain = got.content
    assert len([json.loads(line) for line in plain.splitlines()]) == 100
    async with client(server) as http:
        packed = await http.get(place, headers={"Accept-Encoding": "gzip"})
        assert packed.headers["content-encoding"] == "gzip"
        assert packed.content == plain
    bare = await exchange(app, "HEAD", place)
    assert (bare.status_code, bare.content) == (200, b"")


async def test_delete_is_for_the_status_alone(server: Server, complete: str) -> None:
    """DELETE there removes the export; elsewhere it is 405, and Allow says what is possible."""
    app = application(server)
    elsewhere = await exchange(app, "DELETE", "$export")
    assert (elsewhere.status_code, elsewhere.headers["allow"]) == (405, "GET, POST")
    other = await exchange(app, "PUT", "$export-status")
    assert (other.status_code, other.headers["allow"]) == (405, "GET, POST, DELETE")
    assert (await exchange(app, "DELETE", complete)).status_code == 202
    gone = await exchange(app, "GET", complete)
    assert gone.status_code == 404
    assert gone.json()["resourceType"] == "OperationOutcome"


async def test_a_batch_has_no_room_for_a_manifest(server: Server, complete: str) -> None:
    """An entry of a Bundle is a resource; what is none is not put there."""
    bundle = {
        "resourceType": "Bundle",
        "type": "batch",
        "entry": [{"request": {"method": "GET", "url": complete}}],
    }
    found = await server.perform(Request("transaction", body=bundle))
    [entry] = json.loads(found.body)["entry"]
    assert entry == {"response": {"status": "200 OK"}}
