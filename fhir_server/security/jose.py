"""Signed tokens (JWS, JWT) and key sets, read strictly: the algorithm is said by us, not by them.

https://www.rfc-editor.org/rfc/rfc7515; https://www.rfc-editor.org/rfc/rfc8725. joserfc verifies;
what it takes and must not be taken is refused before: MACs, ``none``, ``crit``, stray bits in the
last character of Base64, RSA keys that can be factored (CVE-2017-15361).
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, RSAKey

# What a key has to be for each algorithm. A MAC's would be as secret at the client as here.
_KINDS: Mapping[str, Mapping[str, str]] = {
    "RS256": {"kty": "RSA"},
    "RS384": {"kty": "RSA"},
    "RS512": {"kty": "RSA"},
    "PS256": {"kty": "RSA"},
    "PS384": {"kty": "RSA"},
    "ES256": {"kty": "EC", "crv": "P-256"},
    "ES384": {"kty": "EC", "crv": "P-384"},
}
ALGORITHMS = tuple(_KINDS)
"""The algorithms that can be said at all."""
CLIENT_ALGORITHMS = ("ES384", "RS384")
"""Those of clients. https://hl7.org/fhir/smart-app-launch/STU2.2/client-confidential-asymmetric.html"""

KEYS_MAX = 50
SKEW_S = 60
_CHARACTERS_MAX = 8_192
_NAME_CHARACTERS_MAX = 200
_RSA_BITS = range(2048, 8193)
_PUBLIC = {"RSA": ("kty", "kid", "n", "e"), "EC": ("kty", "kid", "crv", "x", "y")}
_ROCA_GENERATOR = 65537
_PRIMES = (
    *(11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157),
    *(3, 5, 7, 23, 29, 31, 41, 43, 47, 59, 67, 83, 89, 101, 113, 131, 137, 139, 149, 163, 167),
)


class Untrusted(Exception):
    """A token or a key is refused; the text is for the log and for the developer of the client."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a token says of itself; none of it is believed before its signature is verified."""

    header: Mapping[str, Any]
    payload: bytes

    @property
    def kid(self) -> str:
        """The name of its key, ``""`` for none."""
        kid = self.header.get("kid", "")
        if not isinstance(kid, str) or len(kid) > _NAME_CHARACTERS_MAX:
            raise Untrusted("kid is no name")
        return kid

    @property
    def claims(self) -> Mapping[str, Any]:
        """Its claims."""
        return _object(self.payload)


def said_by(token: str) -> Said:
    """Return what ``token`` says. Raises :class:`Untrusted` for what is no compact JWS, and for a
    header that asks for what we do not know."""
    if len(token) > _CHARACTERS_MAX:
        raise Untrusted("the token is too long")
    parts = token.split(".")
    if len(parts) != 3 or not all(parts):
        raise Untrusted("the token has no three parts")
    header, payload, _ = (_decoded(part) for part in parts)
    members = _object(header)
    # crit asks that we know what it names, and we know nothing of the kind; b64 is one of those.
    if "crit" in members or "b64" in members:
        raise Untrusted("the header has crit or b64")
    return Said(members, payload)


def verified(token: str, keys: KeySet, algorithm: str) -> Mapping[str, Any]:
    """Return the claims of ``token`` if one of ``keys`` signed it by ``algorithm``.

    The key is the one that ``kid`` names; without a ``kid`` there must be one key alone. ``keys``
    are of :func:`key_set`. Raises :class:`Untrusted`.
    """
    checked_signature(token, keys, algorithm)
    return said_by(token).claims


def checked_signature(token: str, keys: KeySet, algorithm: str) -> bytes:
    """Return the payload of ``token``; as :func:`verified`, whatever the payload is."""
    said = said_by(token)
    if algorithm not in _KINDS or said.header.get("alg") != algorithm:
        raise Untrusted("the algorithm is not the one that is registered")
    if said.header.get("typ", "JWT") not in ("JWT", "jwt", "at+jwt", "application/at+jwt"):
        raise Untrusted("typ is not JWT")
    kid = said.kid
    fitting = [key for key in keys.keys if not kid or key.kid == kid]
    if len(fitting) != 1:
        raise Untrusted("kid names no key, or none is said where there are several")
    try:
        return jws.deserialize_compact(token, fitting[0], algorithms=[algorithm]).payload
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise Untrusted(f"the signature: {type(error).__name__}") from error


def _decoded(part: str) -> bytes:
    """Return the bytes of ``part``, in base64url without padding, written the one way they are."""
    try:
        found = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError as error:
        raise Untrusted("a part is not base64url") from error
    if base64.urlsafe_b64encode(found).decode().rstrip("=") != part:
        raise Untrusted("a part is not written as base64url writes it")
    return found


def _object(text: bytes) -> Mapping[str, Any]:
    """Return the JSON object that ``text`` is; no member twice. RFC 7515, section 4."""
    try:
        found = json.loads(text.decode(), object_pairs_hook=_once, parse_constant=_refused)
        json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair is no character
    except (ValueError, RecursionError) as error:
        raise Untrusted("header or claims are no JSON object") from error
    if not isinstance(found, dict):
        raise Untrusted("header or claims are no JSON object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member is there twice")
    return found


