"""``$find`` over HTTP by a server of its own: 50 Schedules, 30 days, 5,000 busy half hours.

``make bench ARGS="-k finding"`` prints one Markdown table in a minute. Check S12 of
design/scheduling.md: p95 under the bar, and the ratio to one Schedule. One client asks, one
question after the other, each from another hour on, so that nothing is answered from memory.
Processor time is that of all threads of the server and of mongod, for each question.
"""

import json
import os
import platform
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.bench.bench_writes import _seconds
from tests.faults.serving import Serving

SCHEDULES = 50
BUSY = 100  # half hours of each
DAYS = 30
QUESTIONS = 60
BAR_MS = 250
# Beyond the notice and within the horizon, whenever this is run.
BEGINNING = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=7)
HOURS = [("08:00:00", "12:00:00"), ("13:00:00", "17:00:00")]


def _schedule(number: int) -> dict[str, Any]:
    times = [
        {
            "url": "availableTime",
            "extension": [
                {"url": "availableStartTime", "valueTime": start},
                {"url": "availableEndTime", "valueTime": end},
            ],
        }
        for start, end in HOURS
    ]
    said = [
        {"url": "availability", "extension": times},
        {"url": "duration", "valueDuration": {"value": 30, "unit": "min"}},
        {"url": "timezone", "valueCode": "Asia/Dhaka"},
    ]
    url = "urn:fhir-server:StructureDefinition:scheduling-parameters"
    return {
        "resourceType": "Schedule",
        "id": f"s{number}",
        "actor": [{"reference": f"Practitioner/p{number}"}],
        "extension": [{"url": url, "extension": said}],
    }


def _busy(number: int) -> Iterator[dict[str, Any]]:
    """Yield half hours of the opening hours, none twice."""
    random.seed(number)
    opening = BEGINNING + timedelta(hours=2)  # eight in Dhaka
    places = random.sample(range(DAYS * 16), BUSY)
    for place in places:
        day, half = divmod(place, 16)
        start = opening + timedelta(days=day, minutes=30 * (half + 2 * (half >= 8)))
        yield {
            "resourceType": "Slot",
            "id": f"b{number}-{place}",
            "status": "busy",
            "schedule": {"reference": f"Schedule/s{number}"},
            "start": start.isoformat(),
            "end": (start + timedelta(minutes=30)).isoformat(),
        }


def _put(base: str, *bodies: dict[str, Any]) -> None:
    entry = [
        {"resource": r, "request": {"method": "PUT", "url": f"{r['resourceType']}/{r['id']}"}}
        for r in bodies
    ]
    sent = {"resourceType": "Bundle", "type": "transaction", "entry": entry}
    said = httpx.post(base, json=sent, timeout=60)
    assert said.status_code == 200, said.text


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """A running server with the Schedules and what is busy of them."""
    one = Serving(tmp_path, rate_per_s=1e6)
    one.start()
    for number in range(SCHEDULES):
        name = [{"family": f"Doctor {number}"}]
        doctor = {"resourceType": "Practitioner", "id": f"p{number}", "name": name}
        _put(one.base, doctor, _schedule(number))
        _put(one.base, *_busy(number))
    yield one
    one.stop()
    one.clean_up()


def _measured(serving: Serving, schedules: int, count: int) -> tuple[float, ...]:
    """Return p50 and p95 in ms, ms of the server and of mongod each, and what was found."""
    doctors = [("practitioner", f"Practitioner/p{number}") for number in range(schedules)]
    taken, total = [], 0
    pids = (serving.pid, serving.mongod)
    with httpx.Client(base_url=serving.base, timeout=60) as client:
        before: list[float] = []
        for turn in range(-5, QUESTIONS):
            if turn == 0:
                before = [_seconds(pid) for pid in pids]
            start = BEGINNING + timedelta(minutes=turn)
            asked: list[tuple[str, Any]] = [
                *doctors,
                *(("start", start.isoformat()), ("_count", str(count))),
                ("end", (start + timedelta(days=DAYS)).isoformat()),
            ]
            began = time.perf_counter()
            answer = client.get("/Appointment/$find", params=asked)
            if turn >= 0:
                taken.append((time.perf_counter() - began) * 1000)
            found = json.loads(answer.content)
            assert answer.status_code == 200, answer.text
            assert len(found["entry"]) == count
            total = found["total"]
    spent = [_seconds(pid) - was for pid, was in zip(pids, before, strict=True)]
    taken.sort()
    each = (one / QUESTIONS * 1000 for one in spent)
    return taken[len(taken) // 2], taken[int(len(taken) * 0.95)], *each, total


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processor time is read in /proc")
def test_finding(serving: Serving) -> None:
    """Print the table; a p95 above the bar fails where nothing else keeps the machine busy."""
    load = os.getloadavg()[0]
    rows, medians = [], {}
    for schedules, count in ((1, 20), (SCHEDULES, 20), (SCHEDULES, 1000)):
        p50, p95, server, mongod, total = _measured(serving, schedules, count)
        medians[schedules, count] = p50, p95
        cells = (f"{one:,.1f}" for one in (p50, p95, server, mongod))
        rows.append(f"| {schedules} | {count:,} | {total:,.0f} | {' | '.join(cells)} |")
    ratio = medians[SCHEDULES, 20][0] / medians[1, 20][0]
    print(f"\n{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; ")
    print(f"load before: {load:.1f}; {QUESTIONS} questions of {DAYS} days a line\n")
    print("| Schedules | `_count` | `total` | p50 ms | p95 ms | ms of the server | of mongod |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    print("\n".join(rows))
    print(f"\n{SCHEDULES} Schedules to one: {ratio:.1f} times (p50).")
    if load < 0.5:
        assert medians[SCHEDULES, 20][1] < BAR_MS
