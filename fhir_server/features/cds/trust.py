"""Who may call the services: clients that are registered, each by the keys that sign its tokens.

https://cds-hooks.hl7.org/2.0/#trusting-cds-clients; design/cds.md, section 13.

A token is never believed about where its keys are: issuers, keys and URLs are those of a list.
"""

import base64
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from fhir_server.features.cds.schema import KnowledgeError

ALGORITHMS = ("ES384", "RS384")
"""What a client may be registered with. A MAC and ``none`` are not among them."""
SKEW_S = 60
LIFE_S_MAX = 300
_TOKEN_CHARACTERS_MAX = 8_192
_JTI_CHARACTERS_MAX = 200
_MEMBERS = frozenset(
    (
        *("iss", "keys", "keysUrl", "algorithm", "tenants", "services"),
        *("fhirServers", "origins", "principal"),
    )
)
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Untrusted(Exception):
    """The call is refused, always with the same answer; the text is for the log."""


@dataclass(frozen=True, slots=True)
class Client:
    """A registered client. Empty ``services`` and ``tenants`` are all of them.

    Its ``keys`` are registered by hand, or published at ``keys_url``. ``fhir_servers`` are the base
    URLs that it may have us read from; ``origins`` those of its pages in a browser.
    """

    iss: str
    keys: KeySet | None = field(default=None, repr=False)
    keys_url: str = ""
    algorithm: str = "ES384"
    tenants: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    fhir_servers: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()

    def may(self, service: str) -> bool:
        """Whether the service is open to it."""
        return not self.services or service in self.services


@dataclass(frozen=True, slots=True)
class Claim:
    """What a good token says: the client, its tenant, and the token's id until when."""

    client: Client
    jti: str
    tenant: str
    seconds: float


def load_clients(path: Path | None, *, is_trying: bool = False) -> Mapping[str, Client]:
    """Return the clients of a JSON file, ``{"clients": [...]}``, by issuer.

    URLs are https; with ``is_trying``, in development, http on this machine as well. Raises
    :class:`KnowledgeError` that names the client and the member.
    """
    if path is None:
        return {}
    try:
        rows = json.loads(path.read_text("utf-8"))["clients"]
        return {row["iss"]: _client(row, is_trying=is_trying) for row in rows}
    except (OSError, LookupError, TypeError, ValueError, AttributeError, JoseError) as error:
        raise KnowledgeError(f"FHIR_CDS_CLIENTS, {path.name}: {error}") from error


def _client(row: Mapping[str, Any], *, is_trying: bool) -> Client:
    if strange := set(row) - _MEMBERS:
        raise ValueError(f"{row['iss']} has {', '.join(sorted(strange))}, which is not known")
    algorithm = row.get("algorithm", "ES384")
    if algorithm not in ALGORITHMS:
        raise ValueError(f"{row['iss']} has the algorithm {algorithm}; one of {ALGORITHMS}")
    servers = tuple(one.rstrip("/") for one in row.get("fhirServers", ()))
    keys_url = row.get("keysUrl", "")
    if ("keys" in row) == ("keysUrl" in row):
        raise ValueError(f"{row['iss']} has either keys or a keysUrl")
    urls = [("FHIR server", one) for one in servers]
    urls += [("keysUrl", keys_url)] if "keysUrl" in row else []
    for name, url in urls:
        if not _is_safe(url, is_trying=is_trying):
            raise ValueError(f"{row['iss']} has the {name} {url}, which is not plain https")
    return Client(
        row["iss"],
        _by_hand(row["keys"]["keys"]) if "keys" in row else None,
        keys_url,
        algorithm,
        tuple(row.get("tenants", ())),
        tuple(row.get("services", ())),
        servers,
        tuple(row.get("origins", ())),
    )


def _by_hand(rows: Any) -> KeySet:
    """Return the keys of ``rows`` that sign; one for encryption signs nothing."""
    return KeySet.import_key_set({"keys": [row for row in rows if row.get("use") != "enc"]})


