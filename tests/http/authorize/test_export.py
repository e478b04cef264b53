"""https://hl7.org/fhir/uv/bulkdata/STU2/export.html#privacy-and-security-considerations"""

import json
from dataclasses import replace

from fhir_server.messages import Request
from fhir_server.operations.export_work import work
from tests.http.authorize.conftest import BACKEND, Authorization

ASYNC = {"Prefer": "respond-async"}


async def _signed(auth: Authorization) -> dict[str, str]:
    answer = await auth.of_backend()
    assert answer.status_code == 200, answer.text
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


async def _worked(auth: Authorization) -> None:
    while await work(auth.server.context):
        pass


async def test_a_backend_exports_with_its_tokens(auth: Authorization) -> None:
    """Kick-off, status and files need a token, each time another one does; the files have what the
    scopes open. Who is registered for less meanwhile, or not any more, gets no further page."""
    for type in ("Patient", "Practitioner"):
        body = {"resourceType": type, "id": f"exported-{type.lower()}"}
        await auth.server.perform(Request("update", type, str(body["id"]), body=body))
    export = "/fhir/$export"
    assert (await auth.http.get(export, headers=ASYNC)).status_code == 401
    url = f"{export}?_type=Practitioner"
    refused = await auth.http.get(url, headers=ASYNC | await _signed(auth))
    assert refused.status_code == 403
    assert "insufficient_scope" in refused.headers["www-authenticate"]

    begun = await auth.http.get(export, headers=ASYNC | await _signed(auth))
    assert begun.status_code == 202, begun.text
    place = begun.headers["content-location"]
    await _worked(auth)
    assert (await auth.http.get(place)).status_code == 401
    manifest = (await auth.http.get(place, headers=await _signed(auth))).json()
    assert manifest["requiresAccessToken"] is True
    files = {one["type"]: one["url"] for one in manifest["output"]}
    assert "Patient" in files
    assert set(files) <= {"Patient", "Observation"}
    assert (await auth.http.get(files["Patient"])).status_code == 401
    lines = (await auth.http.get(files["Patient"], headers=await _signed(auth))).text.splitlines()
    assert "exported-patient" in {json.loads(line)["id"] for line in lines}

    clients = auth.server.context.accounts.clients
    signed = await _signed(auth)
    places = []
    for left in (replace(BACKEND, scopes=("system/Observation.rs",)), None):
        url = f"{export}?_type=Patient"
        begun = await auth.http.get(url, headers=ASYNC | signed)
        assert begun.status_code == 202, begun.text
        places.append(begun.headers["content-location"])
        await clients.remove("backend")
        if left is not None:
            await clients.add(left)
        await _worked(auth)
        await clients.remove("backend")
        await clients.add(BACKEND)
    for place in places:
        failed = await auth.http.get(place, headers=await _signed(auth))
        assert failed.status_code == 403, failed.text
