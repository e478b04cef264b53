"""https://www.rfc-editor.org/rfc/rfc8725; Wycheproof's vectors, where they are there."""

import base64
import hmac
import json
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from joserfc import jws
from joserfc.jwk import ECKey, KeySet, RSAKey

from fhir_server.security.jose import (
    ALGORITHMS,
    Untrusted,
    check_times,
    checked_signature,
    is_sound,
    key_set,
    public_keys,
    said_by,
    verified,
)

ES384 = ECKey.generate_key("P-384", {"kid": "es"})
ES256 = ECKey.generate_key("P-256", {"kid": "es256"})
RSA = RSAKey.generate_key(2048, {"kid": "rs"})
KEYS: dict[str, ECKey | RSAKey] = {
    "ES384": ES384,
    "RS384": RSA,
    "RS256": RSA,
    "PS256": RSA,
    "ES256": ES256,
}


def _public(key: ECKey | RSAKey, **more: str) -> dict[str, Any]:
    return {**key.as_dict(private=False), **more}


def _signed(algorithm: str, key: Any) -> str:
    head = {"alg": algorithm, "kid": key.kid}
    return jws.serialize_compact(head, b'{"sub":"x"}', key, algorithms=[algorithm])


def _base64(text: bytes) -> str:
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def _written(header: dict[str, Any], payload: bytes) -> str:
    return f"{_base64(json.dumps(header).encode())}.{_base64(payload)}"


def _by_hand(header: dict[str, Any], payload: bytes) -> str:
    """Return a token that is signed whatever it says."""
    text = _written({"alg": "ES384", "kid": "es"} | header, payload)
    assert ES384.private_key is not None
    signature = ES384.private_key.sign(text.encode(), ECDSA(SHA384()))
    halves = (half.to_bytes(48) for half in decode_dss_signature(signature))
    return f"{text}.{_base64(b''.join(halves))}"


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_good_token_is_taken_by_its_algorithm_alone(algorithm: str) -> None:
    """What is signed as registered is taken; the same under any other algorithm is not."""
    key = KEYS[algorithm]
    token = _signed(algorithm, key)
    assert verified(token, key_set([_public(key)], algorithm), algorithm) == {"sub": "x"}
    for other in set(ALGORITHMS) - {algorithm}:
        with pytest.raises((Untrusted, ValueError)):
            verified(token, key_set([_public(key)], other), other)


@pytest.mark.parametrize("name", ["json_web_signature", "json_web_key", "json_web_crypto"])
def test_no_invalid_vector_is_accepted(shared: Path, name: str) -> None:
    """A8: of Wycheproof's signatures, under each algorithm that can be registered, none that is
    invalid is accepted; and most that are valid are."""
    document = json.loads((shared / "badinput" / "jose" / f"{name}.json").read_text("utf-8"))
    accepted = {True: 0, False: 0}
    for group in document["testGroups"]:
        key = group.get("public") or group.get("private") or {}
        for case in group["tests"]:
            is_valid = case["result"] == "valid"
            accepted[is_valid] += _is_accepted(case.get("jws", ""), key.get("keys", [key]))
    assert accepted[False] == 0
    assert accepted[True] or name == "json_web_key"


def _is_accepted(token: Any, rows: list[Any]) -> bool:
    for algorithm in ALGORITHMS:
        try:
            checked_signature(str(token), key_set(rows, algorithm), algorithm)
        except (Untrusted, ValueError):
            continue
        return True
    return False


def test_a_mac_under_a_public_key_is_none() -> None:
    """The public key as the secret of a MAC: what it signs is refused, whatever is registered."""
    for key in (ES384, RSA):
        for secret in (key.as_pem(private=False), json.dumps(_public(key)).encode()):
            text = _written({"alg": "HS256", "kid": key.kid}, b"{}")
            token = f"{text}.{_base64(hmac.new(secret, text.encode(), sha256).digest())}"
            for algorithm in (*ALGORITHMS, "HS256", "none"):
                with pytest.raises(Untrusted):
                    verified(token, KeySet([key]), algorithm)


@pytest.mark.parametrize(
    "row",
    [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "1"},
        {**_public(ES384), "k": "c2VjcmV0"},
    ],
)
def test_a_secret_among_public_keys_spoils_them(row: dict[str, Any]) -> None:
    """A key set with a secret in it was not meant to be published."""
    with pytest.raises(ValueError, match="secret"):
        key_set([_public(ES384), row], "ES384")


