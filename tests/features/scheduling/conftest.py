"""Servers that the tests of a file share, with what they begin with."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from fhir_server.app import Server, opened
from fhir_server.settings import Settings
from tests.conftest import Emptied
from tests.features.scheduling.finding import NOW, WORLD, put
from tests.features.scheduling.queues import Desk


@pytest.fixture(scope="module")
async def world(mongodb_uri: str, emptied: Emptied) -> AsyncIterator[Server]:
    """A server with the world of these tests, at the twentieth of November."""
    name = emptied.take()
    settings = Settings.model_validate({"mongodb_database": name})
    async with opened(settings, mongodb_uri) as server:
        server = replace(server, context=replace(server.context, now=lambda: NOW))
        await put(server, *WORLD)
        yield server
    emptied.give_back(name)


@pytest.fixture(scope="module")
async def two(mongodb_uri: str, emptied: Emptied) -> AsyncIterator[list[Server]]:
    """Two servers on one database: each test has a place of its own there."""
    name = emptied.take()
    settings = Settings.model_validate({"mongodb_database": name})
    async with opened(settings, mongodb_uri) as one, opened(settings, mongodb_uri) as other:
        yield [one, other]
    emptied.give_back(name)


@pytest.fixture
def desk(two: list[Server]) -> Desk:
    """The front desk."""
    return Desk(two[0])


@pytest.fixture
async def place(desk: Desk, request: pytest.FixtureRequest) -> str:
    """A place where nobody waits yet."""
    return await desk.place(f"l{abs(hash(request.node.name)) % 10**12}")
