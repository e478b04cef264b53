"""One JSON document from another server: within limits, without redirects, cookies or proxies.

Which URLs are asked is said by a site's files; a token goes to the URL that is asked, and nowhere
else.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ssl import SSLError

import httpx

from fhir_server.remote.egress import Barred, outgoing

AT_ONCE = 32
_PIECE = 16_384


class Unfetched(Exception):
    """There is no document; the text says why, and has nothing of the URL, token or answer."""


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Asks other servers."""

    http: httpx.AsyncClient

    async def get(self, url: str, *, bytes_max: int, timeout_s: float, token: str = "") -> bytes:
        """Return what ``url`` answers with 200, at most ``bytes_max``, within ``timeout_s``.

        ``token`` is sent as a bearer token. Raises :class:`Unfetched` for everything else: another
        status, a redirect too; more bytes; an answer that is compressed, since its size is unknown.
        """
        headers = {
            "Accept": "application/json, application/fhir+json",
            "Accept-Encoding": "identity",
        }
        if token:
            headers["Authorization"] = f"Bearer {token}"
        try:
            async with asyncio.timeout(max(timeout_s, 0.001)):
                return await self._got(url, headers, bytes_max)
        except Barred as error:
            raise Unfetched(str(error)) from error
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, SSLError, ValueError) as error:
            raise Unfetched("it did not answer in time, or not by HTTP") from error

    async def _got(self, url: str, headers: dict[str, str], bytes_max: int) -> bytes:
        answer = await self.http.send(
            self.http.build_request("GET", url, headers=headers), stream=True
        )
        try:
            if answer.status_code != 200:
                raise Unfetched(f"it answered with {answer.status_code}")
            if answer.headers.get("content-encoding", "identity").lower() != "identity":
                raise Unfetched("its answer is compressed")
            found = bytearray()
            async for piece in answer.aiter_raw(_PIECE):
                found += piece
                if len(found) > bytes_max:
                    raise Unfetched(f"its answer is over {bytes_max:,} bytes")
            return bytes(found)
        finally:
            await answer.aclose()


@asynccontextmanager
async def fetching(listed: Iterable[str] = ()) -> AsyncIterator[Fetcher]:
    """Open what asks other servers. The origins of ``listed``, URLs that the operator has set, may
    be anywhere; others are public and asked by https (remote/egress.py)."""
    async with outgoing(listed, at_once=AT_ONCE) as http:
        yield Fetcher(http)
