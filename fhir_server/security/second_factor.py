"""The second factor: codes of an authenticator app, and codes on paper for when it is lost.

RFC 6238 (TOTP: SHA-1, six digits, 30 s, which every authenticator app knows). One step of drift is
forgiven either way; each step counts once, so what was seen over a shoulder is of no use.
"""

import base64
import binascii
import hmac
from datetime import datetime
from hashlib import sha256

import pyotp

SEED_BYTES = 20
"""RFC 4226, section 4: 160 bits are recommended."""
STEP_S = 30
DRIFT = 1
RECOVERY_CODES = 10
RECOVERY_BYTES = 10
"""Eighty bits: a plain SHA-256 of them cannot be searched through."""


def seed_text(seed: bytes) -> str:
    """Return ``seed`` as an authenticator app is given it."""
    return base64.b32encode(seed).decode("ascii").rstrip("=")


def uri(seed: bytes, name: str, issuer: str) -> str:
    """Return what an authenticator app takes over: ``otpauth://totp/…``."""
    return pyotp.TOTP(seed_text(seed)).provisioning_uri(name=name, issuer_name=issuer)


def step_of(now: datetime) -> int:
    """Return the number of the 30 s that ``now`` is in."""
    return int(now.timestamp()) // STEP_S


def code_of(seed: bytes, step: int) -> str:
    """Return the six digits of ``step``."""
    return pyotp.TOTP(seed_text(seed)).generate_otp(step)


def matching_step(seed: bytes, code: str, now: datetime, last: int) -> int | None:
    """Return the step whose code ``code`` is, after ``last`` and near ``now``; or ``None``."""
    sent = "".join(code.split()).encode()
    current = step_of(now)
    found = None
    for step in range(current - DRIFT, current + DRIFT + 1):
        is_same = hmac.compare_digest(code_of(seed, step).encode(), sent)
        if is_same and step > last:
            found = step
    return found


def recovery_code(random: bytes) -> str:
    """Return a code for paper, of :data:`RECOVERY_BYTES` random bytes.

    >>> recovery_code(bytes(range(10)))
    'AAAQ-EAYE-AUDA-OCAJ'
    """
    text = base64.b32encode(random).decode("ascii")
    return "-".join(text[place : place + 4] for place in range(0, len(text), 4))


def recovery_hash(code: str) -> str:
    """Return what is kept of a recovery code, however it was typed; ``""`` for what is none."""
    text = "".join(one for one in code.upper() if one.isascii() and one.isalnum())
    try:
        if len(base64.b32decode(text)) != RECOVERY_BYTES:
            return ""
    except binascii.Error:
        return ""
    return sha256(text.encode()).hexdigest()
