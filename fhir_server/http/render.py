"""Response -> status, headers and bytes. Pure.

https://hl7.org/fhir/R4/http.html#general
"""

import gzip
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache

from fhir_server.http.protection import ALWAYS
from fhir_server.messages import Response
from fhir_server.r4.json import decode_stored, pretty
from fhir_server.r4.xml import Xml

Headers = list[tuple[bytes, bytes]]

# A browser shows XML as a document, with whatever XHTML is in it.
_INERT_XML = (b"content-security-policy", b"sandbox; default-src 'none'; frame-ancestors 'none'")
_WITHOUT_BODY = (204, 304)
_GZIP_LEVEL = 1  # three quarters of the saving for a third of the time
_PACKED_BYTES_MAX = 2_097_152
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def http_date(moment: datetime) -> bytes:
    """Return ``moment`` as headers have it. https://www.rfc-editor.org/rfc/rfc9110#section-5.6.7

    Every read says one; by the standard library it took five times as long.

    >>> http_date(datetime(2026, 11, 23, 9, 5, tzinfo=UTC))
    b'Mon, 23 Nov 2026 09:05:00 GMT'
    """
    at = moment.astimezone(UTC)
    return b"%b %02d:%02d:%02d GMT" % (_day(at.toordinal()), at.hour, at.minute, at.second)


@lru_cache(maxsize=4096)
def _day(ordinal: int) -> bytes:
    at = date.fromordinal(ordinal)
    text = f"{_DAYS[at.weekday()]}, {at.day:02} {_MONTHS[at.month - 1]} {at.year:04}"
    return text.encode()


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
        headers.append((b"last-modified", http_date(response.last_updated)))
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
        is_kept = _is_for_all(headers[0][1]) and len(body) <= _PACKED_BYTES_MAX
        body = _packed(body) if is_kept else gzip.compress(body, _GZIP_LEVEL, mtime=0)
        headers.append((b"content-encoding", b"gzip"))
    headers.append((b"content-length", b"%d" % len(body)))
    return headers, body


def _is_for_all(cache_control: bytes) -> bool:
    """Whether anybody may read an answer: everything else says that it is not to be stored."""
    return cache_control == b"no-cache" or cache_control.startswith(b"public")


@lru_cache(maxsize=16)
def _packed(body: bytes) -> bytes:
    """Return what anybody may read, such as the CapabilityStatement, packed once: it took 2.4 ms.

    Python keeps the hash of ``body``, which is the same object each time.
    """
    return gzip.compress(body, _GZIP_LEVEL, mtime=0)
