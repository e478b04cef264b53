"""What the tests of the store share: a server for properties, and a listener on the wire."""

import socket
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from pymongo.monitoring import CommandListener, CommandStartedEvent

from fhir_server.app import Server, opened
from fhir_server.settings import Settings
from fhir_server.store import client


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
        await server.database.client.drop_database(server.database.name)


@pytest.fixture
def unused_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
