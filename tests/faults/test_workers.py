"""``serve --workers N``: one server to those who ask, whatever becomes of its processes."""

import asyncio
import os
import resource
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.serving import Serving
from tests.interactions.asking import patient

WAIT_S = 120.0
CLIENTS = 4
ASKED_MAX = 500  # ids of one search
KEPT_S = 2.0  # a connection; the server ends it after five, perhaps while a request is on its way


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """A server of two workers, not started yet."""
    one = Serving(tmp_path, workers=2, log_level="info", shutdown_s=10)
    yield one
    one.clean_up()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_workers_are_one_server(serving: Serving, tmp_path: Path) -> None:
    """Both answer alike; a killed one and a reload cost no answer and nothing that was
    acknowledged; settings that are wrong change nothing, also where all are killed and none can be
    started for a while; SIGTERM ends all with 0."""
    serving.start()
    _until(lambda: "FHIR R4 at" in serving.said)  # all of them have begun
    first = _workers(serving)
    asyncio.run(_alike(serving))

    def lose_one() -> None:
        os.kill(min(first), signal.SIGKILL)
        _until(lambda: len(_workers(serving) - first) == 1)
        _until(lambda: serving.said.count("a worker has ended") == 1)

    outcome = asyncio.run(_under_load(serving, lose_one))
    assert outcome.refused == 0  # the socket stays, so that who connects waits
    second = _workers(serving)

    (tmp_path / ".env").write_text("FHIR_PAGE_ENTRIES=nothing\n")
    os.kill(serving.pid, signal.SIGHUP)
    _until(lambda: "not reloaded" in serving.said)
    assert "FHIR_PAGE_ENTRIES" in serving.said
    assert _workers(serving) == second
    files = resource.prlimit(serving.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(serving.pid, resource.RLIMIT_NOFILE, (3, files[1]))
    # Who comes after them goes by what they went by, not by what is wrong now. First goes the one
    # that may not have begun yet: the last that cannot begin would be the end of the server.
    for one in sorted(second, key=first.__contains__):
        ended = serving.said.count("a worker has ended")
        os.kill(one, signal.SIGKILL)
        _until(partial(_has_said, serving, "a worker has ended", ended + 1))
    _until(partial(_has_said, serving, "A worker cannot be started", 2))
    resource.prlimit(serving.pid, resource.RLIMIT_NOFILE, files)
    _until(lambda: len(_workers(serving) - second) == 2)
    assert httpx.get(f"{serving.base}/Patient", timeout=30).status_code == 200
    second = _workers(serving)

    (tmp_path / ".env").write_text("FHIR_PAGE_ENTRIES=3\n")

    def reload() -> None:
        kept = HTTPConnection("127.0.0.1", serving.port, timeout=30)
        os.kill(serving.pid, signal.SIGHUP)
        _until(lambda: _asked(kept)[0] == 200 and '"reloaded"' in serving.said)
        time.sleep(0.5)  # idle while its worker goes: that has this connection end by agreement
        assert _asked(kept) == (200, "close")
        kept.close()
        _until(lambda: not _workers(serving) & second)

    outcome = asyncio.run(_under_load(serving, reload))
    assert outcome.failed == []
    assert len(_workers(serving)) == 2
    assert len(httpx.get(f"{serving.base}/Patient").json()["entry"]) == 3  # as is set now

    with _asked_slowly(serving) as held:
        stopping = time.monotonic()
        os.kill(serving.pid, signal.SIGTERM)
        time.sleep(0.3)
        held.sendall(b'"id":"slow"}')
        assert held.recv(100).startswith(b"HTTP/1.1 201")  # it was under way
    assert serving.stop() == 0, serving.said
    assert time.monotonic() - stopping < 10
    assert not serving.mongod_runs()
    assert "Traceback" not in serving.said


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_an_end_at_once(tmp_path: Path) -> None:
    """The parent's end is the workers' end; a second SIGTERM waits for nobody."""
    serving = Serving(tmp_path, shutdown_s=30)
    try:
        serving.start()
        [worker] = _workers(serving)
        serving.kill()
        _until(lambda: b"fhir_server.worker" not in _command(worker), 5)

        serving.start()
        with _asked_slowly(serving):
            os.kill(serving.pid, signal.SIGTERM)
            time.sleep(0.3)
            stopping = time.monotonic()
            assert serving.stop() == 0, serving.said
        assert time.monotonic() - stopping < 8  # MongoDB closes its files meanwhile
        assert not serving.mongod_runs()
        assert "Traceback" not in serving.said
    finally:
        serving.clean_up()


class Outcome:
    """What came of requests under load: ids that were acknowledged, how others failed."""

    def __init__(self) -> None:
        self.acknowledged: list[str] = []
        self.failed: list[str] = []
        self.refused = 0


async def _under_load(serving: Serving, change: Callable[[], None]) -> Outcome:
    """Write and read over kept connections and new ones while ``change`` goes on; everything that
    was acknowledged must be there afterwards, for everybody."""
    outcome, ended = Outcome(), asyncio.Event()

    async def client(number: int) -> None:
        kept = number % 3  # none: a new connection each time
        limits = httpx.Limits(max_keepalive_connections=kept, keepalive_expiry=KEPT_S)
        async with httpx.AsyncClient(base_url=serving.base, limits=limits, timeout=30) as http:
            count = 0
            while not ended.is_set():
                id = f"{os.urandom(3).hex()}-{number}-{count}"
                count += 1
                try:
                    written = await http.put(f"/Patient/{id}", json=patient(id))
                    read = await http.get(f"/Patient/{id}")
                    if (written.status_code, read.status_code) == (201, 200):
                        outcome.acknowledged.append(id)
                    else:
                        outcome.failed.append(f"{written.status_code}, {read.status_code}")
                except httpx.ConnectError:
                    outcome.refused += 1
                except httpx.HTTPError as error:
                    outcome.failed.append(repr(error))
                await asyncio.sleep(0.02)

    clients = [asyncio.create_task(client(number)) for number in range(CLIENTS)]
    await asyncio.to_thread(change)
    ended.set()
    await asyncio.gather(*clients)
    assert outcome.acknowledged
    async with httpx.AsyncClient(base_url=serving.base, timeout=30) as http:
        for at in range(0, len(outcome.acknowledged), ASKED_MAX):
            ids = outcome.acknowledged[at : at + ASKED_MAX]
            asked = {"_id": ",".join(ids), "_summary": "count"}
            found = await http.post("/Patient/_search", data=asked)
            assert found.json().get("total") == len(ids), found.text[:300]
    return outcome


async def _alike(serving: Serving) -> None:
    """What one connection has written, every other one reads and finds at once."""
    limits = httpx.Limits(keepalive_expiry=KEPT_S)
    connections: list[httpx.AsyncClient] = []
    while not all(_connections(pid, serving.port) for pid in _workers(serving)):
        assert len(connections) < 320, "one worker takes them all"
        more = [
            httpx.AsyncClient(base_url=serving.base, limits=limits, timeout=30) for _ in range(16)
        ]
        ids = [f"alike-{len(connections) + number}" for number in range(16)]
        connections += more
        pairs = zip(more, ids, strict=True)
        await asyncio.gather(*(one.put(f"/Patient/{id}", json=patient(id)) for one, id in pairs))
    asked: list[Callable[[httpx.AsyncClient], Awaitable[Any]]] = [
        lambda one: one.get("/Patient?_sort=_id&_count=20"),
        lambda one: one.get("/Patient/alike-3"),
        lambda one: one.get("/Patient/alike-5/_history"),
        lambda one: one.get("/metadata?_elements=rest"),
        lambda one: one.get("/Patient/nobody"),
    ]
    for ask in asked:
        answers = await asyncio.gather(*map(ask, connections))
        assert len({_said(one) for one in answers}) == 1, [one.text[:200] for one in answers]
    for one in connections:
        await one.aclose()


def _said(answer: httpx.Response) -> tuple[int, str]:
    """Return what must not differ: a Bundle has an id and a time of its own."""
    body = answer.json()
    for name in ("id", "meta", "link"):
        if body["resourceType"] == "Bundle":
            body.pop(name, None)
    body.pop("date", None)
    return answer.status_code, str(body)


def _asked(connection: HTTPConnection) -> tuple[int, str | None]:
    """Ask over ``connection``; return the status, and what is said of the connection."""
    connection.request("GET", "/live")
    answer = connection.getresponse()
    answer.read()
    return answer.status, answer.getheader("connection")


def _asked_slowly(serving: Serving) -> socket.socket:
    """Return a connection with a PUT of which the last bytes have not come yet."""
    one = socket.create_connection(("127.0.0.1", serving.port), timeout=20)
    body = b'{"resourceType":"Patient",'
    one.sendall(
        b"PUT /fhir/Patient/slow HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        b"Content-Type: application/fhir+json\r\nContent-Length: %d\r\n\r\n%b"
        % (len(body) + len(b'"id":"slow"}'), body)
    )
    time.sleep(0.3)
    return one


def _workers(serving: Serving) -> set[int]:
    """Return the process ids of the workers that run."""
    children = Path(f"/proc/{serving.pid}/task/{serving.pid}/children").read_text().split()
    return {int(one) for one in children if b"fhir_server.worker" in _command(int(one))}


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _connections(pid: int, port: int) -> int:
    """Return how many connections to ``port`` the process ``pid`` has."""
    mine = {str(one.readlink()) for one in Path(f"/proc/{pid}/fd").iterdir()}
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(
        line[1].endswith(f":{port:04X}") and line[3] == "01" and f"socket:[{line[9]}]" in mine
        for line in lines
    )


def _has_said(serving: Serving, words: str, times: int) -> bool:
    return serving.said.count(words) >= times


def _until(holds: Callable[[], bool], seconds: float = WAIT_S) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)
