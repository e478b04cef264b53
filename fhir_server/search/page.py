"""Page links: the last sort values of a page, as a text that only we can write.

https://hl7.org/fhir/R4/http.html#paging

A cursor is ``base64url(mac + values)``, where ``mac`` is the first 128 bits of an HMAC-SHA256 over
the question it belongs to and the values. Whoever has a link can read the values of the resource
that was shown last, so a link is as private as the page it came with.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any

import msgspec

from fhir_server.outcome import FhirError, Issue

MAC_BYTES = 16
CURSOR_CHARACTERS_MAX = 16_384  # eight sort keys of the longest kind, and room

_READERS: dict[str, Any] = {
    "s": str,
    "i": int,
    "f": float.fromhex,
    "n": Decimal,
    "d": datetime.fromisoformat,
}


def digest(type: str, understood: Sequence[tuple[str, str]]) -> str:
    """Return what tells one search from another; a cursor of one is no cursor of the other."""
    return sha256(msgspec.json.encode([type, understood])).hexdigest()


def cursor(values: tuple[Any, ...], subject: str, key: bytes) -> str:
    """Return the text for ``values``, one per sort key and then the id.

    ``subject`` is the question that it belongs to, such as the :func:`digest` of a search; ``key``
    is the secret of this server. Values are
    ``str``, ``int``, ``float``, ``Decimal``, aware ``datetime`` and ``None``.
    """
    text = msgspec.json.encode([_written(value) for value in values])
    return urlsafe_b64encode(_mac(text, subject, key) + text).rstrip(b"=").decode()


def values_of(text: str, subject: str, key: bytes) -> tuple[Any, ...]:
    """Return the values of a cursor.

    Raises ``value`` for one that was not written for ``subject``, and for any without a ``key``.
    """
    if not key or len(text) > CURSOR_CHARACTERS_MAX or not text.isascii():
        raise foreign_page()
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError as error:
        raise foreign_page() from error
    mac, written = raw[:MAC_BYTES], raw[MAC_BYTES:]
    if not hmac.compare_digest(mac, _mac(written, subject, key)):
        raise foreign_page()
    return tuple(
        _READERS[kind](value) if kind else None for kind, value in msgspec.json.decode(written)
    )


def _mac(text: bytes, subject: str, key: bytes) -> bytes:
    return hmac.digest(key, f"page of {subject}\x00".encode() + text, "sha256")[:MAC_BYTES]


def _written(value: Any) -> tuple[str, Any]:
    match value:
        case None:
            return "", None
        case str():
            return "s", value
        case int():
            return "i", str(value)
        case float():
            return "f", value.hex()
        case datetime():
            return "d", value.isoformat()
    return "n", str(value)


def foreign_page() -> FhirError:
    """Return the refusal of a link that does not lead to a page of the search it is put to."""
    return FhirError(
        Issue(
            "value",
            "The page link does not belong here. Start again from the first page.",
        )
    )
