"""Whether what is hidden can be told from what is not there: by the answers, and by their time.

Run by ``make bench ARGS="-k two_worlds"`` and ``make bench ARGS="-k hidden"``. The requests are
those of ``tests/security/two_worlds``, about all types; ``FHIR_BENCH_REQUESTS`` says how many, and
``FHIR_BENCH_SEED`` which.
"""

import os
import statistics
import time
from random import Random

from tests.security.two_worlds.calls import calls
from tests.security.two_worlds.comparing import differences, two_worlds
from tests.security.two_worlds.resources import types_of
from tests.security.two_worlds.worlds import Call, World

REQUESTS = int(os.environ.get("FHIR_BENCH_REQUESTS", "6000"))
SEED = int(os.environ.get("FHIR_BENCH_SEED", "2"))
EACH = 1000
DIFFERENCE_MAX = 0.10


async def test_two_worlds_answer_alike(mongodb_uri: str) -> None:
    """Of thousands of requests about all types none is answered otherwise where B is there."""
    async with two_worlds(mongodb_uri, few=False) as worlds:
        types = types_of(worlds[0].server.context.parameters, few=False)
        asked = list(calls(SEED, REQUESTS, types))
        found = await differences(worlds, asked, "full")
        print(f"\n{len(asked):,} requests in two worlds: {len(found)} differences")
        print("\n".join(found))
        assert not found


async def test_hidden_takes_as_long_as_absent(mongodb_uri: str) -> None:
    """A 404 for what is hidden takes as long as one for what is not there: medians within 10 %."""
    async with two_worlds(mongodb_uri, few=True) as (_, world):
        world.begin("time")
        for asker in ("broad", "by-keys"):
            hidden, absent = await _medians(world, asker)
            print(f"\n404 for {asker}: hidden {hidden:.0f} µs, absent {absent:.0f} µs")
            assert abs(hidden - absent) <= DIFFERENCE_MAX * absent


async def _medians(world: World, asker: str) -> tuple[float, float]:
    """Return the medians, in µs, of reads of what is hidden and of what is absent, in turn."""
    random = Random(3)
    spent: dict[str, list[float]] = {"observation-b": [], "observation-n": []}
    for number in range(2 * EACH + 200):
        id = random.choice(list(spent)) if number >= 200 else "observation-b"
        call = Call("", "GET", f"Observation/{id}", asker=asker)
        began = time.perf_counter()
        answer = await world.ask(call)
        if number >= 200:
            spent[id].append(time.perf_counter() - began)
        assert answer.status == 404
    hidden, absent = (statistics.median(one) * 1e6 for one in spent.values())
    return hidden, absent
