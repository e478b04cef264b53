"""design/hl7v2.md, section 5, the contract: a database that stops, and goes on. Check H18."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from fhir_server.app import opened
from fhir_server.settings import Settings
from fhir_server.store import embedded
from tests.adapters.hl7v2.conftest import Peer, Site, adt, running
from tests.store.mongods import free_port

COMMIT_S = 1.0

pytestmark = pytest.mark.slow


@pytest.fixture
async def mongod(tmp_path: Path) -> AsyncIterator[embedded.Embedded]:
    """A mongod of the test's own, which goes on in the end."""
    started = await embedded.start(tmp_path, cache_mb=256)
    try:
        yield started
    finally:
        os.kill(started.pid, signal.SIGCONT)
        await started.stop()


async def ask_anew(site: Site, message: bytes) -> str:
    """Send ``message`` on new connections until there is an answer, as a sender does."""
    async with asyncio.timeout(30):
        while True:
            peer = await site.peer()
            try:
                if code := await peer.ask(message):
                    return code
            except (ConnectionError, IndexError):
                pass
            peer.close()
            await asyncio.sleep(0.05)


async def closed(peer: Peer) -> bool:
    """Whether the connection ends without an answer, in the time of a commit and a little."""
    async with asyncio.timeout(COMMIT_S * 10):
        return await peer.answer() == b""


async def test_h18_a_database_that_stops(mongod: embedded.Embedded) -> None:
    """No answer and the connection closed; no new ones taken; afterwards applied once."""
    given = {"mongodb_database": "stopped", "mllp_port": free_port(), "write_timeout_s": COMMIT_S}
    settings = Settings.model_validate({**given, "hl7_commit_s_max": COMMIT_S})
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(opened(settings, mongod.uri))
        interface = await stack.enter_async_context(running(server))
        site = Site(server, interface, stack)
        peer, other = await site.peer(), await site.peer()
        assert await peer.ask(adt("A1", family="First")) == "AA"
        os.kill(mongod.pid, signal.SIGSTOP)
        await peer.send(adt("A2", family="Second"))
        await other.send(adt("E1", family="Third", m15="AL", m16="NE"))

        assert await closed(peer)
        assert await closed(other)
        assert interface.workers is not None
        await site.until(lambda: not site.listener.workers.available.is_set())
        assert await closed(await site.peer())

        os.kill(mongod.pid, signal.SIGCONT)
        assert await ask_anew(site, adt("A2", family="Second")) == "AA"
        assert await ask_anew(site, adt("E1", family="Third", m15="AL", m16="NE")) == "CA"
        await site.settled()
        [patient] = await site.search("Patient")

        assert patient["name"][0]["family"] in ("Second", "Third")
        assert patient["meta"]["versionId"] == "3"
        assert sorted(row["control_id"] for row in await site.rows()) == ["A1", "A2", "E1"]
