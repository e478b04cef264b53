"""Reliability, section 2: what a killed process had begun is in nobody's way when it is back."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pymongo
import pytest
from pymongo import MongoClient
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import PyMongoError, WriteConcernError

from fhir_server.app import opened
from fhir_server.settings import Settings
from fhir_server.store import abandoned, embedded
from fhir_server.store.abandoned import end_abandoned
from fhir_server.store.client import PROGRAM, Client, Database, connect, database_of
from fhir_server.store.transactions import repeated, transacted
from tests.conftest import drop

CHILD = """
import asyncio, sys
from fhir_server.store.client import connect, database_of

async def main(uri, name):
    client = connect(uri, connections_max=2, name=name)
    async with client.start_session() as session:
        async with await session.start_transaction():
            found = database_of(client, "fhir")["things"]
            await found.update_one({"_id": 1}, {"$set": {"by": "child"}}, session=session)
            print("begun", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
    print("committed", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@contextmanager
def child(uri: str, name: str) -> Iterator["subprocess.Popen[str]"]:
    """A process of ours that has begun a transaction, and commits it when it is sent a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, uri, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[str]:
    """A MongoDB of the test's own: on a shared one others end what is left as well."""
    mongod = await embedded.start(tmp_path, cache_mb=256)
    try:
        yield mongod.uri
    finally:
        await mongod.stop()


@asynccontextmanager
async def one_thing(uri: str, name: str) -> AsyncIterator[Database]:
    """The database ``name`` with one thing."""
    client: Client = connect(uri, connections_max=4, name=name)
    found = database_of(client, name)
    await found["things"].insert_one({"_id": 1, "by": "nobody"})
    yield found
    await client.close()


@pytest.fixture
async def database(own: str) -> AsyncIterator[Database]:
    """A database on the MongoDB of the test's own."""
    async with one_thing(own, "fhir") as found:
        yield found


@pytest.fixture
async def shared(mongodb_uri: str) -> AsyncIterator[Database]:
    """A database on the MongoDB of all tests."""
    async with one_thing(mongodb_uri, f"test-{uuid4().hex[:12]}") as found:
        yield found
        await drop(found)


async def taken(database: Database) -> bool:
    """Whether the thing can be changed at once, and was."""
    with suppress(PyMongoError), pymongo.timeout(1):
        await database["things"].update_one({"_id": 1}, {"$set": {"by": "us"}})
        return True
    return False


async def by(database: Database) -> str:
    """Return who has changed the thing last."""
    found = await database["things"].find_one({"_id": 1})
    assert found is not None
    return str(found["by"])


@contextmanager
def killed(uri: str, name: str) -> Iterator[None]:
    """A process called ``name`` was killed in a transaction, and MongoDB has noticed."""
    with child(uri, name) as process, MongoClient[dict[str, Any]](uri) as client:
        process.kill()
        process.wait()
        every = [{"$currentOp": {"idleConnections": True, "idleSessions": False}}]
        called = f"{PROGRAM} {name}".rstrip()
        while any(one.get("appName") == called for one in client.admin.aggregate(every)):
            time.sleep(0.02)
        yield


async def test_what_is_gone_is_ended_and_what_lives_is_not(database: Database, own: str) -> None:
    """What a killed process has written nobody can change, until a server begins; it is not there.
    One that lives commits, although others look meanwhile."""
    with child(own, "living") as living:
        assert await end_abandoned(database.client) == 0
        said, _ = await asyncio.to_thread(living.communicate, "go on\n")
        assert said == "committed\n"
    assert await by(database) == "child"

    await database["things"].update_one({"_id": 1}, {"$set": {"by": "nobody"}})
    with killed(own, "killed"):
        assert not await taken(database)
        assert await by(database) == "nobody"
        async with opened(Settings.model_validate({}), own):
            assert await taken(database)
    assert await by(database) == "us"
    assert await end_abandoned(database.client) == 0


async def test_of_who_has_no_name_of_its_own_nothing_is_ended(database: Database, own: str) -> None:
    """Another program, and one of ours that only looks, may be anybody."""
    with killed(own, ""):
        assert await end_abandoned(database.client) == 0
        assert not await taken(database)


async def end(session: AsyncClientSession) -> None:
    """End what ``session`` has begun, as another process would."""
    await session.client.admin.command("killSessions", [{"id": session.session_id["id"]}])


@pytest.mark.parametrize("when", ["between commands", "in a command", "before the commit"])
async def test_a_transaction_that_is_ended_wrongly_is_made_again(
    shared: Database, when: str
) -> None:
    """Its process repeats it, as one that met another, wherever it was."""
    tries = 0

    async def work(session: AsyncClientSession) -> None:
        nonlocal tries
        tries += 1
        things = shared["things"]
        await things.update_one({"_id": 1}, {"$set": {"by": f"try {tries}"}}, session=session)
        if tries > 1:
            return
        if when == "in a command":
            ending = asyncio.create_task(later(session))
            await things.find({"$where": "sleep(5000) || true"}, session=session).to_list()
            await ending
        else:
            await end(session)
        if when == "between commands":
            await things.find_one({"_id": 1}, session=session)

    async def later(session: AsyncClientSession) -> None:
        await asyncio.sleep(0.5)
        await end(session)

    until = time.monotonic() + 20
    await repeated(lambda: transacted(shared.client, work, until), until)
    assert tries == 2
    assert await by(shared) == "try 2"


async def test_a_commit_that_is_interrupted_is_asked_for_again(
    shared: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have happened: to make the transaction again would make it twice."""
    committing, commits, tries = AsyncClientSession.commit_transaction, 0, 0

    async def interrupted(session: AsyncClientSession) -> None:
        nonlocal commits
        commits += 1
        await committing(session)
        if commits == 1:  # as it waits for the majority
            raise WriteConcernError("operation was interrupted", 11601, {})

    async def work(session: AsyncClientSession) -> None:
        nonlocal tries
        tries += 1
        await shared["things"].update_one({"_id": 1}, {"$inc": {"n": 1}}, session=session)

    monkeypatch.setattr(AsyncClientSession, "commit_transaction", interrupted)
    until = time.monotonic() + 20
    await repeated(lambda: transacted(shared.client, work, until), until)
    assert (commits, tries) == (2, 1)
    assert await shared["things"].find_one({"_id": 1, "n": 1})


async def test_a_database_that_does_not_answer_is_not_waited_for(
    unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was left then ends by itself: a server begins all the same, or says what is wrong."""
    monkeypatch.setattr(abandoned, "_LOOK_TIMEOUT_S", 0.2)
    client = connect(f"mongodb://127.0.0.1:{unused_port}/?replicaSet=none", connections_max=1)
    async with asyncio.timeout(4):  # the driver looks for a server for 5 s
        assert await end_abandoned(client) == 0
    await client.close()
