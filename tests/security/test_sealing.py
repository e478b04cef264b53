"""NIST SP 800-38D; design/security.md, section 6: what is sealed under the master key."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as some

from fhir_server.security.sealing import (
    KEY_BYTES,
    NONCE_BYTES,
    Unopened,
    is_under,
    key_of,
    opened,
    seal,
    sealed_anew,
)

KEY = bytes(range(32))
OTHER = bytes(range(1, 33))
NONCE = b"n" * NONCE_BYTES


@given(text=some.binary(max_size=200), about=some.text(max_size=40))
def test_what_is_sealed_opens_with_key_and_owner_alone(text: bytes, about: str) -> None:
    """Another key, and another owner, open nothing."""
    sealed = seal(KEY, text, NONCE, about)

    assert opened(KEY, sealed, about) == text
    for key, whose in ((OTHER, about), (KEY, about + "x")):
        with pytest.raises(Unopened):
            opened(key, sealed, whose)


def test_every_changed_byte_is_found() -> None:
    """Also those of the head: format, name of the key, nonce."""
    sealed = seal(KEY, b"seed", NONCE, "totp/u")
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(Unopened):
            opened(KEY, bytes(changed), "totp/u")
        with pytest.raises(Unopened):
            opened(KEY, sealed[:place], "totp/u")


def test_what_is_sealed_shows_nothing_of_it() -> None:
    """Neither the secret nor the key is in what is stored."""
    sealed = seal(KEY, b"JBSWY3DPEHPK3PXP", NONCE, "totp/u")
    assert b"JBSWY3DP" not in sealed
    assert KEY[:8] not in sealed


def test_a_weak_key_seals_nothing() -> None:
    """Under 256 bits is no key."""
    with pytest.raises(ValueError, match="32 bytes"):
        seal(KEY[:-1], b"", NONCE, "")


def test_a_key_is_replaced() -> None:
    """Sealed anew, it opens with the new key and no more with the old one."""
    old = seal(KEY, b"seed", NONCE, "totp/u")
    new = sealed_anew(KEY, OTHER, old, NONCE, "totp/u")

    assert (is_under(OTHER, old), is_under(OTHER, new)) == (False, True)
    assert opened(OTHER, new, "totp/u") == b"seed"
    with pytest.raises(Unopened):
        opened(KEY, new, "totp/u")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (KEY.hex(), KEY_BYTES),
        (f"  {KEY.hex().upper()}\n", KEY_BYTES),
        (base64.b64encode(KEY).decode(), KEY_BYTES),
        (base64.urlsafe_b64encode(b"\xfb\xff" * 16).decode(), KEY_BYTES),
        ("00" * 16, 16),
        ("correct horse battery staple, thirty-two and more", 0),
        ("", 0),
    ],
)
def test_a_key_is_written_as_digits_or_base64(text: str, size: int) -> None:
    """A pass phrase is none, however long it is."""
    assert len(key_of(text)) == size
