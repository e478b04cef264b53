"""Apps that register themselves, where the operator lets them (FHIR_CLIENT_REGISTRATION).

https://www.rfc-editor.org/rfc/rfc7591. Who registers so is an app for users: no backend, no scopes
of ``system/``, no role; a user still decides what it may have.
"""

import time
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from fhir_server.http.authorize.exchange import Answer, Call, json_answer
from fhir_server.outcome import FhirError
from fhir_server.r4.json import decode
from fhir_server.security.grants import Client, hashed
from fhir_server.security.oauth import OAuthError
from fhir_server.security.rates import network_of
from fhir_server.security.registration import Application, Unregistrable, client_for, words

_KINDS = {
    "none": "public",
    "client_secret_basic": "confidential-symmetric",
    "client_secret_post": "confidential-symmetric",
    "private_key_jwt": "confidential-asymmetric",
}
_GRANTS = ("authorization_code", "refresh_token")
_DEPTH_MAX = 10


async def register(call: Call) -> Answer:
    """Register the app that the body describes, and return it with its id and secret. Section 3."""
    if not call.context.settings.client_registration:
        text = "Apps are registered by the operator here: fhir-server client add."
        raise OAuthError("access_denied", text, 403)
    call.context.rates.tokens.check(f"register {network_of(call.address)}", time.monotonic())
    asked = _application(_members(call.text), f"app-{call.context.new_id()}")
    secret = call.context.accounts.secret()
    try:
        client = replace(client_for(asked, hashed(secret)), registered_itself=True)
    except Unregistrable as error:
        is_uri = error.about == "redirect_uris"
        code = "invalid_redirect_uri" if is_uri else "invalid_client_metadata"
        raise OAuthError(code, f"{error.about}: {error}") from error
    await call.context.accounts.clients.add(client)
    answer = _described(client, int(call.context.now().timestamp()))
    if client.secret_hash:
        answer |= {"client_secret": secret, "client_secret_expires_at": 0}
    return json_answer(answer, 201)


def _members(text: bytes) -> dict[str, Any]:
    try:
        return decode(text, depth_max=_DEPTH_MAX)
    except FhirError as error:
        raise OAuthError("invalid_client_metadata", error.issues[0].diagnostics) from error


def _application(members: dict[str, Any], id: str) -> Application:
    def strings(name: str) -> tuple[str, ...]:
        value = members.get(name, [])
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise OAuthError("invalid_client_metadata", f"{name} is a list of strings.")
        return tuple(value)

    def string(name: str, default: str = "") -> str:
        value = members.get(name, default)
        if not isinstance(value, str):
            raise OAuthError("invalid_client_metadata", f"{name} is a string.")
        return value

    method = string("token_endpoint_auth_method", "client_secret_basic")
    if method not in _KINDS:
        raise OAuthError("invalid_client_metadata", f"The method is one of {', '.join(_KINDS)}.")
    if any(one not in _GRANTS for one in strings("grant_types")):
        raise OAuthError("invalid_client_metadata", f"grant_types are {', '.join(_GRANTS)}.")
    jwks = members.get("jwks", {})
    return Application(
        id,
        string("client_name", id),
        _KINDS[method],
        strings("redirect_uris"),
        string("initiate_login_uri"),
        words([string("scope")]),
        jwks if isinstance(jwks, dict) else {"keys": None},
        string("jwks_uri"),
        string("token_endpoint_auth_signing_alg"),
        _origins(strings("redirect_uris")),
    )


def _origins(redirect_uris: tuple[str, ...]) -> tuple[str, ...]:
    """Return where the pages of an app in a browser come from: it asks for its tokens there."""
    parts = (urlsplit(one) for one in redirect_uris if one.startswith(("https://", "http://")))
    return tuple(dict.fromkeys(f"{one.scheme}://{one.netloc}" for one in parts))


def _described(client: Client, issued: int) -> dict[str, Any]:
    method = next(method for method, kind in _KINDS.items() if kind == client.kind)
    found: dict[str, Any] = {
        "client_id": client.id,
        "client_id_issued_at": issued,
        "client_name": client.name,
        "redirect_uris": list(client.redirect_uris),
        "token_endpoint_auth_method": method,
        "grant_types": list(_GRANTS),
        "response_types": ["code"],
        "scope": " ".join(client.scopes),
    }
    if client.jwks:
        found["jwks"] = client.jwks
    if client.jwks_uri:
        found["jwks_uri"] = client.jwks_uri
    if client.algorithm:
        found["token_endpoint_auth_signing_alg"] = client.algorithm
    return found
