"""The servers that are measured: this one, started with fixed settings, and others by URL."""

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

from fhir_server.store import embedded
from tests.bench.driver import Load, Outcome
from tests.bench.workloads import WORKLOADS
from tests.conftest import ROOT
from tests.faults.serving import Serving, environment, from_source, ran
from tests.store.mongods import free_port

CACHE_MB = 2048
DATABASE = "fhir"
# As in production: signed in, the rights of a role, everything recorded; nobody is slowed down.
SETTINGS: Mapping[str, object] = {
    "rate_per_s": 1_000_000,
    "rate_burst": 10_000_000,
    "embedded_cache_mb": CACHE_MB,
    "mongodb_database": DATABASE,
}


@dataclass
class Target:
    """A server with ``patients``; ``server`` and ``mongod`` are its processes, and ``folder`` is
    where its data lie, as far as they are known."""

    name: str
    base: str
    patients: int
    headers: Mapping[str, str] = field(default_factory=dict)
    server: int = 0
    mongod: int = 0
    runs: int = 0
    folder: Path | None = None

    def run(self, workload: str, connections: int, seconds: float, rate: float = 0.0) -> "Measured":
        """Drive a workload; the processes of the target are watched meanwhile."""
        self.runs += 1
        where = urlsplit(self.base)
        load = Load(
            *(workload, where.port or 80, self.patients, connections, seconds),
            rate=rate,
            host=where.hostname or "127.0.0.1",
            path=where.path,
            headers=self.headers,
            seed=self.runs,
        )
        before, idle = self.spent(), _idle_s()
        began = time.perf_counter()
        done = _python(
            "tests.bench.driver", sent=json.dumps(load.__dict__ | {"headers": dict(self.headers)})
        )
        took = time.perf_counter() - began
        outcome = Outcome(**json.loads(done))
        spent = [now - was for now, was in zip(self.spent(), before, strict=True)]
        scale = outcome.seconds / took
        ours = sum(spent) + outcome.processor
        others = max(0.0, (took * _cores() - (_idle_s() - idle) - ours) / took)
        return Measured(outcome, spent[0], spent[1], others * scale)

    def check(self, workload: str) -> None:
        """Ask once; raises ``AssertionError`` where the answer is not what it should be."""
        chosen = WORKLOADS[workload]
        if chosen.path is None:
            return
        url = f"{self.base}/{chosen.path(Random(7), self.patients)}".replace("|", "%7C")
        request = urllib.request.Request(url, headers=dict(self.headers))
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert chosen.check(json.loads(answer.read())), (workload, url)

    def memory_mb(self) -> float:
        """Return the memory of the server, and of its children."""
        return sum(_resident(pid) for pid in _family(self.server)) / 1024 if self.server else 0.0

    def spent(self) -> tuple[float, float]:
        """Return the processor seconds that the server and its database have had."""
        return (
            sum(map(processor_s, _family(self.server))) if self.server else 0.0,
            processor_s(self.mongod) if self.mongod else 0.0,
        )


@dataclass(frozen=True)
class Measured:
    """An outcome with the processor seconds of server and database, those of the warm-up with
    them, and the cores that others kept busy meanwhile."""

    outcome: Outcome
    server: float
    mongod: float
    others: float

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.outcome.answers / self.outcome.seconds

    def per_1000(self, spent: float) -> float:
        """Return ``spent`` as milliseconds for an answer, which are seconds for 1,000."""
        return spent / self.outcome.asked * 1000 if self.outcome.asked else 0.0


def processor_s(pid: int) -> float:
    """Return the seconds of processor that ``pid`` has had, with those of threads that ended."""
    # The number of the clock of another process, clock_getcpuclockid(3).
    return time.clock_gettime((~pid << 3) | 2)


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    found = [int(one) for one in children.read_text().split()] if children.exists() else []
    ours = [one for one in found if b"mongod" not in Path(f"/proc/{one}/cmdline").read_bytes()]
    return [pid, *(each for one in ours for each in _family(one))]


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    return 0


def _cores() -> int:
    return len(
        [
            line
            for line in Path("/proc/stat").read_text().splitlines()
            if line[:4] != "cpu " and line.startswith("cpu")
        ]
    )


