"""design/hl7v2.md, section 5, the contract; checks H18 and H19, and the order of H26 under them.

Senders on several connections send numbered updates of their patients and new results, and send
again what was not acknowledged, as every interface engine does. Meanwhile the server, the mongod,
or both are killed with -9 at random moments and started again. Afterwards everything that was
acknowledged is there once, and each patient is as the last message about it says. Half of the
senders ask for original mode, half for enhanced mode.

``FHIR_TEST_HL7_MESSAGES`` sets how many messages are sent; 20,000 is what a release is tried with.
"""

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.hl7v2.ack import answered
from adapters.hl7v2.sending import Sender, TransportError
from tests.adapters.hl7v2.conftest import adt, oru
from tests.faults.serving import Serving
from tests.store.mongods import free_port

MESSAGES = int(os.environ.get("FHIR_TEST_HL7_MESSAGES", "160"))
SENDERS = 4 if MESSAGES < 2000 else 16  # the messages of one patient wait for each other
KILLS = max(2, MESSAGES // 2000)
ENHANCED = {"m15": "AL", "m16": "NE"}
PATIENCE_S = 120.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 + MESSAGES)]


class Source(threading.Thread):
    """One sender: a patient of its own, updated in order, with a result between."""

    def __init__(self, number: int, port: int, count: int, modes: dict[str, str]) -> None:
        super().__init__(daemon=True)
        self.number, self.count, self.modes = number, count, modes
        self.sender = Sender(f"mllp://127.0.0.1:{port}")
        self.acknowledged: list[str] = []
        self.repeated = 0
        self.strange: list[str] = []

    def run(self) -> None:
        """Send each message until it is acknowledged."""
        for step in range(self.count):
            message = self.message(step)
            while True:
                try:
                    codes = [answered(one) for one in self.sender.send(message)]
                except TransportError:
                    self.repeated += 1
                    time.sleep(0.05)
                    continue
                self.strange += [code for code, _ in codes if code not in ("AA", "CA")]
                if codes and codes[-1][0] == ("CA" if self.modes else "AA"):
                    self.acknowledged.append(codes[-1][1])
                    break
                time.sleep(0.05)  # AE: kept, will be retried; a repetition asks for it
        self.sender.close()

    def message(self, step: int) -> bytes:
        """Return message ``step``: every fourth is a result."""
        control, number = f"S{self.number}-{step}", f"P{self.number}"
        said = {"family": f"Name{step:06}", **self.modes}
        if step % 4 == 3:
            return oru(control, number, 2, f"F{self.number}-{step}", **said)
        return adt(control, number, **said)


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """The server with the interface, as a process of its own."""
    serving = Serving(tmp_path, features='["adapters.hl7v2"]', mllp_port=free_port())
    try:
        serving.start()
        yield serving
    finally:
        serving.clean_up()


def test_h19_what_was_acknowledged_is_there_once_and_in_order(serving: Serving) -> None:
    """Whatever is killed, and when: the server, or both it and the mongod."""
    port = int(str(serving._settings["mllp_port"]))
    sources = [
        Source(number, port, MESSAGES // SENDERS, ENHANCED if number % 2 else {})
        for number in range(SENDERS)
    ]
    chance = random.Random(6)
    for source in sources:
        source.start()
    for kill in range(KILLS):
        goal = MESSAGES * (kill + 1) // (KILLS + 1) + chance.randrange(10)
        while sum(len(source.acknowledged) for source in sources) < goal:
            assert any(source.is_alive() for source in sources)
            time.sleep(0.005)
        if kill % 2:
            serving.kill_mongod()
        serving.kill()
        serving.start()
    for source in sources:
        source.join(PATIENCE_S + MESSAGES)
        assert not source.is_alive()
    wait_until_settled(serving)

    for source in sources:
        check(source, serving)
    assert sum(source.repeated for source in sources) >= 1


def wait_until_settled(serving: Serving) -> None:
    """Wait until no row waits to be applied; what takes long is well as long as it goes on."""
    counts, until = "", time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        with suppress(httpx.HTTPError):
            query = {"state": "received,applying,retry", "_count": "1"}
            answer = httpx.get(f"{serving.base}/$hl7v2-inbox", params=query, timeout=PATIENCE_S)
            found = [one["resource"] for one in answer.json()["entry"]]
            if all(one["resourceType"] == "OperationOutcome" for one in found):
                return
            if counts != (counts := found[-1]["issue"][0]["diagnostics"]):
                until = time.monotonic() + PATIENCE_S
        time.sleep(0.1)
    raise AssertionError(f"rows still wait: {counts}")


def search(serving: Serving, path: str) -> list[dict[str, Any]]:
    """Return all resources of a search."""
    found: list[dict[str, Any]] = []
    url: str | None = f"{serving.base}/{path}"
    while url:
        body = httpx.get(url, timeout=PATIENCE_S).json()
        found += [one["resource"] for one in body.get("entry", [])]
        url = next((one["url"] for one in body["link"] if one["relation"] == "next"), None)
    return found


def check(source: Source, serving: Serving) -> None:
    """Check that all of ``source`` is there, once, and that the last update is the last."""
    sent = [f"S{source.number}-{step}" for step in range(source.count)]
    assert source.acknowledged == sent
    [patient] = search(serving, f"Patient?identifier=P{source.number}")
    assert patient["name"][0]["family"] == f"Name{source.count - 1:06}"
    # Each update made one version, however often it was sent.
    versions = search(serving, f"Patient/{patient['id']}/_history?_count=1000")
    names = [one["name"][0]["family"] for one in reversed(versions)]
    assert names == [f"Name{step:06}" for step in range(source.count)]
    place = f"Patient/{patient['id']}"
    reports = search(serving, f"DiagnosticReport?subject={place}&_count=500")
    results = search(serving, f"Observation?subject={place}&_count=1000")
    assert len(reports) == source.count // 4
    assert len(results) == 2 * len(reports)
    assert {one["meta"]["versionId"] for one in results} <= {"1"}
