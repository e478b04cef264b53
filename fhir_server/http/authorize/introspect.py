"""What a token stands for, and its end: introspection (RFC 7662) and revocation (RFC 7009).

https://hl7.org/fhir/smart-app-launch/STU2.2/token-introspection.html
"""

from dataclasses import dataclass
from typing import Any

from fhir_server.http.authorize.authenticate import Authenticator
from fhir_server.http.authorize.exchange import Answer, Call, json_answer
from fhir_server.security.answers import INACTIVE, introspection
from fhir_server.security.grants import Client
from fhir_server.security.oauth import OAuthError, once

INTROSPECT = "introspect"


@dataclass(frozen=True, slots=True)
class Introspection:
    """Answers ``POST /auth/introspect``, to clients that prove who they are and to bearers of a
    token with the scope ``introspect``.

    A client is told of its own tokens; of others, where it is registered for that scope.
    """

    authenticator: Authenticator

    async def __call__(self, call: Call) -> Answer:
        """Return what is known of the token."""
        token = once(call.form).get("token", "")
        if not token:
            raise OAuthError("invalid_request", "token is missing.")
        asking, sees_all = await self._asking(call)
        return json_answer(await _known(token, call, "" if sees_all else asking.id))

    async def _asking(self, call: Call) -> tuple[Client, bool]:
        scheme, _, bearer = call.header(b"authorization").partition(" ")
        if scheme.lower() == "bearer":
            known = await call.context.accounts.known(bearer.strip())
            if known is None or INTROSPECT not in known.grant.scopes:
                raise OAuthError("invalid_token", f"A token with {INTROSPECT} is needed.", 401)
            return known.client, True
        client = await self.authenticator.client(call)
        if client.kind == "public":
            raise OAuthError("invalid_client", "A client has to prove who it is.", 401)
        return client, INTROSPECT in client.scopes


async def _known(token: str, call: Call, only: str) -> dict[str, Any]:
    accounts = call.context.accounts
    known = await accounts.known(token)
    if known is not None:
        if only and known.client.id != only:
            return INACTIVE
        return introspection(known.grant, known.client, call.issuer, known.until, known.issued)
    found = await accounts.known_refresh(token, only)
    client = await accounts.clients.client(found[0].client) if found else None
    if found is None or client is None:
        return INACTIVE
    return introspection(found[0], client, call.issuer, found[1])


@dataclass(frozen=True, slots=True)
class Revocation:
    """Answers ``POST /auth/revoke``: a client ends its own tokens."""

    authenticator: Authenticator

    async def __call__(self, call: Call) -> Answer:
        """End the token. One that is not known is ended already, and no fault."""
        token = once(call.form).get("token", "")
        if not token:
            raise OAuthError("invalid_request", "token is missing.")
        client = await self.authenticator.client(call)
        await call.context.accounts.revoke_token(token, client.id)
        return json_answer({})
