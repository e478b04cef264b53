"""A mongod of our own, for trying out and for small sites: start it, adopt it, stop it.

It is a replica set of one member, so that transactions and change streams are there, and listens on
loopback only. Its files lie under the data folder:

=================  ==========================================================================
``mongodb/``       the database
``mongod.log``     its log
``mongod.json``    process id and port of the running mongod
``server.lock``    held by the server process that owns it
=================  ==========================================================================

Should the server be killed, mongod goes on; the next start adopts it.
"""

import asyncio
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure, PyMongoError

from fhir_server.store.client import Client, UnfitDatabaseError

if sys.platform != "win32":
    import fcntl

REPLICA_SET = "fhir0"
_START_TIMEOUT_S = 60.0  # recovery after a crash can take a while
_STOP_TIMEOUT_S = 60.0
_FILES = 64_000  # what MongoDB advises
_POLL_S = 0.05
# Small log files without pre-allocation: mongod then starts in a second. A transaction may hold
# more than the usual tenth of the cache before it is committed: a bundle of 10,000 entries does.
_ENGINE = (
    "log=(file_max=10MB,prealloc=false),eviction_updates_target=40,eviction_updates_trigger=60,"
    "eviction_dirty_target=40,eviction_dirty_trigger=70"
)
_NOT_INITIALISED = 94
_CONFIG_INVALID = 93


@dataclass(slots=True)
class Embedded:
    """A running mongod. ``lock`` is held by its owner; a guest (``fhir-server load``) has none."""

    uri: str
    pid: int
    lock: IO[str] | None
    _process: subprocess.Popen[bytes] | None
    _data: Path

    async def stop(self) -> None:
        """Stop mongod if this process owns it, and wait until its files are closed."""
        if self.lock is None:
            return
        if self._runs():  # else it ended by itself; its log says why
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
        end = time.monotonic() + _STOP_TIMEOUT_S
        while self._runs() and time.monotonic() < end:
            await asyncio.sleep(_POLL_S)
        self.lock.close()

    def _runs(self) -> bool:
        if self._process is not None:
            return self._process.poll() is None
        return _in_use(self._data)


def binary() -> Path:
    """Return where the mongod of the ``embedded`` extra is.

    Raises :class:`UnfitDatabaseError` where the extra is not installed.
    """
    spec = importlib.util.find_spec("fiftyone")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for name in ("mongod", "mongod.exe"):
            path = Path(folder) / "db" / "bin" / name
            if path.is_file():
                return path
    raise UnfitDatabaseError(
        "No MongoDB: FHIR_MONGODB_URI is not set, and the embedded one is not installed. Set the "
        "URI of a replica set, or install the extra: pip install 'fhir-server[embedded]'"
    )


async def start(data: Path, *, cache_mb: int, guest: bool = False) -> Embedded:
    """Start mongod on the files under ``data``, or adopt the one that runs on them.

    With ``guest``, a mongod that another server process owns is used as well, and not stopped.
    Raises :class:`UnfitDatabaseError` when it cannot run, or when it is owned by somebody else.
    """
    data = data.resolve()
    (data / "mongodb").mkdir(parents=True, exist_ok=True)
    lock = _lock(data)
    if lock is None and not guest:
        raise UnfitDatabaseError(
            f"Another fhir-server uses the data in {data}. Stop it, or give --data another folder."
        )
    process = None
    try:
        running = _running(data)
        # One that was killed a moment ago may still hold its files, and is never ready.
        if running is None or not await _ready(running[1], None, data):
            if lock is None:
                raise UnfitDatabaseError(
                    f"The server that uses {data} is just starting or stopping."
                )
            process, running = _launch(data, cache_mb)
            await _ready(running[1], process, data)
        pid, port = running
    except BaseException:
        if process is not None:
            _end(process)
        if lock is not None:
            lock.close()
        raise
    uri = f"mongodb://127.0.0.1:{port}/?replicaSet={REPLICA_SET}"
    return Embedded(uri, pid, lock, process, data)


