"""What features that answer HTTP by themselves read and send.

https://asgi.readthedocs.io/en/latest/specs/www.html: a page, a feed, a service beside FHIR's REST.
"""

from collections.abc import Mapping
from typing import Any

from fhir_server.outcome import FhirError, Issue, too_large
from fhir_server.route import query_parameters

HTML = "text/html; charset=utf-8"
CSS = "text/css; charset=utf-8"

Header = tuple[bytes, bytes]

_QUERY_BYTES_MAX = 500


async def received(receive: Any, bytes_max: int) -> bytes:
    """Return the body of a request. Raises ``too-long`` for one over ``bytes_max``, ``structure``
    where its sender has gone before its end."""
    found = bytearray()
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise FhirError(Issue("structure", "The body is not complete."))
        found += event.get("body", b"")
        if len(found) > bytes_max:
            raise too_large("The body", bytes_max)
        if not event.get("more_body"):
            return bytes(found)


def query_of(scope: Any) -> Mapping[str, str]:
    """Return the parameters of the query of a page, of each the last; nothing of what is none."""
    text = scope.get("query_string", b"")[:_QUERY_BYTES_MAX]
    try:
        return dict(query_parameters(text.decode("ascii")))
    except (FhirError, UnicodeDecodeError):
        return {}


async def sent(
    scope: Any, send: Any, status: int, content_type: str, body: bytes, *more: Header
) -> None:
    """Answer a request with ``body``, of which HEAD gets the length alone, and ``more`` headers."""
    headers = [
        (b"content-type", content_type.encode()),
        (b"content-length", b"%d" % len(body)),
        *more,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
