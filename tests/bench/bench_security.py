"""What a token, and the audit record, cost a request over HTTP: processor time of the server.

Run by ``make bench ARGS="-k security"``. Two servers, one with ``FHIR_AUDIT=false``, answer the
same in turn, so that what else runs on the machine hits all alike; each figure is the smallest of
``FHIR_BENCH_ROUNDS`` runs, and the ratios are what counts. All have rights that are remembered, as
those of a client have that goes on asking.
"""

import asyncio
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import pytest
import uvloop

from tests.bench.bench_writes import SINGLE, Client, Make
from tests.conftest import ROOT
from tests.faults.serving import Serving, command

ROUNDS = int(os.environ.get("FHIR_BENCH_ROUNDS", "5"))
SECONDS = float(os.environ.get("FHIR_BENCH_SECONDS", "0.8"))
KINDS = {"audit": "true", "no audit": "false"}
OWN = "rahima-khatun"
TOKENS: Mapping[str, tuple[str, ...]] = {
    "anonymous": (),
    "user/, physician": (
        "user/*.rs",
        "--user",
        "Practitioner/dr-farhana-haque",
        "--role",
        "physician",
    ),
    "patient/": ("patient/*.rs", "--patient", OWN),
    "system/": ("system/*.rs",),
}
ASKED = {
    "read": f"/Patient/{OWN}",
    "search by patient": f"/Observation?patient={OWN}&_count=20",
    "search by name": "/Patient?name=rahima",
}
CLIENTS = (1, 32)
Key = tuple[str, ...]
"""What is asked, connections, with or without audit, who asks."""
_ANY_RATE = {"rate_per_s": 1_000_000, "rate_burst": 10_000_000}


@dataclass(frozen=True)
class Cost:
    """Microseconds of processor for one request: of the server, and of mongod."""

    server: float
    mongod: float


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[dict[str, Serving]]:
    """A server with the sample for each of ``KINDS``."""
    found = {}
    with ExitStack() as stack:
        for kind, audit in KINDS.items():
            folder = tmp_path / kind.replace(" ", "-")
            folder.mkdir()
            one = found[kind] = Serving(folder, audit=audit, **_ANY_RATE)
            stack.callback(one.clean_up)
            one.start()
            stack.callback(one.stop)
            sample = str(ROOT / "examples" / "dhaka-clinic")
            done = command("load", sample, folder=folder, data=one.data)
            assert done.returncode == 0, done.stderr
        yield found


def tokens(serving: Serving) -> dict[str, str]:
    """Return the header of each who asks, by name; ``""`` for who has no token."""
    found = {}
    for name, arguments in TOKENS.items():
        found[name] = ""
        if arguments:
            done = command("token", *arguments, folder=serving.data, data=serving.data)
            assert done.returncode == 0, done.stderr
            found[name] = f"Authorization: Bearer {done.stdout.strip()}\r\n"
    return found


def _get(path: str, header: str) -> Make:
    text = f"GET /fhir{path} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n".encode()
    return lambda _name, _turn: text


def processor_s(pid: int) -> float:
    """Return the seconds of processor that the threads of ``pid`` have had, by the scheduler's
    count: it has nanoseconds, where that of the process has hundredths of a second."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(one.read_text().split()[0]) for one in tasks) / 1e9


async def measured(make: Make, count: int, serving: Serving) -> Cost:
    """Return what a request costs of those that ``count`` connections send one after another."""
    loop = asyncio.get_running_loop()
    pids = (serving.pid, serving.mongod)
    before = [processor_s(pid) for pid in pids]
    end = time.perf_counter() + SECONDS

    async def connected() -> Client:
        return (await loop.create_connection(partial(Client, make, end), port=serving.port))[1]

    clients = [await connected() for _ in range(count)]
    await asyncio.gather(*(one.ended for one in clients))
    await asyncio.sleep(0.1)  # what is recorded is written
    asked = sum(one.count for one in clients)
    spent = [processor_s(pid) - was for pid, was in zip(pids, before, strict=True)]
    return Cost(*(one / asked * 1e6 for one in spent))


def smallest(
    runner: asyncio.Runner, made: Mapping[Key, tuple[Make, int, Serving]]
) -> dict[Key, Cost]:
    """Return the smallest of the rounds for each of what is ``made``, which take turns."""
    found: dict[Key, Cost] = {}
    for _ in range(ROUNDS):
        for key, (make, clients, serving) in made.items():
            cost = runner.run(measured(make, clients, serving))
            before = found.get(key, cost)
            found[key] = Cost(min(cost.server, before.server), min(cost.mongod, before.mongod))
    return found


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="times are read in /proc")
def test_security(servers: dict[str, Serving]) -> None:
    """Print what reads and searches cost by who asks, and what recording costs them and creates."""
    began, load = time.perf_counter(), os.getloadavg()[0]
    headers = {kind: tokens(one) for kind, one in servers.items()}
    reads: dict[Key, tuple[Make, int, Serving]] = {
        (what, str(clients), kind, who): (_get(path, headers[kind][who]), clients, servers[kind])
        for (what, path), clients, kind, who in product(ASKED.items(), CLIENTS, KINDS, TOKENS)
    }
    creates: dict[Key, tuple[Make, int, Serving]] = {
        ("create", str(clients), kind): (SINGLE["creates"], clients, servers[kind])
        for clients, kind in product((1, 32, 128), KINDS)
    }
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for make, _, serving in reads.values():
            runner.run(_warmed(make, serving))
        found = smallest(runner, reads)
        written = smallest(runner, creates)
    loads = f"load {load:.1f} before, {os.getloadavg()[0]:.1f} after"
    print(f"\n{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, ")
    print(f"{loads}; {ROUNDS} rounds of {SECONDS} s, {time.perf_counter() - began:.0f} s in all\n")
    print("| what | connections | who | µs, audit | ratio | µs, no audit | ratio | audit costs |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for (what, _), clients, who in product(ASKED.items(), map(str, CLIENTS), TOKENS):
        cells = []
        for kind in KINDS:
            cost = found[what, clients, kind, who].server
            cells.append(
                f"{cost:.0f} | {cost / found[what, clients, kind, 'anonymous'].server:.2f}"
            )
        on, off = (found[what, clients, kind, who].server for kind in KINDS)
        print(f"| {what} | {clients} | {who} | {' | '.join(cells)} | {on / off:.2f} |")
    print("\n| creates | µs, audit | µs, no audit | ratio of the server | of mongod | of both |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for clients in ("1", "32", "128"):
        one, other = (written["create", clients, kind] for kind in KINDS)
        both = (one.server + one.mongod) / (other.server + other.mongod)
        ratios = (one.server / other.server, one.mongod / other.mongod, both)
        said = " | ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"| {clients} | {one.server:.0f} | {other.server:.0f} | {said} |")


async def _warmed(make: Make, serving: Serving) -> None:
    end = time.perf_counter() + 0.1
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(partial(Client, make, end), port=serving.port)
    await client.ended
