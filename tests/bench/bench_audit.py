"""What the audit record costs a read and a write: processor time of server and database, without
HTTP, with the record off, on and strict in turn, so that what else runs here hits all alike.

Run by ``make bench ARGS="-k audit"``. Each line is the smallest of the rounds.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from fhir_server.app import Server, opened
from fhir_server.messages import Request
from fhir_server.security.principal import DEMO
from fhir_server.settings import Settings
from fhir_server.store import embedded
from tests.bench.bench_basics import OBSERVATION

ROUNDS = int(os.environ.get("FHIR_BENCH_ROUNDS", "8"))
KINDS: dict[str, dict[str, Any]] = {
    "off": {"audit": False},
    "on": {},
    "strict": {"audit_reads": "strict"},
}
WHO = DEMO.at("10.0.0.7", "0198c0de-0000-7000-8000-000000000000")
_TICKS = os.sysconf("SC_CLK_TCK")


def processor_s(pid: int) -> float:
    """Return the seconds of processor that the process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


async def _create(server: Server, _id: str) -> None:
    await server.perform(Request("create", "Observation", body=OBSERVATION), WHO)


async def _read(server: Server, id: str) -> None:
    await server.perform(Request("read", "Observation", id), WHO)


WORK: tuple[tuple[str, Callable[[Server, str], Awaitable[None]], int, int], ...] = (
    ("creates", _create, 1, 200),
    ("creates", _create, 64, 2560),
    ("reads", _read, 1, 800),
    ("reads", _read, 32, 6400),
)


async def test_the_record(tmp_path: Path) -> None:
    """Prints µs of server and mongod for each, and the ratio to the record being off."""
    own = await embedded.start(tmp_path, cache_mb=512)
    found: dict[tuple[str, int, str], tuple[float, float]] = {}
    try:
        async with AsyncExitStack() as stack:
            servers = {}
            for kind, given in KINDS.items():
                settings = Settings.model_validate({"mongodb_database": f"bench-{kind}", **given})
                servers[kind] = await stack.enter_async_context(opened(settings, own.uri))
            for _ in range(ROUNDS):
                for name, work, clients, count in WORK:
                    for kind, server in servers.items():
                        cost = await _measured(server, work, clients, count, own.pid)
                        key = name, clients, kind
                        found[key] = min(cost, found.get(key, cost), key=sum)
    finally:
        await own.stop()
    for (name, clients, kind), (server_us, mongod_us) in found.items():
        ratio = (server_us + mongod_us) / sum(found[name, clients, "off"])
        print(
            f"{name:8} {clients:3} clients  {kind:7} server {server_us:6.0f}  "
            f"mongod {mongod_us:6.0f} µs each, ratio {ratio:.2f}"
        )


async def _measured(
    server: Server,
    work: Callable[[Server, str], Awaitable[None]],
    clients: int,
    count: int,
    mongod: int,
) -> tuple[float, float]:
    """Return µs of processor for one of ``count``: of this process, and of the database."""
    written = await server.perform(Request("create", "Observation", body=OBSERVATION), WHO)
    id = written.location.split("/")[1]
    began = time.process_time(), processor_s(mongod)

    async def client() -> None:
        for _ in range(count // clients):
            await work(server, id)

    await asyncio.gather(*(client() for _ in range(clients)))
    if server.context.store.audit is not None:
        await server.context.store.audit.flushed()
    ended = time.process_time(), processor_s(mongod)
    return (ended[0] - began[0]) / count * 1e6, (ended[1] - began[1]) / count * 1e6
