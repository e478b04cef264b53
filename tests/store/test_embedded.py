"""ARCHITECTURE.md, section 16.5: the embedded mongod."""

import asyncio
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from pymongo import AsyncMongoClient

from fhir_server.app import opened
from fhir_server.ending import end_of
from fhir_server.settings import Settings
from fhir_server.store import embedded
from fhir_server.store.client import UnfitDatabaseError
from fhir_server.store.embedded import Embedded
from tests.store.mongods import bare_mongod, kill, runs, until

CACHE_MB = 256
OWNER = """
import asyncio, sys, time
from pathlib import Path
from fhir_server.store import embedded
own = asyncio.run(embedded.start(Path(sys.argv[1]), cache_mb=256))
print(own.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
async def pids(tmp_path: Path) -> AsyncIterator[set[int]]:
    """The mongods of a test: what is in the set afterwards, or on its data, is killed."""
    found: set[int] = set()
    yield found
    for state in tmp_path.rglob("mongod.json"):
        with suppress(ValueError, KeyError):
            found.add(int(json.loads(state.read_text())["pid"]))
    for pid in found:
        if b"mongod" in _command(pid):
            kill(pid)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


async def start(data: Path, **options: bool) -> Embedded:
    """Start the mongod of ``data``."""
    return await embedded.start(data, cache_mb=CACHE_MB, **options)


async def mark(own: Embedded, number: int) -> None:
    """Write a document into the database."""
    async with AsyncMongoClient[dict[str, int]](own.uri) as client:
        await client["test"]["marks"].insert_one({"_id": number})


async def marks(own: Embedded) -> list[int]:
    """Return what :func:`mark` wrote."""
    async with AsyncMongoClient[dict[str, int]](own.uri) as client:
        return [one["_id"] for one in await client["test"]["marks"].find().sort("_id").to_list()]


def _python(program: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a Python with ``program``."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True
    )


async def owner(data: Path) -> tuple[subprocess.Popen[str], int]:
    """Start a process that owns the mongod of ``data``; return it and the mongod's id."""
    process = _python(OWNER, str(data))
    assert process.stdout is not None
    line = await asyncio.to_thread(process.stdout.readline)
    process.stdout.close()
    return process, int(line)


async def test_it_starts_stops_and_starts_again(tmp_path: Path, pids: set[int]) -> None:
    """A first start makes a replica set; a stop is clean; a second start has the data."""
    began = time.monotonic()
    own = await start(tmp_path)
    seconds = time.monotonic() - began
    pids.add(own.pid)
    await mark(own, 1)
    await own.stop()
    assert not runs(own.pid)
    assert (tmp_path / "mongodb" / "mongod.lock").read_text() == ""

    again = await start(tmp_path)
    pids.add(again.pid)
    assert await marks(again) == [1]
    async with AsyncMongoClient[dict[str, object]](again.uri) as client:
        hello = await client.admin.command("hello")
    await again.stop()

    assert hello["isWritablePrimary"]
    assert hello["hosts"] == [hello["me"]]
    assert seconds < 15


@pytest.mark.slow
async def test_it_listens_on_loopback_only(tmp_path: Path, pids: set[int]) -> None:
    """No other machine can reach it, and its files are the owner's."""
    own = await start(tmp_path)
    pids.add(own.pid)
    async with AsyncMongoClient[dict[str, object]](own.uri) as client:
        options = await client.admin.command("getCmdLineOpts")
    await own.stop()

    assert options["parsed"]["net"]["bindIp"] == "127.0.0.1"


async def test_a_mongod_whose_owner_was_killed_is_adopted(tmp_path: Path, pids: set[int]) -> None:
    """The next start uses the mongod that still runs, with its data, and stops it at its end."""
    process, pid = await owner(tmp_path)
    pids.add(pid)
    process.kill()
    process.wait()
    assert runs(pid)

    own = await start(tmp_path)
    await mark(own, 7)
    began = time.monotonic()
    await own.stop()

    assert own.pid == pid
    # Its files are closed; the process itself, a child of nobody here, may take a moment longer.
    await until(lambda: not runs(pid), "the end of mongod")
    assert time.monotonic() - began < 30


