"""The table of design/performance.md: every workload, at several connections, against the limits.

``make bench`` prints it in Markdown. By environment::

    FHIR_BENCH_PATIENTS=1000,10000      one table for each size (1000)
    FHIR_BENCH_CONNECTIONS=1,16,64      (16; reads and creates also at 1 and 64)
    FHIR_BENCH_WORKLOADS=read           those whose name has it; of exports: export
    FHIR_BENCH_SECONDS=3                of each run; a row is two, in turns with the other server
    FHIR_BENCH_DATA=/tmp/bench          keep the database for another run
    FHIR_BENCH_BEFORE=v0.1.0            a commit: the server as it was then, in turns with this one
    FHIR_BENCH_OTHER=http://host/fhir   a base URL of any other FHIR server with the same data
    FHIR_BENCH_OTHER_HEADERS={"Authorization":"Bearer …"}

The server is as in production: a token with the rights of a role, everything recorded. Runs in
which others kept more than 0.3 of a core busy are marked with ``!``.
"""

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from pymongo import MongoClient

from tests.bench import exporting
from tests.bench.limits import STEPS
from tests.bench.targets import (
    DATABASE,
    Measured,
    Target,
    before,
    http_alone,
    mongod_alone,
    ours,
    port_of,
)
from tests.bench.workloads import WORKLOADS

SIZES = [int(one) for one in os.environ.get("FHIR_BENCH_PATIENTS", "1000").split(",")]
SECONDS = float(os.environ.get("FHIR_BENCH_SECONDS", "3"))
CONNECTIONS = [int(one) for one in os.environ.get("FHIR_BENCH_CONNECTIONS", "16").split(",")]
ONLY = os.environ.get("FHIR_BENCH_WORKLOADS", "")
KEPT = os.environ.get("FHIR_BENCH_DATA", "")
BEFORE = os.environ.get("FHIR_BENCH_BEFORE", "")
OTHER = os.environ.get("FHIR_BENCH_OTHER", "")
OTHER_HEADERS = json.loads(os.environ.get("FHIR_BENCH_OTHER_HEADERS", "{}"))
TURNS = 2
BUSY = 0.3
# Those whose limit is looked at from one connection to many.
WIDE = ("read", "create")
# Those that are also asked by the clock, at half of what they reached, for their tail.
OPEN = ("read", "create", "patient + 10 codes + date, sorted, 50 rows")
OPEN_AT = 16
EXPORT = "export"
# Which step of MongoDB alone a workload is held against.
LIMIT = {
    "read": "find one",
    "vread": "find one",
    "create": "insert",
    "update, If-Match": "insert",
    "identifier": "find one",
    "patient, 50 rows": "page of 50",
    "patient + 10 codes + date, sorted, 50 rows": "page of 50",
    "code, 20 rows": "page of 50",
}
Row = list[Measured]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="times are read in /proc")
@pytest.mark.parametrize("patients", SIZES)
def test_table(tmp_path: Path, patients: int) -> None:
    """Print the table for ``patients``."""
    folder = Path(KEPT) / str(patients) if KEPT else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        http = stack.enter_context(http_alone())
        ceiling = http.run("read", 16, SECONDS)
        target = stack.enter_context(ours(folder, patients))
        targets = [target]
        if BEFORE:
            targets.append(stack.enter_context(before(BEFORE, folder, patients)))
        if OTHER:
            targets.append(Target("other", OTHER, patients, OTHER_HEADERS))
        alone = {what: mongod_alone(target, what, SECONDS, 16) for what in STEPS}
        _conditions(patients)
        _limits(ceiling, alone)
        _head()
        for name, connections in _lines():
            rows = _measured(targets, name, connections)
            for one in targets:
                _line(one, name, connections, rows[one.name], rows["this"], ceiling, alone)
            if name in OPEN and connections == OPEN_AT:
                _open(target, name, _best(rows["this"]).rate / 2, ceiling, alone)
        if not ONLY or ONLY in EXPORT:
            exporting.table(target)
        _after(target)


def _lines() -> Iterator[tuple[str, int]]:
    for name in WORKLOADS:
        if ONLY and ONLY not in name:
            continue
        for connections in sorted({*CONNECTIONS, *((1, 64) if name in WIDE else ())}):
            yield name, connections


