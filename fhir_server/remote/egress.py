"""The one way out for HTTP: whatever this server calls, it calls through here.

design/security.md, section 5. An origin that the operator has set is called as it is, wherever it
is. Any other URL, such as one that a client has registered, is called by https only, and only at
public addresses: its name is resolved once, each address is judged, and the connection goes to an
address that was judged, with the name in SNI, in the certificate and in Host. A name that has
another address a moment later gains nothing by it. Redirects are never followed.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import lru_cache
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import httpcore
import httpx

from fhir_server.security.addresses import host_fault, is_public, origin_of

BYTES_MAX = 1_048_576
"""What an answer of an origin has at most that the operator has not set."""
SECONDS_MAX = 10.0
"""How long it may take in all."""
_KEPT_OPEN_S = 30.0

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""A host and a port -> its addresses. Raises ``OSError``."""


class Barred(httpx.RequestError):
    """This is not called; the text says why, and has nothing of the URL."""


async def resolved(host: str, port: int) -> Sequence[str]:
    """Return the addresses of ``host``, as this machine knows them. Raises ``OSError``."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """Return whose certificates are believed; to read them takes 30 ms."""
    return httpx.create_ssl_context(trust_env=False)


class _Judging(httpcore.AsyncNetworkBackend):
    """Connects to addresses that are public, and to no others."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore names it so
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of ``host`` that answers, if all of them are public."""
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError("its name is not known") from error
        if not addresses or not all(map(is_public, addresses)):
            raise httpcore.ConnectError("it is not on the public Internet")
        failed: Exception | None = None
        for address in addresses:
            try:
                return await self._inner.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
        raise failed or httpcore.ConnectError("it does not answer")

    async def sleep(self, seconds: float) -> None:
        """Wait, between tries."""
        await asyncio.sleep(seconds)


class _JudgedTransport(httpx.AsyncHTTPTransport):
    """Calls what is public, by https."""

    def __init__(self, limits: httpx.Limits, resolve: Resolve) -> None:
        super().__init__(verify=_tls(), trust_env=False, limits=limits)
        # httpx has no argument for it: the pool is made again, with connections of ours.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=_tls(),
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=_Judging(resolve),
        )


class _Bounded(httpx.AsyncByteStream):
    """The body of an answer, up to a size and a time."""

    def __init__(self, stream: httpx.AsyncByteStream, until: float) -> None:
        self._stream = stream
        self._until = until

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for piece in self._stream:
            size += len(piece)
            if size > BYTES_MAX:
                raise Barred(f"its answer is over {BYTES_MAX:,} bytes")
            if time.monotonic() > self._until:
                raise Barred(f"its answer took more than {SECONDS_MAX:g} s")
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


class Egress(httpx.AsyncBaseTransport):
    """Calls the origins of ``listed`` as they are, and others under the rules of this page."""

    def __init__(
        self, listed: Iterable[str], limits: httpx.Limits, resolve: Resolve = resolved
    ) -> None:
        """Open nothing before the first call. ``listed`` are URLs of which the origin counts."""
        self._listed = frozenset(filter(None, map(origin_of, listed)))
        self._open = httpx.AsyncHTTPTransport(verify=_tls(), trust_env=False, limits=limits)
        self._judged = _JudgedTransport(limits, resolve)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send ``request``. Raises :class:`Barred`, and what httpx raises."""
        url = request.url
        if url.userinfo:
            raise Barred("its URL has a user", request=request)
        host = url.raw_host.decode("ascii").strip("[]")
        if fault := host_fault(host):
            raise Barred(fault, request=request)
        if origin_of(str(url)) in self._listed:
            return await self._open.handle_async_request(request)
        if url.scheme != "https":
            raise Barred("it is not called by https", request=request)
        until = time.monotonic() + SECONDS_MAX
        patience = dict.fromkeys(("connect", "read", "write", "pool"), SECONDS_MAX)
        request.extensions = {**request.extensions, "timeout": patience}
        try:
            async with asyncio.timeout(SECONDS_MAX):
                answer = await self._judged.handle_async_request(request)
        except TimeoutError as error:
            raise Barred(f"it took more than {SECONDS_MAX:g} s", request=request) from error
        assert isinstance(answer.stream, httpx.AsyncByteStream)
        answer.stream = _Bounded(answer.stream, until)
        return answer

    async def aclose(self) -> None:
        """Close all connections."""
        await self._open.aclose()
        await self._judged.aclose()


def outgoing(
    listed: Iterable[str] = (), *, at_once: int = 32, resolve: Resolve = resolved
) -> httpx.AsyncClient:
    """Return an HTTP client behind :class:`Egress`: no redirect, no cookie, no proxy of the
    environment. Time is bounded by who calls; what is not ``listed``, here as well."""
    limits = httpx.Limits(max_connections=at_once, keepalive_expiry=_KEPT_OPEN_S)
    made = httpx.AsyncClient(
        transport=Egress(listed, limits, resolve),
        follow_redirects=False,
        trust_env=False,
        timeout=None,
    )
    made.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    return made
