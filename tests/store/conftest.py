"""What the tests of the store share: a server for properties, and a listener on the wire."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient, MongoClient
from pymongo.monitoring import CommandListener, CommandStartedEvent

from fhir_server.app import Server, opened
from fhir_server.settings import Settings
from fhir_server.store import client, embedded
from tests.store.mongods import stands_still


@pytest.fixture
def the_server(server: Server) -> Callable[[], Server]:
    """The server behind a function: Hypothesis writes down its arguments, and a server is large."""
    return lambda: server


class Commands(CommandListener):
    """Every command that the driver sends, as it goes over the wire."""

    def __init__(self) -> None:
        """Begin with none."""
        self.sent: list[dict[str, Any]] = []

    def started(self, event: CommandStartedEvent) -> None:
        """Keep the command."""
        self.sent.append(dict(event.command))

    def succeeded(self, event: Any) -> None:
        """Keep nothing of it."""

    def failed(self, event: Any) -> None:
        """Keep nothing of it."""

    def named(self, *names: str) -> list[dict[str, Any]]:
        """Return the commands of these names."""
        return [one for one in self.sent if next(iter(one)) in names]


@pytest.fixture
def commands() -> Commands:
    """What the server of this test sends to MongoDB."""
    return Commands()


@pytest.fixture
async def listened(
    mongodb_uri: str, settings: Settings, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Server]:
    """An open server whose commands are in ``commands``."""
    listening = partial(AsyncMongoClient, event_listeners=[commands])
    monkeypatch.setattr(client, "AsyncMongoClient", listening)
    async with opened(settings, mongodb_uri) as server:
        yield server


@pytest.fixture
def unused_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Stoppable:
    """Two servers on a mongod that can be made to stand still: one is hasty, one is patient."""

    def __init__(self, pid: int, hasty: Server, patient: Server) -> None:
        """Hold them; nothing is stopped yet."""
        self.hasty, self.patient = hasty, patient
        self._pid = pid
        self._at, self._nth = "", 0
        self.stopped = asyncio.Event()

    def stop_at(self, command: str, nth: int = 1) -> None:
        """Stop mongod when the driver is about to send ``command`` for the ``nth`` time, once."""
        self._at, self._nth = command, nth

    def sending(self, command: str) -> None:
        """Stop it if this is the command."""
        self._nth -= command == self._at
        if command == self._at and self._nth == 0:
            os.kill(self._pid, signal.SIGSTOP)
            stands_still(self._pid)
            self.stopped.set()

    def kill(self) -> None:
        """Kill mongod."""
        os.kill(self._pid, signal.SIGKILL)

    def go_on(self) -> None:
        """Let mongod do what lies in its socket."""
        os.kill(self._pid, signal.SIGCONT)


@pytest.fixture
async def stoppable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stoppable]:
    """Two servers on a mongod of the test's own, which the test may stop (SIGSTOP)."""
    own = await embedded.start(tmp_path, cache_mb=256)
    # What a server leaves open when it gives up is ended by mongod, after a minute by default.
    with MongoClient[dict[str, object]](own.uri) as admin:
        admin.admin.command("setParameter", 1, transactionLifetimeLimitSeconds=5)
    found: list[Stoppable] = []

    class Watch(Commands):
        def started(self, event: CommandStartedEvent) -> None:
            for one in found:
                one.sending(event.command_name)

    patient = Settings.model_validate({})
    hasty = patient.model_copy(update={"write_timeout_s": 0.6, "request_timeout_s": 0.6})
    try:
        async with opened(patient, own.uri) as second:
            await second.context.store.indexes.ensure(["Patient"])
            listening = partial(AsyncMongoClient, event_listeners=[Watch()])
            monkeypatch.setattr(client, "AsyncMongoClient", listening)
            async with opened(hasty, own.uri) as first:
                await first.context.store.indexes.ensure(["Patient"])
                found.append(Stoppable(own.pid, first, second))
                yield found[0]
    finally:
        with suppress(ProcessLookupError):
            os.kill(own.pid, signal.SIGCONT)
        await own.stop()
