"""Large contents through a real server process: memory, clients that leave, processes that end.

https://hl7.org/fhir/R4/binary.html#rest
"""

import hashlib
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.faults.serving import Serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

MEGABYTE = 1_000_000
SIZE = 40 * MEGABYTE
# Buffers of the socket, eight chunks on their way, and the same once more while they are copied.
GROWTH_MAX = 16 * MEGABYTE
PIECE = random.Random(7).randbytes(MEGABYTE)
PDF = {"Content-Type": "application/pdf"}


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """A running server on data of its own; nothing of it outlives the test."""
    one = Serving(tmp_path)
    one.start()
    yield one
    one.clean_up()


def peak(pid: int) -> int:
    """Return the most bytes that process ``pid`` had in memory since :func:`forget`."""
    status = Path(f"/proc/{pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def forget(pid: int) -> int:
    """Let the peak begin anew, at what is in memory now, and return that."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak(pid)


def body(size: int) -> Iterator[bytes]:
    """Yield ``size`` bytes, a megabyte at a time."""
    for place in range(0, size, MEGABYTE):
        yield PIECE[: min(MEGABYTE, size - place)]


def put(http: httpx.Client, size: int) -> httpx.Response:
    """Send ``size`` bytes as Binary/b."""
    return http.put("/Binary/b", content=body(size), headers=PDF)


def get(http: httpx.Client, accept: str) -> tuple[int, str]:
    """Return how many bytes of Binary/b came, and their hash."""
    digest, size = hashlib.sha256(), 0
    with http.stream("GET", "/Binary/b", headers={"Accept": accept}) as answer:
        assert answer.status_code == 200
        for piece in answer.iter_bytes():
            digest.update(piece)
            size += len(piece)
    return size, digest.hexdigest()


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read from /proc")
def test_neither_way_holds_the_content_in_memory(serving: Serving) -> None:
    """Up, down, and down as a resource: the memory of the process does not follow the content's."""
    with httpx.Client(base_url=serving.base, timeout=60) as http:
        put(http, MEGABYTE)
        get(http, "*/*")
        get(http, "application/fhir+json")
        before = forget(serving.pid)
        assert put(http, SIZE).status_code == 200
        up = peak(serving.pid) - before
        before = forget(serving.pid)
        size, digest = get(http, "*/*")
        down = peak(serving.pid) - before
        before = forget(serving.pid)
        resource, _ = get(http, "application/fhir+json")
        embedded = peak(serving.pid) - before

    assert (size, digest) == (SIZE, hashlib.sha256(b"".join(body(SIZE))).hexdigest())
    assert resource > SIZE * 4 // 3
    print(f"MB more: up {up / 1e6:.1f}, down {down / 1e6:.1f}, as JSON {embedded / 1e6:.1f}")  # noqa: T201 - a measurement
    assert max(up, down, embedded) < GROWTH_MAX


def test_a_client_that_leaves_in_the_middle_writes_nothing(serving: Serving) -> None:
    """Neither a new Binary nor a version of one that is there."""
    with httpx.Client(base_url=serving.base, timeout=60) as http:
        assert put(http, MEGABYTE).status_code == 201
        for id in ("b", "c"):
            line = f"PUT /fhir/Binary/{id} HTTP/1.1\r\nHost: a\r\nContent-Type: a/b\r\n"
            with socket.create_connection(("127.0.0.1", serving.port)) as client:
                client.sendall(f"{line}Content-Length: {SIZE}\r\n\r\n".encode())
                client.sendall(PIECE * 10)
        time.sleep(0.5)
        kept = http.get("/Binary/b")
        none = http.get("/Binary/c")

        assert (kept.headers["etag"], kept.content) == ('W/"1"', PIECE)
        assert none.status_code == 404
        assert http.get("/Binary/b/_history").json()["total"] == 1


def test_what_was_acknowledged_outlives_a_kill(serving: Serving) -> None:
    """Server and mongod are killed right after the answer; the content is whole afterwards."""
    with httpx.Client(base_url=serving.base, timeout=60) as http:
        assert put(http, 5 * MEGABYTE + 3).status_code == 201
    serving.kill()
    serving.kill_mongod()
    serving.start()
    with httpx.Client(base_url=serving.base, timeout=60) as http:
        _, digest = get(http, "*/*")

    assert digest == hashlib.sha256(b"".join(body(5 * MEGABYTE + 3))).hexdigest()
