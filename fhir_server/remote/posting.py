"""A message to another server by HTTP, such as to an SMS gateway: where the settings say, and no
further.

What is sent is made by who calls; URL and headers come from a site's files. The way out is that of
``egress.py``: no redirect, no cookie, no proxy.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ssl import SSLError

import httpx

from fhir_server.remote.egress import Barred, outgoing

BYTES_MAX = 65_536
"""What is read of an answer."""
AT_ONCE = 32


class Unposted(Exception):
    """There is no answer; the text says why, and has nothing of URL, headers or body."""


@dataclass(frozen=True, slots=True)
class Posted:
    """The answer: its status, and the beginning of its body."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Poster:
    """Calls other servers."""

    http: httpx.AsyncClient

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        timeout_s: float,
        query: Mapping[str, str] | None = None,
    ) -> Posted:
        """Return what ``url`` answers within ``timeout_s``. ``query`` is added to it, encoded.

        Raises :class:`Unposted` where there is no answer.
        """
        try:
            async with asyncio.timeout(timeout_s):
                request = self.http.build_request(
                    *(method, url), headers=headers, content=body, params=query or None
                )
                answer = await self.http.send(request, stream=True)
                try:
                    found = bytearray()
                    async for piece in answer.aiter_raw(BYTES_MAX):
                        found += piece
                        if len(found) >= BYTES_MAX:
                            break
                    return Posted(answer.status_code, bytes(found[:BYTES_MAX]))
                finally:
                    await answer.aclose()
        except Barred as error:
            raise Unposted(str(error)) from None
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, SSLError, ValueError):
            # Not "from" it: its text has the URL, which may carry a secret.
            raise Unposted("it did not answer in time, or not by HTTP") from None


@asynccontextmanager
async def posting(listed: Iterable[str]) -> AsyncIterator[Poster]:
    """Open what calls the origins of ``listed``, URLs that the operator has set."""
    async with outgoing(listed, at_once=AT_ONCE) as http:
        yield Poster(http)
