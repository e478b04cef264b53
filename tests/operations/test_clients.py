"""design/security.md, section 2.1: clients are registered by the operator."""

import json
from dataclasses import replace
from typing import Any

import pytest
from joserfc.jwk import ECKey

from fhir_server.app import Server
from fhir_server.dispatch import answer
from fhir_server.messages import Request, Response
from fhir_server.security.principal import Principal
from fhir_server.security.scopes import scopes_of

ES384 = ECKey.generate_key("P-384", {"kid": "es"})


async def _asked(server: Server, name: str, *given: tuple[str, str, Any]) -> Response:
    parameters = [{"name": name, f"value{type}": value} for name, type, value in given]
    body = {"resourceType": "Parameters", "parameter": parameters}
    return await answer(server.registry, Request(name, body=body), server.context)


def _said(response: Response) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in json.loads(response.body).get("parameter", []):
        for part in one.get("part", [one]):
            value = next(part[member] for member in part if member.startswith("value"))
            found.setdefault(part["name"], []).append(value)
    return found


async def test_a_client_comes_and_goes(empty: Server) -> None:
    """A client is added, shown without its secret, given another one, and removed."""
    added = await _asked(
        empty,
        "$client-add",
        ("id", "String", "c1"),
        ("kind", "Code", "confidential-symmetric"),
        ("redirectUri", "Uri", "https://app.example/back"),
        ("scope", "String", "openid patient/*.rs"),
        ("scope", "String", "launch"),
    )
    assert added.status == 201, added.body
    [secret] = _said(added)["secret"]
    shown = await _asked(empty, "$client-list", ("id", "String", "c1"))
    assert secret.encode() not in shown.body
    assert _said(shown)["scope"] == ["openid", "patient/*.rs", "launch"]
    kept = await empty.database["oauth_clients"].find_one({"_id": "c1"})
    assert secret not in str(kept)

    twice = await _asked(
        empty,
        "$client-add",
        ("id", "String", "c1"),
        ("redirectUri", "Uri", "https://app.example/back"),
    )
    assert twice.status == 409
    other = await _asked(empty, "$client-rotate-secret", ("id", "String", "c1"))
    assert _said(other)["secret"] != [secret]
    assert (await _asked(empty, "$client-remove", ("id", "String", "c1"))).status == 200
    for name in ("$client-list", "$client-remove", "$client-rotate-secret"):
        assert (await _asked(empty, name, ("id", "String", "c1"))).status == 404


PUBLIC = json.dumps({"keys": [ES384.as_dict(private=False)]})
PRIVATE = json.dumps({"keys": [ES384.as_dict(private=True)]})
SECRET = json.dumps({"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "1", "alg": "HS384"}]})
ASYMMETRIC = ("kind", "Code", "confidential-asymmetric")
BACKEND = ("backend", "Boolean", True)
BACK = ("redirectUri", "Uri", "https://app.example/back")


@pytest.mark.parametrize(
    "given",
    [
        [],
        [("redirectUri", "Uri", "http://app.example/back")],
        [("redirectUri", "Uri", "https://u:p@app.example/back")],
        [("redirectUri", "Uri", "https://app.example/back#x")],
        [("redirectUri", "Uri", "javascript:alert(1)")],
        [("redirectUri", "Uri", "https://app.example\\@evil.example/")],
        [BACK, BACK],
        [BACK, ("scope", "String", "patient/*.sr")],
        [BACK, ("scope", "String", "system/*.rs")],
        [BACK, ("scope", "String", "everything")],
        [BACK, ("origin", "Uri", "https://app.example/")],
        [BACK, ("origin", "Uri", "*")],
        [BACK, ("kind", "Code", "trusted")],
        [BACK, ("name", "String", "a\u202eb")],
        [BACK, ("jwks", "String", PUBLIC)],
        [BACKEND],
        [BACKEND, ("kind", "Code", "confidential-symmetric"), ("scope", "String", "system/*.rs")],
        [BACKEND, ASYMMETRIC],
        [BACKEND, ASYMMETRIC, ("jwks", "String", SECRET)],
        [BACKEND, ASYMMETRIC, ("jwks", "String", "{}")],
        [BACKEND, ASYMMETRIC, ("jwks", "String", "[")],
        [BACKEND, ASYMMETRIC, ("jwks", "String", PUBLIC), ("algorithm", "Code", "HS384")],
        [BACKEND, ASYMMETRIC, ("jwks", "String", PUBLIC), ("algorithm", "Code", "RS384")],
        [BACKEND, ASYMMETRIC, ("jwksUri", "Uri", "https://app.example/jwks")],
        [
            BACKEND,
            ASYMMETRIC,
            ("jwksUri", "Uri", "http://app.example/"),
            ("algorithm", "Code", "ES384"),
        ],
    ],
    ids=lambda _: "given",  # keys are new in each process
)
async def test_what_cannot_be_registered(empty: Server, given: list[tuple[str, str, Any]]) -> None:
    """What would be unsafe, or of no use, is refused with a reason."""
    found = await _asked(empty, "$client-add", ("id", "String", "c2"), *given)
    assert found.status in (400, 422), found.body
    assert await empty.context.accounts.clients.client("c2") is None


async def test_private_halves_are_not_kept(empty: Server) -> None:
    """Who sends a private key by mistake has its public half registered."""
    given = (("id", "String", "c3"), BACKEND, ASYMMETRIC, ("jwks", "String", PRIVATE))
    assert (await _asked(empty, "$client-add", *given)).status == 201
    client = await empty.context.accounts.clients.client("c3")
    assert client is not None
    assert client.algorithm == "ES384"
    assert set(client.jwks["keys"][0]) == {"kty", "kid", "crv", "x", "y"}
    await empty.context.accounts.clients.remove("c3")


async def test_clients_are_for_administrators(empty: Server) -> None:
    """Whoever is no administrator learns nothing of clients."""
    user = Principal("user", "u", "app", scopes_of("user/*.cruds"), ("physician",))
    context = replace(empty.context, principal=user)
    for name in ("$client-list", "$client-add", "$client-remove", "$client-rotate-secret"):
        body = {"resourceType": "Parameters"}
        found = await answer(empty.registry, Request(name, body=body), context)
        assert found.status == 403
