"""Writes over HTTP by a server of its own: how many a second, and what each costs its processes.

``make bench ARGS="-k writes"`` prints one Markdown table; it takes less than two minutes. Each line
is the best of several short runs. Server, MongoDB and the clients share the machine's cores, so
the figures are for comparing runs on one machine. Processor time is that of the server and of
mongod, of all threads, as the kernel counts it (in hundredths of a second), for each request, or
for each entry of a transaction.
"""

import asyncio
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import uvloop

from tests.bench.bench_basics import OBSERVATION
from tests.faults.serving import Serving

RUNS = 2
SECONDS = 1.3
_TICKS = os.sysconf("SC_CLK_TCK")

Make = Callable[[str, int], bytes]
"""``(name, turn)`` -> the request that a client of that name, like no other, sends in its turn."""


@dataclass(frozen=True)
class Line:
    """One line of the table: ``clients`` each send what ``make`` gives, one after the other.

    ``size`` is how many entries a request has.
    """

    what: str
    clients: int
    make: Make
    size: int = 1


class Client(asyncio.Protocol):
    """A connection that sends its next request when the answer to the last has come.

    Of an answer it looks at the status and the length, and at nothing else: what the clients cost
    is taken from the server.
    """

    def __init__(self, make: Make, end: float, accepted: tuple[int, ...] = (200, 201)) -> None:
        """Send what ``make`` gives until ``end``; answers are to have a status that is
        ``accepted``."""
        self.make, self.end = make, end
        self.statuses = dict.fromkeys(accepted, 0)
        self.name = uuid4().hex
        self.count = 0
        self.ended = asyncio.get_running_loop().create_future()
        self._held = b""
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        """Send the first."""
        self._transport = transport
        transport.write(self.make(self.name, 0))

    def data_received(self, data: bytes) -> None:
        """Count the answer when all of it is there, and send the next."""
        self._held += data
        head, ended, rest = self._held.partition(b"\r\n\r\n")
        if not ended or len(rest) < _length(head):
            return
        status = int(self._held[9:12])
        if status not in self.statuses:
            self._fail(AssertionError(self._held[:600]))
            return
        self.statuses[status] += 1
        self._held = b""
        self.count += 1
        if time.perf_counter() < self.end:
            self._transport.write(self.make(self.name, self.count))
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """End."""
        if not self.ended.done():
            self.ended.set_result(None)

    def _fail(self, error: Exception) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)
        self._transport.abort()


def _length(head: bytes) -> int:
    lower = head.lower()
    return int(lower.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)


def request(method: str, path: str, body: bytes, kind: str = "fhir", *headers: str) -> bytes:
    """Return a request to ``path`` under the base with a JSON body."""
    lines = (
        f"{method} /fhir{path} HTTP/1.1",
        *("Host: localhost", f"Content-Type: application/{kind}+json"),
        f"Content-Length: {len(body)}",
        *headers,
    )
    return "\r\n".join((*lines, "", "")).encode() + body


def _observation(**members: Any) -> bytes:
    return json.dumps({**OBSERVATION, **members}).encode()


_PLAIN = request("POST", "/Observation", _observation())


def _with_key(name: str, turn: int) -> bytes:
    return request(
        "POST", "/Observation", _observation(), "fhir", f"Idempotency-Key: {name}-{turn}"
    )


def _unless_there(name: str, turn: int) -> bytes:
    body = _observation(identifier=[{"system": "urn:bench", "value": f"{name}-{turn}"}])
    header = f"If-None-Exist: identifier=urn:bench|{name}-{turn}"
    return request("POST", "/Observation", body, "fhir", header)


def _put(name: str, turn: int) -> bytes:
    value = {**OBSERVATION["valueQuantity"], "value": turn}  # type: ignore[dict-item]
    match = [f'If-Match: W/"{turn}"'] if turn else []
    body = _observation(id=name, valueQuantity=value)
    return request("PUT", f"/Observation/{name}", body, "fhir", *match)


def _json_patch(name: str, turn: int) -> bytes:
    if turn == 0:
        return _put(name, 0)
    body = json.dumps([{"op": "replace", "path": "/valueQuantity/value", "value": turn}])
    return request("PATCH", f"/Observation/{name}", body.encode(), "json-patch")


def _fhirpath_patch(name: str, turn: int) -> bytes:
    if turn == 0:
        return _put(name, 0)
    part = [
        {"name": "type", "valueCode": "replace"},
        {"name": "path", "valueString": "Observation.value.value"},
        {"name": "value", "valueDecimal": turn},
    ]
    operation = [{"name": "operation", "part": part}]
    body = json.dumps({"resourceType": "Parameters", "parameter": operation})
    return request("PATCH", f"/Observation/{name}", body.encode())


def _transaction(entries: int) -> Make:
    entry = {"resource": OBSERVATION, "request": {"method": "POST", "url": "Observation"}}
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry] * entries}
    whole = request("POST", "", json.dumps(bundle).encode())
    return lambda _name, _turn: whole


SINGLE: dict[str, Make] = {
    "creates": lambda _name, _turn: _PLAIN,
    "creates, Idempotency-Key": _with_key,
    "creates, If-None-Exist": _unless_there,
    "updates, If-Match": _put,
    "JSON patches": _json_patch,
    "FHIRPath patches": _fhirpath_patch,
}
LINES = [
    *(Line(what, count, make) for what, make in SINGLE.items() for count in (1, 32, 128)),
    *(Line(f"entries of transactions of {n:,}", 4, _transaction(n), n) for n in (10, 100, 1000)),
]


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """A running server with an empty database."""
    one = Serving(tmp_path)
    one.start()
    yield one
    one.stop()
    one.clean_up()


def _seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


async def measured(line: Line, serving: Serving) -> tuple[float, float, float]:
    """Return how many a second, and microseconds of the server and of mongod for each."""
    loop = asyncio.get_running_loop()
    pids = (serving.pid, serving.mongod)
    before = [_seconds(pid) for pid in pids]
    began = time.perf_counter()

    async def connected() -> Client:
        make = partial(Client, line.make, began + SECONDS)
        return (await loop.create_connection(make, port=serving.port))[1]

    clients = [await connected() for _ in range(line.clients)]
    await asyncio.gather(*(one.ended for one in clients))
    passed = time.perf_counter() - began
    count = sum(one.count for one in clients) * line.size
    server, mongod = (_seconds(pid) - was for pid, was in zip(pids, before, strict=True))
    return count / passed, server / count * 1e6, mongod / count * 1e6


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processor time is read in /proc")
def test_writes(serving: Serving) -> None:
    """Print the table."""
    began = time.perf_counter()
    load = os.getloadavg()[0]
    rows = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measured(Line("warm", 8, SINGLE["creates"]), serving))
        for line in LINES:
            best = max(runner.run(measured(line, serving)) for _ in range(RUNS))
            rate, server, mongod = best
            rows.append(
                f"| {line.what} | {line.clients} | {rate:,.0f} | {server:,.0f} | {mongod:,.0f} |"
            )
    print(f"\n{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; ")
    print(f"load before: {load:.1f}; each line the best of {RUNS} runs of {SECONDS} s")
    print(f"in all: {time.perf_counter() - began:.0f} s\n")
    print("| what | clients | a second | µs of the server for each | µs of mongod for each |")
    print("| --- | ---: | ---: | ---: | ---: |")
    print("\n".join(rows))
