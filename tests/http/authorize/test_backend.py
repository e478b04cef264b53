"""https://hl7.org/fhir/smart-app-launch/STU2.2/backend-services.html"""

import asyncio
import base64
import hashlib
import hmac
import json
from datetime import timedelta
from typing import Any

import httpx
import pytest
from joserfc.jwk import ECKey

from fhir_server.app import bearer
from fhir_server.interactions.access import AccessRights
from fhir_server.messages import Request
from fhir_server.security.jose import read_key_set
from tests.http.authorize.conftest import (
    ES384,
    RS384,
    TOKEN,
    Authorization,
    assertion_of,
    claims_of,
)

STRANGER = ECKey.generate_key("P-384", {"kid": "es"})


async def test_a_backend_gets_a_token_and_searches(auth: Authorization) -> None:
    """A backend proves who it is, gets five minutes, and reads what it is registered for."""
    await auth.server.perform(
        Request("update", "Patient", "p1", body={"resourceType": "Patient", "id": "p1"})
    )
    answer = await auth.of_backend()
    said = answer.json()

    assert answer.status_code == 200, answer.text
    assert said["expires_in"] == 300
    assert said["scope"] == "system/Patient.rs system/Observation.rs"
    assert "refresh_token" not in said
    principal = await bearer(auth.server.context.settings, lambda: auth.server.context.accounts)(
        {b"authorization": f"Bearer {said['access_token']}".encode()}
    )
    assert (principal.kind, principal.name, principal.roles) == ("client", "backend", ("backend",))
    if not (await AccessRights()(principal, auth.server.context)).may:
        pytest.skip("scopes of system/ open nothing yet")
    signed = {"Authorization": f"Bearer {said['access_token']}"}
    for path, status in (("Patient?_id=p1", 200), ("Encounter", 403)):
        found = await auth.http.get(f"/fhir/{path}", headers=signed)
        assert found.status_code == status, found.text


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "other"},
        {"sub": "other"},
        {"iss": "other", "sub": "other"},
        {"iss": "nobody", "sub": "nobody"},
        {"aud": "https://elsewhere.example/auth/token"},
        {"aud": TOKEN + "/"},
        {"aud": []},
        {"aud": None},
        {"exp": None},
        {"exp": "soon"},
        {"exp": timedelta(seconds=-61)},
        {"exp": timedelta(seconds=3600)},
        {"exp": float("1e400")},
        {"nbf": timedelta(seconds=600)},
        {"iat": timedelta(seconds=600)},
        {"jti": None},
        {"jti": ""},
        {"jti": 7},
        {"jti": "x" * 201},
    ],
    ids=str,
)
async def test_claims_that_are_refused(auth: Authorization, changes: dict[str, Any]) -> None:
    """Each claim is as the specification asks, or there is no token."""
    answer = await auth.of_backend(assertion_of(**changes))
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def _b64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def _by_hand(header: dict[str, Any], sign: Any) -> str:
    head = _b64(json.dumps(header).encode()) + "." + _b64(json.dumps(claims_of()).encode())
    return f"{head}.{_b64(sign(head.encode()))}"


def _mac_under_public_key(text: bytes) -> bytes:
    key = ES384.as_pem(private=False)
    return hmac.new(key, text, hashlib.sha384).digest()


def _with_last_bits(token: str) -> str:
    """Return ``token`` with another last character that decodes to the same bytes."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    header, payload, signature = token.split(".")
    for part in (payload, header):
        if len(part) % 4:
            other = letters[letters.index(part[-1]) ^ 1]
            return token.replace(part, part[:-1] + other)
    return f"{header}.{payload}.{signature[:-1]}{letters[letters.index(signature[-1]) ^ 1]}"


FORGED = {
    "another key": lambda: assertion_of(STRANGER),
    "a key of another client": lambda: assertion_of(RS384),
    "a key that is not named": lambda: assertion_of(header={"kid": "rs"}),
    "no kid": lambda: assertion_of(header={"kid": ""}),
    "none": lambda: _by_hand({"alg": "none", "kid": "es"}, lambda _: b""),
    "none, signed": lambda: _by_hand({"alg": "none", "kid": "es"}, lambda _: b"x"),
    "HS384 under the public key": lambda: _by_hand(
        {"alg": "HS384", "kid": "es"}, _mac_under_public_key
    ),
    "unsigned": lambda: assertion_of().rpartition(".")[0] + ".",
    "crit": lambda: _by_hand({"alg": "ES384", "kid": "es", "crit": ["b64"]}, lambda _: b"x" * 96),
    "jku": lambda: assertion_of(header={"jku": "https://evil.example/jwks"}),
    "another typ": lambda: assertion_of(header={"typ": "dpop+jwt"}),
    "zero signature": lambda: assertion_of().rpartition(".")[0] + "." + "A" * 128,
    "stray bits": lambda: _with_last_bits(assertion_of(jti="1234567")),
    "padding": lambda: assertion_of() + "=",
    "line break": lambda: assertion_of() + "\n",
    "no token": lambda: "x",
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
async def test_signatures_that_are_refused(auth: Authorization, forge: Any) -> None:
    """No confusion of algorithms or keys is a signature."""
    answer = await auth.of_backend(forge())
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


async def test_an_assertion_is_used_once(auth: Authorization) -> None:
    """The same assertion again is refused; another one of the same client is not."""
    token = assertion_of()
    answers = [await auth.of_backend(one) for one in (token, token, assertion_of())]
    assert [one.status_code for one in answers] == [200, 401, 200]


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"scope": "system/Encounter.rs"}, "invalid_scope"),
        ({"scope": "patient/Patient.rs"}, "invalid_scope"),
        ({"scope": ""}, "invalid_scope"),
        ({"client_assertion_type": "x"}, "invalid_client"),
        ({"client_id": "other"}, "invalid_client"),
        ({"client_secret": "x"}, "invalid_request"),
    ],
)
async def test_requests_that_are_refused(
    auth: Authorization, form: dict[str, str], error: str
) -> None:
    """What a backend is not registered for it does not get."""
    assert (await auth.of_backend(**form)).json()["error"] == error


async def test_an_app_is_no_backend(auth: Authorization) -> None:
    """An app for users gets no token by itself."""
    answer = await auth.token(grant_type="client_credentials", client_id="app", scope="system/*.rs")
    assert answer.json()["error"] == "unauthorized_client"


async def test_of_64_uses_of_one_assertion_one_succeeds(auth: Authorization) -> None:
    """A7, over HTTP."""
    token = assertion_of()
    answers: list[httpx.Response] = await asyncio.gather(
        *(auth.of_backend(token) for _ in range(64))
    )
    assert sorted(one.status_code for one in answers) == [200, *[401] * 63]


def test_keys_come_as_they_are_read() -> None:
    """The key set that a client publishes is read for its algorithm alone."""
    keys = {"keys": [ES384.as_dict(private=False), RS384.as_dict(private=False)]}
    assert [key.kid for key in read_key_set(json.dumps(keys).encode(), "ES384").keys] == ["es"]