async def test_a_mongod_that_was_killed_is_started_again(tmp_path: Path, pids: set[int]) -> None:
    """What was acknowledged before a kill -9 of mongod is there after the next start."""
    process, pid = await owner(tmp_path)
    pids.add(pid)
    state = json.loads((tmp_path / "mongod.json").read_text())
    uri = f"mongodb://127.0.0.1:{state['port']}/?replicaSet={embedded.REPLICA_SET}&w=majority&journal=true"
    async with AsyncMongoClient[dict[str, int]](uri) as client:
        await client["test"]["marks"].insert_one({"_id": 3})
    kill(pid)
    process.kill()
    process.wait()
    await until(lambda: not runs(pid), "the end of mongod")

    began = time.monotonic()
    own = await start(tmp_path)
    pids.add(own.pid)
    seconds = time.monotonic() - began
    found = await marks(own)
    await own.stop()

    assert (own.pid != pid, found) == (True, [3])
    assert seconds < 20


async def test_a_foreign_process_of_the_same_id_is_left_alone(
    tmp_path: Path, pids: set[int]
) -> None:
    """After a power cut the old process id may belong to anybody: it is no mongod of ours."""
    own = await start(tmp_path)
    await own.stop()
    stranger = _python("import time; time.sleep(600)")
    try:
        state = json.loads((tmp_path / "mongod.json").read_text())
        (tmp_path / "mongod.json").write_text(json.dumps({**state, "pid": stranger.pid}))
        (tmp_path / "mongodb" / "mongod.lock").write_text(f"{stranger.pid}\n")
        async with asyncio.timeout(20):
            again = await start(tmp_path)
        pids.add(again.pid)
        await again.stop()

        assert again.pid != stranger.pid
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.communicate()


async def test_a_second_server_on_the_same_data_is_refused(tmp_path: Path, pids: set[int]) -> None:
    """Two owners would stop each other's database: the second is told to use another folder."""
    own = await start(tmp_path)
    pids.add(own.pid)
    with pytest.raises(UnfitDatabaseError, match="--data another folder"):
        await start(tmp_path)
    guest = await start(tmp_path, guest=True)
    await guest.stop()
    assert runs(own.pid)
    await own.stop()

    assert (guest.pid, runs(own.pid)) == (own.pid, False)


@pytest.mark.slow
async def test_a_guest_without_an_owner_starts_and_stops_it(tmp_path: Path, pids: set[int]) -> None:
    """``fhir-server load`` without a server has a mongod for itself."""
    guest = await start(tmp_path, guest=True)
    pids.add(guest.pid)
    await mark(guest, 1)
    await guest.stop()

    assert not runs(guest.pid)


async def test_the_port_of_last_time_is_taken(tmp_path: Path, pids: set[int]) -> None:
    """Then another port is used, and the replica set is told."""
    own = await start(tmp_path)
    pids.add(own.pid)
    await mark(own, 1)
    await own.stop()
    port = int(json.loads((tmp_path / "mongod.json").read_text())["port"])
    taker = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port)
    async with taker:
        again = await start(tmp_path)
        pids.add(again.pid)
        found = await marks(again)
        await again.stop()

    assert found == [1]
    assert f":{port}/" not in again.uri


@pytest.mark.slow
async def test_the_port_stays_the_same_if_it_can(tmp_path: Path, pids: set[int]) -> None:
    """Whoever noted the port for mongosh finds the database there after a restart."""
    own = await start(tmp_path)
    await own.stop()
    again = await start(tmp_path)
    pids.add(again.pid)
    await again.stop()

    assert again.uri == own.uri


STATES = {
    "empty": "",
    "no JSON": "{",
    "another JSON": "[]",
    "no port": '{"pid": 1}',
    "a port that is none": '{"pid": 1, "port": 99999999}',
    "texts": '{"pid": "x", "port": "y"}',
    "null": "null",
}


