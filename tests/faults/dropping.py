"""A proxy on loopback that loses answers: what the server did then nobody is told."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Dropping:
    """Hands on one request for each connection, and of every hundred answers ``lost`` not.

    Those answers have come: what they tell of is committed. Of another ``hasty`` the client is cut
    off before the answer has come, so that it asks again while the server still works.
    """

    to: int
    chance: random.Random
    lost: int = 20
    hasty: int = 5
    port: int = 0
    dropped: int = 0
    cut: int = 0
    _working: set[asyncio.Task[None]] = field(default_factory=set)

    async def _hand_on(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        server, forth = await asyncio.open_connection("127.0.0.1", self.to)
        sending = asyncio.create_task(_copy(client, forth))
        try:
            dice = self.chance.randrange(100)
            if self.lost <= dice < self.lost + self.hasty:
                await asyncio.sleep(self.chance.uniform(0.001, 0.02))
                self.cut += 1
                back.transport.abort()
            answer = await server.read(
                -1
            )  # to its end: the client asks for the connection to close
            if dice < self.lost and answer:
                self.dropped += 1
                back.transport.abort()
            elif not back.is_closing():
                back.write(answer)
                await back.drain()
        finally:
            sending.cancel()
            forth.close()
            back.close()

    async def accept(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        with suppress(OSError):
            await self._hand_on(client, back)

    async def finish(self) -> None:
        """Wait until the server has answered everything, whoever was told."""
        if self._working:
            await asyncio.wait(self._working)


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(65_536):
            target.write(data)
            await target.drain()


@asynccontextmanager
async def dropping(to: int, seed: str) -> AsyncIterator[Dropping]:
    """Give a proxy before the server on port ``to``."""
    proxy = Dropping(to, random.Random(seed))
    listening = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.port = listening.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        listening.close()
        await proxy.finish()