def _lock(data: Path) -> IO[str] | None:
    """Return the held lock, or ``None`` when somebody else holds it. A killed holder frees it."""
    if sys.platform == "win32":
        raise _cannot_run("the embedded MongoDB is kept to Linux and macOS so far")
    file = (data / "server.lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _noted(data: Path) -> tuple[int, int]:
    """Return process id and port of the last start, zeros where they are not known."""
    try:
        state: dict[str, Any] = json.loads((data / "mongod.json").read_text())
        return int(state["pid"]), int(state["port"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return 0, 0


def _running(data: Path) -> tuple[int, int] | None:
    """Return process id and port of the mongod that runs on ``data``, if one does."""
    pid, port = _noted(data)
    try:
        # mongod keeps its own process id in the lock file of its files, empty after a clean stop.
        holder = int((data / "mongodb" / "mongod.lock").read_text().strip() or 0)
    except (FileNotFoundError, ValueError):
        return None
    return (pid, port) if pid == holder and port and _in_use(data) else None


def _in_use(data: Path) -> bool:
    """Whether a mongod holds the files of ``data``.

    It locks a file for as long as it lives. Its process id would say less: after a crash it may
    be that of another program, or of a dead process that nobody has asked for its exit code.
    """
    try:
        with (data / "mongodb" / "mongod.lock").open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a mongod that has not come up, so that its files are free for the next start."""
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def allow_files() -> None:
    """Let this process, and those that it starts from now on, open as many files as the machine
    allows, ``_FILES`` at most.

    Many systems begin with 1,024. To mongod each index is one, all types together are some 3,000;
    to a worker each connection is one.
    """
    with suppress(ImportError, ValueError, OSError):  # Windows has no such limit
        resource = import_module("resource")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
        if soft not in (resource.RLIM_INFINITY,) and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _launch(data: Path, cache_mb: int) -> tuple[subprocess.Popen[bytes], tuple[int, int]]:
    port = _port(data)
    allow_files()
    command = [
        str(binary()),
        *("--dbpath", str(data / "mongodb"), "--port", str(port), "--bind_ip", "127.0.0.1"),
        *("--replSet", REPLICA_SET, "--oplogSize", "512", "--quiet", "--nounixsocket"),
        *("--logpath", str(data / "mongod.log"), "--logRotate", "reopen", "--logappend"),
        *("--wiredTigerCacheSizeGB", str(cache_mb / 1024)),
        *("--wiredTigerCollectionBlockCompressor", "zstd"),
        *("--wiredTigerJournalCompressor", "zstd"),
        *("--wiredTigerEngineConfigString", _ENGINE),
        *("--setParameter", "diagnosticDataCollectionEnabled=false"),
    ]
    try:
        # A group of its own: Ctrl-C goes to the server, which stops mongod after its last write.
        with (data / "mongod.stderr").open("wb") as stderr:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
    except OSError as error:
        raise _cannot_run(str(error)) from error
    (data / "mongod.json").write_text(json.dumps({"pid": process.pid, "port": port}))
    return process, (process.pid, port)


def _port(data: Path) -> int:
    """Return the port of last time if it is free, else a free one."""
    for port in (_noted(data)[1], 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except (OSError, OverflowError):
                continue
            return int(probe.getsockname()[1])
    raise UnfitDatabaseError("No port is free on 127.0.0.1.")


async def _ready(port: int, process: subprocess.Popen[bytes] | None, data: Path) -> bool:
    """Wait until mongod is the primary of its set; make the set the first time.

    Return whether it is: an adopted one, which has no ``process``, may end meanwhile.
    """
    client: Client = AsyncMongoClient(
        f"mongodb://127.0.0.1:{port}/?directConnection=true", serverSelectionTimeoutMS=1000
    )
    end = time.monotonic() + _START_TIMEOUT_S
    try:
        while time.monotonic() < end:
            if process is not None and process.poll() is not None:
                raise _cannot_run(_last_words(data))
            if process is None and not _in_use(data):
                return False
            try:
                if await _is_primary(client, port):
                    return True
            except PyMongoError:
                pass  # it does not answer yet
            await asyncio.sleep(_POLL_S)
    finally:
        await client.close()
    raise UnfitDatabaseError(
        f"mongod is not ready after {_START_TIMEOUT_S:.0f} s; see {data / 'mongod.log'}."
    )


async def _is_primary(client: Client, port: int) -> bool:
    hello = await client.admin.command("hello")
    if hello.get("isWritablePrimary"):
        return True
    config = {"_id": REPLICA_SET, "members": [{"_id": 0, "host": f"127.0.0.1:{port}"}]}
    try:
        await client.admin.command("replSetGetStatus")
    except OperationFailure as error:
        if error.code == _NOT_INITIALISED:
            await client.admin.command("replSetInitiate", config)
        elif error.code == _CONFIG_INVALID:
            # The set was made under another port, which is taken now: this member is not in it.
            found = await client.admin.command("replSetGetConfig")
            config["version"] = found["config"]["version"] + 1
            await client.admin.command("replSetReconfig", config, force=True)
    return False


def _last_words(data: Path) -> str:
    stderr = (data / "mongod.stderr").read_text(errors="replace").strip()
    if stderr:
        return stderr.splitlines()[-1]
    log = data / "mongod.log"
    errors = [
        line
        for line in (log.read_text(errors="replace").splitlines()[-200:] if log.exists() else [])
        if '"s":"E"' in line or '"s":"F"' in line
    ]
    return errors[-1][:500] if errors else "it ended without a word"


def _cannot_run(reason: str) -> UnfitDatabaseError:
    return UnfitDatabaseError(
        f"The embedded mongod cannot run on this machine: {reason}\n"
        "Set FHIR_MONGODB_URI to a MongoDB 6 or newer that is a replica set; compose.yaml starts "
        "one in containers."
    )