@pytest.mark.parametrize("text", STATES.values(), ids=STATES)
async def test_a_broken_state_file_is_no_obstacle(
    tmp_path: Path, pids: set[int], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stands in mongod.json after a crash or an edit, a free port is found."""
    (tmp_path / "mongodb").mkdir()
    (tmp_path / "mongod.json").write_text(text)
    (tmp_path / "mongodb" / "mongod.lock").write_text("1\n")
    fake = tmp_path / "fake"
    fake.write_text("#!/bin/sh\necho started with $* >&2\nexit 3\n")
    fake.chmod(0o755)
    monkeypatch.setattr(embedded, "binary", lambda: fake)

    with pytest.raises(UnfitDatabaseError, match="started with"):
        await start(tmp_path)


# What stands in the place of mongod -> what the message must say.
BINARIES = {
    "a library is missing": (
        "#!/bin/sh\necho 'mongod: cannot open shared object libcrypto.so.3' >&2\nexit 127\n",
        "libcrypto.so.3",
    ),
    "it ends without a word": ("#!/bin/sh\nexit 1\n", "cannot run on this machine"),
    "it is no program": ("\x7fELF nonsense", "cannot run on this machine"),
    "its interpreter is missing": ("#!/no/such/interpreter\n", "cannot run on this machine"),
    "it dies of a signal": ("#!/bin/sh\nkill -ILL $$\n", "cannot run on this machine"),
}


@pytest.mark.parametrize(("script", "words"), BINARIES.values(), ids=BINARIES)
async def test_a_binary_that_cannot_run_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    """The message has the reason and the way out, and the data is free for the next try."""
    fake = tmp_path / "fake"
    fake.write_text(script)
    fake.chmod(0o755)
    monkeypatch.setattr(embedded, "binary", lambda: fake)

    for _ in range(2):
        with pytest.raises(UnfitDatabaseError) as refused:
            await start(tmp_path / "data")
        assert words in str(refused.value)
        assert "FHIR_MONGODB_URI" in str(refused.value)


async def test_a_binary_that_may_not_be_run_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is not executable is the reason in the message."""
    fake = tmp_path / "fake"
    fake.write_text("#!/bin/sh\n")
    fake.chmod(0o644)
    monkeypatch.setattr(embedded, "binary", lambda: fake)

    with pytest.raises(UnfitDatabaseError, match="Permission denied"):
        await start(tmp_path / "data")


async def test_no_binary_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the message names both ways out."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

    with pytest.raises(UnfitDatabaseError, match=r"FHIR_MONGODB_URI .*fhir-server\[embedded\]"):
        embedded.binary()


async def test_a_start_that_is_given_up_leaves_nothing(tmp_path: Path, pids: set[int]) -> None:
    """A start that is cancelled half way ends its mongod, and the next one succeeds."""
    starting = asyncio.create_task(start(tmp_path))
    await until((tmp_path / "mongod.json").exists, "the launch")
    pid = int(json.loads((tmp_path / "mongod.json").read_text())["pid"])
    pids.add(pid)
    await end_of([starting])
    assert starting.cancelled()
    await until(lambda: not runs(pid), "the end of mongod")

    own = await start(tmp_path)
    pids.add(own.pid)
    await own.stop()


async def test_a_mongod_that_ended_by_itself_does_not_hold_up_the_stop(
    tmp_path: Path, pids: set[int]
) -> None:
    """Stopping what is not there any more is quick and no error."""
    own = await start(tmp_path)
    os.kill(own.pid, signal.SIGKILL)
    began = time.monotonic()
    await own.stop()

    assert time.monotonic() - began < 5


SETS = {
    "standalone": ((), r"--replSet rs0, then run once: mongosh --eval 'rs.initiate\(\)'"),
    "not initiated": (("--replSet", "rs0"), r"mongosh --eval 'rs.initiate\(\)'"),
}


@pytest.mark.parametrize(("options", "words"), SETS.values(), ids=SETS)
async def test_a_mongodb_without_transactions_is_refused(
    tmp_path: Path, settings: Settings, options: tuple[str, ...], words: str
) -> None:
    """The message has the command that mends it."""
    with (
        bare_mongod(tmp_path / "db", *options) as uri,
        pytest.raises(UnfitDatabaseError, match=words),
    ):
        async with opened(settings, uri):
            pass


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_mongod_may_open_more_files_than_a_shell_allows() -> None:
    """Many systems begin with 1,024; all types together have some 3,000 files."""
    code = (
        "import resource; from fhir_server.store.embedded import allow_files;"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1];"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard)); allow_files();"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 256)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "True"
