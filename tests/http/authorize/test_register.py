"""https://www.rfc-editor.org/rfc/rfc7591"""

from dataclasses import replace
from typing import Any

import httpx
import pytest

from fhir_server.app import Server
from tests.http.authorize.conftest import Authorization, application, client_of

GOOD = {"client_name": "An app", "redirect_uris": ["https://new.example/back"]}


async def _registered(server: Server, body: Any, *, allowed: bool = True) -> httpx.Response:
    settings = server.context.settings.model_copy(update={"client_registration": allowed})
    chosen = replace(server, context=replace(server.context, settings=settings))
    async with client_of(application(chosen)) as http:
        return await http.post("/auth/register", json=body)


async def test_an_app_registers_itself_where_it_may(auth: Authorization) -> None:
    """The answer has id and secret, and the secret is good; without the setting there is none."""
    body = GOOD | {"scope": "openid patient/*.rs", "backend": True, "roles": ["administrator"]}
    assert (await _registered(auth.server, body, allowed=False)).status_code == 403
    answer = await _registered(auth.server, body)
    said = answer.json()

    assert answer.status_code == 201, answer.text
    client = await auth.server.context.accounts.clients.client(said["client_id"])
    assert client is not None
    assert (client.scopes, client.roles) == (("openid", "patient/*.rs"), ())
    assert (client.is_backend, client.registered_itself) == (False, True)
    form = {"grant_type": "refresh_token", "refresh_token": "x", "client_id": said["client_id"]}
    for secret, error in ((said["client_secret"], "invalid_grant"), ("y", "invalid_client")):
        found = await auth.token(**form, client_secret=secret)
        assert found.json()["error"] == error


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (GOOD | {"redirect_uris": ["http://new.example/"]}, "invalid_redirect_uri"),
        (GOOD | {"redirect_uris": []}, "invalid_redirect_uri"),
        (GOOD | {"redirect_uris": "https://new.example/"}, "invalid_client_metadata"),
        (GOOD | {"scope": "system/*.rs"}, "invalid_client_metadata"),
        (GOOD | {"scope": ["openid"]}, "invalid_client_metadata"),
        (GOOD | {"grant_types": ["client_credentials"]}, "invalid_client_metadata"),
        (GOOD | {"token_endpoint_auth_method": "tls"}, "invalid_client_metadata"),
        (GOOD | {"token_endpoint_auth_method": "private_key_jwt"}, "invalid_client_metadata"),
        (GOOD | {"client_name": ""}, "invalid_client_metadata"),
        ([], "invalid_client_metadata"),
    ],
)
async def test_what_is_refused(auth: Authorization, body: Any, error: str) -> None:
    """Section 3.2.2: backends, system scopes and unsafe addresses are not for the asking."""
    answer = await _registered(auth.server, body)
    assert (answer.status_code, answer.json()["error"]) == (400, error)
