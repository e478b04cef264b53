"""Issue "writes that other servers get wrong": a client whose answer is lost makes no duplicate.

``FHIR_TEST_LOST_CREATES`` is how many creates there are; without it fewer, for every day.
"""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn

from fhir_server.app import Server
from tests.faults.dropping import Dropping, dropping
from tests.faults.serving import Serving
from tests.http.conftest import application
from tests.store.mongods import free_port

CREATES = int(os.environ.get("FHIR_TEST_LOST_CREATES", "400"))
CLIENTS = 16
TRIES = 60
SYSTEM = "https://fhir.example.org/lost"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

# How a client makes sure that create n is made once.
WAYS: dict[str, Callable[[int], dict[str, str]]] = {
    "Idempotency-Key": lambda n: {"Idempotency-Key": f'"lost-{n}"'},
    "If-None-Exist": lambda n: {"If-None-Exist": f"identifier={SYSTEM}|{n}"},
}


@pytest.fixture
async def proxy(server: Server, request: pytest.FixtureRequest) -> AsyncIterator[Dropping]:
    """The server under uvicorn, behind a proxy that loses answers."""
    port = free_port()
    config = uvicorn.Config(
        application(server), port=port, lifespan="off", ws="none", log_level="critical"
    )
    running = uvicorn.Server(config)
    task = asyncio.create_task(running.serve())
    while not running.started:
        await asyncio.sleep(0.01)
    async with dropping(port, request.node.name) as made:
        yield made
    running.should_exit = True
    await task


def person(number: int) -> dict[str, object]:
    """Return the Patient ``number``."""
    return {
        "resourceType": "Patient",
        "identifier": [{"system": SYSTEM, "value": str(number)}],
        "name": [{"family": f"Lost{number}"}],
    }


async def asked_until_told(
    http: httpx.AsyncClient, number: int, headers: dict[str, str]
) -> httpx.Response:
    """Create Patient ``number``; ask again, as often as it takes, when no answer comes."""
    for _ in range(TRIES):
        try:
            answer = await http.post("/fhir/Patient", json=person(number), headers=headers)
        except httpx.TransportError:
            continue
        if answer.status_code != 503:  # too busy: nothing was written, come again
            return answer
    raise AssertionError(f"no answer for {number}")


async def all_created(proxy: Dropping, way: Callable[[int], dict[str, str]]) -> dict[int, str]:
    """Return the id that was told for each create."""
    told: dict[int, str] = {}
    numbers = iter(range(CREATES))

    async def work() -> None:
        base = f"http://127.0.0.1:{proxy.port}"
        close = {"Connection": "close"}
        async with httpx.AsyncClient(base_url=base, headers=close, timeout=60) as http:
            for number in numbers:
                answer = await asked_until_told(http, number, way(number))
                assert answer.status_code in (200, 201), answer.text
                told[number] = answer.headers["location"].split("/Patient/")[1].split("/")[0]

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CLIENTS):
            tasks.create_task(work())
    await proxy.finish()
    return told


async def kept(server: Server) -> dict[str, int]:
    """Return the number of each Patient there is, by id."""
    found = await server.database["Patient"].find({}, {"resource.identifier": 1}).to_list()
    return {one["_id"]: int(one["resource"]["identifier"][0]["value"]) for one in found}


@pytest.mark.parametrize("way", WAYS)
async def test_a_client_that_repeats_makes_no_duplicate(
    server: Server, proxy: Dropping, way: str
) -> None:
    """A fifth of the answers is lost: each resource is there once, under the id that was told."""
    told = await all_created(proxy, WAYS[way])
    assert await kept(server) == {id: number for number, id in told.items()}
    assert len(told) == CREATES
    assert proxy.dropped > CREATES / 10
    assert proxy.cut > 0


