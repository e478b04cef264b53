"""An answer in pieces, and clients that do not take all of it."""

import asyncio
from typing import Any

import pytest

from fhir_server.http.sending import streamed
from fhir_server.messages import Pieces

REQUEST = {"type": "http.request", "body": b"", "more_body": False}


class Client:
    """Takes pieces; goes away after ``stays_for`` of them; waits ``idle_s`` before each."""

    def __init__(self, stays_for: int = 1000, idle_s: float = 0.0) -> None:
        self.taken: list[bytes] = []
        self._stays_for, self._idle_s = stays_for, idle_s
        self._left = asyncio.Event()
        self._requests = [REQUEST]

    async def send(self, message: Any) -> None:
        """Take one message of an answer."""
        await asyncio.sleep(self._idle_s)
        self.taken.append(message["body"])
        if len(self.taken) == self._stays_for:
            self._left.set()
            await asyncio.sleep(0)  # what waits for the end of the connection hears of it

    async def receive(self) -> Any:
        """Say what comes from the client: the rest of its request, then its end."""
        if self._requests:
            return self._requests.pop()
        await self._left.wait()
        return {"type": "http.disconnect"}


class Source:
    """Pieces, and how many of them were read."""

    def __init__(self, count: int) -> None:
        self.read = 0
        self._count = count

    async def pieces(self) -> Pieces:
        """Yield one after the other."""
        while self.read < self._count:
            self.read += 1
            yield b"x"


async def test_all_of_it_is_sent_to_who_stays() -> None:
    """That the request has a body, read or not, is not taken for its end."""
    client, source = Client(), Source(20)

    assert await streamed(client.send, client.receive, source.pieces()) is True
    assert client.taken == [b"x"] * 20


async def test_nothing_more_is_read_for_who_has_left() -> None:
    """The piece that was under way, and no further one."""
    client, source = Client(stays_for=3), Source(1000)

    assert await streamed(client.send, client.receive, source.pieces()) is False
    assert source.read <= 5


async def test_who_takes_nothing_is_not_waited_for() -> None:
    """A connection that is open and not read would hold its pieces for ever."""
    client, source = Client(idle_s=60), Source(1000)
    with pytest.raises(TimeoutError):
        await streamed(client.send, client.receive, source.pieces(), patience_s=0.01)

    assert source.read == 1


async def test_a_fault_of_the_source_comes_through() -> None:
    """It is logged where the answer began."""

    async def broken() -> Pieces:
        yield b"x"
        raise ConnectionError

    client, before = Client(), asyncio.all_tasks()
    with pytest.raises(ConnectionError):
        await streamed(client.send, client.receive, broken())
    await asyncio.sleep(0)
    left = [one for one in asyncio.all_tasks() - before if "_gone" in repr(one.get_coro())]
    assert left == []  # nothing goes on waiting for the client
