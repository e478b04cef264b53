"""Reliability, section 2: what a killed process had begun is in nobody's way when it is back."""

import asyncio
import os
import platform
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4

import pymongo
import pytest
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import PyMongoError

from fhir_server.store.client import Client, Database, connect, database_of
from fhir_server.store.processes import is_gone, own_name
from fhir_server.store.transactions import end_abandoned, repeated, transacted
from tests.conftest import drop

CHILD = """
import asyncio, sys
from fhir_server.store.client import connect, database_of

async def main(uri, name):
    client = connect(uri, connections_max=2)
    async with client.start_session() as session:
        async with await session.start_transaction():
            found = database_of(client, name)["things"]
            await found.update_one({"_id": 1}, {"$set": {"by": "child"}}, session=session)
            print("begun", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
    print("committed", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""

NAMED = """
from fhir_server.store.processes import own_name

print("begun", own_name(), sep="\\n", flush=True)
input()
"""


@contextmanager
def child(*arguments: str, program: str = CHILD) -> Iterator["subprocess.Popen[str]"]:
    """A process of ours that has begun; it ends when it is told to, at the latest with the test."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
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
async def database(mongodb_uri: str) -> AsyncIterator[Database]:
    """A database with one thing."""
    client: Client = connect(mongodb_uri, connections_max=4)
    found = database_of(client, f"test-{uuid4().hex[:12]}")
    await found["things"].insert_one({"_id": 1, "by": "nobody"})
    yield found
    await drop(found)
    await client.close()


async def taken(database: Database, by: str) -> bool:
    """Whether the thing can be changed at once, and was."""
    with suppress(PyMongoError), pymongo.timeout(1):
        await database["things"].update_one({"_id": 1}, {"$set": {"by": by}})
        return True
    return False


async def by(database: Database) -> str:
    """Return who has changed the thing last."""
    found = await database["things"].find_one({"_id": 1})
    assert found is not None
    return str(found["by"])


async def test_what_a_killed_process_had_begun_is_ended(
    database: Database, mongodb_uri: str
) -> None:
    """Nobody can change what it had changed, until another looks; what it wrote is not there."""
    with child(mongodb_uri, database.name) as process:
        process.kill()
        process.wait()
        assert not await taken(database, "us")
        assert await by(database) == "nobody"
        assert await end_abandoned(database.client) >= 1
        assert await taken(database, "us")
    assert await by(database) == "us"


async def test_what_a_living_process_has_begun_is_left_alone(
    database: Database, mongodb_uri: str
) -> None:
    """It commits, although others look meanwhile."""
    with child(mongodb_uri, database.name) as process:
        await end_abandoned(database.client)
        said, _ = await asyncio.to_thread(process.communicate, "go on\n")
    assert said == "committed\n"
    assert await by(database) == "child"


async def test_a_transaction_that_is_ended_wrongly_is_begun_again(database: Database) -> None:
    """Its process repeats it, as one that met another."""
    tries = 0

    async def work(session: AsyncClientSession) -> None:
        nonlocal tries
        tries += 1
        change = {"$set": {"by": f"try {tries}"}}
        await database["things"].update_one({"_id": 1}, change, session=session)
        if tries == 1:
            id = session.session_id["id"]
            await database.client.admin.command("killSessions", [{"id": id}])

    end = time.monotonic() + 10
    await repeated(lambda: transacted(database.client, work, end), end)
    assert tries == 2
    assert await by(database) == "try 2"


async def test_a_database_that_does_not_answer_is_not_waited_for(unused_port: int) -> None:
    """What was left then ends by itself: a server begins all the same, or says what is wrong."""
    client = connect(
        f"mongodb://127.0.0.1:{unused_port}/?serverSelectionTimeoutMS=100", connections_max=1
    )
    with pymongo.timeout(0.3):
        assert await end_abandoned(client) == 0
    await client.close()


def test_who_is_gone() -> None:
    """A process of this host that has ended, whoever has its number now; nobody else."""
    program, host, pid, began = own_name().split()
    assert (program, host, pid) == ("fhir-server", platform.node(), str(os.getpid()))
    with child(program=NAMED) as process:
        assert process.stdout is not None
        theirs = process.stdout.readline().strip()
        assert str(process.pid) in theirs.split()
        assert not is_gone(theirs)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert is_gone(theirs), "it has ended, and nobody has asked for its exit code yet"
        process.wait()
        assert is_gone(theirs)

    assert not is_gone(own_name())
    assert is_gone(f"{program} {host} {pid} {int(began) + 1}")
    assert not is_gone(f"{program} elsewhere.example {pid} {int(began) + 1}")


@pytest.mark.parametrize(
    "name",
    ["", "fhir-server", "mongosh", "fhir-server {host} x 1", "fhir-server {host} 1 ", "{host} 1 1",
     "fhir-server {host} ../../1 1", "fhir-server {host} ٣ 1", "other fhir-server {host} 1 1"],
)  # fmt: skip
def test_a_name_that_is_not_ours_says_nothing(name: str) -> None:
    """Any client of MongoDB may call itself anything."""
    assert not is_gone(name.format(host=platform.node()))


def test_without_proc_nobody_is_said_to_be_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """On another system than Linux a process cannot be told from its successor."""
    mine = own_name()
    monkeypatch.setattr("fhir_server.store.processes._began", lambda pid: "")
    assert own_name() == "fhir-server"
    assert not is_gone(f"{mine}1")
