"""Secrets under the master key: what lies in the database is of no use without it.

AES-256-GCM (NIST SP 800-38D). What is sealed: seeds of TOTP, signing keys, secrets of webhooks.
``about`` is authenticated with it and says whose secret it is, such as ``totp/user-1``: one that is
moved to another user in the database does not open there.
"""

import base64
import binascii
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
"""What a key has at least: 256 bits."""
NONCE_BYTES = 12
"""What a nonce has. It is random and new for each secret that is sealed."""

_FORMAT = b"\x01"
_NAME_BYTES = 8
_PURPOSE = b"fhir-server sealing 1"


class Unopened(Exception):
    """What was sealed does not open: another key, another owner, or changed bytes."""


def key_of(text: str) -> bytes:
    """Return the master key that ``text`` writes as hexadecimal digits or as Base64.

    What is neither is empty, and so never strong enough: nobody takes a pass phrase for 256 bits.

    >>> len(key_of("00" * 32)), len(key_of("A" * 43 + "=")), key_of("correct horse")
    (32, 32, b'')
    """
    text = text.strip()
    try:
        return bytes.fromhex(text)
    except ValueError:
        pass
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        return b""


def seal(key: bytes, text: bytes, nonce: bytes, about: str) -> bytes:
    """Return ``text`` sealed under the master key ``key``, to be stored.

    ``nonce`` are :data:`NONCE_BYTES` random bytes. Raises ``ValueError`` for a key under 256 bits.
    """
    head = _FORMAT + key_name(key)
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a nonce has {NONCE_BYTES} bytes")
    return head + nonce + AESGCM(_derived(key)).encrypt(nonce, text, head + about.encode())


def opened(key: bytes, sealed: bytes, about: str) -> bytes:
    """Return what :func:`seal` was given. Raises :class:`Unopened`, which says no more."""
    head = _FORMAT + key_name(key)
    nonce = sealed[len(head) : len(head) + NONCE_BYTES]
    if not sealed.startswith(head) or len(nonce) != NONCE_BYTES:
        raise Unopened("sealed under another key")
    rest = sealed[len(head) + NONCE_BYTES :]
    try:
        return AESGCM(_derived(key)).decrypt(nonce, rest, head + about.encode())
    except InvalidTag:
        raise Unopened("not what was sealed") from None


def is_under(key: bytes, sealed: bytes) -> bool:
    """Whether ``sealed`` names ``key`` as its own: what is not is still to be sealed anew."""
    return sealed.startswith(_FORMAT + key_name(key))


def sealed_anew(old: bytes, new: bytes, sealed: bytes, nonce: bytes, about: str) -> bytes:
    """Return what is ``sealed`` under ``old`` sealed under ``new``. Raises :class:`Unopened`."""
    return seal(new, opened(old, sealed, about), nonce, about)


def key_name(key: bytes) -> bytes:
    """Return what tells ``key`` from others and gives nothing of it away."""
    return sha256(_derived(key)).digest()[:_NAME_BYTES]


def _derived(key: bytes) -> bytes:
    """Return the key for sealing alone: another use of the master key cannot undo this one."""
    if len(key) < KEY_BYTES:
        raise ValueError(f"a master key has {KEY_BYTES} bytes or more")
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=_PURPOSE).derive(key)
