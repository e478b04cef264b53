"""Bundles put together from resources that are text already: nothing is decoded or encoded twice.

https://hl7.org/fhir/R4/bundle.html
"""

from collections.abc import Callable, Sequence
from typing import Any

from fhir_server.r4.json import encode

Links = Sequence[tuple[str, str]]
"""``(relation, url)``, such as ``("next", "http://…")``."""


def bundle(
    type: str, entries: Sequence[bytes], *, links: Links = (), total: int | None = None
) -> bytes:
    """Return the Bundle of ``type`` with ``entries``, which :func:`entry` made."""
    head: dict[str, Any] = {"resourceType": "Bundle", "type": type}
    if total is not None:
        head["total"] = total
    if links:
        head["link"] = [{"relation": relation, "url": url} for relation, url in links]
    text = encode(head)
    # An empty array is not allowed in FHIR, so a Bundle without entries has no such member.
    return text[:-1] + b',"entry":[' + b",".join(entries) + b"]}" if entries else text


def entry(full_url: str, resource: bytes, **members: Any) -> bytes:
    """Return a Bundle entry. ``resource`` is JSON or empty; ``members`` are ``search``, … ."""
    parts = []
    if full_url:
        parts.append(b'"fullUrl":' + encode(full_url))
    if resource:
        parts.append(b'"resource":' + resource)
    parts += [b'"' + name.encode() + b'":' + encode(value) for name, value in members.items()]
    return b"{" + b",".join(parts) + b"}"


def framing(base_url: str, **members: Any) -> Callable[[str, str, bytes], bytes]:
    """Return what makes the entry of a resource at ``base_url`` of its type, its id and its JSON:
    the same as :func:`entry`, for many that have the same ``members``."""
    before = b'{"fullUrl":' + encode(f"{base_url}/")[:-1]
    after = entry("", b"", **members)[1:]

    def framed(type: str, id: str, resource: bytes) -> bytes:
        # Neither a type nor an id has a character that JSON escapes.
        return b'%b%b","resource":%b,%b' % (before, f"{type}/{id}".encode(), resource, after)

    return framed
