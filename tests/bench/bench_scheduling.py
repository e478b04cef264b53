"""Bookings over HTTP by a server of its own: how many a second, wanted by one or by many.

``make bench ARGS="-k bookings"`` prints one Markdown table. *Apart*: each client books times of a
doctor of its own. *Together*: four clients at a time want the same times of one doctor; one gets
each, the others are refused (409), and at the end no time has two. Check S2 of design/scheduling.md
is the ratio of the last two lines: answers a second for 16 times that four want, to 64 that nobody
else wants.
"""

import asyncio
import json
import os
import platform
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import httpx
import pytest
import uvloop
from pymongo import MongoClient

from tests.bench.bench_writes import Client, _seconds, request
from tests.faults.serving import Serving

SECONDS = 4.0
DOCTORS = 64
MORNING = datetime(2036, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Line:
    """So many ``clients``, of whom ``contenders`` want the same times."""

    what: str
    clients: int
    contenders: int = 1


LINES = [
    *(Line("apart", count) for count in (1, 16, 64)),
    *(Line("together, by four", count, 4) for count in (16, 64)),
]


def _booking(doctor: int, day: int, patient: int, turn: int) -> bytes:
    start = MORNING + timedelta(days=20 * day, minutes=15 * turn)
    actors = [f"Practitioner/p{doctor}", f"Patient/c{patient}"]
    body = {
        "resourceType": "Appointment",
        "status": "booked",
        "start": start.isoformat(),
        "end": (start + timedelta(minutes=15)).isoformat(),
        "participant": [{"actor": {"reference": one}, "status": "accepted"} for one in actors],
    }
    return request("POST", "/Appointment", json.dumps(body).encode())


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """A running server with a Schedule for each doctor."""
    one = Serving(tmp_path)
    one.start()
    for number in range(DOCTORS):
        actor = [{"reference": f"Practitioner/p{number}"}]
        body = {"resourceType": "Schedule", "id": f"d{number}", "actor": actor}
        httpx.put(f"{one.base}/Schedule/d{number}", json=body).raise_for_status()
    yield one
    one.stop()
    one.clean_up()


async def _measured(line: Line, run: int, serving: Serving) -> str:
    loop = asyncio.get_running_loop()
    pids = (serving.pid, serving.mongod)
    before = [_seconds(pid) for pid in pids]
    began = time.perf_counter()

    async def connected(number: int) -> Client:
        doctor = number // line.contenders

        def make(_name: str, turn: int) -> bytes:
            return _booking(doctor, run, number, turn)

        accepted = (201,) if line.contenders == 1 else (201, 409)
        client = partial(Client, make, began + SECONDS, accepted)
        return (await loop.create_connection(client, port=serving.port))[1]

    clients = [await connected(number) for number in range(line.clients)]
    await asyncio.gather(*(one.ended for one in clients))
    passed = time.perf_counter() - began
    server, mongod = (_seconds(pid) - was for pid, was in zip(pids, before, strict=True))
    count = sum(one.count for one in clients)
    booked = sum(one.statuses[201] for one in clients)
    cells = (count / passed, booked / passed, server / count * 1e6, mongod / count * 1e6)
    return f"| {line.what} | {line.clients} | " + " | ".join(f"{one:,.0f}" for one in cells) + " |"


def _twice_taken(serving: Serving) -> int:
    """Return how many times of a doctor have two bookings."""
    port = json.loads((serving.data / "mongod.json").read_text())["port"]
    with MongoClient[dict[str, object]](port=port, directConnection=True) as client:
        found = client["fhir"]["Appointment"].find({}, {"json": 1})
        times = Counter(
            (body["participant"][0]["actor"]["reference"], body["start"])
            for body in (json.loads(bytes(one["json"])) for one in found)  # type: ignore[call-overload]
        )
    assert len(times) > 100
    return sum(count > 1 for count in times.values())


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processor time is read in /proc")
def test_bookings(serving: Serving) -> None:
    """Print the table."""
    load = os.getloadavg()[0]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_measured(Line("warm", 8), 0, serving))
        rows = [
            runner.run(_measured(line, run, serving)) for run, line in enumerate(LINES, start=1)
        ]
    assert _twice_taken(serving) == 0
    print(f"\n{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; ")
    print(f"load before: {load:.1f}; each line {SECONDS:g} s\n")
    print("| bookings | clients | answers a second | booked | µs of the server | of mongod |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    print("\n".join(rows))
