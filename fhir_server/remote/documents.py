"""One JSON document from another server, by GET or by a form that is sent: with what its
Cache-Control says.

Within limits, and by what ``fetching`` opens: without redirects, cookies or proxies.
"""

import asyncio
from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from ssl import SSLError
from urllib.parse import quote_plus

import httpx

from fhir_server.remote.fetching import Fetcher, Unfetched, fetching

BYTES_MAX = 65_536
TIMEOUT_S = 5.0
Open = Callable[[], AbstractAsyncContextManager[Fetcher]]
"""Opens what asks other servers."""
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}


def listed(*urls: str) -> Open:
    """Return what opens a way to the origins of ``urls``, which the operator has set, wherever they
    are; others are public and asked by https."""
    return partial(fetching, [url for url in urls if url])


async def document(url: str, open: Open = fetching) -> tuple[bytes, str]:
    """Return what ``url`` answers with 200 and its Cache-Control. Raises :class:`Unfetched`."""
    return await _answered("GET", url, _HEADERS, None, open)


async def posted(
    url: str, form: Mapping[str, str], basic: tuple[str, str], open: Open = fetching
) -> bytes:
    """Return what ``url`` answers to ``form``, sent as the client whose id and secret ``basic``
    are. Raises :class:`Unfetched`."""
    said = b64encode(":".join(quote_plus(one) for one in basic).encode()).decode()
    headers = {**_HEADERS, "Authorization": f"Basic {said}"}
    found, _ = await _answered("POST", url, headers, form, open)
    return found


async def _answered(
    method: str,
    url: str,
    headers: Mapping[str, str],
    form: Mapping[str, str] | None,
    open: Open,
) -> tuple[bytes, str]:
    try:
        # So seldom that no connection is kept for it.
        async with asyncio.timeout(TIMEOUT_S), open() as once:
            request = once.http.build_request(method, url, headers=headers, data=form)
            answer = await once.http.send(request, stream=True)
            try:
                return await _body(answer), answer.headers.get("cache-control", "")
            finally:
                await answer.aclose()
    except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, SSLError, ValueError) as error:
        raise Unfetched("it did not answer in time, or not by HTTP") from error


async def _body(answer: httpx.Response) -> bytes:
    if answer.status_code != 200:
        raise Unfetched(f"it answered with {answer.status_code}")
    if answer.headers.get("content-encoding", "identity").lower() != "identity":
        raise Unfetched("its answer is compressed")
    found = bytearray()
    async for piece in answer.aiter_raw(BYTES_MAX):
        found += piece
        if len(found) > BYTES_MAX:
            raise Unfetched(f"its answer is over {BYTES_MAX:,} bytes")
    return bytes(found)
