"""design/hl7v2.md, sections 4, 23 and 24: garbage on many connections at once. Check H75.

``FHIR_TEST_HL7_GARBAGE`` is how many connections for how many seconds; ``1000x300`` is what a
release is tried with, and then a good sender's p99 counts as well.
"""

import asyncio
import logging
import os
import random
import resource
import time
from itertools import count

import pytest

from adapters.hl7v2.frame import framed
from tests.adapters.hl7v2.conftest import OpenSite, Site, adt, oru
from tests.adapters.hl7v2.test_hostile import mutated

CONNECTIONS, SECONDS = map(int, os.environ.get("FHIR_TEST_HL7_GARBAGE", "60x3").split("x"))
IS_LONG = SECONDS >= 60
GROWTH_KIB_MAX = 150 * 1024

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120 + 2 * SECONDS)]


def garbage(chance: random.Random, mutations: list[bytes]) -> bytes:
    """Return some bytes that a peer should not send."""
    message = chance.choice(mutations)
    match chance.randrange(7):
        case 0:
            return chance.randbytes(chance.randrange(1, 5000))
        case 1:
            return b"\x0b" * 2000 + b"\x1c" * 2000
        case 2:
            return framed(message)[: chance.randrange(1, len(message) + 3)]
        case 3:
            return b"\x0bMSH|^~\\&|" + chance.randbytes(200) + b"\x1c\r"
        case 4:
            return b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        case 5:
            return framed(b"") * 20
        case _:
            return framed(message)


async def bad(site: Site, number: int, mutations: list[bytes], until: float) -> int:
    """Send garbage, connecting anew whenever the server has had enough; return how much."""
    chance = random.Random(number)
    sent = 0
    while time.monotonic() < until:
        try:
            peer = await site.peer()
            for _ in range(20):
                await peer.raw(garbage(chance, mutations))
                sent += 1
                await asyncio.sleep(chance.random() * CONNECTIONS / 200)
                if time.monotonic() > until:
                    break
            peer.close()
        except OSError:
            await asyncio.sleep(0.05)
    return sent


async def good(site: Site, name: str, until: float) -> list[float]:
    """Send messages as one should; return the seconds that each took."""
    peer = await site.peer()
    taken = []
    for number in count():
        began = time.monotonic()
        assert await peer.ask(adt(f"{name}-{number}", name, f"Name{number}")) == "AA"
        taken.append(time.monotonic() - began)
        if time.monotonic() > until:
            return taken
    raise AssertionError


async def test_h75_garbage_disturbs_nobody(
    open_site: OpenSite, caplog: pytest.LogCaptureFixture
) -> None:
    """No exception, memory bounded, and every message of a good sender applied."""
    site = await open_site(
        hl7_connections_per_address_max=2 * CONNECTIONS + 10,
        hl7_rejects_per_minute_max=600,
        hl7_apply_s_max=60.0,  # a machine that is busy is no reason to fail
    )
    mutations = list(mutated(300))
    alone = await good(site, "ALONE", time.monotonic() + SECONDS / 3)
    await site.search("Patient")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    until = time.monotonic() + SECONDS
    with caplog.at_level(logging.WARNING, "fhir_server"):
        worse = [
            asyncio.create_task(bad(site, number, mutations, until))
            for number in range(CONNECTIONS)
        ]
        taken = await good(site, "GOOD", until)
        sent = await asyncio.gather(*worse)
    # The peers are gone: connections end, and what they sent is answered or dropped.
    await site.until(lambda: len(site.listener.connections) <= 2)
    [patient] = await site.search("Patient", identifier="GOOD")

    assert sum(sent) > CONNECTIONS
    assert [one.getMessage() for one in caplog.records] == []
    assert patient["meta"]["versionId"] == str(len(taken))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH_KIB_MAX
    assert await (await site.peer()).ask(oru("AFTER", "AFTER", 1, "AFTER")) == "AA"
    assert site.listener.bytes_in_flight == 0
    if IS_LONG:
        p99 = [sorted(times)[len(times) * 99 // 100] for times in (alone, taken)]
        assert p99[1] <= 3 * p99[0], p99
