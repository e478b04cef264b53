"""HL7 v2 by a server of its own: messages a second, and what one costs, against bare transactions.

``make bench ARGS="-k hl7v2"`` prints two Markdown tables in two minutes; ``FHIR_BENCH_MESSAGES``
has more of each message sent than 240. design/hl7v2.md, section 25.

Senders on eight connections wait for each answer: AA, after a majority has committed what the
message became, or CA, after its row. CPU is that of all threads of the server and of mongod, in
the accounts of the kernel. The machine is shared by server, MongoDB and senders: what to compare
are the columns of CPU, and the ratio to a bare transaction with the same documents in the same run.
"""

import asyncio
import os
import platform
import statistics
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socket import create_connection
from typing import Any

import pytest
import uvloop

from adapters.hl7v2.ack import answered, header_of
from adapters.hl7v2.charset import decoded
from adapters.hl7v2.commands import _bundle
from adapters.hl7v2.frame import Framer, framed
from adapters.hl7v2.message import read
from adapters.hl7v2.messages import changes_of
from adapters.hl7v2.reading import Arrival, Readers
from adapters.hl7v2.senders import Profile
from adapters.hl7v2.sending import Sender
from fhir_server.app import specification
from fhir_server.artifacts import artifacts_root
from fhir_server.search.index import index
from fhir_server.settings import Settings
from fhir_server.store.client import close, connect, database_of
from fhir_server.store.documents import document, stamped
from fhir_server.store.inbox import INBOX, LED, ORIGINS
from fhir_server.store.transactions import transacted
from tests.adapters.hl7v2.conftest import adt, oru
from tests.faults.serving import Serving
from tests.store.mongods import free_port

MESSAGES = int(os.environ.get("FHIR_BENCH_MESSAGES", "240"))
CONNECTIONS = 8
_TICKS = os.sysconf("SC_CLK_TCK")
_PATIENCE_S = 120.0

Make = Callable[[int, int], bytes]
"""``(connection, turn)`` -> a message like no other, except where a line is about that."""


def laboratory(control: str, number: str, filler: str, value: str = "50") -> bytes:
    """Return 30 results as an analyser sends them: 9 KB, each with unit, range, performer, time."""
    head, obr, *results = oru(control, number, 30, filler).decode().rstrip("\r").split("\rOB")
    rows = [head, obr]
    for n, _ in enumerate(results, 1):
        code = f"{1000 + n}-{n % 10}^Substance {n} [Mass/volume] in Serum or Plasma^LN"
        local = f"L{n}^Substance {n}, photometric^99LAB"
        value_and_unit = f"{n}.{value}|mg/dL^milligram per decilitre^UCUM|{n}.10-{n + 9}.90|N"
        place = "C^Central laboratory|T17^RAHMAN^ABDUR^^^DR||ANALYSER-3^ROCHE"
        rows.append(
            f"X|{n}|NM|{code}^{local}|1|{value_and_unit}|||F|||20260102030000+0600|{place}"
            f"|20260102031500+0600||||Hospital laboratory^L|Road {n}^^Dhaka^^1207^BGD"
        )
    return "\rOB".join(rows).encode() + b"\r"


# Line of the table: the message, and what is answered to it.
LINES: dict[str, tuple[Make, str]] = {
    "ADT A08, new patient": (lambda c, n: adt(f"A{c}-{n}", f"N{c}-{n}"), "AA"),
    "ADT A08, a name changed": (lambda c, n: adt(f"B{c}-{n}", f"N{c}-{n}", f"N{n}"), "AA"),
    "ORU30, new, 1.5 KB": (lambda c, n: oru(f"C{c}-{n}", f"N{c}-{n}", 30, f"F{c}-{n}"), "AA"),
    "ORU30, all values corrected": (
        lambda c, n: oru(f"D{c}-{n}", f"N{c}-{n}", 30, f"F{c}-{n}").replace(b".50|", b".75|"),
        "AA",
    ),
    "ORU30, the same message again": (
        lambda c, n: oru(f"C{c}-{n}", f"N{c}-{n}", 30, f"F{c}-{n}"),
        "AA",
    ),
    "ORU30, new, 9 KB": (lambda c, n: laboratory(f"L{c}-{n}", f"N{c}-{n}", f"L{c}-{n}"), "AA"),
    "ORU30, taken in, not applied": (
        lambda c, n: oru(f"E{c}-{n}", f"X{c}-{n}", 30, f"G{c}-{n}", m15="AL", m16="NE"),
        "CA",
    ),
}


