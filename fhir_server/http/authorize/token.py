"""The token endpoint: a code, a refresh token or a client's own proof -> an access token.

https://www.rfc-editor.org/rfc/rfc6749#section-3.2;
https://hl7.org/fhir/smart-app-launch/STU2.2/backend-services.html
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

from joserfc import jwt

from fhir_server.http.authorize.authenticate import Authenticator, claimed
from fhir_server.http.authorize.exchange import Answer, Call, json_answer
from fhir_server.interactions.access import is_possible
from fhir_server.interactions.recording import note
from fhir_server.security.answers import has_id_token, id_token_claims, token_response
from fhir_server.security.audit import Row
from fhir_server.security.grants import Client, Grant, Tokens
from fhir_server.security.oauth import OAuthError, challenge_of, once
from fhir_server.security.principal import Kind, Principal
from fhir_server.security.rates import network_of
from fhir_server.security.scopes import granted

_ALGORITHM = "RS256"  # "ID Tokens SHALL be signed by RS256": what every SMART client can verify


@dataclass(frozen=True, slots=True)
class TokenEndpoint:
    """Answers ``POST /auth/token``."""

    authenticator: Authenticator

    async def __call__(self, call: Call) -> Answer:
        """Return an access token, or a refusal of RFC 6749, section 5.2."""
        if call.query:
            raise OAuthError("invalid_request", "Parameters go into the body, not into the URL.")
        given = once(call.form)
        kind = given.get("grant_type", "")
        giving = _GIVING.get(kind)
        if giving is None:
            error = "unsupported_grant_type" if kind else "invalid_request"
            raise OAuthError(error, f"grant_type is one of {', '.join(_GIVING)}.")
        # Counted by name and network, so that nobody uses up what is another's.
        key = f"{claimed(given, call)} {network_of(call.address)}"
        call.context.rates.tokens.check(key, time.monotonic())
        client = None
        try:
            client = await self.authenticator.client(call)
            tokens = await giving(given, client, call)
        except OAuthError as error:
            await _refused(error, client, given, call)
            raise
        id_token = ""
        if kind != "client_credentials" and has_id_token(tokens.grant):
            id_token = await _id_token(tokens, call)
        await _given(tokens.grant, call)
        return json_answer(token_response(tokens, id_token))


async def _given(grant: Grant, call: Call) -> None:
    """Have it recorded that a token was given: to whom, for whom, with which scopes."""
    kind: Kind = "user" if grant.user else "client"
    who = grant.user or grant.client
    by = Principal(kind, who, grant.client, fhir_user=grant.fhir_user, address=call.address)
    about = (f"Patient/{grant.patient}",) if grant.patient else ()
    said = " ".join(grant.scopes)
    await note(call.context, Row(call.context.now(), "token", by, concerns=about, query=said))


async def _refused(
    error: OAuthError, client: Client | None, given: Mapping[str, str], call: Call
) -> None:
    """Have it recorded that none was given. A client that is not registered is not named: what was
    sent as its name may be a secret."""
    if client is not None:
        by = Principal("client", client.id, client.id, address=call.address)
    else:
        meant = await call.context.accounts.clients.client(claimed(given, call))
        by = Principal("nobody", "nobody", meant.id if meant else "", address=call.address)
    issue = "login" if error.status == 401 else "forbidden"
    row = Row(call.context.now(), "token", by, status=error.status, issue=issue)
    await note(call.context, row)


async def _id_token(tokens: Tokens, call: Call) -> str:
    key = await call.context.accounts.keys.signing(_ALGORITHM)
    claims = id_token_claims(tokens.grant, call.issuer, tokens.nonce, call.context.now())
    header = {"alg": _ALGORITHM, "typ": "JWT", "kid": key.kid}
    return jwt.encode(header, claims, key, algorithms=[_ALGORITHM])


async def _by_code(given: Mapping[str, str], client: Client, call: Call) -> Tokens:
    """https://www.rfc-editor.org/rfc/rfc7636#section-4.6"""
    for name in ("code", "redirect_uri", "code_verifier"):
        if name not in given:
            raise OAuthError("invalid_request", f"{name} is missing.")
    return await call.context.accounts.redeem(
        given["code"],
        client,
        redirect_uri=given["redirect_uri"],
        challenge=challenge_of(given["code_verifier"]),
    )


async def _by_refresh(given: Mapping[str, str], client: Client, call: Call) -> Tokens:
    """https://www.rfc-editor.org/rfc/rfc6749#section-6"""
    if "refresh_token" not in given:
        raise OAuthError("invalid_request", "refresh_token is missing.")

    def narrowed(grant: Grant) -> tuple[str, ...]:
        asked = given.get("scope", "").split()
        if not asked:
            return grant.scopes
        # What was granted was possible then; what it means is computed anew with each request.
        found = granted(asked, grant.scopes, ("patient", "user"), is_possible=lambda _: True)
        if set(found) != set(asked):
            raise OAuthError("invalid_scope", "A refresh gives no more than was granted.")
        return found

    return await call.context.accounts.refresh(given["refresh_token"], client, narrowed)


async def _by_itself(given: Mapping[str, str], client: Client, call: Call) -> Tokens:
    # "not intended for SMART Backend Services": a secret, which travels, gets no system scopes.
    if not client.is_backend or client.kind != "confidential-asymmetric":
        raise OAuthError("unauthorized_client", "This client is no backend that has keys.")
    possible = partial(is_possible, table=call.context.parameters)
    asked = given.get("scope", "").split()
    scopes = granted(asked, client.scopes, ("system",), is_possible=possible)
    if not scopes:
        raise OAuthError("invalid_scope", "The client is registered for none of these scopes.")
    grant = Grant(client.id, call.base, scopes, roles=client.roles)
    return await call.context.accounts.give(grant)


_GIVING: Mapping[str, Callable[[Mapping[str, str], Client, Call], Awaitable[Tokens]]] = {
    "authorization_code": _by_code,
    "refresh_token": _by_refresh,
    "client_credentials": _by_itself,
}
GRANT_TYPES = tuple(_GIVING)
