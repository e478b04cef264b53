"""https://www.rfc-editor.org/rfc/rfc7662; https://www.rfc-editor.org/rfc/rfc7009"""

from dataclasses import replace
from typing import Any

import httpx
import pytest

from fhir_server.security.assertions import ASSERTION_TYPE
from tests.http.authorize.conftest import (
    BASE,
    GRANT,
    ROOT,
    RS384,
    SECRET,
    Authorization,
    assertion_of,
    basic,
)

KEEPER = replace(GRANT, client="keeper")


async def _introspected(auth: Authorization, token: str, headers: Any = None) -> httpx.Response:
    headers = basic("keeper", SECRET) if headers is None else headers
    return await auth.http.post("/auth/introspect", data={"token": token}, headers=headers)


async def test_a_client_is_told_of_its_token(auth: Authorization) -> None:
    """Scope, times, issuer, user and launch context; the context is that of the token response."""
    tokens = await auth.server.context.accounts.give(KEEPER)
    answer = await _introspected(auth, tokens.access)
    said = answer.json()

    assert answer.headers["cache-control"] == "no-store"
    assert said.pop("exp") - said.pop("iat") == 3600
    assert said == {
        "active": True,
        "scope": " ".join(GRANT.scopes),
        "client_id": "keeper",
        "token_type": "Bearer",
        "iss": ROOT,
        "aud": BASE,
        "sub": "u1",
        "fhirUser": f"{BASE}/Patient/p1",
        "patient": "p1",
        "encounter": "e1",
        **GRANT.context,
    }


async def test_others_are_told_nothing(auth: Authorization) -> None:
    """Tokens of other clients, revoked ones and what is none are inactive, and nothing more."""
    accounts = auth.server.context.accounts
    other, own = await accounts.give(GRANT), await accounts.give(KEEPER)
    await accounts.revoke_token(own.access, "keeper")
    for token in (other.access, own.access, "x", "a.b", "." * 100):
        answer = await _introspected(auth, token)
        assert answer.json() == {"active": False}
    assert (await _introspected(auth, "")).status_code == 400


async def test_who_may_ask_of_any(auth: Authorization) -> None:
    """A client that is registered for it, and the bearer of a token with the scope introspect."""
    accounts = auth.server.context.accounts
    token = (await accounts.give(GRANT)).access
    form = {
        "grant_type": "client_credentials",
        "scope": "introspect",
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": assertion_of(RS384, iss="other", sub="other"),
    }
    answer = await auth.token(**form)
    assert answer.status_code == 200, answer.text
    bearer = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    assert (await _introspected(auth, token, bearer)).json()["client_id"] == "app"
    form |= {"client_assertion": assertion_of(RS384, iss="other", sub="other"), "token": token}
    asked = await auth.http.post("/auth/introspect", data=form)
    assert asked.json()["active"]


@pytest.mark.parametrize(
    ("headers", "form"),
    [
        ({}, {}),
        ({}, {"client_id": "app"}),
        (basic("keeper", "x"), {}),
        ({"Authorization": "Bearer x"}, {}),
    ],
)
async def test_who_may_not_ask(
    auth: Authorization, headers: dict[str, str], form: dict[str, str]
) -> None:
    """Nobody is told without proof: a public client's name is none, nor is any other token."""
    token = (await auth.server.context.accounts.give(GRANT)).access
    for given in (headers, headers or {"Authorization": f"Bearer {token}"}):
        answer = await auth.http.post(
            "/auth/introspect", data={"token": token, **form}, headers=given
        )
        assert answer.status_code == 401


async def test_a_refresh_token_is_known_and_revoked(auth: Authorization) -> None:
    """To revoke a refresh token ends all that came of the grant; to do it again is no fault."""
    code = await auth.code(KEEPER)
    proof = {"client_id": "keeper", "client_secret": SECRET}
    said = (await auth.redeemed(code, **proof)).json()
    for token in (said["access_token"], said["refresh_token"]):
        assert (await _introspected(auth, token)).json()["active"]
    stranger = await auth.http.post(
        "/auth/revoke", data={"token": said["refresh_token"], "client_id": "app"}
    )
    assert stranger.status_code == 200
    assert (await _introspected(auth, said["access_token"])).json()["active"]
    for _ in range(2):
        ended = await auth.http.post("/auth/revoke", data={"token": said["refresh_token"], **proof})
        assert ended.status_code == 200
    for token in (said["access_token"], said["refresh_token"]):
        assert (await _introspected(auth, token)).json() == {"active": False}
    bad = await auth.http.post("/auth/revoke", data={"token": "x"})
    assert bad.json()["error"] == "invalid_client"
