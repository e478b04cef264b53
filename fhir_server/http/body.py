"""Reads a request's body within its limit, unpacking gzip within the same limit.

A gzip bomb ends at the limit: no more is unpacked than may be sent plain.
"""

import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fhir_server.outcome import FhirError, Issue, shown, too_large

Receive = Callable[[], Awaitable[Any]]

_GZIP = 16 + zlib.MAX_WBITS
_GZIP_MEMBERS_MAX = 16  # behind each one the rest of the body is copied


class Disconnected(Exception):
    """The client went away before its body was complete."""


async def read_body(receive: Receive, headers: Mapping[bytes, bytes], bytes_max: int) -> bytes:
    """Return the whole body, unpacked. Raises status 413 beyond ``bytes_max``, 415 for an encoding
    that we do not know, 400 for broken gzip.
    """
    encoding = headers.get(b"content-encoding", b"").decode("latin-1").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise FhirError(
            Issue("not-supported", f"Content-Encoding {shown(encoding)} is not known; send gzip."),
            status=415,
        )
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > bytes_max:
        raise too_large("The body", bytes_max)
    chunks = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > bytes_max:
            raise too_large("The body", bytes_max)
        chunks.append(chunk)
        more = message.get("more_body", False)
    body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    return _unpacked(body, bytes_max) if "gzip" in encoding else body


def _unpacked(body: bytes, bytes_max: int) -> bytes:
    """Return what ``body`` holds. Several members follow each other as one (RFC 1952, 2.2)."""
    parts: list[bytes] = []
    size = 0
    while body or not parts:
        unpacker = zlib.decompressobj(_GZIP)
        try:
            part = unpacker.decompress(body, bytes_max - size + 1)
        except zlib.error as error:
            raise FhirError(
                Issue("structure", "The body is said to be gzip, but is not.")
            ) from error
        size += len(part)
        if size > bytes_max:
            raise too_large("The unpacked body", bytes_max)
        if not unpacker.eof:
            raise FhirError(Issue("structure", "The body's gzip ends too early."))
        parts.append(part)
        if len(parts) > _GZIP_MEMBERS_MAX:
            raise too_large("The body's gzip", _GZIP_MEMBERS_MAX, "members")
        body = unpacker.unused_data
    return b"".join(parts)