def cpu_s(pid: int) -> float:
    """Return the seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@dataclass
class Cost:
    """What one message cost: in a second how many, waits in ms, processor time in ms."""

    rate: float
    p50: float
    p99: float
    server: float
    mongod: float

    def row(self, name: str, bare: "Cost | None") -> str:
        """Return the line of the table; the ratio is that to ``bare`` of both processes."""
        ratio = f"{(self.server + self.mongod) / (bare.server + bare.mongod):.1f}" if bare else ""
        return (
            f"| {name} | {self.rate:.0f} | {self.p50:.0f} / {self.p99:.0f} | {self.server:.2f} "
            f"| {self.mongod:.2f} | {ratio} |"
        )


def send_all(serving: Serving, port: int, make: Make, code: str) -> Cost:
    """Send the messages of one line over all connections."""
    took: list[float] = []

    def send(number: int) -> None:
        sender = Sender(f"mllp://127.0.0.1:{port}")
        for step in range(MESSAGES // CONNECTIONS):
            message = make(number, step)
            began = time.perf_counter()
            answers = sender.send(message)
            took.append(time.perf_counter() - began)
            assert answered(answers[0])[0] == code, answers
        sender.close()

    before = cpu_s(serving.pid), cpu_s(serving.mongod)
    began = time.perf_counter()
    threads = [threading.Thread(target=send, args=(number,)) for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    sent = len(took)
    assert sent == MESSAGES // CONNECTIONS * CONNECTIONS
    server, mongod = cpu_s(serving.pid) - before[0], cpu_s(serving.mongod) - before[1]
    took.sort()
    waits = took[sent // 2] * 1000, took[sent * 99 // 100] * 1000
    return Cost(sent / seconds, *waits, server / sent * 1000, mongod / sent * 1000)


class Beside:
    """The database of the server, looked at and written to by this process."""

    def __init__(self, serving: Serving) -> None:
        """Connect to the mongod of ``serving``."""
        state = (serving.data / "mongod.json").read_text()
        port = state.partition('"port": ')[2].rstrip("} \n")
        self.client = connect(
            f"mongodb://127.0.0.1:{port}/?directConnection=true", connections_max=16
        )
        self.database = database_of(self.client, Settings().mongodb_database)
        self._pid = serving.mongod

    async def written_by(self, control: str) -> dict[str, list[dict[str, Any]]]:
        """Return what the message ``control`` wrote, by collection."""
        row = await self.database[INBOX].find_one({"control_id": control})
        assert row is not None
        made = [one["reference"].partition("/")[::2] for one in row["made"]]
        places = [*made, ("Binary", row["binary"])]
        found = {INBOX: [{**row, "key": ""}]}
        for type, id in places:
            found.setdefault(type, []).extend(await self.database[type].find({"_id": id}).to_list())
        for type in ("DocumentReference", "Provenance"):
            last = self.database[type].find({}).sort("last_updated", -1).limit(1)
            found[type] = await last.to_list()
        found[ORIGINS] = await self.database[ORIGINS].find({"row": row["_id"]}).to_list()
        return {name: documents for name, documents in found.items() if documents}

    async def bare(self, documents: dict[str, list[dict[str, Any]]]) -> Cost:
        """Insert ``documents`` under other ids, a command for each collection, as often as a
        message is sent."""
        took: list[float] = []

        async def insert(name: str) -> None:
            async def work(session: Any) -> None:
                for collection, each in documents.items():
                    new = [{**one, "_id": f"{name}/{one['_id']}", "key": name} for one in each]
                    await self.database[collection].insert_many(new, session=session)

            began = time.perf_counter()
            await transacted(self.client, work, time.monotonic() + _PATIENCE_S)
            took.append(time.perf_counter() - began)

        async def sender(number: int) -> None:
            for turn in range(MESSAGES // CONNECTIONS):
                await insert(f"bare{number}-{turn}-{began}")

        began = time.perf_counter()
        before = time.process_time(), cpu_s(self._pid)
        await asyncio.gather(*map(sender, range(CONNECTIONS)))
        seconds, sent = time.perf_counter() - began, len(took)
        server, mongod = time.process_time() - before[0], cpu_s(self._pid) - before[1]
        took.sort()
        waits = took[sent // 2] * 1000, took[sent * 99 // 100] * 1000
        return Cost(sent / seconds, *waits, server / sent * 1000, mongod / sent * 1000)

    async def hold_up(self) -> None:
        """Take the lead away from the server: rows are taken in, and nobody applies them."""
        at = datetime.now(UTC) + timedelta(hours=1)
        await self.database[LED].update_one(
            {"_id": "rows"}, {"$set": {"owner": "bench", "at": at}}, upsert=True
        )
        await asyncio.sleep(3.0)  # the server asks once a second whether it still leads

    async def let_go(self) -> None:
        """Give the lead back, and wait until every row is applied."""
        await self.database[LED].delete_one({"_id": "rows"})
        end = time.monotonic() + _PATIENCE_S
        while await self.database[INBOX].find_one({"state": {"$in": ["received", "applying"]}}):
            assert time.monotonic() < end
            await asyncio.sleep(0.05)


async def table(serving: Serving, port: int) -> list[str]:
    """Return the lines of the first table."""
    beside = Beside(serving)
    rows = []
    try:
        send_all(serving, port, lambda c, n: oru(f"W{c}-{n}", f"W{c}", 2, f"W{c}-{n}"), "AA")
        for name, (make, code) in LINES.items():
            bare = None
            if code == "CA":
                await beside.hold_up()
            cost = send_all(serving, port, make, code)
            if "new" in name:
                control = header_of(make(0, 0))
                assert control is not None
                bare = await beside.bare(await beside.written_by(control.control_id))
            rows.append(cost.row(name, bare))
            if bare is not None:
                rows.append(bare.row("… a bare transaction with its documents", None))
            if code == "CA":
                before, began = cpu_s(serving.pid), time.perf_counter()
                mongod = cpu_s(serving.mongod)
                await beside.let_go()
                seconds = time.perf_counter() - began
                used = (cpu_s(serving.pid) - before, cpu_s(serving.mongod) - mongod)
                each = [one / MESSAGES * 1000 for one in used]
                rows.append(Cost(MESSAGES / seconds, 0, 0, *each).row("… and then applied", None))
    finally:
        await close(beside.client)
    return rows


def split(message: bytes) -> dict[str, float]:
    """Return what the steps of one message cost by themselves, without the database, in ms."""
    known = specification(artifacts_root(None), ("http://x/fhir",))
    parsed, profile, readers = read(decoded(message).text), Profile(), Readers(Settings())
    now = datetime.now(UTC)
    arrival, header = Arrival(message, "", "bench", now), header_of(message)
    item = readers.item(arrival, header, judged=False)
    binary = {"resourceType": "Binary", "id": "b", "data": b64encode(message).decode()}
    resources = [one["resource"] for one in _bundle(item)["entry"]] + [binary]
    whole = [stamped(one, one.get("id", "x"), 1, now) for one in resources]
    keys = [index(one, known.parameters) for one in whole]
    steps: dict[str, Callable[[], object]] = {
        "frame": lambda: Framer().receive(framed(message)),
        "decode and parse": lambda: read(decoded(message).text),
        "map": lambda: changes_of(parsed, profile),
        "parse, map, digest": lambda: readers.item(arrival, header),
        "meet what is stored (nothing)": lambda: _bundle(item),
        "validate": lambda: [known.validator.issues(one, issues_max=9) for one in resources],
        "search keys": lambda: [index(one, known.parameters) for one in whole],
        "JSON and documents": lambda: [
            document(one, each, interaction="create", bytes_max=10**7)
            for one, each in zip(whole, keys, strict=True)
        ],
    }
    return {name: _ms(step) for name, step in steps.items()}


def _ms(step: Callable[[], object]) -> float:
    times = []
    for _ in range(40):
        began = time.process_time()
        step()
        times.append(time.process_time() - began)
    return statistics.median(times) * 1000


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Serving, int]]:
    """A server that listens, and the port."""
    port = free_port()
    serving = Serving(tmp_path, features='["adapters.hl7v2"]', mllp_port=port)
    try:
        serving.start()
        while True:
            with suppress(OSError), create_connection(("127.0.0.1", port), 1):
                break
        yield serving, port
    finally:
        serving.clean_up()


def test_hl7v2(served: tuple[Serving, int]) -> None:
    """Print both tables."""
    load = os.getloadavg()[0]
    rows = uvloop.run(table(*served))
    print(f"\n{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; ")
    print(f"load before: {load:.1f}; {MESSAGES} of each over {CONNECTIONS} connections\n")
    print("| message | a second | p50 / p99 ms | ms of the server | ms of mongod | × bare |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    print("\n".join(rows))
    messages = (adt("A1"), oru("A1", "P1", 30, "F1"), laboratory("A1", "P1", "F1"))
    splits = [split(message) for message in messages]
    sizes = " | ".join(f"{len(message):,} bytes" for message in messages)
    print(f"\n| ms of CPU, each by itself | {sizes} |\n| --- | ---: | ---: | ---: |")
    for name in splits[0]:
        print(f"| {name} | " + " | ".join(f"{one[name]:.3f}" for one in splits) + " |")