def _refused(constant: str) -> Any:
    raise ValueError(constant)


# Keys.


def key_set(rows: Any, algorithm: str) -> KeySet:
    """Return the public keys among ``rows`` (the member ``keys`` of a JWKS) for ``algorithm``.

    Those for something else are passed over, as RFC 7517, section 5, asks. Raises ``ValueError``
    for what is no list, for a MAC's key among them, two of one ``kid``, and where none is left.
    """
    if not isinstance(rows, list) or len(rows) > KEYS_MAX:
        raise ValueError(f"keys is no list of at most {KEYS_MAX} keys")
    rows = [row for row in rows if isinstance(row, dict)]
    if any(row.get("kty") == "oct" or "k" in row for row in rows):
        raise ValueError("a secret key is among the public ones")
    found = [key for row in rows if (key := _key(row, algorithm)) is not None]
    if not found:
        raise ValueError(f"none of the keys is for {algorithm}")
    if len({key.kid for key in found}) != len(found):
        raise ValueError("two keys have the same kid, or none")
    return KeySet([*found])


def read_key_set(document: bytes, algorithm: str) -> KeySet:
    """Return the keys for ``algorithm`` of a JSON Web Key Set. Raises ``ValueError``."""
    try:
        return key_set(_object(document).get("keys"), algorithm)
    except Untrusted as error:
        raise ValueError(str(error)) from error


def _key(row: Mapping[str, Any], algorithm: str) -> ECKey | RSAKey | None:
    kind = _KINDS.get(algorithm, {"kty": ""})
    is_meant = row.get("use", "sig") == "sig" and row.get("alg", algorithm) == algorithm
    operations = row.get("key_ops", ["verify"])
    signs = isinstance(operations, list) and "verify" in operations
    if not (is_meant and signs) or any(row.get(name) != value for name, value in kind.items()):
        return None
    kid = row.get("kid", "")
    if not isinstance(kid, str) or len(kid) > _NAME_CHARACTERS_MAX:
        return None
    try:
        if kind["kty"] == "EC":
            return ECKey.import_key(_public(row))
        return RSAKey.import_key(_public(row)) if is_sound(row) else None
    except (JoseError, Untrusted, ValueError, TypeError, KeyError):
        return None  # one bad key does not spoil the others


def _public(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the public members of a key: private ones, sent by mistake, are not kept."""
    return {name: row[name] for name in _PUBLIC[row["kty"]] if name in row}


def public_keys(rows: Any, algorithm: str) -> list[dict[str, Any]]:
    """Return the keys of :func:`key_set` as they are to be stored: their public members alone."""
    kids = {key.kid for key in key_set(rows, algorithm).keys}
    return [_public(row) for row in rows if _key(row, algorithm) and row.get("kid") in kids]


def is_sound(row: Mapping[str, Any]) -> bool:
    """Whether the RSA key ``row`` is of 2048 to 8192 bits, with an odd exponent above 2^16, and not
    of the kind that a faulty library made."""
    modulus, exponent = (int.from_bytes(_decoded(str(row[name]))) for name in ("n", "e"))
    has_size = modulus.bit_length() in _RSA_BITS and modulus % 2 == 1
    has_exponent = 65_537 <= exponent < 2**64 and exponent % 2 == 1
    return has_size and has_exponent and not _is_roca(modulus)


def _powers(prime: int) -> frozenset[int]:
    found, value = set(), 1
    while value not in found:
        found.add(value)
        value = value * _ROCA_GENERATOR % prime
    return frozenset(found)


_FINGERPRINT = {prime: _powers(prime) for prime in _PRIMES}


def _is_roca(modulus: int) -> bool:
    """Whether ``modulus`` is a power of 65537 modulo each small prime: primes that a smart-card
    library made so can be found. https://crocs.fi.muni.cz/public/papers/rsa_ccs17"""
    return all(modulus % prime in powers for prime, powers in _FINGERPRINT.items())


# Claims.


def seconds_of(claims: Mapping[str, Any], name: str) -> float:
    """Return the time that the claim ``name`` is, in seconds since 1970. Raises
    :class:`Untrusted`."""
    value = claims.get(name)
    try:
        if not isinstance(value, bool) and isinstance(value, int | float) and isfinite(value):
            return float(value)
    except OverflowError:
        pass  # an integer that is beyond every time
    raise Untrusted(f"{name} is missing, or is no time")


def check_times(claims: Mapping[str, Any], now: float) -> float:
    """Return ``exp``. Raises :class:`Untrusted` where the token is over, or is not good yet, with
    a minute for clocks that differ."""
    expires = seconds_of(claims, "exp")
    if expires + SKEW_S <= now:
        raise Untrusted("it has expired")
    for name in ("nbf", "iat"):
        if name in claims and seconds_of(claims, name) > now + SKEW_S:
            raise Untrusted(f"{name} is in the future")
    return expires


def audiences_of(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """Return whom the token is for."""
    said = claims.get("aud")
    listed = said if isinstance(said, list) else [said]
    return tuple(one for one in listed if isinstance(one, str))
