"""What the tests of the interface share: a server that listens, and a peer that speaks MLLP."""

import asyncio
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from adapters.hl7v2.ack import answered, header_of
from adapters.hl7v2.frame import Framer, framed
from adapters.hl7v2.inbox import Intake
from adapters.hl7v2.interface import Interface
from adapters.hl7v2.server import Listener
from fhir_server.app import Server, opened
from fhir_server.ending import end_of
from fhir_server.messages import Request
from fhir_server.r4.json import decode
from fhir_server.settings import Settings
from tests.conftest import Emptied
from tests.store.mongods import free_port

WAIT_S = 60.0
"""Longer than the server takes for anything, on a machine that does other things as well."""


class Peer:
    """A sender on one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._framer = Framer()
        self._answers: list[bytes] = []

    async def send(self, *messages: bytes) -> None:
        """Send each as a frame."""
        await self.raw(b"".join(map(framed, messages)))

    async def raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> bytes:
        """Return the next acknowledgement, ``b""`` where the connection was closed."""
        while not self._answers:
            try:
                data = await asyncio.wait_for(self.reader.read(65536), WAIT_S)
            except ConnectionError:
                return b""
            if not data:
                return b""
            self._answers += [frame.data for frame in self._framer.receive(data)]
        return self._answers.pop(0)

    async def ask(self, message: bytes) -> str:
        """Send one message; return MSA-1 of its answer."""
        await self.send(message)
        return answered(await self.answer())[0]

    def close(self) -> None:
        """End."""
        self.writer.close()


class Site:
    """A server with the interface in it."""

    def __init__(self, server: Server, interface: Interface, stack: AsyncExitStack) -> None:
        self.server, self.interface, self._stack = server, interface, stack

    @property
    def intake(self) -> Intake:
        """What takes messages."""
        assert self.interface._intake is not None
        return self.interface._intake

    async def peer(self, transport: str = "mllp", **options: Any) -> Peer:
        """Return a new connection."""
        assert self.interface.listener is not None
        port = self.interface.listener.ports[transport]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, **options)
        self._stack.callback(writer.close)
        return Peer(reader, writer)

    async def search(self, type: str, **parameters: str) -> list[dict[str, Any]]:
        """Return the resources that a search finds."""
        request = Request("search-type", type, parameters=tuple(parameters.items()))
        body = decode((await self.server.perform(request)).body)
        return [entry["resource"] for entry in body.get("entry", [])]

    @property
    def listener(self) -> Listener:
        """What listens."""
        assert self.interface.listener is not None
        return self.interface.listener

    async def profile(self, name: str, **members: Any) -> None:
        """Set the profile of the sender whose MSH-3 is ``name``."""
        profile = {"name": name, "match": [{"application": name}], **members}
        inbox = self.server.context.store.inbox
        await inbox.set_sender(name, profile, self.server.context.now())
        await self.intake.refresh()

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait until ``reached``."""
        async with asyncio.timeout(WAIT_S):
            while not reached():
                await asyncio.sleep(0.005)

    async def settled(self) -> None:
        """Wait until no row waits to be applied."""
        async with asyncio.timeout(WAIT_S):
            while await self.server.context.store.inbox.waiting(0, 1):
                await asyncio.sleep(0.01)

    async def binary(self, id: str) -> bytes:
        """Return the bytes of a Binary."""
        response = await self.server.perform(Request("read", "Binary", id))
        if response.pieces is None or response.content is None:
            return b64decode(decode(response.body)["data"])
        pieces = response.pieces(0, response.content.size)
        return b"".join([piece async for piece in pieces])

    async def newest(self) -> dict[str, Any]:
        """Return the row that arrived last."""
        [row] = await self.server.database["inbox"].find({}).sort("sequence", -1).to_list(1)
        found: dict[str, Any] = row
        return found

    async def rows(self) -> list[dict[str, Any]]:
        """Return the inbox, in order of arrival."""
        return await self.server.database["inbox"].find({}).sort("sequence", 1).to_list()


