"""Section 4 of design/security.md: what never came to the front door is recorded as well."""

from dataclasses import replace
from typing import Any

import pytest

from fhir_server.app import Server
from fhir_server.outcome import FhirError, Issue
from fhir_server.security.principal import Principal
from fhir_server.store.audit import AUDIT
from tests.http.conftest import application, exchange

ANNA = Principal("user", "anna", client="app", token="t1")

SITE = {"sec-fetch-site": "cross-site"}
# method, target, headers, body -> status, what was done, what is kept of the query
REFUSED: tuple[tuple[str, str, dict[str, str], bytes, int, str, str], ...] = (
    ("GET", "a/b/c/d?x=1", {}, b"", 404, "unknown", "GET /a/b/c/d?x=1"),
    ("PUT", "metadata", {}, b"", 405, "unknown", "PUT /metadata"),
    ("POST", "Patient", {}, b"{", 400, "create", ""),
    ("GET", "Patient?name=%ff", {}, b"", 400, "search-type", "name=%ff"),
    ("GET", "Patient/1?_format=ttl", {}, b"", 406, "read", "_format=ttl"),
    ("POST", "Patient", SITE, b"{}", 403, "create", ""),
)


async def _recorded(server: Server, method: str, target: str, **said: Any) -> tuple[int, Any]:
    """Return the status of a request, and its one record."""
    site = said.pop("site", None) or application(server)
    headers = {"x-request-id": "r1", "content-type": "application/fhir+json", **said["headers"]}
    answer = await exchange(site, method, target, headers, said["body"])
    audit = server.context.store.audit
    assert audit is not None
    await audit.flushed()
    [row] = await server.database[AUDIT].find({"request": "r1"}).to_list()
    await server.database[AUDIT].delete_many({})
    return answer.status_code, row


async def test_refusals_before_the_door_are_recorded(server: Server) -> None:
    """With what was asked, from where, and how it ended."""
    for method, target, headers, body, *wanted in REFUSED:
        status, row = await _recorded(server, method, target, headers=headers, body=body)
        found = [status, row["did"], row.get("query", "")]
        assert found == wanted
        assert (row["status"], row["address"]) == (status, "127.0.0.1")
        assert row["agents"] in (["demo/demo"], ["nobody/nobody"])


async def test_a_token_that_is_not_good_is_recorded(server: Server) -> None:
    """A 401 before anybody knows who asks."""

    async def nobody(_headers: Any) -> Principal:
        raise FhirError(Issue("login", "This token is not good."))

    site = application(server)
    site = replace(site, facade=replace(site.facade, identify=nobody))
    status, row = await _recorded(server, "GET", "Patient/1", headers={}, body=b"", site=site)

    assert (status, row["status"], row["issue"]) == (401, 401, "login")
    assert (row["did"], row["type"], row["id"]) == ("read", "Patient", "1")
    assert row["agents"] == ["nobody/nobody"]


async def test_who_asks_is_recorded_with_address_and_request_id(server: Server) -> None:
    """The facts of the principal are those of the request."""

    async def anna(_headers: Any) -> Principal:
        return ANNA

    site = application(server)
    site = replace(site, facade=replace(site.facade, identify=anna))
    status, row = await _recorded(server, "GET", "Patient/1", headers={}, body=b"", site=site)

    assert status == 403
    assert row["agents"] == ["user/anna", "client/app"]
    assert (row["token"], row["address"], row["request"]) == ("t1", "127.0.0.1", "r1")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_what_came_to_the_door_is_recorded_once(server: Server, method: str) -> None:
    """Also where it was refused there."""
    status, row = await _recorded(server, method, "Patient/none", headers={}, body=b"")

    assert (status, row["did"], row["status"]) == (404, "read", 404)
