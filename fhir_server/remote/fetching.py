"""One JSON document from another server: within limits, without redirects, cookies or proxies.

Which URLs are asked is said by a site's files; a token goes to the URL that is asked, and nowhere
else.
"""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from ssl import SSLError
from urllib.parse import quote_plus

import httpx

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
        found, _ = await self._within(url, headers, bytes_max, timeout_s)
        return found

    async def document(self, url: str, *, bytes_max: int, timeout_s: float) -> tuple[bytes, str]:
        """Like :meth:`get`, with what the answer's Cache-Control says."""
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        return await self._within(url, headers, bytes_max, timeout_s)

    async def posted(
        self,
        url: str,
        form: Mapping[str, str],
        basic: tuple[str, str],
        *,
        bytes_max: int,
        timeout_s: float,
    ) -> bytes:
        """Return what ``url`` answers to ``form``, sent as the client whose id and secret ``basic``
        are; else as :meth:`get`."""
        said = b64encode(":".join(quote_plus(one) for one in basic).encode()).decode()
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Authorization": f"Basic {said}",
        }
        found, _ = await self._within(url, headers, bytes_max, timeout_s, form)
        return found

    async def _within(
        self,
        url: str,
        headers: dict[str, str],
        bytes_max: int,
        timeout_s: float,
        form: Mapping[str, str] | None = None,
    ) -> tuple[bytes, str]:
        try:
            async with asyncio.timeout(max(timeout_s, 0.001)):
                return await self._got(url, headers, bytes_max, form)
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, SSLError, ValueError) as error:
            raise Unfetched("it did not answer in time, or not by HTTP") from error

    async def _got(
        self, url: str, headers: dict[str, str], bytes_max: int, form: Mapping[str, str] | None
    ) -> tuple[bytes, str]:
        method = "GET" if form is None else "POST"
        answer = await self.http.send(
            self.http.build_request(method, url, headers=headers, data=form), stream=True
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
            return bytes(found), answer.headers.get("cache-control", "")
        finally:
            await answer.aclose()


@asynccontextmanager
async def fetching() -> AsyncIterator[Fetcher]:
    """Open what asks other servers."""
    async with httpx.AsyncClient(
        follow_redirects=False,
        trust_env=False,
        timeout=None,  # one bound around the whole request takes its place
        limits=httpx.Limits(max_connections=AT_ONCE, keepalive_expiry=30.0),
    ) as http:
        http.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        yield Fetcher(http)