OpenSite = Callable[..., Awaitable[Site]]


@asynccontextmanager
async def running(server: Server, *, leads: bool = True) -> AsyncIterator[Interface]:
    """Run the interface on ``server``; one that does not lead listens on a port of its own."""
    interface = Interface()
    if not leads:
        settings = server.context.settings.model_copy(update={"mllp_port": free_port()})
        server = replace(server, context=replace(server.context, settings=settings))
    task = asyncio.create_task(interface.run(server.context))
    while interface.listener is None or not interface.listener.started.is_set():
        assert not task.done(), task.result()
        await asyncio.sleep(0.005)
    while leads and (interface.workers is None or not interface.workers._leads):
        await asyncio.sleep(0.005)
    try:
        yield interface
    finally:
        await end_of([task])


@pytest.fixture
async def open_site(mongodb_uri: str, emptied: Emptied) -> AsyncIterator[OpenSite]:
    """Open a site with settings of the test's own."""
    async with AsyncExitStack() as stack:

        async def open(**settings: Any) -> Site:
            if "mongodb_database" not in settings:
                settings["mongodb_database"] = stack.enter_context(emptied.one())
            given = {"mllp_port": free_port(), **settings}
            server = await stack.enter_async_context(
                opened(Settings.model_validate(given), mongodb_uri)
            )
            interface = await stack.enter_async_context(running(server))
            return Site(server, interface, stack)

        yield open


@pytest.fixture(scope="module")
async def lasting_site(mongodb_uri: str, emptied: Emptied) -> AsyncIterator[Site]:
    """A site for tests that look at the newest row only; opened once for a file of them."""
    async with AsyncExitStack() as stack:
        given = {
            "mongodb_database": stack.enter_context(emptied.one()),
            "mllp_port": free_port(),
            "hl7_rejects_per_minute_max": 100_000,  # all tests together are one peer
            "hl7_commit_s_max": 60.0,  # 10,000 results beside the tests of another process
        }
        server = await stack.enter_async_context(
            opened(Settings.model_validate(given), mongodb_uri)
        )
        interface = await stack.enter_async_context(running(server))
        yield Site(server, interface, stack)


@pytest.fixture
async def site(open_site: OpenSite) -> Site:
    """A site with the usual settings."""
    return await open_site()


def adt(control: str, number: str = "P1", family: str = "Rahman", **more: str) -> bytes:
    """Return an ADT^A08; ``more`` are fields of MSH by number, as ``m15="AL"``."""
    fields = ["MSH", "^~\\&", "LIS", "CLINIC", "FHIR", "DHAKA", "20260102030405+0600", ""]
    fields += [more.pop("type", "ADT^A08"), control, "P", "2.5.1", "", "", "", "", "", ""]
    for name, value in more.items():
        fields[int(name[1:]) - 1] = value
    msh = "|".join(fields)
    pid = f"PID|1||{number}^^^CLINIC^MR||{family}^Karim||19800101|M"
    return f"{msh}\rEVN||20260102030405+0600\r{pid}\r".encode()


def oru(
    control: str, number: str = "P1", results: int = 2, filler: str = "F1", **more: str
) -> bytes:
    """Return an ORU^R01 with so many numeric results."""
    message = adt(control, number, more.pop("family", "Rahman"), type="ORU^R01", **more).decode()
    head, _, pid = message.partition("\rEVN")
    pid = pid.partition("\r")[2].rstrip("\r")
    obr = f"OBR|1|O{filler}|{filler}|CBC^Blood count^L|||20260102030000+0600||||||||||||||||||F"
    obx = "".join(
        f"OBX|{n}|NM|T{n}^Test {n}^L||{n}.50|g/L|1-9|N|||F\r" for n in range(1, results + 1)
    )
    return f"{head}\r{pid}\r{obr}\r{obx}".encode()


def control_of(answer: bytes) -> str:
    """Return MSA-2."""
    return answered(answer)[1]


__all__ = ["adt", "control_of", "header_of", "oru"]
