"""A client's own FHIR server: read where the client is registered with it, with its token.

design/cds.md, section 3.2. The token goes to that server only, and is neither kept nor logged.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote, urlsplit

from fhir_server.features.cds.reading import Source, Unread
from fhir_server.outcome import FhirError
from fhir_server.r4.json import decode

BYTES_MAX = 1_048_576
_TOKEN = re.compile(r"[\x21-\x7e]{1,8192}")

Fetch = Callable[[str, str], Awaitable[bytes]]
"""A URL and a token -> what is answered. Raises an exception of ``failures``."""


def other_source(
    base: str, token: str, fetch: Fetch, failures: tuple[type[Exception], ...], depth_max: int
) -> Source | None:
    """Return the FHIR server at ``base``, which a client is registered with.

    ``None`` without a token that can be sent: what nobody may read is not asked for.
    """
    if not _TOKEN.fullmatch(token):
        return None

    async def get(path: str) -> dict[str, Any]:
        url = f"{base}/{path}"
        if not is_below(url, base):
            raise Unread("the link leads elsewhere")
        try:
            document = await fetch(url, token)
        except failures as error:
            raise Unread(str(error)) from error
        try:
            found: Any = decode(document, depth_max=depth_max)
        except FhirError as error:
            raise Unread("its answer is no FHIR") from error
        if not isinstance(found, dict):
            raise Unread("its answer is no resource")
        return found

    return Source(base, get)


def is_below(url: str, base: str) -> bool:
    """Whether ``url`` is a place below ``base``, however it is written: its server says where the
    next page is, and the token goes there."""
    if not url.startswith(f"{base}/") or not url.isascii() or not url.isprintable():
        return False
    parts, own = urlsplit(url), urlsplit(base)
    path = unquote(unquote(parts.path))
    is_odd = " " in url or "\\" in path or parts.fragment or ".." in path.split("/")
    return not is_odd and (parts.scheme, parts.netloc) == (own.scheme, own.netloc)