def _idle_s() -> float:
    """Return the seconds of all cores in which nothing here ran: idle, waiting, or given away."""
    fields = [int(one) for one in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    idle, waiting, stolen = fields[3], fields[4], fields[7]
    return (idle + waiting + stolen) / 100


def _python(module: str, *arguments: str, sent: str = "", source: Path | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=source or ROOT,
        env={**os.environ, **from_source(source)},
        input=sent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    print(done.stderr, end="", file=sys.stderr)
    return done.stdout


@contextmanager
def ours(
    folder: Path,
    patients: int,
    *,
    name: str = "this",
    source: Path | None = None,
    **more: object,
) -> Iterator[Target]:
    """Give this server, or the version of it in ``source``, with ``patients`` in ``folder``; a
    folder that has them is used again."""
    data = folder / "data"
    if not (folder / f"{patients} patients").exists():
        asyncio.run(_filled(data, patients, source))
        (folder / f"{patients} patients").touch()
    settings = {**SETTINGS, **more}
    one = Serving(folder, **settings)
    one.source = source
    with ExitStack() as stack:
        stack.callback(one.clean_up)
        one.start()
        stack.callback(one.stop)
        target = Target(name, one.base, patients, {}, one.pid, one.mongod, folder=folder)
        target.headers = signed(target, "physician", source)
        yield target


def signed(target: Target, role: str, source: Path | None = None) -> dict[str, str]:
    """Return the headers of a user of ``target``, one of ours, who has ``role``."""
    assert target.folder is not None
    done = ran(
        ("token", "user/*.cruds", "--user", "Practitioner/x", "--role", role),
        target.folder,
        environment(data=target.folder / "data", **SETTINGS) | from_source(source),
    )
    assert done.returncode == 0, done.stderr
    return {"Authorization": f"Bearer {done.stdout.strip()}"}


@contextmanager
def before(commit: str, folder: Path, patients: int) -> Iterator[Target]:
    """Give the server as it was at ``commit``, with the same ``patients``, loaded by its own code
    into a folder of its own under ``folder``."""
    name = _git("rev-parse", "--short", f"{commit}^{{commit}}")
    source = folder / f"source-{name}"
    if not source.exists():
        _git("worktree", "prune")
        _git("worktree", "add", "--detach", str(source), name)
    kept = folder / f"before-{name}"
    kept.mkdir(exist_ok=True)
    try:
        with ours(kept, patients, name="before", source=source) as target:
            yield target
    finally:
        _git("worktree", "remove", "--force", str(source))


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


async def _filled(data: Path, patients: int, source: Path | None) -> None:
    data.mkdir(parents=True, exist_ok=True)
    mongod = await embedded.start(data, cache_mb=CACHE_MB)
    arguments = (mongod.uri, DATABASE, str(patients))
    try:
        await asyncio.to_thread(_python, "tests.bench.loading", *arguments, source=source)
    finally:
        await mongod.stop()


@contextmanager
def http_alone() -> Iterator[Target]:
    """Give the limit of HTTP as a target."""
    port = free_port()
    running = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.limits", "http", str(port)], cwd=ROOT
    )
    try:
        _wait(f"http://127.0.0.1:{port}/")
        yield Target("HTTP alone", f"http://127.0.0.1:{port}/fhir", 1, {}, running.pid)
    finally:
        running.terminate()
        running.wait(10)


def mongod_alone(target: Target, what: str, seconds: float, tasks: int) -> Mapping[str, Any]:
    """Return what MongoDB alone does, with the ``mongod`` of ``target``."""
    uri = f"mongodb://127.0.0.1:{port_of(target)}/?directConnection=true"
    before = processor_s(target.mongod)
    found: dict[str, Any] = json.loads(
        _python("tests.bench.limits", "mongod", uri, DATABASE, what, str(seconds), str(tasks))
    )
    return {**found, "mongod": processor_s(target.mongod) - before}


def port_of(target: Target) -> int:
    """Return where the mongod of ``target`` listens."""
    said = Path(f"/proc/{target.mongod}/cmdline").read_bytes().split(b"\0")
    return int(said[said.index(b"--port") + 1])


def _wait(url: str) -> None:
    end = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            assert time.monotonic() < end, url
            time.sleep(0.05)
