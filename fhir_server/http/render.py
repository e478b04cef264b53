"""Response -> status, headers and bytes. Pure.

https://hl7.org/fhir/R4/http.html#general
"""

import gzip
from dataclasses import dataclass
from datetime import UTC
from email.utils import format_datetime

from fhir_server.http.protection import ALWAYS
from fhir_server.messages import Response
from fhir_server.r4.json import decode_stored, pretty
from fhir_server.r4.xml import Xml

Headers = list[tuple[bytes, bytes]]

# A browser shows XML as a document, with whatever XHTML is in it.
_INERT_XML = (b"content-security-policy", b"sandbox; default-src 'none'; frame-ancestors 'none'")
_WITHOUT_BODY = (204, 304)
_GZIP_LEVEL = 1  # three quarters of the saving for a third of the time


@dataclass(frozen=True, slots=True)
class Rendering:
    """How the client wants its answer. ``xml`` writes it, where it is to be XML. ``native`` says
    that the bytes of a Binary are wanted and not the resource."""

    content_type: str
    base_url: str
    format: tuple[tuple[str, str], ...] = ()
    pretty: bool = False
    gzip: bool = False
    compress_bytes_min: int = 8192
    xml: Xml | None = None
    native: bool = False


def render(response: Response, wish: Rendering) -> tuple[Headers, bytes]:
    """Return the headers and the body of ``response`` as HTTP sends them."""
    headers = list(ALWAYS)
    if response.version:
        headers.append((b"etag", b'W/"%d"' % response.version))
    if response.last_updated is not None:
        stamp = format_datetime(response.last_updated.astimezone(UTC), usegmt=True)
        headers.append((b"last-modified", stamp.encode()))
    if response.location:
        headers.append((b"location", f"{wish.base_url}/{response.location}".encode()))
    for name, value in response.headers:
        if name == "Cache-Control":  # what anybody may read may stay for a while
            headers[0] = (b"cache-control", value.encode())
        else:
            headers.append((name.lower().encode(), value.encode()))
    if response.status in _WITHOUT_BODY:
        return headers, b""
    body = response.body
    if body and wish.xml is not None:
        body = wish.xml.encode(decode_stored(body), pretty=wish.pretty)
    elif body and wish.pretty:
        body = pretty(body)
    if wish.xml is not None:
        headers.append(_INERT_XML)
    if body:
        headers.append((b"content-type", wish.content_type.encode()))
    if wish.gzip and body and len(body) >= wish.compress_bytes_min:
        body = gzip.compress(body, _GZIP_LEVEL, mtime=0)
        headers.append((b"content-encoding", b"gzip"))
    headers.append((b"content-length", b"%d" % len(body)))
    return headers, body
