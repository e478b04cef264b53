"""design/hl7v2.md, section 5, the contract: killed with -9 at each step of a message. Check H19.

The server kills itself at a chosen point, is started again, and the sender sends again what was not
acknowledged. ``FHIR_TEST_HL7_POINTS`` sets how often each point has its turn; 40 is what a release
is tried with: 200 kills in original mode and 120 in enhanced mode.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from itertools import count
from typing import Any
from uuid import uuid4

import pytest
from pymongo import MongoClient

from adapters.hl7v2.ack import answered
from adapters.hl7v2.sending import Sender, TransportError
from fhir_server.app import Server, opened
from fhir_server.messages import Request
from fhir_server.r4.json import decode
from fhir_server.settings import Settings
from tests.adapters.hl7v2 import crashing
from tests.adapters.hl7v2.conftest import adt, oru
from tests.store.mongods import free_port

TURNS = int(os.environ.get("FHIR_TEST_HL7_POINTS", "1"))
PATIENCE_S = 60.0
ORIGINAL = "receive look_up before_commit after_commit before_answer".split()
ENHANCED = "stored leased before_commit".split()

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120 + 60 * TURNS)]


class Victim:
    """The server: started again when it has died, each time to die at the next point."""

    def __init__(self, uri: str, points: list[str]) -> None:
        self.database = f"test-{uuid4().hex[:12]}"
        self._uri, self._port = uri, free_port()
        self._points = iter(points)
        self._process: Any = None
        self.deaths = 0
        self.exhausted = False
        self.sender = Sender(f"mllp://127.0.0.1:{self._port}")

    def acknowledged(self, message: bytes, code: str) -> None:
        """Send ``message`` until it is acknowledged with ``code``, as every sender does."""
        until = time.monotonic() + PATIENCE_S
        while True:
            assert time.monotonic() < until, "no acknowledgement"
            self._keep()
            try:
                if code in [answered(one)[0] for one in self.sender.send(message)]:
                    return
            except TransportError:
                pass
            time.sleep(0.02)

    def _keep(self) -> None:
        if self._process is not None and self._process.is_alive():
            return
        if self._process is not None:
            self._process.join()
            assert self._process.exitcode == -9
            self.deaths += 1
        point = next(self._points, "")
        self.exhausted = not point
        arguments = (self._uri, self.database, self._port, point, 1 + self.deaths % 3)
        self._process = crashing.PROCESSES.Process(target=crashing.serve, args=arguments)
        self._process.start()

    def end(self) -> None:
        """Leave no process behind."""
        self.sender.close()
        if self._process is not None:
            self._process.kill()
            self._process.join()


def sent_until_exhausted(victim: Victim, modes: dict[str, str]) -> int:
    """Send updates of one patient, with a result each, until every point has had its turn; return
    how many."""
    code = "CA" if modes else "AA"
    for number in count():
        victim.acknowledged(adt(f"A{number}", family=f"N{number}", **modes), code)
        result = oru(f"R{number}", "P1", 1, f"F{number}", family=f"N{number}", **modes)
        victim.acknowledged(result, code)
        if victim.exhausted:
            return number + 1
    raise AssertionError


@pytest.fixture
async def survey(mongodb_uri: str) -> AsyncIterator[Any]:
    """Open the database that a victim has left."""
    names = []

    async def opening(victim: Victim) -> AsyncIterator[Server]:
        settings = Settings.model_validate({"mongodb_database": victim.database})
        async with opened(settings, mongodb_uri) as server:
            names.append(victim.database)
            yield server

    yield opening
    with MongoClient[dict[str, Any]](mongodb_uri) as client:
        for name in names:
            client.drop_database(name)


async def found(server: Server, type: str, **parameters: str) -> list[dict[str, Any]]:
    """Return what a search or a history finds."""
    kind = "history-instance" if "id" in parameters else "search-type"
    request = Request(kind, type, parameters.pop("id", ""), parameters=tuple(parameters.items()))
    body = decode((await server.perform(request)).body)
    return [entry["resource"] for entry in body.get("entry", [])]


async def doubled_or_lost(server: Server, sent: int) -> list[str]:
    """Return what is not as it must be: everything that was acknowledged, once and in order."""
    rows = await server.database["inbox"].find({}).to_list()
    controls = sorted(row["control_id"] for row in rows if row["state"] == "done")
    wanted = sorted(f"{kind}{n}" for kind in "AR" for n in range(sent))
    wrong = [f"rows {controls}"] if controls != wanted else []
    patients = await found(server, "Patient")
    if len(patients) != 1:
        return [*wrong, f"{len(patients)} patients"]
    [patient] = patients
    versions = await found(server, "Patient", id=patient["id"], _count="1000")
    names = [one["name"][0]["family"] for one in reversed(versions)]
    if names != [f"N{n}" for n in range(sent)]:
        wrong.append(f"versions {names}")
    results = await found(server, "Observation", _count="1000")
    if len(results) != sent or {one["meta"]["versionId"] for one in results} != {"1"}:
        wrong.append(f"{len(results)} results")
    return wrong


@pytest.mark.parametrize(
    ("points", "modes"),
    [(ORIGINAL, {}), (ENHANCED, {"m15": "AL", "m16": "NE"})],
    ids=["original", "enhanced"],
)
async def test_h19_killed_at_each_point(
    mongodb_uri: str, survey: Any, points: list[str], modes: dict[str, str]
) -> None:
    """After repetition nothing is lost, nothing doubled, and the order is kept."""
    victim = Victim(mongodb_uri, points * TURNS)
    try:
        sent = await asyncio.to_thread(sent_until_exhausted, victim, modes)
        async for server in survey(victim):
            async with asyncio.timeout(PATIENCE_S):
                while await server.context.store.inbox.waiting(0, 1):
                    await asyncio.sleep(0.05)

            assert victim.deaths == len(points) * TURNS
            assert await doubled_or_lost(server, sent) == []
    finally:
        victim.end()


async def test_h19_the_control_fails(mongodb_uri: str, survey: Any) -> None:
    """A server that acknowledges before the commit loses a message, and the check notices."""
    victim = Victim(mongodb_uri, ["too_early"])
    try:
        sent = await asyncio.to_thread(sent_until_exhausted, victim, {})
        async for server in survey(victim):
            assert await doubled_or_lost(server, sent)
    finally:
        victim.end()
