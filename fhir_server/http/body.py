"""Reads a request's body within its limit, unpacking gzip within the same limit.

A gzip bomb ends at the limit: no more is unpacked than may be sent plain.
"""

import asyncio
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from fhir_server.outcome import FhirError, Issue, shown, too_large

Receive = Callable[[], Awaitable[Any]]

_GZIP = 16 + zlib.MAX_WBITS
_PIECE_BYTES = 262_144  # of what is unpacked at once
_BYTES_A_SECOND_MIN = 65_536  # a slow line of a clinic; a client that sends a byte a second is none
_RATIO_MAX = 100  # what FHIR is packed to at best is a thirtieth; a bomb is a thousandth
_RATIO_FREE_BYTES = 1_048_576  # so much is no bomb, whatever it was packed to
_GZIP_MEMBERS_MAX = 16  # behind each one the rest of the body is copied


class Disconnected(Exception):
    """The client went away before its body was complete."""


async def read_body(receive: Receive, headers: Mapping[bytes, bytes], bytes_max: int) -> bytes:
    """Return the whole body, unpacked. Raises status 413 beyond ``bytes_max``, 415 for an encoding
    that we do not know, 400 for broken gzip.
    """
    is_packed = _is_packed(headers)
    _check_declared(headers, bytes_max)
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
    return _unpacked(body, bytes_max) if is_packed else body


async def body_pieces(
    receive: Receive, headers: Mapping[bytes, bytes], bytes_max: int, patience_s: float
) -> AsyncIterator[bytes]:
    """Yield the body, unpacked, as it comes: what :func:`read_body` returns, and raises.

    A client may keep us waiting for ``patience_s`` in all, and longer the more it has sent; then
    status 408.
    """
    is_packed = _is_packed(headers)
    _check_declared(headers, bytes_max)
    pieces = _received(receive, patience_s)
    size = 0
    async for piece in _unpacking(pieces) if is_packed else pieces:
        size += len(piece)
        if size > bytes_max:
            raise too_large("The body", bytes_max)
        yield piece


async def _received(receive: Receive, patience_s: float) -> AsyncIterator[bytes]:
    waited = 0.0
    size = 0
    more = True
    while more:
        began = time.monotonic()
        allowed = patience_s + size / _BYTES_A_SECOND_MIN
        try:
            async with asyncio.timeout(allowed - waited):
                message = await receive()
        except TimeoutError as error:
            text = f"The body was not there after {allowed:.0f} s."
            raise FhirError(Issue("timeout", text), status=408) from error
        waited += time.monotonic() - began
        if message["type"] == "http.disconnect":
            raise Disconnected
        chunk = message.get("body", b"")
        size += len(chunk)
        more = message.get("more_body", False)
        if chunk:
            yield chunk


async def _unpacking(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield what the gzip in ``pieces`` holds, some at a time, however much it is."""
    unpacker = zlib.decompressobj(_GZIP)
    members = 1
    packed = size = 0
    async for piece in pieces:
        packed += len(piece)
        while piece:
            if unpacker.eof:
                unpacker, members = zlib.decompressobj(_GZIP), members + 1
                if members > _GZIP_MEMBERS_MAX:
                    raise too_large("The body's gzip", _GZIP_MEMBERS_MAX, "members")
            try:
                part = unpacker.decompress(piece, _PIECE_BYTES)
            except zlib.error as error:
                raise _no_gzip() from error
            size += len(part)
            if size > max(_RATIO_FREE_BYTES, _RATIO_MAX * packed):
                raise _bomb()
            if part:
                yield part
            piece = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
    if not unpacker.eof:
        raise FhirError(Issue("structure", "The body's gzip ends too early."))


def _is_packed(headers: Mapping[bytes, bytes]) -> bool:
    encoding = headers.get(b"content-encoding", b"").decode("latin-1").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):
        raise FhirError(
            Issue("not-supported", f"Content-Encoding {shown(encoding)} is not known; send gzip."),
            status=415,
        )
    return "gzip" in encoding


def _check_declared(headers: Mapping[bytes, bytes], bytes_max: int) -> None:
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > bytes_max:
        raise too_large("The body", bytes_max)


def _no_gzip() -> FhirError:
    return FhirError(Issue("structure", "The body is said to be gzip, but is not."))


def _bomb() -> FhirError:
    return FhirError(Issue("too-long", f"The gzip holds over {_RATIO_MAX} times its own size."))


def _unpacked(body: bytes, bytes_max: int) -> bytes:
    """Return what ``body`` holds. Several members follow each other as one (RFC 1952, 2.2)."""
    parts: list[bytes] = []
    size = 0
    ratio_max = max(_RATIO_FREE_BYTES, _RATIO_MAX * len(body))
    while body or not parts:
        unpacker = zlib.decompressobj(_GZIP)
        try:
            part = unpacker.decompress(body, min(bytes_max, ratio_max) - size + 1)
        except zlib.error as error:
            raise _no_gzip() from error
        size += len(part)
        if size > bytes_max:
            raise too_large("The unpacked body", bytes_max)
        if size > ratio_max:
            raise _bomb()
        if not unpacker.eof:
            raise FhirError(Issue("structure", "The body's gzip ends too early."))
        parts.append(part)
        if len(parts) > _GZIP_MEMBERS_MAX:
            raise too_large("The body's gzip", _GZIP_MEMBERS_MAX, "members")
        body = unpacker.unused_data
    return b"".join(parts)
