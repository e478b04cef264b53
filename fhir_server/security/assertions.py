"""How a client proves who it is by a signed assertion (``private_key_jwt``).

https://hl7.org/fhir/smart-app-launch/STU2.2/client-confidential-asymmetric.html;
https://www.rfc-editor.org/rfc/rfc7523. Where its keys are is said by the registration: a ``jku``
is compared with that and never followed.
"""

from collections.abc import Collection
from dataclasses import dataclass

from joserfc.jwk import KeySet

from fhir_server.security.grants import Client
from fhir_server.security.jose import (
    SKEW_S,
    Untrusted,
    audiences_of,
    check_times,
    said_by,
    verified,
)

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
LIFE_S_MAX = 300
_KEPT_MORE_S = 60
_JTI_CHARACTERS_MAX = 200


@dataclass(frozen=True, slots=True)
class Assertion:
    """A good assertion: its id, and until when that is to be kept, in seconds since 1970."""

    jti: str
    until: float


def client_named_by(token: str) -> str:
    """Return the id of the client that ``token`` says to be from. Raises :class:`Untrusted`."""
    claims = said_by(token).claims
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject or claims.get("iss") != subject:
        raise Untrusted("iss and sub must both be the client_id")
    return subject


def kid_of(token: str, client: Client) -> str:
    """Return the key that ``token`` says to be signed with. Raises :class:`Untrusted` for a ``jku``
    other than the URL that is registered."""
    said = said_by(token)
    if "jku" in said.header and (said.header["jku"] != client.jwks_uri or not client.jwks_uri):
        raise Untrusted("jku is not the URL that is registered")
    if not said.kid:
        raise Untrusted("the header has no kid")
    return said.kid


def assertion(
    token: str, client: Client, keys: KeySet, audiences: Collection[str], now: float
) -> Assertion:
    """Return the assertion that ``token`` of ``client`` is, signed by one of ``keys`` for one of
    the URLs ``audiences``, at ``now`` (seconds since 1970).

    Whether it was used before is for the caller to see, by ``jti``. Raises :class:`Untrusted`.
    """
    kid_of(token, client)
    claims = verified(token, keys, client.algorithm)
    if claims.get("iss") != client.id or claims.get("sub") != client.id:
        raise Untrusted("iss and sub must both be the client_id")
    if not any(one in audiences for one in audiences_of(claims)):
        raise Untrusted("aud must be the URL of the token endpoint")
    expires = check_times(claims, now)
    if expires > now + LIFE_S_MAX + SKEW_S:
        raise Untrusted("exp is more than five minutes ahead")
    jti = claims.get("jti")
    if not isinstance(jti, str) or not 0 < len(jti) <= _JTI_CHARACTERS_MAX:
        raise Untrusted("jti is missing")
    # A shorter life would leave a time in which the assertion is good and its id forgotten.
    return Assertion(jti, expires + SKEW_S + _KEPT_MORE_S)
