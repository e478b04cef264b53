"""https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html#obtain-access-token"""

import json
from dataclasses import replace
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from fhir_server.app import Server
from fhir_server.security.rates import Rates
from tests.http.authorize.conftest import (
    BASE,
    GRANT,
    REDIRECT,
    ROOT,
    SECRET,
    VERIFIER,
    Authorization,
    application,
    basic,
    client_of,
)


async def test_a_code_gives_token_context_and_identity(auth: Authorization) -> None:
    """The token response has all that was granted, and the id_token says who the user is."""
    answer = await auth.redeemed(await auth.code(nonce="n1"))
    said = answer.json()

    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["pragma"] == "no-cache"
    assert {name: said[name] for name in said if "token" not in name or name == "token_type"} == {
        "token_type": "Bearer",
        "expires_in": 3600,
        "scope": " ".join(GRANT.scopes),
        "patient": "p1",
        "encounter": "e1",
        **GRANT.context,
    }
    keys = KeySet.import_key_set((await auth.http.get("/auth/jwks")).json())
    decoded = jwt.decode(said["id_token"], keys, algorithms=["RS256"])
    claims = {name: value for name, value in decoded.claims.items() if name not in ("iat", "exp")}
    assert claims == {
        "iss": ROOT,
        "sub": "u1",
        "aud": "app",
        "nonce": "n1",
        "fhirUser": f"{BASE}/Patient/p1",
        "profile": f"{BASE}/Patient/p1",
    }
    assert decoded.claims["exp"] - decoded.claims["iat"] == 3600


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"code_verifier": "v" * 43}, "invalid_grant"),
        ({"code_verifier": "short"}, "invalid_grant"),
        ({"code_verifier": ""}, "invalid_request"),
        ({"redirect_uri": f"{REDIRECT}?a"}, "invalid_grant"),
        ({"redirect_uri": ""}, "invalid_request"),
        ({"code": "x" * 43}, "invalid_grant"),
        ({"client_id": "keeper"}, "invalid_client"),
        ({"client_id": "nobody"}, "invalid_client"),
        ({"client_id": ""}, "invalid_client"),
        ({"client_secret": SECRET}, "invalid_client"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": ""}, "invalid_request"),
    ],
)
async def test_what_is_refused(auth: Authorization, change: dict[str, str], error: str) -> None:
    """Refusals are those of RFC 6749, 5.2, and a refusal does not use up the code of the client."""
    code = await auth.code()
    answer = await auth.redeemed(code, **change)

    assert answer.json()["error"] == error
    assert answer.status_code == (401 if error == "invalid_client" else 400)
    assert answer.headers["cache-control"] == "no-store"
    assert (await auth.redeemed(code)).status_code == 200


async def test_a_parameter_is_there_once_and_in_the_body(auth: Authorization) -> None:
    """RFC 6749, sections 2.3.1 and 3.2."""
    twice = b"grant_type=authorization_code&client_id=app&client_id=app"
    form = {"content-type": "application/x-www-form-urlencoded"}
    for url, body in (("/auth/token", twice), ("/auth/token?client_id=app", twice[:29])):
        answer = await auth.http.post(url, content=body, headers=form)
        assert answer.json()["error"] == "invalid_request"


@pytest.mark.parametrize(
    ("headers", "form", "status"),
    [
        (basic("keeper", SECRET), {}, 200),
        ({}, {"client_id": "keeper", "client_secret": SECRET}, 200),
        (basic("keeper", SECRET), {"client_id": "app"}, 401),
        (basic("keeper", SECRET + "x"), {}, 401),
        (basic("keeper", ""), {}, 401),
        ({"Authorization": "Basic ?"}, {}, 401),
        ({}, {"client_id": "keeper"}, 401),
        (basic("keeper", SECRET), {"client_secret": SECRET}, 400),
    ],
)
async def test_a_client_with_a_secret(
    auth: Authorization, headers: dict[str, str], form: dict[str, str], status: int
) -> None:
    """client_secret_basic or client_secret_post, one of them."""
    code = await auth.code(replace(GRANT, client="keeper"))
    whole = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT}
    whole |= {"code_verifier": VERIFIER, **form}
    answer = await auth.http.post("/auth/token", data=whole, headers=headers)
    assert answer.status_code == status, answer.text
    assert ("www-authenticate" in answer.headers) == (status == 401)


async def test_a_refresh_rotates_and_never_widens(auth: Authorization) -> None:
    """A refresh gives what was granted or less; an old token ends the family."""
    first = (await auth.redeemed(await auth.code())).json()

    async def refreshed(token: str, scope: str = "") -> dict[str, Any]:
        form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": "app"}
        answer = await auth.token(**form | ({"scope": scope} if scope else {}))
        found: dict[str, Any] = json.loads(answer.content)
        return found

    wider = await refreshed(first["refresh_token"], "patient/*.cruds")
    assert wider["error"] == "invalid_scope"
    less = await refreshed(first["refresh_token"], "patient/Observation.rs")
    assert less["scope"] == "patient/Observation.rs"
    assert less["patient"] == "p1"
    whole = await refreshed(less["refresh_token"])
    assert whole["scope"] == " ".join(GRANT.scopes)
    assert (await refreshed(less["refresh_token"]))["error"] == "invalid_grant"
    assert (await refreshed(whole["refresh_token"]))["error"] == "invalid_grant"
    read = await auth.http.get(
        "/fhir/Patient", headers={"Authorization": f"Bearer {whole['access_token']}"}
    )
    assert read.status_code == 401


async def test_without_openid_there_is_no_identity(auth: Authorization) -> None:
    """What was not granted is not said: no id_token, no refresh token, no fhirUser."""
    said = (await auth.redeemed(await auth.code(replace(GRANT, scopes=("patient/*.rs",))))).json()
    assert "id_token" not in said
    assert "refresh_token" not in said
    body = (await auth.redeemed(await auth.code(replace(GRANT, scopes=("openid",))))).json()
    assert (
        "fhirUser"
        not in jwt.decode(
            body["id_token"],
            KeySet.import_key_set((await auth.http.get("/auth/jwks")).json()),
            algorithms=["RS256"],
        ).claims
    )


async def test_tokens_are_asked_for_sixty_times_a_minute(production: Server) -> None:
    """Who asks more often is told when to come again; other clients are not in its way."""
    counted = replace(production, context=replace(production.context, rates=Rates()))
    async with client_of(application(counted)) as http:
        form = {"grant_type": "client_credentials", "client_id": "nobody"}
        statuses = [(await http.post("/auth/token", data=form)).status_code for _ in range(62)]
        last = await http.post("/auth/token", data=form)
        other = await http.post("/auth/token", data=form | {"client_id": "app"})
    assert statuses[:60] == [401] * 60
    assert (last.status_code, last.json()["error"]) == (429, "temporarily_unavailable")
    assert int(last.headers["retry-after"]) >= 1
    assert other.status_code == 400
