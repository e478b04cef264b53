"""design/scheduling.md, section 7, check Q6: the primary is killed while counters call.

Three members, two servers. Every third call is given up in the middle, as by a server that dies;
each call without an answer is sent again under the same id. Then everybody was called once, by one
counter, and nobody was left out.
"""

import asyncio
import os
import random
from collections import Counter
from contextlib import suppress

import pytest

from fhir_server.app import opened
from fhir_server.settings import Settings
from fhir_server.store.queues import QUEUES
from tests.features.scheduling.queues import Desk, Told
from tests.store.members import Members

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

# The page says 150, 20 and 10.
WAITING = int(os.environ.get("FHIR_TEST_QUEUE_WAITING", "45"))
COUNTERS = int(os.environ.get("FHIR_TEST_QUEUE_COUNTERS", "6"))
CALLS = int(os.environ.get("FHIR_TEST_QUEUE_CALLS", "10"))
ANSWERS_BEFORE = WAITING // 3
GIVEN_UP = 1 / 3


async def _called(desks: list[Desk], place: str, counter: int, id: str) -> Told:
    """Call until there is an answer; a call without one is sent again as the same call."""
    chance = random.Random(id)
    gives_up = chance.random() < GIVEN_UP
    for n in range(200):
        patience = chance.uniform(0.002, 0.05) if gives_up and n == 0 else None
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                told = await desks[n > 0].call(place, str(counter), call={"valueId": id})
            if told.status != 503:
                return told
        await asyncio.sleep(0.1)
    raise AssertionError("a call was never answered")


async def test_each_is_called_once_though_the_primary_is_killed(members: Members) -> None:
    """Q6: still once each; who was left over is told by 404."""
    settings = Settings.model_validate({"mongodb_database": "queue", "request_timeout_s": 10})
    answers = 0
    async with opened(settings, members.uri) as one, opened(settings, members.uri) as other:
        desks = [Desk(one), Desk(other)]
        place = await desks[0].place("q6")
        await asyncio.gather(*(desks[n % 2].take(place) for n in range(WAITING)))
        enough = asyncio.Event()

        async def counter(number: int) -> list[Told]:
            nonlocal answers
            told, order = [], desks if number % 2 else desks[::-1]
            for n in range(CALLS):
                told.append(await _called(order, place, number, f"{number}-{n}"))
                answers += 1
                if answers == ANSWERS_BEFORE:
                    enough.set()
            return told

        async def killing() -> None:
            await enough.wait()
            await asyncio.to_thread(members.kill_primary)

        killed = asyncio.create_task(killing())
        some = await asyncio.gather(*map(counter, range(COUNTERS)))
        await killed
        told = [each for those in some for each in those]
        rows = await one.database[QUEUES].find().to_list()
        encounters = await one.database["Encounter"].find().to_list()

    left_over = COUNTERS * CALLS - WAITING
    assert Counter(each.status for each in told) == {200: WAITING, 404: left_over}
    tokens = [each["token"] for each in told if each.status == 200]
    assert len(set(tokens)) == WAITING
    assert Counter((row["state"], row["calls"]) for row in rows) == {("called", 1): WAITING}
    assert {(row["version"], row["resource"]["status"]) for row in encounters} == {
        (2, "in-progress")
    }