@pytest.mark.parametrize(
    "rows",
    [
        None,
        {},
        [],
        [None, 1, "x"],
        [_public(ES384, use="enc")],
        [_public(ES384, alg="ES256")],
        [_public(ES256)],
        [{**_public(ES384), "x": "AAAA"}],
        [{"kty": "EC", "crv": "P-384"}],
        [_public(ES384), _public(ES384)],
        [_public(ES384)] * 51,
    ],
    ids=lambda _: "rows",  # keys are new in each process
)
def test_key_sets_that_cannot_be_used(rows: Any) -> None:
    """Keys for something else, broken ones, and two of one name are none."""
    with pytest.raises(ValueError, match=r"keys|kid"):
        key_set(rows, "ES384")


def _number(value: int) -> str:
    return _base64(value.to_bytes((value.bit_length() + 7) // 8))


def test_weak_rsa_keys_are_refused() -> None:
    """Too short, too long, a small exponent, an even modulus, and those that can be factored."""
    good = _public(RSA)
    modulus = int.from_bytes(base64.urlsafe_b64decode(good["n"] + "=="))
    primes = [one for one in range(3, 168) if all(one % other for other in range(2, one))]
    powers = prod(primes)
    roca = pow(65537, 777, powers) + powers * (2**2047 // powers + 1)
    roca += powers if roca % 2 == 0 else 0
    assert is_sound(good)
    for change in (
        {"n": _number(modulus >> 1025)},
        {"n": _number(modulus << 6145)},
        {"n": _number(modulus + 1)},
        {"n": _number(roca)},
        {"e": _number(3)},
        {"e": _number(65536)},
    ):
        assert not is_sound({**good, **change})
        with pytest.raises(ValueError, match="none of the keys"):
            key_set([{**good, **change}], "RS384")


def test_private_members_are_not_kept() -> None:
    """What is stored of a key has no private member, whatever was sent."""
    for key, algorithm in ((ES384, "ES384"), (RSA, "RS384")):
        [kept] = public_keys([key.as_dict(private=True)], algorithm)
        assert set(kept) <= {"kty", "kid", "n", "e", "crv", "x", "y"}


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "a.b",
        "a.b.c.d",
        "e30.e30.",
        "e30=.e30.AA",
        "e31.e30.AA",
        "W10.e30.AA",
        "e30.e30.AA\n",
        " e30.e30.AA",
        "x" * 9000,
    ],
)
def test_what_is_no_token(token: str) -> None:
    """Whatever comes is a token or a refusal."""
    with pytest.raises(Untrusted):
        said_by(token)


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ({"crit": ["exp"]}, None),
        ({"b64": False}, None),
        ({"typ": "dpop+jwt"}, None),
        ({"kid": "other"}, None),
        ({}, b"[]"),
        ({}, b'{"sub":"a","sub":"b"}'),
        ({}, b'{"sub":NaN}'),
        ({}, b"[" * 4000),
        ({}, b"\xff"),
    ],
)
def test_signed_and_refused(header: dict[str, Any], text: bytes | None) -> None:
    """A good signature does not save what cannot be meant."""
    keys = key_set([_public(ES384)], "ES384")
    with pytest.raises(Untrusted):
        verified(_by_hand(header, b"{}" if text is None else text), keys, "ES384")
    assert verified(_by_hand({}, b"{}"), keys, "ES384") == {}


def test_without_a_kid_there_is_one_key() -> None:
    """A token that names no key is of the one that there is; of several it is nobody's."""
    token = jws.serialize_compact({"alg": "ES384"}, b"{}", ES384, algorithms=["ES384"])
    assert verified(token, key_set([_public(ES384)], "ES384"), "ES384") == {}
    other = ECKey.generate_key("P-384", {"kid": "other"})
    with pytest.raises(Untrusted):
        verified(token, key_set([_public(ES384), _public(other)], "ES384"), "ES384")


@pytest.mark.parametrize(
    ("claims", "is_good"),
    [
        ({"exp": 1100}, True),
        ({"exp": 941}, True),
        ({"exp": 940}, False),
        ({"exp": True}, False),
        ({"exp": "1100"}, False),
        ({}, False),
        ({"exp": 1100, "nbf": 1060}, True),
        ({"exp": 1100, "nbf": 1061}, False),
        ({"exp": 1100, "iat": 1061}, False),
        ({"exp": 1100, "nbf": "x"}, False),
        ({"exp": float("inf")}, False),
    ],
)
def test_times(claims: dict[str, Any], is_good: bool) -> None:
    """A token is good from nbf to exp, with a minute for clocks that differ."""
    if is_good:
        assert check_times(claims, 1000.0) == claims["exp"]
    else:
        with pytest.raises(Untrusted):
            check_times(claims, 1000.0)
