"""A mongod that a test starts, stops and harms."""

import asyncio
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from fhir_server.store import embedded

PATIENCE_S = 20.0


async def until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE_S) -> None:
    """Wait until ``condition`` is met; fail with ``what`` was waited for after ``seconds``."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {seconds:g} s"
        await asyncio.sleep(0.02)


def runs(pid: int) -> bool:
    """Whether the process ``pid`` is there and has not ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return not Path("/proc").is_dir()
    return state != "Z"  # ended, and nobody has asked for its exit code yet


def stands_still(pid: int) -> None:
    """Wait until every thread of ``pid``, which was sent SIGSTOP, has stopped.

    On a busy machine a thread that has not been told yet takes one command more.
    """
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        with suppress(FileNotFoundError):  # a thread that ended while it was looked at
            threads = [one.read_text() for one in Path(f"/proc/{pid}/task").glob("*/stat")]
            if all(one.rpartition(")")[2].split()[0] == "T" for one in threads):
                return


def kill(pid: int) -> None:
    """Kill a process that the test started, if it is still there."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def free_port() -> int:
    """Return a port of loopback that nobody listens on, below those that connections are given:
    one of theirs could be taken before the server listens."""
    while True:
        port = random.SystemRandom().randrange(20_000, 30_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextmanager
def bare_mongod(data: Path, *options: str) -> Iterator[str]:
    """Run a mongod with ``options`` and nothing else done to it; give its URI."""
    data.mkdir(parents=True, exist_ok=True)
    port = free_port()
    process = subprocess.Popen(
        [
            str(embedded.binary()),
            *("--dbpath", str(data), "--port", str(port), "--bind_ip", "127.0.0.1"),
            *("--nounixsocket", "--quiet", "--logpath", str(data / "log"), *options),
            *("--wiredTigerEngineConfigString", "log=(file_max=10MB,prealloc=false)"),
        ],
        stdout=subprocess.DEVNULL,
    )
    uri = f"mongodb://127.0.0.1:{port}/?directConnection=true"
    try:
        with (
            MongoClient[dict[str, object]](uri, serverSelectionTimeoutMS=20_000) as client,
            suppress(PyMongoError),
        ):
            client.admin.command("ping")
        yield uri
    finally:
        process.kill()
        process.wait()
