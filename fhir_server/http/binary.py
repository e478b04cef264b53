"""Binary by its own content type, between HTTP and the front door.

https://hl7.org/fhir/R4/binary.html#rest

What is stored is somebody's file. It is served from the origin of the API, so nothing of it may run
there: a browser is told to guess no type, to run nothing, and to save what is not known as inert.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import re2 as re

from fhir_server.http.negotiate import names_fhir
from fhir_server.http.render import Headers, Rendering, render
from fhir_server.messages import Parameters, Pieces, Request, Resource, Response
from fhir_server.outcome import FhirError, Issue, invalid_value, operation_outcome, shown
from fhir_server.r4.json import decode_stored, encode
from fhir_server.r4.subsets import whole

BINARY = "Binary"
_BEGINS = b'{"resourceType":"Binary"'
_WRITTEN_NATIVELY = ("create", "update", "conditional-update")
_PLACE = re.compile(r"/Binary/[A-Za-z0-9][^/]*(?:/_history/[^/]+)?/?")
_OVERRIDING = ("_format", "_summary", "_elements")  # who asks for these asks for the resource

_TOKEN = r"[A-Za-z0-9!#$&^_.+\-]{1,127}"
_MEDIA_TYPE = re.compile(
    rf'{_TOKEN}/{_TOKEN}(?:[ \t]*;[ \t]*{_TOKEN}=(?:[!#-+\--:<-~]+|"[ !#-\[\]-~]*"))*'
)
_MEDIA_TYPE_CHARACTERS_MAX = 400
_ANYTHING = "application/octet-stream"
_INERT = re.compile(
    r"text/plain|application/pdf|application/dicom|audio/[a-z0-9.+\-]+|video/[a-z0-9.+\-]+"
    r"|image/(?:png|jpeg|gif|webp|bmp|tiff|avif|heic)"
)
_REFERENCE = re.compile(r"[!-~]{1,1000}")
_RANGE = re.compile(r"bytes=([0-9]{0,15})-([0-9]{0,15})")
_NEVER_RUN = [
    (b"content-security-policy", b"sandbox; default-src 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


def asked_natively(method: str, path: str, headers: Mapping[bytes, bytes]) -> bool:
    """Whether the bytes of a Binary are wanted, by ``path`` below the base and Accept.

    Only an Accept that names a FHIR type asks for the resource: ``application/json`` does not.
    """
    if method not in ("GET", "HEAD") or not path.startswith("/Binary/"):
        return False
    return bool(_PLACE.fullmatch(path)) and not names_fhir(headers)


def called_natively(
    path: str, headers: Mapping[bytes, bytes], is_native: Callable[[str], bool]
) -> bool:
    """Whether an operation is called whose Binary is sent as its bytes, and those are wanted."""
    name = path.rpartition("/")[2]
    return name.startswith("$") and is_native(name) and not names_fhir(headers)


def is_one(response: Response) -> bool:
    """Whether an operation has answered with a Binary."""
    return response.status == 200 and response.body.startswith(_BEGINS)


def with_data(resource: Resource, data: bytes) -> Resource:
    """Return a Binary with ``data``, for an operation that takes it by its own content type."""
    return {**resource, "data": b64encode(data).decode()}


def still_native(parameters: Parameters, wish: Rendering) -> bool:
    """Whether no parameter asks for the resource after all."""
    return not any(name in _OVERRIDING for name, _ in (*parameters, *wish.format))


def takes_natively(request: Request) -> bool:
    """Whether ``request`` writes a Binary, whose body may be of any type."""
    return request.type == BINARY and request.interaction in _WRITTEN_NATIVELY


def described(request: Request, headers: Mapping[bytes, bytes]) -> Resource:
    """Return the Binary that the body by its own content type becomes, without its data.

    Raises status 415 for a Content-Type that is none, ``value`` for an X-Security-Context that
    is no reference.
    """
    said = headers.get(b"content-type", b"").decode("latin-1").strip()
    if len(said) > _MEDIA_TYPE_CHARACTERS_MAX or not _MEDIA_TYPE.fullmatch(said) or "*" in said:
        text = f"Content-Type {shown(said)} is no media type; send one such as application/pdf."
        raise FhirError(Issue("not-supported", text), status=415)
    resource: Resource = {"resourceType": BINARY}
    if request.id:
        resource["id"] = request.id
    resource["contentType"] = " ".join(said.split())
    context = headers.get(b"x-security-context")
    if context is not None:
        reference = context.decode("latin-1")
        if not _REFERENCE.fullmatch(reference):
            raise invalid_value("X-Security-Context", reference, "a reference such as Patient/1")
        resource["securityContext"] = {"reference": reference}
    return resource


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An answer as it is sent: ``body``, or the ``pieces`` of it; ``size`` bytes in all."""

    response: Response
    headers: Headers
    body: bytes
    size: int
    pieces: Pieces | None = None


