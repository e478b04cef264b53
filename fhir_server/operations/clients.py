"""``$client-add``, ``$client-list``, ``$client-remove``, ``$client-rotate-secret``: the apps and
backends that may ask for tokens; for administrators.

design/security.md, section 2.1. A secret is made here, shown once, and known by its hash from then
on. What a client may be registered with is in ``security/registration.py``.
"""

import json
from typing import Any

from fhir_server.context import Context
from fhir_server.messages import Request, Response
from fhir_server.operations.asked import Given, given
from fhir_server.operations.bodies import parameters_out
from fhir_server.outcome import FhirError, Issue
from fhir_server.r4.json import encode
from fhir_server.registry import Operation
from fhir_server.security.grants import Client, hashed
from fhir_server.security.registration import Application, Unregistrable, client_for, words

_DEFINITION = "urn:fhir-server:OperationDefinition:"
_APPLICATION = {
    "id": "string",
    "name": "string",
    "kind": "code",
    "redirectUri": "uri",
    "launchUri": "uri",
    "scope": "string",
    "jwks": "string",
    "jwksUri": "uri",
    "algorithm": "code",
    "origin": "uri",
    "role": "code",
    "backend": "boolean",
    "requestsASecond": "integer",
}
_ID = {"id": "string"}


async def add(request: Request, context: Context) -> Response:
    """Register a client; the answer has its secret, where it is one that has a secret."""
    asked = _application(given(request, context, _APPLICATION))
    secret = context.accounts.secret()
    try:
        client = client_for(asked, hashed(secret))
    except Unregistrable as error:
        raise FhirError(Issue("business-rule", f"{error.about}: {error}")) from error
    if not await context.accounts.clients.add(client):
        raise FhirError(Issue("duplicate", f"There is a client {client.id} already."))
    said = [{"name": "secret", "valueString": secret}] if client.secret_hash else []
    return Response(201, parameters_out([_described(client), *said]))


async def listed(request: Request, context: Context) -> Response:
    """Return the clients, or the one ``id``; their secrets nobody knows."""
    id = given(request, context, _ID).text("id")
    if id:
        found = [await _client(id, context)]
    else:
        found = await context.accounts.clients.listed()
    if not found:
        return Response(200, encode({"resourceType": "Parameters"}))
    return Response(200, parameters_out([_described(one) for one in found]))


async def remove(request: Request, context: Context) -> Response:
    """Remove a client; its tokens end with it."""
    id = (await _client(given(request, context, _ID).text("id"), context)).id
    await context.accounts.clients.remove(id)
    ended = await context.accounts.revoke(client=id)
    return Response(200, parameters_out([{"name": "grantsEnded", "valueInteger": ended}]))


async def rotate_secret(request: Request, context: Context) -> Response:
    """Give a client another secret; the one before is no good from now on."""
    client = await _client(given(request, context, _ID).text("id"), context)
    secret = context.accounts.secret()
    if not await context.accounts.clients.replace_secret(client.id, hashed(secret)):
        raise FhirError(Issue("business-rule", f"{client.id} is a client without a secret."))
    return Response(200, parameters_out([{"name": "secret", "valueString": secret}]))


async def _client(id: str, context: Context) -> Client:
    found = await context.accounts.clients.client(id)
    if found is None:
        raise FhirError(Issue("not-found", "There is no client of that id."))
    return found


def _application(said: Given) -> Application:
    try:
        jwks = json.loads(said.text("jwks") or "{}")
    except (ValueError, RecursionError) as error:
        raise FhirError(Issue("value", "jwks is a JSON Web Key Set, as a string.")) from error
    return Application(
        said.text("id"),
        said.text("name") or said.text("id"),
        said.text("kind") or "public",
        tuple(said.many("redirectUri")),
        said.text("launchUri"),
        words(said.many("scope")),
        jwks if isinstance(jwks, dict) else {"keys": None},
        said.text("jwksUri"),
        said.text("algorithm"),
        tuple(said.many("origin")),
        tuple(said.many("role")),
        bool(said.one("backend", False)),
        said.one("requestsASecond", 0),
    )


def _described(client: Client) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [
        {"name": "id", "valueString": client.id},
        {"name": "name", "valueString": client.name},
        {"name": "kind", "valueCode": client.kind},
        {"name": "backend", "valueBoolean": client.is_backend},
        *({"name": "redirectUri", "valueUri": one} for one in client.redirect_uris),
        *({"name": "scope", "valueString": one} for one in client.scopes),
        *({"name": "origin", "valueUri": one} for one in client.origins),
        *({"name": "role", "valueCode": one} for one in client.roles),
        *({"name": "key", "valueString": key["kid"]} for key in client.jwks.get("keys", ())),
    ]
    texts = {"launchUri": client.launch_uri, "jwksUri": client.jwks_uri}
    parts += [{"name": name, "valueUri": uri} for name, uri in texts.items() if uri]
    if client.algorithm:
        parts.append({"name": "algorithm", "valueCode": client.algorithm})
    if client.requests_a_second:
        parts.append({"name": "requestsASecond", "valueInteger": client.requests_a_second})
    if client.registered_itself:
        parts.append({"name": "registeredItself", "valueBoolean": True})
    return {"name": "client", "part": parts}


ADD = Operation("$client-add", _DEFINITION + "client-add", add, affects_state=True)
LIST = Operation("$client-list", _DEFINITION + "client-list", listed)
REMOVE = Operation("$client-remove", _DEFINITION + "client-remove", remove, affects_state=True)
ROTATE_SECRET = Operation(
    "$client-rotate-secret",
    _DEFINITION + "client-rotate-secret",
    rotate_secret,
    affects_state=True,
)
