"""Real servers on loopback that take messages, and misbehave as they are told."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeVar


@dataclass(slots=True)
class SmtpSink:
    """An SMTP server (RFC 5321). ``says`` are answers in place of the usual, by command; ``HANG``
    answers never, ``DRIP`` one byte after the other, for ever."""

    says: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Speak with one client until it is gone."""
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._answer(writer, "CONNECT", "220 sink ESMTP")
            while line := (await reader.readline()).decode():
                command = line.split(" ")[0].split(":")[0].strip().upper()
                self.commands.append(line.strip())
                if command == "DATA":
                    await self._answer(writer, command, "354 go on")
                    text = (await reader.readuntil(b"\r\n.\r\n")).decode()
                    self.messages.append(text.removesuffix(".\r\n"))
                    await self._answer(writer, "END", "250 taken")
                elif command == "QUIT":
                    await self._answer(writer, command, "221 bye")
                    break
                else:
                    await self._answer(writer, command, "250 ok")
        writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, command: str, usual: str) -> None:
        said = self.says.get(command, usual)
        if said == "HANG":
            await asyncio.sleep(3600)
        while said == "DRIP":
            writer.write(b"2")
            await writer.drain()
            await asyncio.sleep(0.02)
        writer.write(f"{said}\r\n".encode())
        await writer.drain()


@dataclass(slots=True)
class HttpSink:
    """An HTTP server that remembers what was posted, and answers as it is told. ``lot`` returns the
    status of the answer to a key, 0 for none."""

    status: int = 200
    body: bytes = b"{}"
    more: str = ""
    hangs: bool = False
    lot: Callable[[str], int] | None = None
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    taken: Counter[str] = field(default_factory=Counter)
    port: int = 0

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *rest = head.strip().split("\r\n")
            headers = {
                name.strip().lower(): value.strip()
                for name, _, value in (one.partition(":") for one in rest)
            }
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.requests.append((line, headers, body))
            key = headers.get("idempotency-key", "")
            status = self.lot(key) if self.lot is not None else self.status
            if self.hangs or not status:
                await asyncio.sleep(3600)
            if status == 200:
                self.taken[key] += 1
            writer.write(
                f"HTTP/1.1 {status} x\r\nContent-Length: {len(self.body)}\r\n{self.more}"
                "Connection: close\r\n\r\n".encode()
                + self.body
            )
            await writer.drain()
        writer.close()


S = TypeVar("S", SmtpSink, HttpSink)


@asynccontextmanager
async def running(sink: S) -> AsyncIterator[S]:
    """Run ``sink`` on a port of its own."""
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(sink.serve(reader, writer))
        tasks.add(task)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    sink.port = server.sockets[0].getsockname()[1]
    try:
        yield sink
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