def _measured(targets: Sequence[Target], name: str, connections: int) -> Mapping[str, Row]:
    """Return the runs of each target, which take turns."""
    found: dict[str, Row] = {one.name: [] for one in targets}
    for one in targets:
        one.check(name)
    for _ in range(TURNS):
        for one in targets:
            found[one.name].append(one.run(name, connections, SECONDS))
    return found


def _open(
    target: Target,
    name: str,
    rate: float,
    ceiling: Measured,
    alone: Mapping[str, Mapping[str, float]],
) -> None:
    row = [target.run(name, OPEN_AT, SECONDS, rate=rate)]
    said = f"{name}, by the clock"
    _line(target, said, OPEN_AT, row, row, ceiling, alone)


def _best(row: Row) -> Measured:
    return max(row, key=lambda one: one.rate)


def _conditions(patients: int) -> None:
    print(f"\n{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; ")
    print(f"load before {os.getloadavg()[0]:.1f}; {patients:,} patients; runs of {SECONDS} s\n")


def _limits(ceiling: Measured, alone: Mapping[str, Mapping[str, float]]) -> None:
    print("| limit | per second | ms of the asker and mongod for 1 |")
    print("| --- | ---: | ---: |")
    print(f"| HTTP alone | {ceiling.rate:,.0f} | {ceiling.per_1000(ceiling.server):.3f} |")
    for what, one in alone.items():
        each = 1000 * (one["processor"] + one["mongod"]) / one["answers"]
        print(f"| mongod alone, {what} | {one['answers'] / one['seconds']:,.0f} | {each:.3f} |")


_COLUMNS = (
    *("workload", "connections", "per second", "p50 ms", "p95 ms", "p99 ms", "errors"),
    *("server CPU s per 1,000", "mongod CPU s per 1,000", "of HTTP alone", "of mongod alone"),
    *("this to other", "processor, other to this"),
)


def _head() -> None:
    print(f"\n| {' | '.join(_COLUMNS)} |")
    print(f"| --- |{' ---: |' * (len(_COLUMNS) - 1)}", flush=True)


def _line(
    target: Target,
    name: str,
    connections: int,
    row: Row,
    this: Row,
    ceiling: Measured,
    alone: Mapping[str, Mapping[str, float]],
) -> None:
    best, outcome = _best(row), _best(row).outcome
    size = WORKLOADS[name].size if name in WORKLOADS else 1
    limit = alone.get(LIMIT.get(name, ""))
    errors = sum(sum(one.outcome.errors.values()) for one in row)
    cells = [
        (name if target.name == "this" else f"{name}, {target.name}")
        + (" !" if best.others > BUSY else ""),
        str(connections),
        f"{best.rate * size:,.0f}",
        *(f"{one:.1f}" for one in (outcome.p50, outcome.p95, outcome.p99)),
        str(errors),
        *(f"{best.per_1000(one) / size:.3f}" for one in (best.server, best.mongod)),
        f"{best.rate / ceiling.rate:.2f}",
        f"{best.rate / (limit['answers'] / limit['seconds']):.2f}" if limit else "–",
        f"{_best(this).rate / best.rate:.2f}" if best.rate else "–",
        f"{_processor(best) / _processor(_best(this)):.2f}" if best.server else "–",
    ]
    print(f"| {' | '.join(cells)} |", flush=True)


def _processor(one: Measured) -> float:
    return one.per_1000(one.server + one.mongod)


def _after(target: Target) -> None:
    print(f"\nmemory of the server: {target.memory_mb():.0f} MB")
    uri = f"mongodb://127.0.0.1:{port_of(target)}/?directConnection=true"
    with MongoClient[dict[str, float]](uri) as client:
        said = client[DATABASE].command("dbStats")
    print(
        f"data {said['dataSize'] / 2**20:,.0f} MB, stored {said['storageSize'] / 2**20:,.0f} MB, ",
        end="",
    )
    print(f"indexes {said['indexSize'] / 2**20:,.0f} MB, {said['objects']:,.0f} documents")