def _is_safe(url: str, *, is_trying: bool) -> bool:
    parts = urlsplit(url)
    if not parts.hostname or parts.username is not None or parts.fragment or not url.isascii():
        return False
    is_here = is_trying and parts.scheme == "http" and parts.hostname in LOOPBACK
    return parts.scheme == "https" or is_here


@dataclass(frozen=True, slots=True)
class Named:
    """The client that a token says to be from, and the key that it says to be signed with."""

    client: Client
    kid: str


def named_by(token: str, clients: Mapping[str, Client]) -> Named:
    """Return who says to have signed ``token``. Nothing of it is believed before the signature is.

    Where the client publishes its keys, a ``jku`` has to be the URL that is registered; where they
    are registered by hand it is passed over. Raises :class:`Untrusted`.
    """
    if len(token) > _TOKEN_CHARACTERS_MAX:
        raise Untrusted("the token is too long")
    parts = token.split(".")
    if len(parts) != 3:
        raise Untrusted("the token has no three parts")
    header, claims = _part(parts[0]), _part(parts[1])
    issuer = claims.get("iss")
    client = clients.get(issuer) if isinstance(issuer, str) else None
    if client is None:
        raise Untrusted("the issuer is not registered")
    kid = header.get("kid")
    if not isinstance(kid, str) or not 0 < len(kid) <= _JTI_CHARACTERS_MAX:
        raise Untrusted("the header has no kid")
    if client.keys_url and header.get("jku", client.keys_url) != client.keys_url:
        raise Untrusted("its jku is not the URL that is registered")
    return Named(client, kid)


def _part(encoded: str) -> Mapping[str, Any]:
    try:
        found = json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except (ValueError, RecursionError) as error:
        raise Untrusted("the token cannot be read") from error
    if not isinstance(found, dict):
        raise Untrusted("the token cannot be read")
    return found


def claim_of(
    token: str, audiences: Collection[str], client: Client, keys: KeySet, now: float
) -> Claim:
    """Return what ``token`` of ``client`` says, if it is signed by one of ``keys`` and good for one
    of the URLs ``audiences`` at ``now``.

    ``now`` is in seconds since 1970. Raises :class:`Untrusted`. Whether the token was used before
    is for the caller to see, by ``jti``.
    """
    try:
        decoded = jwt.decode(token, keys, algorithms=[client.algorithm])
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise Untrusted(f"the signature: {type(error).__name__}") from error
    header, claims = decoded.header, decoded.claims
    if header.get("typ", "JWT") != "JWT" or not header.get("kid") or "crit" in header:
        raise Untrusted("the header")
    _check_times(claims, now)
    said = claims.get("aud")
    aud = said if isinstance(said, list) else [said]
    if not any(isinstance(one, str) and one.rstrip("/") in audiences for one in aud):
        raise Untrusted("the audience")
    jti = claims.get("jti")
    if not isinstance(jti, str) or not 0 < len(jti) <= _JTI_CHARACTERS_MAX:
        raise Untrusted("jti")
    tenant = claims.get("tenant", "")
    if client.tenants and tenant not in client.tenants:
        raise Untrusted("the tenant")
    return Claim(client, jti, str(tenant), claims["exp"] - now + SKEW_S)


def _check_times(claims: Mapping[str, Any], now: float) -> None:
    for name in ("exp", "iat"):
        value = claims.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise Untrusted(f"{name} is missing")
    if claims["exp"] < now - SKEW_S:
        raise Untrusted("it has expired")
    if claims["exp"] > now + LIFE_S_MAX + SKEW_S:
        raise Untrusted("it lives too long")
    if claims["iat"] > now + SKEW_S:
        raise Untrusted("it is issued in the future")
    before = claims.get("nbf")
    if isinstance(before, int | float) and before > now + SKEW_S:
        raise Untrusted("it is not valid yet")
