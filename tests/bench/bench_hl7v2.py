"""HL7 v2: messages per second with AA after majority commit, and where the time of one goes.

    python -m tests.bench.bench_hl7v2 [messages] [connections]

design/hl7v2.md, section 25. A server with an embedded mongod is started, and asked over MLLP by
senders that wait for each answer. CPU is that of the processes, from their accounts; rates are of
whatever machine this is, so the columns of CPU and the ratios are what to compare.
"""

import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from socket import create_connection

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
from tests.adapters.hl7v2.conftest import adt, oru
from tests.faults.serving import Serving
from tests.store.mongods import free_port

_TICKS_S = 100  # of /proc/[pid]/stat

Make = Callable[[int, int], bytes]

WORKLOADS: dict[str, tuple[Make, str]] = {
    "ADT, new patients": (lambda c, n: adt(f"A{c}-{n}", f"NEW{c}-{n}"), "AA"),
    "ADT, one field changed": (lambda c, n: adt(f"B{c}-{n}", f"NEW{c}-{n}", f"N{n}"), "AA"),
    "ORU30, new": (lambda c, n: oru(f"C{c}-{n}", f"NEW{c}-{n}", 30, f"F{c}-{n}"), "AA"),
    "ORU30, correction": (
        lambda c, n: oru(f"D{c}-{n}", f"NEW{c}-{n}", 30, f"F{c}-{n}").replace(b".50|", b".75|"),
        "AA",
    ),
    "ORU30, repeated": (
        lambda c, n: oru(f"C{c}-{n}", f"NEW{c}-{n}", 30, f"F{c}-{n}"),
        "AA",
    ),
    "ORU30, commit mode": (
        lambda c, n: oru(f"E{c}-{n}", f"X{c}-{n}", 30, f"G{c}-{n}", m15="AL", m16="NE"),
        "CA",
    ),
}


def cpu_s(pid: int) -> float:
    """Return the seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_S


def run(serving: Serving, port: int, make: Make, code: str, count: int, senders: int) -> str:
    """Send ``count`` messages over ``senders`` connections; return a line of the table."""
    took: list[float] = []

    def send(number: int) -> None:
        sender = Sender(f"mllp://127.0.0.1:{port}")
        for step in range(count // senders):
            message = make(number, step)
            began = time.perf_counter()
            answers = sender.send(message)
            took.append(time.perf_counter() - began)
            assert answered(answers[0])[0] == code, answers
        sender.close()

    before = cpu_s(serving.pid), cpu_s(serving.mongod)
    began = time.perf_counter()
    threads = [threading.Thread(target=send, args=(number,)) for number in range(senders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    server, mongod = cpu_s(serving.pid) - before[0], cpu_s(serving.mongod) - before[1]
    took.sort()
    sent = len(took)
    return (
        f"{sent / seconds:8.0f} {took[sent // 2] * 1000:8.1f} {took[sent * 99 // 100] * 1000:8.1f} "
        f"{server / sent * 1000:8.2f} {mongod / sent * 1000:8.2f}"
    )


def split(message: bytes) -> None:
    """Print how long the steps of one message take, by themselves, in ms."""
    known = specification(artifacts_root(None), ("http://x/fhir",))
    text = decoded(message).text
    profile = Profile()
    parsed = read(text)
    readers = Readers(Settings())
    arrival = Arrival(message, "", "bench", datetime.now(UTC))
    resources = [
        one["resource"]
        for one in _bundle(readers.item(arrival, header_of(message), judged=False))["entry"]
    ]
    steps: dict[str, Callable[[], object]] = {
        "frame": lambda: Framer().receive(framed(message)),
        "decode, parse": lambda: read(decoded(message).text),
        "map": lambda: changes_of(parsed, profile),
        "door to changes": lambda: readers.item(arrival, header_of(message)),
        "plan": lambda: _bundle(readers.item(arrival, header_of(message), judged=False)),
        "validate": lambda: [known.validator.issues(one, issues_max=100) for one in resources],
        "index": lambda: [index(one, known.parameters) for one in resources],
    }
    for name, step in steps.items():
        times = []
        for _ in range(30):
            began = time.perf_counter()
            step()
            times.append(time.perf_counter() - began)
        print(f"  {name:18}{statistics.median(times) * 1000:8.3f} ms")


def main() -> None:
    """Print both tables."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    senders = int(sys.argv[2]) if len(sys.argv) > 2 else 8
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        serving = Serving(Path(folder), features='["adapters.hl7v2"]', mllp_port=port)
        try:
            serving.start()
            while True:
                with suppress(OSError), create_connection(("127.0.0.1", port), 1):
                    break
            run(
                serving,
                port,
                lambda c, n: oru(f"W{c}-{n}", f"W{c}", 2, f"W{c}-{n}"),
                "AA",
                80,
                senders,
            )
            print(f"{count} messages each, {senders} connections; CPU in ms a message")
            print(f"{'':26}{'per s':>8} {'p50 ms':>8} {'p99 ms':>8} {'server':>8} {'mongod':>8}")
            for name, (make, code) in WORKLOADS.items():
                print(f"{name:26}" + run(serving, port, make, code, count, senders), flush=True)
        finally:
            serving.clean_up()
    for name, message in {"ADT": adt("A1"), "ORU30": oru("A1", "P1", 30)}.items():
        print(f"One {name} of {len(message):,} bytes")
        split(message)


if __name__ == "__main__":
    main()
