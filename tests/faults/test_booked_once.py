"""design/scheduling.md, checks S1 and S2 with the primary killed in the middle: still exactly one.

Three members, two servers. Contenders ask for the same times, half of them by ``$book``, half by a
plain PUT, at both servers; some give up in the middle, as a client does whose line breaks, and all
ask again, as the same request, until they are answered. ``FHIR_TEST_BOOKED_TIMES`` says how many
times there are.
"""

import asyncio
import os
import random
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest

from fhir_server.app import Server, opened
from fhir_server.messages import Request
from fhir_server.r4.json import decode
from fhir_server.settings import Settings
from fhir_server.store.granules import GRANULES
from tests.features.scheduling.clinic import (
    ask,
    call,
    morning,
    proposed,
    put,
    schedule,
)
from tests.store.members import Members

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

TIMES = int(os.environ.get("FHIR_TEST_BOOKED_TIMES", "16"))
CONTENDERS = 4
AT_ONCE = 16
DAY = morning()


def _request(time: int, contender: int) -> Request:
    """Return how ``contender`` asks for ``time``: the same request whenever it is sent."""
    start, patient = DAY + timedelta(minutes=30 * time), f"Patient/c{time}-{contender}"
    if contender % 2:
        people = ("Practitioner/d1", patient)
        body = {
            "resourceType": "Appointment",
            "id": f"a{time}-{contender}",
            "status": "booked",
            "start": start.isoformat(),
            "end": (start + timedelta(minutes=30)).isoformat(),
            "participant": [{"actor": {"reference": one}, "status": "accepted"} for one in people],
        }
        return put(body)
    asked = call("book", appointment=proposed(start, "d1"), patient_reference=patient)
    return replace(asked, idempotency_key=f"{time}-{contender}")


async def _answered(servers: list[Server], time: int, contender: int) -> tuple[int, int, str]:
    """Ask until there is an answer; return it as time, status and id of what is booked."""
    request, chance = _request(time, contender), random.Random(f"{time} {contender}")
    gives_up = chance.random() < 0.3
    for n in range(200):
        patience = chance.uniform(0.002, 0.05) if gives_up and n == 0 else None
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                response = await ask(servers[(contender // 2 + n) % 2], request)
            if response.status != 503:
                return time, response.status, _booked(request, response.status, response.body)
        await asyncio.sleep(0.1)
    raise AssertionError("a booking was never answered")


def _booked(request: Request, status: int, body: bytes) -> str:
    if status >= 300:
        return ""
    if request.interaction == "update":
        return request.id
    found = [one["resource"] for one in decode(body)["entry"]]
    return str(next(one["id"] for one in found if one["resourceType"] == "Appointment"))


async def test_a_time_is_given_once_though_the_primary_is_killed(members: Members) -> None:
    """Of each time one contender was told that it is his, and he alone has it."""
    settings = Settings.model_validate({"mongodb_database": "booked", "request_timeout_s": 10})
    async with opened(settings, members.uri) as one, opened(settings, members.uri) as other:
        assert (await ask(one, put(schedule("d1", "Practitioner/d1")))).status == 201
        room, answers = asyncio.Semaphore(AT_ONCE), 0

        async def contend(time: int, contender: int) -> tuple[int, int, str]:
            nonlocal answers
            async with room:
                if answers == TIMES * CONTENDERS // 4:
                    await asyncio.to_thread(members.kill_primary)
                answers += 1
                return await _answered([one, other], time, contender)

        pairs = [(time, contender) for time in range(TIMES) for contender in range(CONTENDERS)]
        told = await asyncio.gather(*(contend(*pair) for pair in pairs))
        stored = await one.database["Appointment"].find().to_list()
        granules = await one.database[GRANULES].find().to_list()

    assert Counter(status for _, status, _ in told) == {
        **Counter(status for _, status, _ in told if status < 300),
        409: TIMES * (CONTENDERS - 1),
    }
    won = {time: id for time, status, id in told if status < 300}
    assert sorted(won) == list(range(TIMES))
    assert {one["_id"] for one in stored} == set(won.values())
    holders = Counter(holder["a"] for one in granules for holder in one["h"])
    # Half an hour of the practitioner and of the patient.
    assert holders == {f"Appointment/{id}": 2 * 6 for id in won.values()}
    assert all(len(one["h"]) == 1 for one in granules)