def outgoing(response: Response, wish: Rendering, headers: Mapping[bytes, bytes]) -> Outgoing:
    """Return the answer to a read of a Binary: its bytes, or the resource with all its data."""
    if response.status == 200 and wish.native:
        return _native(response, wish, headers)
    if response.status == 200 and response.pieces is not None and response.content is not None:
        return _resource(response, wish)
    rendered, body = render(response, wish)
    return Outgoing(response, rendered, body, len(body))


def _native(response: Response, wish: Rendering, headers: Mapping[bytes, bytes]) -> Outgoing:
    resource = decode_stored(response.body)
    data = b"" if response.content else b64decode(resource.get("data", ""))
    size = response.content.size if response.content else len(data)
    first, end = 0, size
    if (wanted := _range(headers, size)) is not None:
        first, end = wanted
        if first >= end:
            return _unsatisfiable(size, wish)
        response = replace(response, status=206)
    rendered, _ = render(replace(response, body=b""), replace(wish, gzip=False))
    kept = [one for one in rendered if one[0] != b"content-length"]
    kept += [*_described(resource), *_NEVER_RUN, (b"accept-ranges", b"bytes")]
    kept.append((b"content-length", b"%d" % (end - first)))
    if wanted is not None:
        kept.append((b"content-range", b"bytes %d-%d/%d" % (first, end - 1, size)))
    if response.pieces is not None:
        return Outgoing(response, kept, b"", end - first, response.pieces(first, end))
    return Outgoing(response, kept, data[first:end], end - first)


def _described(resource: Resource) -> Headers:
    """Return the headers that say what the bytes are. What a client has written as contentType may
    be no media type at all, and is then not sent as one."""
    said = resource.get("contentType", "")
    type = said if _MEDIA_TYPE.fullmatch(said) else _ANYTHING
    headers = [(b"content-type", type.encode("ascii"))]
    if not _INERT.fullmatch(type.partition(";")[0].strip().lower()):
        headers.append((b"content-disposition", b"attachment"))
    context = resource.get("securityContext", {}).get("reference", "")
    if _REFERENCE.fullmatch(context):
        headers.append((b"x-security-context", context.encode("ascii")))
    return headers


def _range(headers: Mapping[bytes, bytes], size: int) -> tuple[int, int] | None:
    """Return the one range that is wanted, from a place to before another; ``None`` for all.

    Empty where there is no such byte. Several ranges, and If-Range, which our weak tags never
    satisfy, are answered with all (RFC 9110, 13.1.5 and 14.2).
    """
    found = _RANGE.fullmatch(headers.get(b"range", b"").decode("latin-1").strip())
    if found is None or b"if-range" in headers:
        return None
    first, last = found.groups()
    if not first:
        return (max(0, size - int(last)), size) if last else None
    if last and int(last) < int(first):
        return None
    return int(first), min(size, int(last) + 1) if last else size


def _unsatisfiable(size: int, wish: Rendering) -> Outgoing:
    outcome = operation_outcome([Issue("value", f"The content has {size:,} bytes; none of these.")])
    headers = (("Content-Range", f"bytes */{size}"),)
    response = Response(416, encode(outcome), headers=headers)
    rendered, body = render(response, wish)
    return Outgoing(response, rendered, body, len(body))


def _resource(response: Response, wish: Rendering) -> Outgoing:
    """Return the resource with its data put in on the way: in JSON and in XML it is the last."""
    assert response.content is not None
    assert response.pieces is not None
    text = encode(whole(decode_stored(response.body)))
    headers, body = render(replace(response, body=text), replace(wish, gzip=False))
    closing, opened, closed = (
        (b"</Binary>", b'<data value="', b'"/>') if wish.xml else (b"}", b',"data":"', b'"')
    )
    place = body.rindex(closing)
    head, tail = body[:place] + opened, closed + body[place:]
    size = len(head) + (response.content.size + 2) // 3 * 4 + len(tail)
    kept = [one for one in headers if one[0] != b"content-length"]
    kept.append((b"content-length", b"%d" % size))
    pieces = _enclosed(head, response.pieces(0, response.content.size), tail)
    return Outgoing(response, kept, b"", size, pieces)


async def _enclosed(head: bytes, pieces: Pieces, tail: bytes) -> Pieces:
    yield head
    left = b""
    async for piece in pieces:
        held = left + piece
        cut = len(held) // 3 * 3
        left = held[cut:]
        yield b64encode(held[:cut])
    yield b64encode(left) + tail


async def once(text: bytes) -> Pieces:
    """Yield ``text``, which is there already."""
    yield text