async def test_the_control_makes_duplicates(server: Server, proxy: Dropping) -> None:
    """The control: without either, what was committed and not told is made again."""
    await all_created(proxy, lambda _: {})
    times = Counter((await kept(server)).values())
    assert len(times) == CREATES
    assert sum(times.values()) > CREATES * 1.1


# A feature that ends its own process, before or after the commit of a transaction, when a file says
# so: a client sees what a power cut in that moment would leave.
KILLING = """
import os
import signal
from pathlib import Path

from fhir_server.store import resources, transactions, writer


def ended(when):
    if Path(when).exists():
        Path(when).unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def register(registry):
    transacted, commit = resources.transacted, transactions._commit

    async def committed(session, end):
        ended("before")
        await commit(session, end)

    async def done(*arguments):
        result = await transacted(*arguments)
        ended("after")
        return result

    transactions._commit, resources.transacted, writer.transacted = committed, done, done
"""


@pytest.fixture
def serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    """A server on data of its own that kills itself when it is told to."""
    (tmp_path / "killing.py").write_text(KILLING)
    # What lies in the working directory is not found.
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    # Records of reads are written before their answers, so that the next commit is the request's.
    one = Serving(tmp_path, features='["killing"]', request_timeout_s=2, audit_reads="strict")
    yield one
    one.clean_up()


BUNDLE = {
    "resourceType": "Bundle",
    "type": "transaction",
    "entry": [
        {"resource": person(n), "request": {"method": "POST", "url": "Patient"}} for n in (1, 2)
    ],
}
REQUESTS: dict[str, tuple[str, object, int]] = {
    "create": ("Patient", person(0), 1),
    "transaction": ("", BUNDLE, 2),
}


def asked(serving: Serving, name: str, key: str) -> httpx.Response:
    """Send the request ``name`` under ``key``."""
    url, body, _ = REQUESTS[name]
    headers = {"Idempotency-Key": key}
    return httpx.post(f"{serving.base}/{url}", json=body, headers=headers, timeout=20)


def killed(serving: Serving, name: str, when: str, folder: Path) -> int:
    """Send the request ``name``, under which the server dies; return how many Patients there are
    when it is there again."""
    (folder / when).touch()
    with pytest.raises(httpx.TransportError):
        asked(serving, name, f"{name}-{when}")
    serving.kill()  # it is dead; its exit code is asked for
    serving.start()
    return patients(serving)


def patients(serving: Serving) -> int:
    """Return how many Patients there are."""
    total: int = httpx.get(f"{serving.base}/Patient?_summary=count").json()["total"]
    return total


def test_a_kill_between_commit_and_answer(serving: Serving, tmp_path: Path) -> None:
    """Asked again after the restart it answers what it would have, and after another as well."""
    serving.start()
    answers = {}
    for name, (_, _, count) in REQUESTS.items():
        there = patients(serving)
        assert killed(serving, name, "after", tmp_path) == there + count
        answers[name] = asked(serving, name, f"{name}-after")
        assert answers[name].status_code == (201 if name == "create" else 200)
        assert answers[name].headers["idempotency-replayed"] == "true"
        assert patients(serving) == there + count
    for name, first in answers.items():
        again = asked(serving, name, f"{name}-after")
        assert (again.status_code, again.content) == (first.status_code, first.content)
        for header in ("location", "etag", "last-modified"):
            assert again.headers.get(header) == first.headers.get(header)
    assert serving.stop() == 0


def test_a_kill_before_the_commit(serving: Serving, tmp_path: Path) -> None:
    """Nothing is there. The server that begins again ends the transaction, and the key is free."""
    serving.start()
    for name, (_, _, count) in REQUESTS.items():
        there = patients(serving)
        assert killed(serving, name, "before", tmp_path) == there
        answer = asked(serving, name, f"{name}-before")
        assert answer.status_code == (201 if name == "create" else 200)
        assert "idempotency-replayed" not in answer.headers
        assert patients(serving) == there + count
    assert serving.stop() == 0
