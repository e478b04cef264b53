"""Sends a workload over HTTP and says how long the answers took: a process of its own.

``python -m tests.bench.driver`` reads a :class:`Load` as JSON and prints an :class:`Outcome`. A
connection is a bare protocol that looks at the status and the length of an answer and at nothing
else, about 20 µs of a core; what the driver cost is said beside the rest, since it shares the
machine with the server. *Closed*: each connection sends its next request when it has the answer to
the last. *Open*, with a ``rate``: requests are due by the clock, and the time of an answer counts
from when its request was due, so that a server which stalls cannot hide it.
"""

import asyncio
import json
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from random import Random
from typing import Any

import uvloop

from tests.bench.workloads import WORKLOADS, Make

_END = b"\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
_PATIENCE_S = 30.0


@dataclass(frozen=True)
class Load:
    """``workload`` by its name, on the server at ``port`` with the base ``path`` and ``headers``;
    ``patients`` are there. ``rate`` 0 is a closed loop. ``seed`` draws the values."""

    workload: str
    port: int
    patients: int
    connections: int = 16
    seconds: float = 3.0
    warmup: float = 0.5
    rate: float = 0.0
    host: str = "127.0.0.1"
    path: str = "/fhir"
    headers: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """``answers`` in ``seconds``, with those of the warm-up ``asked``; of their times in
    milliseconds 50, 95, 99 and 100 of a hundred; the statuses that were not to be expected; bytes
    of the answers; processor seconds here."""

    asked: int
    answers: int
    seconds: float
    p50: float
    p95: float
    p99: float
    worst: float
    errors: Mapping[str, int]
    bytes: int
    processor: float


@dataclass
class _Run:
    make: Make
    accepted: tuple[int, ...]
    open: bool
    keeps_tag: bool
    count_from: float
    end: float
    asked: int = 0
    times: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    waiting: deque[float] = field(default_factory=deque)
    idle: list["_Connection"] = field(default_factory=list)


class _Connection(asyncio.Protocol):
    """One connection, which sends one request at a time."""

    def __init__(self, number: int, run: _Run) -> None:
        self.run = run
        self.number = number
        self.turn = 0
        self.tag = ""
        self.ended = asyncio.get_running_loop().create_future()
        self.held = bytearray()
        self.needed = 0
        self.due = 0.0
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        if self.run.open:
            self.run.idle.append(self)
        else:
            self.send(time.perf_counter())

    def send(self, due: float) -> None:
        """Send the next request, which is or was ``due``."""
        self.due = due
        self.transport.write(self.run.make(self.number, self.turn, self.tag))
        self.turn += 1

    def data_received(self, data: bytes) -> None:
        held = self.held
        held += data
        if not self.needed and not self._measure():
            return
        if self.needed < 0:
            if not held.endswith(_LAST_CHUNK):
                return
        elif len(held) < self.needed:
            return
        self._answered(time.perf_counter())

    def _measure(self) -> bool:
        """Find out how long the answer is; below zero it comes in chunks."""
        at = self.held.find(_END)
        if at < 0:
            return False
        head = bytes(self.held[:at]).lower()
        length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
        chunked = b"transfer-encoding: chunked" in head
        if self.run.keeps_tag:
            self.tag = head.partition(b"etag:")[2].partition(b"\r\n")[0].decode().strip().upper()
        self.needed = -1 if chunked else at + len(_END) + int(length or 0)
        return True

    def _answered(self, now: float) -> None:
        run = self.run
        run.asked += 1
        if now >= run.count_from:
            run.times.append(now - self.due)
            run.bytes += len(self.held)
            status = int(self.held[9:12])
            if status not in run.accepted:
                run.errors[str(status)] += 1
                if len(run.errors) == sum(run.errors.values()) == 1:
                    print(bytes(self.held[:600]), file=sys.stderr)
        self.held.clear()
        self.needed = 0
        if run.open:
            if run.waiting:
                self.send(run.waiting.popleft())
            else:
                run.idle.append(self)
        elif now < run.end:
            self.send(now)
        else:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if self.held or self.needed:
            self.run.errors["lost"] += 1
        if not self.ended.done():
            self.ended.set_result(None)


async def drive(load: Load) -> Outcome:
    """Send ``load``; return what came of it."""
    chosen = WORKLOADS[load.workload]
    make = chosen.requests(load.patients, load.path, load.headers, Random(load.seed))
    began = time.perf_counter()
    count_from = began + load.warmup
    end, is_open, keeps_tag = count_from + load.seconds, load.rate > 0, chosen.path is None
    run = _Run(make, chosen.accepted, is_open, keeps_tag, count_from, end)
    loop = asyncio.get_running_loop()

    def connection(number: int) -> Callable[[], _Connection]:
        return lambda: _Connection(number, run)

    made = [
        (await loop.create_connection(connection(load.seed * 100 + number), load.host, load.port))[
            1
        ]
        for number in range(load.connections)
    ]
    before = time.process_time()
    if run.open:
        await _by_the_clock(run, load.rate)
        async with asyncio.timeout(_PATIENCE_S):
            while len(run.idle) < len(made):
                await asyncio.sleep(0.01)
        for one in made:
            one.transport.close()
    async with asyncio.timeout(load.warmup + load.seconds + _PATIENCE_S):
        await asyncio.gather(*(one.ended for one in made))
    return _outcome(run, load.seconds, time.process_time() - before)


async def _by_the_clock(run: _Run, rate: float) -> None:
    began = time.perf_counter()
    for number in count():
        due = began + number / rate
        if due >= run.end:
            return
        now = time.perf_counter()
        if due > now:
            await asyncio.sleep(due - now)
        if run.idle:
            run.idle.pop().send(due)
        else:
            run.waiting.append(due)


def _outcome(run: _Run, seconds: float, processor: float) -> Outcome:
    times = sorted(run.times)
    p50, p95, p99, worst = (_part(times, part) * 1000 for part in (0.5, 0.95, 0.99, 1.0))
    done = (dict(run.errors), run.bytes, processor)
    return Outcome(run.asked, len(times), seconds, p50, p95, p99, worst, *done)


def _part(times: Sequence[float], part: float) -> float:
    return times[min(len(times) - 1, int(len(times) * part))] if times else 0.0


def main() -> None:
    """Read a load, and print its outcome."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(drive(Load(**json.load(sys.stdin))))
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
