"""Which client calls, and whether it is the one: by secret, by signed assertion, or by name alone.

https://www.rfc-editor.org/rfc/rfc6749#section-2.3;
https://hl7.org/fhir/smart-app-launch/STU2.2/client-confidential-asymmetric.html
"""

import base64
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import unquote_plus

from joserfc.jwk import KeySet

from fhir_server.http.authorize.exchange import Call
from fhir_server.remote.fetching import Unfetched
from fhir_server.remote.key_sets import Published, document_set
from fhir_server.security.assertions import ASSERTION_TYPE, assertion, client_named_by, kid_of
from fhir_server.security.grants import Client, hashed
from fhir_server.security.jose import Untrusted, key_set, read_key_set
from fhir_server.security.oauth import OAuthError, once, same

_log = logging.getLogger("fhir_server.authorize")
_NOBODY = hashed("")
_ID_CHARACTERS_MAX = 100


@dataclass(frozen=True, slots=True)
class Authenticator:
    """Knows clients by what they send. ``published`` are the keys that they publish where the
    operator has registered it, ``strange`` those of clients that have registered themselves."""

    published: Published[KeySet]
    strange: Published[KeySet]

    async def client(self, call: Call) -> Client:
        """Return the client that calls. Raises ``invalid_client`` (401), always with the same
        words: which clients there are is told to nobody."""
        given = once(call.form)
        basic = _basic(call)
        used = [basic is not None, "client_secret" in given, "client_assertion" in given]
        if sum(used) > 1:
            raise OAuthError("invalid_request", "A client proves who it is in one way.")
        try:
            if "client_assertion" in given:
                return await self._by_assertion(given, call)
            id, secret = basic or (given.get("client_id", ""), given.get("client_secret", ""))
            if basic and given.get("client_id", id) != id:
                raise Untrusted("client_id is another one")
            return await self._by_secret(id, secret, call)
        except (Untrusted, Unfetched) as error:
            _log.info('"a client is refused: %s"', str(error).replace('"', "'"))
            raise OAuthError(
                "invalid_client", "The client is not known, or not so.", 401
            ) from error

    async def _by_secret(self, id: str, secret: str, call: Call) -> Client:
        client = await call.context.accounts.clients.client(id)
        is_it = same(hashed(secret), client.secret_hash if client else _NOBODY)
        if client is None:
            raise Untrusted("there is no such client")
        if client.kind == "public" and not secret:
            return client
        if client.kind != "confidential-symmetric" or not is_it or not client.secret_hash:
            raise Untrusted("the secret is not the one, or none is to be sent")
        return client

    async def _by_assertion(self, given: dict[str, str], call: Call) -> Client:
        token = given["client_assertion"]
        if given.get("client_assertion_type") != ASSERTION_TYPE:
            raise Untrusted("client_assertion_type is not the one of a JWT")
        named = client_named_by(token)
        client = await call.context.accounts.clients.client(named)
        if client is None or client.kind != "confidential-asymmetric":
            raise Untrusted("there is no such client, or it has no keys")
        if given.get("client_id", named) != named:
            raise Untrusted("client_id is another one")
        keys = await self._keys(client, kid_of(token, client))
        now = call.context.now().timestamp()
        found = assertion(token, client, keys, (call.endpoint("token"),), now)
        until = datetime.fromtimestamp(found.until, UTC)
        if not await call.context.accounts.claim_assertion(client.id, found.jti, until):
            raise Untrusted("the assertion was used before")
        return client

    async def _keys(self, client: Client, kid: str) -> KeySet:
        if client.jwks_uri:
            published = self.strange if client.registered_itself else self.published
            return await published.at(
                client.jwks_uri,
                client.algorithm,
                lambda keys: any(key.kid == kid for key in keys.keys),
            )
        try:
            return key_set(client.jwks.get("keys"), client.algorithm)
        except ValueError as error:
            raise Untrusted(str(error)) from error


def authenticator() -> Authenticator:
    """Return what knows clients, with no key read yet."""
    return Authenticator(Published(read_key_set, document_set), Published(read_key_set))


def claimed(given: Mapping[str, str], call: Call) -> str:
    """Return the id of the client that a call says to be from, whether it is or not."""
    if basic := _basic(call):
        return basic[0][:_ID_CHARACTERS_MAX]
    if "client_assertion" not in given:
        return given.get("client_id", "")[:_ID_CHARACTERS_MAX]
    try:
        return client_named_by(given["client_assertion"])[:_ID_CHARACTERS_MAX]
    except Untrusted:
        return ""


def _basic(call: Call) -> tuple[str, str] | None:
    """Return id and secret of the header Authorization, each form-encoded. RFC 6749, 2.3.1."""
    scheme, _, encoded = call.header(b"authorization").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode()
    except ValueError as error:
        raise OAuthError("invalid_client", "The header Authorization is broken.", 401) from error
    id, colon, secret = text.partition(":")
    if not colon or not secret:
        raise OAuthError("invalid_client", "The header Authorization is broken.", 401)
    return unquote_plus(id), unquote_plus(secret)
