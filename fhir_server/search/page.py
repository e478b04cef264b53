"""Page links: the place where a page begins or ends, as a text that only we can write and read.

https://hl7.org/fhir/R4/http.html#paging

A cursor is ``base64url(nonce + AES-256-GCM(values))``, bound to the question that it belongs to.
Its key is that of the server and of who asks (:func:`bound_key`): a link that somebody else was
given is no link. The nonce is an HMAC over question and values, so that the same place has the same
link, and no nonce is used for two texts.

The parameters of a long search do not fit into a URL. A link of such a search has them all in one
text, made in the same way of ``zlib(parameters)``. It is our own text or it is not unpacked at all,
and it is unpacked up to a limit only.
"""

import hmac
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from hashlib import sha256
from typing import Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fhir_server.outcome import FhirError, Issue, invalid_value

NONCE_BYTES = 12
_COUNT_DIGITS_MAX = 9
CURSOR_CHARACTERS_MAX = 16_384  # eight sort keys of the longest kind, and room
_ASKERS_MAX = 1000  # of whom keys are remembered
PACKED_BYTES_MAX = 4_194_304  # of parameters, before they are packed; more is asked by POST again

_READERS: dict[str, Any] = {
    "s": str,
    "i": int,
    "f": float.fromhex,
    "n": Decimal,
    "d": datetime.fromisoformat,
}


EXPLAIN = "_explain"
"""The parameter, ours, that asks how the database goes about a search."""

AFTER, UNTIL = "after", "until"
"""Which rows a link of a search leads to: the next behind a place, or the last up to it."""


@dataclass(frozen=True, slots=True)
class Edge:
    """A place between two rows in the order of a search.

    It is behind the row with ``key``, or, without ``behind``, before it; whether there is such a
    row does not matter. ``key`` has one value for each sort key (``None`` for a missing one), then
    the id.
    """

    key: tuple[Any, ...]
    behind: bool = True


def page_length(text: str, most: int) -> int:
    """Return what ``_count`` asks for, lowered to ``most``. Raises ``value`` for no number."""
    if not (text.isascii() and text.isdigit() and len(text) <= _COUNT_DIGITS_MAX):
        raise invalid_value("_count", text, "a whole number of entries, 0 or more")
    return min(int(text), most)


def digest(type: str, understood: Sequence[tuple[str, str]]) -> str:
    """Return what tells one search from another; a cursor of one is no cursor of the other.

    Explained or not, it is the same search.
    """
    asked = [pair for pair in understood if pair[0] != EXPLAIN]
    return sha256(msgspec.json.encode([type, asked])).hexdigest()


@lru_cache(maxsize=_ASKERS_MAX)
def bound_key(key: bytes, asker: str) -> bytes:
    """Return the key of the links that are given to ``asker``, made of that of the server. Without
    an asker, or a key, it is ``key``."""
    return hmac.digest(key, b"links of " + asker.encode(), "sha256") if key and asker else key


def cursor(values: tuple[Any, ...], subject: str, key: bytes) -> str:
    """Return the text for ``values``, one per sort key and then the id.

    ``subject`` is the question that it belongs to, such as the :func:`digest` of a search; ``key``
    is the secret of this server. Values are
    ``str``, ``int``, ``float``, ``Decimal``, aware ``datetime`` and ``None``.
    """
    text = msgspec.json.encode([_written(value) for value in values])
    return _sealed(text, subject, key)


def values_of(text: str, subject: str, key: bytes) -> tuple[Any, ...]:
    """Return the values of a cursor.

    Raises ``value`` for one that was not written for ``subject``, and for any without a ``key``.
    """
    written = _opened(text, subject, key, CURSOR_CHARACTERS_MAX)
    return tuple(
        _READERS[kind](value) if kind else None for kind, value in msgspec.json.decode(written)
    )


def packed(parameters: Sequence[tuple[str, str]], place: str, key: bytes) -> str:
    """Return the text for the ``parameters`` of a search at ``place``, such as ``Patient``.

    ``""`` where there are too many of them, or no ``key``.
    """
    text = msgspec.json.encode(parameters)
    if not key or len(text) > PACKED_BYTES_MAX:
        return ""
    return _sealed(zlib.compress(text, 9), _packed_subject(place), key)


def unpacked(text: str, place: str, key: bytes) -> tuple[tuple[str, str], ...]:
    """Return the parameters that were packed. Raises ``value`` for what was not packed here for a
    search at ``place``."""
    small = _opened(text, _packed_subject(place), key, 2 * PACKED_BYTES_MAX)
    unpacking = zlib.decompressobj()
    whole = unpacking.decompress(small, PACKED_BYTES_MAX)
    if unpacking.unconsumed_tail:
        raise foreign_link()
    return msgspec.json.decode(whole, type=tuple[tuple[str, str], ...])


def _packed_subject(place: str) -> str:
    return f"{place} parameters"


def _sealed(text: bytes, subject: str, key: bytes) -> str:
    """Return ``text`` as only who has ``key`` reads it, for ``subject`` and nothing else."""
    about, (nonces, seal) = _about(subject), _parts(key)
    nonce = hmac.digest(nonces, about + text, "sha256")[:NONCE_BYTES]
    sealed = seal.encrypt(nonce, text, about)
    return urlsafe_b64encode(nonce + sealed).rstrip(b"=").decode()


def _opened(text: str, subject: str, key: bytes, characters_max: int) -> bytes:
    """Return what is in ``text``, if it was sealed with ``key`` for ``subject``."""
    if not key or len(text) > characters_max or not text.isascii():
        raise foreign_link()
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        nonce, sealed = raw[:NONCE_BYTES], raw[NONCE_BYTES:]
        return _parts(key)[1].decrypt(nonce, sealed, _about(subject))
    except (ValueError, InvalidTag) as error:
        raise foreign_link() from error


def _about(subject: str) -> bytes:
    return f"page of {subject}\x00".encode()


@lru_cache(maxsize=_ASKERS_MAX)
def _parts(key: bytes) -> tuple[bytes, AESGCM]:
    """Return what makes nonces and what seals, by ``key``: 25 µs that an asker has once."""
    return hmac.digest(key, b"nonce", "sha256"), AESGCM(hmac.digest(key, b"seal", "sha256"))


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


def foreign_link() -> FhirError:
    """Return the refusal of a page link that was not made here, or not for this search."""
    return FhirError(
        Issue(
            "value",
            "The page link does not belong here. Start again from the first page.",
        )
    )
