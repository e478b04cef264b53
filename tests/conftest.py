"""What tests from the store up share: a real MongoDB, and a server on a database of its own.

``FHIR_TEST_MONGODB`` names a replica set to use instead of the embedded mongod.
"""

import asyncio
import os
import shutil
from asyncio.selector_events import BaseSelectorEventLoop
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import settings as hypothesis_settings
from pymongo import MongoClient
from pymongo.errors import AutoReconnect

from fhir_server.app import Server, opened
from fhir_server.dispatch import answer
from fhir_server.messages import Request, Response
from fhir_server.settings import Settings
from fhir_server.store import embedded
from fhir_server.store.client import Database

# A property that fails once fails on every machine. A deadline would measure the machine instead.
hypothesis_settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis_settings.load_profile("repeatable")


_sock_connect = BaseSelectorEventLoop.sock_connect


async def _connected_or_closed(self: BaseSelectorEventLoop, sock: socket, address: Any) -> None:
    """Connect ``sock``, and close it when the task that connects is cancelled.

    PyMongo 4.20 leaves that socket to the garbage collector, about once in 20 clients that are
    closed within milliseconds, and the warning then fails whichever test runs next. Mended here
    and not ignored, so that a socket which the server leaves open stays an error.
    """
    try:
        await _sock_connect(self, sock, address)
    except asyncio.CancelledError:
        sock.close()
        raise


BaseSelectorEventLoop.sock_connect = _connected_or_closed  # type: ignore[assignment,method-assign]

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"
MEMORY = Path("/dev/shm")
_MEMORY_FREE_MIN = 2_000_000_000  # for each process: twice what its tests have left at their end

Fhir = Callable[[Request], Awaitable[Response]]


@pytest.fixture(scope="session")
def mongodb_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of a replica set: the one named by the environment, or a mongod for this run."""
    if named := os.environ.get("FHIR_TEST_MONGODB"):
        yield named
        return
    with _folder(tmp_path_factory) as folder:
        # As usual. In 256 MB, the least that may be set, a transaction of 10,000 resources has no
        # room once others have filled the cache.
        started = asyncio.run(embedded.start(folder, cache_mb=512))
        # A dropped database keeps its files for as long as an old snapshot could be read, five
        # minutes by default: those of thousands of tests together are more than a process may have
        # open.
        with MongoClient[dict[str, Any]](started.uri) as client:
            client.admin.command("setParameter", 1, minSnapshotHistoryWindowInSeconds=5)
        yield started.uri
        asyncio.run(started.stop())


@contextmanager
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give a folder in memory where there is much of it: half of what most tests take is waiting
    for the disk. Tests that kill a server have a mongod of their own, on the disk."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < _MEMORY_FREE_MIN * processes:
        yield tmp_path_factory.mktemp("mongodb")
        return
    with TemporaryDirectory(prefix="fhir-server-tests-", dir=MEMORY) as name:
        yield Path(name)


@dataclass(frozen=True, slots=True)
class Emptied:
    """Databases that are as a server leaves an empty one: to make one takes longer than most tests.

    What a test left is deleted; the collections every server makes at its start stay, with their
    indexes, and all others are dropped.
    """

    client: MongoClient[dict[str, Any]]
    names: list[str]
    at_start: set[str]

    def take(self) -> str:
        """Return the name of one, or a new name."""
        return self.names.pop() if self.names else f"test-{uuid4().hex[:12]}"

    def give_back(self, name: str) -> None:
        """Empty the database ``name``, for the next test."""
        database = self.client[name]
        there = set(database.list_collection_names())
        for collection in there - self.at_start:
            database[collection].drop()
        for collection in self._filled(name, sorted(there & self.at_start)):
            database[collection].delete_many({})
        self.names.append(name)

    def _filled(self, name: str, collections: list[str]) -> list[str]:
        """Return those that have documents: most have none, and to look costs less."""
        # A stage that reads nothing, and behind it a look into each collection.
        look: list[Mapping[str, Any]] = [{"$limit": 1}, {"$match": {"$expr": False}}]
        for one in collections:
            begin = [{"$limit": 1}, {"$project": {"_id": {"$literal": one}}}]
            look.append({"$unionWith": {"coll": one, "pipeline": begin}})
        return [found["_id"] for found in self.client[name]["server"].aggregate(look)]

    @contextmanager
    def one(self) -> Iterator[str]:
        """Give the name of one, which is empty again at the end."""
        name = self.take()
        try:
            yield name
        finally:
            self.give_back(name)


@pytest.fixture(scope="session")
async def emptied(mongodb_uri: str) -> AsyncIterator[Emptied]:
    """The databases that were used, of this process."""
    name = f"test-{uuid4().hex[:12]}"
    settings = Settings.model_validate({"mongodb_database": name})
    async with opened(settings, mongodb_uri) as server:
        at_start = set(await server.database.list_collection_names())
    with MongoClient[dict[str, Any]](mongodb_uri) as client:
        kept = Emptied(client, [], at_start)
        kept.give_back(name)
        yield kept
        for name in kept.names:
            client.drop_database(name)


@pytest.fixture
def settings(emptied: Emptied) -> Iterator[Settings]:
    """Settings with a database of the test's own, whatever a file ``.env`` says."""
    with emptied.one() as name:
        yield Settings.model_validate({"mongodb_database": name})


@pytest.fixture
async def server(mongodb_uri: str, settings: Settings) -> AsyncIterator[Server]:
    """An open server on an empty database."""
    async with opened(settings, mongodb_uri) as server:
        yield server


@pytest.fixture
def fhir(server: Server) -> Fhir:
    """The front door: a request in, a response out, refusals as responses."""

    async def ask(request: Request) -> Response:
        return await answer(server.registry, request, server.context)

    return ask


async def drop(database: Database) -> None:
    """Drop ``database`` at the end of those tests that shared it.

    Where others ran meanwhile, the loop stood still, and the driver's monitor takes its connections
    for dead when it goes on: once, the command is sent again.
    """
    with suppress(AutoReconnect):
        await database.client.drop_database(database.name)
        return
    await database.client.drop_database(database.name)


@pytest.fixture(scope="session")
async def empty(mongodb_uri: str) -> AsyncIterator[Server]:
    """One open server on an empty database for all tests that write nothing: to open one takes
    longer than most of them."""
    named = Settings.model_validate({"mongodb_database": f"test-{uuid4().hex[:12]}"})
    async with opened(named, mongodb_uri) as server:
        yield server
        await drop(server.database)


@pytest.fixture(scope="session")
def asked(empty: Server) -> Fhir:
    """The front door of :func:`empty`."""

    async def ask(request: Request) -> Response:
        return await answer(empty.registry, request, empty.context)

    return ask


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared test data; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("the shared test data is not there (../shared/data)")
    return SHARED
