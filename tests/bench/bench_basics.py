"""Reads, creates, transactions and loading, over HTTP, against a server of its own.

Run by ``make bench``. The server, its MongoDB and the clients share the machine's cores, so the
figures say what this machine does, and are for comparing runs on one machine.
"""

import asyncio
import json
import os
import platform
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import SHARED

PORT = 18_080
SECONDS = 4.0
Ask = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]

OBSERVATION = {
    "resourceType": "Observation",
    "status": "final",
    "category": [
        {
            "coding": [
                {
                    "system": "http://terminology.hl7.org/CodeSystem/observation-category",
                    "code": "vital-signs",
                }
            ]
        }
    ],
    "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4", "display": "Heart rate"}]},
    "subject": {"reference": "Patient/rahima-khatun"},
    "effectiveDateTime": "2026-01-12T09:30:00+06:00",
    "valueQuantity": {
        "value": 78.0,
        "unit": "beats/minute",
        "system": "http://unitsofmeasure.org",
        "code": "/min",
    },
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A running server with the sample clinic; the folder of its data."""
    folder = tmp_path_factory.mktemp("bench")
    command = [sys.executable, "-m", "fhir_server", "serve", "--sample", "--port", str(PORT)]
    environment = {**os.environ, "FHIR_LOG_LEVEL": "warning", "FHIR_DATA": str(folder)}
    began = time.monotonic()
    server = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    while not _answers():
        assert server.poll() is None, "the server ended"
        time.sleep(0.02)
    print(f"\n{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"first start to first answer, sample loaded: {time.monotonic() - began:.1f} s")
    yield folder
    memory = Path(f"/proc/{server.pid}/status")
    if memory.exists():
        lines = memory.read_text().splitlines()
        print("server memory:", next(line.split()[1] for line in lines if "VmRSS" in line), "kB")
    server.send_signal(signal.SIGTERM)
    server.wait(60)


def _answers() -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/fhir/metadata", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


async def rate(ask: Ask, clients: int) -> float:
    """Return how many times a second ``clients`` connections, each in its turn, can ``ask``."""
    end = time.perf_counter() + SECONDS
    counts = [0] * clients

    async def client(place: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
        while time.perf_counter() < end:
            await ask(reader, writer, counts[place] * clients + place)
            counts[place] += 1
        writer.close()
        await writer.wait_closed()

    began = time.perf_counter()
    await asyncio.gather(*map(client, range(clients)))
    return sum(counts) / (time.perf_counter() - began)


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str, body: bytes, status: str
) -> bytes:
    """Send one request and return the body of its answer, which must have ``status``."""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    kind = "Content-Type: application/fhir+json\r\n" if body else ""
    writer.write(f"{head} HTTP/1.1\r\nHost: localhost\r\n{kind}{length}\r\n".encode() + body)
    answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    size = int(answer.partition("content-length: ")[2].partition("\r\n")[0] or 0)
    text = await reader.readexactly(size)
    assert answer.startswith(f"http/1.1 {status}"), (answer, text[:300])
    return text


@pytest.mark.parametrize("clients", [1, 16, 64])
async def test_reads(data: Path, clients: int) -> None:
    """GET of one of the sample's patients."""

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: int) -> None:
        await exchange(reader, writer, "GET /fhir/Patient/rahima-khatun", b"", "200")

    print(f"\nreads, {clients} clients: {await rate(ask, clients):,.0f}/s")


@pytest.mark.parametrize("clients", [1, 16, 64])
async def test_creates(data: Path, clients: int) -> None:
    """POST of an Observation, validated, indexed, committed to the journal."""
    body = json.dumps(OBSERVATION).encode()

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: int) -> None:
        await exchange(reader, writer, "POST /fhir/Observation", body, "201")

    print(f"\ncreates, {clients} clients: {await rate(ask, clients):,.0f}/s")


@pytest.mark.parametrize("clients", [1, 16])
async def test_updates(data: Path, clients: int) -> None:
    """PUT of the next version of an Observation; each client has one of its own."""

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, turn: int) -> None:
        id = f"bench-{turn % clients}"
        value = {**OBSERVATION["valueQuantity"], "value": turn}  # type: ignore[dict-item]
        body = json.dumps({**OBSERVATION, "id": id, "valueQuantity": value}).encode()
        await exchange(reader, writer, f"PUT /fhir/Observation/{id}", body, "20")

    print(f"\nupdates, {clients} clients: {await rate(ask, clients):,.0f}/s")


@pytest.mark.parametrize("entries", [10, 250, 1000])
async def test_transactions(data: Path, entries: int) -> None:
    """POST of a transaction Bundle that creates Observations, four clients."""
    entry = {"resource": OBSERVATION, "request": {"method": "POST", "url": "Observation"}}
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry] * entries}
    body = json.dumps(bundle).encode()

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: int) -> None:
        await exchange(reader, writer, "POST /fhir", body, "200")

    print(f"\ntransactions of {entries}: {await rate(ask, 4) * entries:,.0f} entries/s")


@pytest.mark.parametrize(
    "search",
    [
        "Patient?identifier=https://fhir.example.org/bd/clinic-number|KC-1001",
        "Patient?name=rahima",
        "Observation?patient=rahima-khatun&code=http://loinc.org|8867-4&_sort=-date&_count=20",
    ],
)
async def test_searches(data: Path, search: str) -> None:
    """First page of a search, 16 clients."""

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: int) -> None:
        await exchange(reader, writer, f"GET /fhir/{search}", b"", "200")

    print(f"\n{search}: {await rate(ask, 16):,.0f}/s")


def test_load(tmp_path: Path) -> None:
    """``fhir-server load`` of the Synthea bundles, into an empty database and again."""
    if not SHARED.is_dir():
        pytest.skip("the shared test data is not there (../shared/data)")
    for turn in ("first", "again"):
        command = [sys.executable, "-m", "fhir_server", "load", str(SHARED / "synthea")]
        environment = {**os.environ, "FHIR_DATA": str(tmp_path / "data")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        print(f"\nload, {turn}: {done.stderr.splitlines()[-1]}")
