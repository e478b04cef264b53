"""design/scheduling.md, check S11: whatever is killed, appointments have their times, and no more.

Clients book, move, cancel and hold over HTTP, at times that overlap, while the server or its mongod
is killed with -9 and started again. At the end every live appointment holds exactly its granules,
nobody else holds one, no two share one, and what was acknowledged is there.
``FHIR_TEST_BOOKING_KILLS`` says how often; without it twice, for every day.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from fhir_server.features.scheduling.claims import granules_of
from fhir_server.features.scheduling.states import LIVE
from fhir_server.r4.json import decode
from fhir_server.store.client import Database, connect, database_of
from fhir_server.store.granules import BOOKINGS, GRANULES
from tests.faults.serving import Serving

KILLS = int(os.environ.get("FHIR_TEST_BOOKING_KILLS", "2"))
CLIENTS = 8
OF_EACH = 4
DOCTORS = 2
ANSWERS = (60, 160)  # how many before a kill, at random
MORNING = datetime(2036, 12, 1, 9, tzinfo=UTC)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120 + KILLS * 20)]


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """A server of which nothing is left behind."""
    one = Serving(tmp_path)
    yield one
    one.clean_up()


@dataclass
class Load:
    """Clients, and what they were told: the status of each appointment, and its start. ``over``
    counts by client and place how many were cancelled there."""

    base: str
    told: dict[str, tuple[str, str]] = field(default_factory=dict)
    over: Counter[tuple[int, int]] = field(default_factory=Counter)
    answers: int = 0
    booked: int = 0
    going: bool = True

    async def work(self, number: int) -> None:
        """Ask until told to stop, each client for its own appointments."""
        chance = random.Random(number * 1009 + self.answers)
        async with httpx.AsyncClient(base_url=self.base, timeout=10) as client:
            while self.going:
                # Few at a time, so that times are free; what is cancelled stays so, and another
                # one takes its place.
                place = (number, chance.randrange(OF_EACH))
                id = f"a{number}-{place[1]}-{self.over[place]}"
                status = chance.choice(["booked", "booked", "booked", "pending", "cancelled"])
                body = _appointment(id, number, chance, status)
                # What was not acknowledged may be there or not.
                was = self.told.pop(id, None)
                try:
                    answer = await client.put(f"/Appointment/{id}", json=body)
                except httpx.HTTPError:
                    await asyncio.sleep(0.02)
                    continue
                self.answers += 1
                assert answer.status_code in (200, 201, 409, 503), answer.text
                if answer.status_code < 300:
                    self.told[id] = (status, body["start"])
                    self.booked += status == "booked"
                elif was is not None:
                    self.told[id] = was
                self.over[place] += (answer.status_code, status) == (200, "cancelled") or (
                    "stays so" in answer.text
                )


def _appointment(id: str, number: int, chance: random.Random, status: str) -> dict[str, Any]:
    start = MORNING + timedelta(minutes=5 * chance.randrange(36))
    end = start + timedelta(minutes=chance.choice([10, 15, 30]))
    actors = [f"Practitioner/p{chance.randrange(DOCTORS)}", f"Patient/c{number}"]
    return {
        "resourceType": "Appointment",
        "id": id,
        "status": status,
        "start": start.isoformat(),
        "end": end.isoformat(),
        "participant": [{"actor": {"reference": one}, "status": "accepted"} for one in actors],
    }


@asynccontextmanager
async def _database(serving: Serving) -> AsyncIterator[Database]:
    port = decode((serving.data / "mongod.json").read_bytes())["port"]
    client = connect(f"mongodb://127.0.0.1:{port}/?directConnection=true", connections_max=4)
    try:
        yield database_of(client, "fhir")
    finally:
        await client.close()


async def _round(load: Load, serving: Serving, chance: random.Random) -> None:
    """Ask, and kill the server, its mongod, or both under that."""
    load.going = True
    asking = [asyncio.create_task(load.work(number)) for number in range(CLIENTS)]
    enough = load.answers + chance.randrange(*ANSWERS)
    while load.answers < enough:
        await asyncio.sleep(0.005)
        assert not any(one.done() for one in asking), "a client has ended"
    if chance.random() < 0.5:
        serving.kill_mongod()
    serving.kill()
    load.going = False
    await asyncio.gather(*asking)
    serving.start()


async def _consistent(load: Load, serving: Serving) -> int:
    """Check what is there; return how many appointments hold a time."""
    async with _database(serving) as data:
        found = await data["Appointment"].find({"deleted": {"$exists": False}}).to_list()
        resources = {one["_id"]: decode(one["json"]) for one in found}
        granules = await data[GRANULES].find().to_list()
        bookings = await data[BOOKINGS].find().to_list()
    for id, (status, start) in load.told.items():
        there = resources[id]
        assert (there["status"], there["start"]) == (status, start), id
    wanted = {
        f"Appointment/{id}": _wanted(one) for id, one in resources.items() if one["status"] in LIVE
    }
    holding: dict[str, set[str]] = {}
    for one in granules:
        assert len(one["h"]) == 1, one
        holding.setdefault(one["h"][0]["a"], set()).add(one["_id"])
    assert holding == wanted
    assert {one["_id"]: set(one["g"]) for one in bookings} == wanted
    return len(wanted)


def _wanted(appointment: dict[str, Any]) -> set[str]:
    start, end = (datetime.fromisoformat(appointment[name]) for name in ("start", "end"))
    actors = [one["actor"]["reference"] for one in appointment["participant"]]
    return {id for one in actors for id, _ in granules_of(one, start, end, timedelta(minutes=5))}


async def test_appointments_have_their_times_whatever_is_killed(serving: Serving) -> None:
    """No overlap, no time lost, none left behind."""
    serving.start()
    async with httpx.AsyncClient(base_url=serving.base) as client:
        for number in range(DOCTORS):
            actor = [{"reference": f"Practitioner/p{number}"}]
            body = {"resourceType": "Schedule", "id": f"d{number}", "actor": actor}
            (await client.put(f"/Schedule/d{number}", json=body)).raise_for_status()
    load, chance = Load(serving.base), random.Random(11)
    for _ in range(KILLS):
        await _round(load, serving, chance)
        assert await _consistent(load, serving) > 0
    assert load.booked > 10 * KILLS
    assert serving.stop() == 0
