"""Who may call the services: clients that are registered, each by the keys that sign its tokens.

https://cds-hooks.hl7.org/2.0/#trusting-cds-clients; design/cds.md, section 13.

A token is never believed about where its keys are: issuers and keys are those of a list.
"""

import base64
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
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
        "iss",
        "keys",
        "keysUrl",
        "algorithm",
        "tenants",
        "services",
        "fhirServers",
        "origins",
        "principal",
    )
)


class Untrusted(Exception):
    """The call is refused, always with the same answer; the text is for the log."""


class UnknownKey(Untrusted):
    """The token names a key that its client does not have, or not yet."""

    def __init__(self, client: "Client") -> None:
        super().__init__("the key is not known")
        self.client = client


@dataclass(frozen=True, slots=True)
class Client:
    """A registered client. Empty ``services`` and ``tenants`` are all of them.

    ``keys`` were registered by hand, or were last read at ``keys_url``.

    ``fhir_servers`` are the base URLs that it may have us read from; ``origins`` those of its
    pages in a browser.
    """

    iss: str
    keys: KeySet = field(repr=False)
    algorithm: str = "ES384"
    tenants: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    fhir_servers: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    keys_url: str = ""

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


def load_clients(path: Path | None) -> Mapping[str, Client]:
    """Return the clients of a JSON file, ``{"clients": [...]}``, by issuer.

    Raises :class:`KnowledgeError` that names the client and the member.
    """
    if path is None:
        return {}
    try:
        rows = json.loads(path.read_text("utf-8"))["clients"]
        return {row["iss"]: _client(row) for row in rows}
    except (OSError, KeyError, TypeError, ValueError, JoseError) as error:
        raise KnowledgeError(f"FHIR_CDS_CLIENTS, {path.name}: {error}") from error


def _client(row: Mapping[str, Any]) -> Client:
    if strange := set(row) - _MEMBERS:
        raise ValueError(f"{row['iss']} has {', '.join(sorted(strange))}, which is not known")
    algorithm = row.get("algorithm", "ES384")
    if algorithm not in ALGORITHMS:
        raise ValueError(f"{row['iss']} has the algorithm {algorithm}; one of {ALGORITHMS}")
    if ("keys" in row) == ("keysUrl" in row):
        raise ValueError(f"{row['iss']} has to have keys, or keysUrl")
    servers = tuple(one.rstrip("/") for one in row.get("fhirServers", ()))
    for one in servers:
        _check_https(one, f"{row['iss']} has the FHIR server")
    keys_url = row.get("keysUrl", "")
    if keys_url:
        _check_https(keys_url, f"{row['iss']} has its keys at")
    return Client(
        row["iss"],
        key_set(row.get("keys", {"keys": ()})),
        algorithm,
        tuple(row.get("tenants", ())),
        tuple(row.get("services", ())),
        servers,
        tuple(row.get("origins", ())),
        keys_url,
    )


def key_set(found: Mapping[str, Any]) -> KeySet:
    """Return the keys of a JSON Web Key Set, those that sign. Raises ``ValueError``."""
    rows = [row for row in found["keys"] if isinstance(row, dict) and row.get("use") != "enc"]
    try:
        return KeySet.import_key_set({"keys": rows}) if rows else KeySet([])
    except JoseError as error:
        raise ValueError(str(error)) from error


def _check_https(url: str, what: str) -> None:
    parts = urlsplit(url)
    is_local = parts.hostname in ("127.0.0.1", "localhost", "::1")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_local):
        raise ValueError(f"{what} {url}, which is not https")


def claim_of(
    token: str, audiences: Collection[str], clients: Mapping[str, Client], now: float
) -> Claim:
    """Return what ``token`` says, if it is good for one of the URLs ``audiences`` at ``now``.

    ``now`` is in seconds since 1970. Raises :class:`Untrusted`. Whether the token was used before
    is for the caller to see, by ``jti``.
    """
    if len(token) > _TOKEN_CHARACTERS_MAX:
        raise Untrusted("the token is too long")
    client = clients.get(_issuer(token))
    if client is None:
        raise Untrusted("the issuer is not registered")
    _check_key(token, client)
    try:
        decoded = jwt.decode(token, client.keys, algorithms=[client.algorithm])
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


def _check_key(token: str, client: Client) -> None:
    """Refuse a key that is not the client's, and an address of keys that is not the registered one.

    For keys that were registered by hand an address means nothing.
    """
    header = _unverified(token, 0)
    if client.keys_url and header.get("jku", client.keys_url) != client.keys_url:
        raise Untrusted("the address of its keys")
    kid = header.get("kid")
    if not isinstance(kid, str) or not kid:
        raise Untrusted("the header")
    if all(key.kid != kid for key in client.keys.keys):
        raise UnknownKey(client)


def _issuer(token: str) -> str:
    """Return who says to have signed; nothing of it is believed before the signature is."""
    found = _unverified(token, 1).get("iss")
    if not isinstance(found, str):
        raise Untrusted("the issuer is no text")
    return found


def _unverified(token: str, part: int) -> Mapping[str, Any]:
    parts = token.split(".")
    if len(parts) != 3:
        raise Untrusted("the token has no three parts")
    try:
        padded = parts[part] + "=" * (-len(parts[part]) % 4)
        found = json.loads(base64.urlsafe_b64decode(padded))
    except (ValueError, RecursionError) as error:
        raise Untrusted("the token cannot be read") from error
    if not isinstance(found, dict):
        raise Untrusted("the token cannot be read")
    return found


def _check_times(claims: Mapping[str, Any], now: float) -> None:
    for name in ("exp", "iat"):
        value = claims.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
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
