"""Uvicorn's server, on sockets that several processes share; it can go without cutting anybody.

Uvicorn takes all who wait for a connection at once: of 64 that came together one of two processes
had 61. Here one is taken at a time, so that others who are free take the next.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Sequence
from types import FrameType
from typing import cast

import uvicorn

from fhir_server.http.protocol import BoundedProtocol
from fhir_server.listening import listen

_BACKLOG = 2048  # who waits for a connection; more the system refuses
_FULL_S = 0.5  # until another is taken, where there are no more file descriptors
_HANDSHAKE_S = 10.0
_LOOK_S = 0.05


class AcceptingServer(uvicorn.Server):
    """Answers on ``listeners``, bound sockets that it shares with other processes.

    ``on_started`` is called when it takes connections. After :meth:`retire` it takes no more, has
    every answer say that its connection ends, and ends when all have.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        listeners: Sequence[socket.socket],
        on_started: Callable[[], None] = lambda: None,
    ) -> None:
        """Take no connection yet."""
        super().__init__(config)
        self._listeners = listeners
        self._on_started = on_started
        self._arriving: set[asyncio.Task[None]] = set()
        self._is_retiring = False

    def retire(self) -> None:
        """End without cutting anybody: others take who comes."""
        self._is_retiring = self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End now, also where this goes already: who is idle is not waited for any more."""
        self._is_retiring = False
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take connections."""
        await super().startup(sockets=[])
        for one in self._listeners:
            one.setblocking(False)
            listen(one, _BACKLOG)
            asyncio.get_running_loop().add_reader(one, self._take, one)
        self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, and wait until the answers are sent: in all no longer than
        ``timeout_graceful_shutdown``, or than who is idle keeps a connection."""
        loop = asyncio.get_running_loop()
        patience_s = self.config.timeout_graceful_shutdown or 0
        end = loop.time() + patience_s
        for one in self._listeners:
            loop.remove_reader(one)
            one.close()
        if self._arriving:
            await asyncio.wait(self._arriving, timeout=min(_HANDSHAKE_S, patience_s))
            for task in self._arriving:
                task.cancel()
        if self._is_retiring:
            end = max(end, loop.time() + self.config.timeout_keep_alive + 1)
            await self._retired(end)
        self.config.timeout_graceful_shutdown = max(1, int(end - loop.time()))
        await super().shutdown()

    async def _retired(self, end: float) -> None:
        """Wait until who has a connection was told that it ends, and those ended that are idle."""
        for one in self.server_state.connections:
            cast(BoundedProtocol, one).retire(self.config.timeout_keep_alive)
        while (
            self.server_state.connections
            and self._is_retiring
            and asyncio.get_running_loop().time() < end
        ):
            await asyncio.sleep(_LOOK_S)

    def _take(self, listener: socket.socket) -> None:
        """Take one connection, if another process has not."""
        loop = asyncio.get_running_loop()
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError:  # no more file descriptors, or no memory: soon there may be
            loop.remove_reader(listener)
            loop.call_later(_FULL_S, self._take_again, listener)
            return
        connection.setblocking(False)
        with contextlib.suppress(OSError):  # closed again already
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = loop.create_task(self._connected(connection))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    def _take_again(self, listener: socket.socket) -> None:
        if not self.should_exit:
            asyncio.get_running_loop().add_reader(listener, self._take, listener)

    async def _connected(self, connection: socket.socket) -> None:
        """Have uvicorn's protocol read from ``connection``; TLS first, where it is on."""
        tls = self.config.ssl
        with contextlib.suppress(
            OSError, ssl.SSLError, TimeoutError
        ):  # who connects has gone, or speaks no TLS
            await asyncio.get_running_loop().connect_accepted_socket(
                self._protocol,
                connection,
                ssl=tls,
                ssl_handshake_timeout=_HANDSHAKE_S if tls else None,
            )

    def _protocol(self) -> asyncio.Protocol:
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made
