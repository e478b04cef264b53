"""Which pages of other origins may call this server from a browser, and the answers to preflights.

https://fetch.spec.whatwg.org/#http-cors-protocol. Without credentials: a token goes in a header.
"""

from collections.abc import Collection, Iterable
from typing import Any

_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
_HEADERS = (
    b"Accept, Authorization, Content-Type, If-Match, If-None-Match, If-None-Exist, "
    b"If-Modified-Since, Prefer, Idempotency-Key, X-Override-Reason, X-Request-Id"
)
_EXPOSED = b"ETag, Last-Modified, Location, Content-Location, X-Request-Id"
_DISCOVERY = ("/metadata", "/.well-known/smart-configuration", "/.well-known/openid-configuration")
_MAX_AGE_S = b"600"

Headers = list[tuple[bytes, bytes]]


def allowed(headers: Iterable[tuple[bytes, bytes]], origins: Collection[str]) -> bytes:
    """Return the origin to allow, ``*``, or nothing where the page may not call."""
    origin = next((value for name, value in headers if name == b"origin"), b"")
    if not origin:
        return b""
    if "*" in origins:
        return b"*"
    return origin if origin.decode("latin-1") in origins else b""


def allowed_here(scope: Any, origins: Collection[str], apps: Collection[str] = ()) -> bytes:
    """Return the same for a request to the FHIR base; ``apps`` are the origins of registered apps.

    What says how to sign in is for every page. ``*`` and ``apps``, which may have registered
    themselves, are of use with a token only: without one they would have any page of the web read
    what the demo user of development reads.
    """
    headers = scope["headers"]
    if scope["path"].endswith(_DISCOVERY):
        return allowed(headers, "*")
    if is_preflight(scope) or any(name == b"authorization" for name, _ in headers):
        return allowed(headers, [*origins, *apps])
    return allowed(headers, [one for one in origins if one != "*"])


def is_preflight(scope: Any) -> bool:
    """Whether a browser asks what it may do."""
    names = {name for name, _ in scope["headers"]}
    return scope["method"] == "OPTIONS" and b"access-control-request-method" in names


async def preflight(origin: bytes, send: Any) -> None:
    """Answer a browser that asks what it may do; nothing is said to an origin that may not."""
    said: Headers = [(b"vary", b"Origin"), (b"content-length", b"0")]
    if origin:
        said += [
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-allow-headers", _HEADERS),
            (b"access-control-max-age", _MAX_AGE_S),
        ]
    await send({"type": "http.response.start", "status": 204, "headers": said})
    await send({"type": "http.response.body", "body": b""})


def with_origin(send: Any, origin: bytes) -> Any:
    """Return ``send`` that lets pages of ``origin`` read the answer."""
    said: Headers = [
        (b"vary", b"Origin"),
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", _EXPOSED),
    ]

    async def sending(event: Any) -> None:
        if event["type"] == "http.response.start":
            event = {**event, "headers": [*event.get("headers", ()), *said]}
        await send(event)

    return sending
