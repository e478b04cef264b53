"""Issue "writes that other servers get wrong": requests at once, through two server processes.

Of those that exclude each other one is made; of the others all are, in some order; nothing that was
told is lost; and each has its answer within the time that a request may take.
``FHIR_TEST_RACE_ROUNDS`` is how many rounds there are; without it fewer, for every day.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from fhir_server.app import Server, opened
from fhir_server.dispatch import answer
from fhir_server.messages import Request, Resource, Response
from fhir_server.settings import Settings
from tests.conftest import Fhir
from tests.interactions.asking import BASE, bundle, entry, json_of, patient, put, statuses, versions

ROUNDS = int(os.environ.get("FHIR_TEST_RACE_ROUNDS", "3"))
AT_ONCE = 32
BUNDLES = 16
SYSTEM = "https://fhir.example.org/races"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Doors:
    """The front doors of two processes on one database."""

    def __init__(self, one: Server, two: Server) -> None:
        """Requests go to ``one`` and ``two`` in turn."""
        self.servers = (one, two)

    async def ask(self, request: Request) -> Response:
        """Ask the first."""
        return await answer(self.servers[0].registry, request, self.servers[0].context)

    async def at_once(self, requests: Sequence[Request]) -> list[Response]:
        """Ask all at once, each within its deadline."""
        limit = self.servers[0].context.settings.request_timeout_s

        async def one(number: int, request: Request) -> Response:
            server = self.servers[number % 2]
            began = time.monotonic()
            response = await answer(server.registry, request, server.context)
            assert time.monotonic() - began < limit
            return response

        return await asyncio.gather(*(one(*pair) for pair in enumerate(requests)))


@pytest.fixture
async def doors(server: Server, settings: Settings, mongodb_uri: str) -> AsyncIterator[Doors]:
    """Two processes on the database of ``server``."""
    async with opened(settings, mongodb_uri) as second:
        yield Doors(server, second)


def known(value: str, **members: Any) -> Resource:
    """Return a Patient with an identifier."""
    identifier = [{"system": SYSTEM, "value": value}]
    return {"resourceType": "Patient", "identifier": identifier, **members}


def marked(id: str, mark: str) -> Resource:
    """Return the Patient ``id`` that says ``mark``."""
    return patient(id, name=[{"text": mark}])


def told(responses: Sequence[Response]) -> Counter[int]:
    """Return how often each status was answered."""
    return Counter(one.status for one in responses)


async def marks(fhir: Fhir, place: str) -> list[str]:
    """Return what the versions of ``place`` say, oldest first; none is missing."""
    entries = await versions(fhir, place)
    found = [one["resource"] for one in reversed(entries)]
    assert [one["meta"]["versionId"] for one in found] == [str(n) for n in range(1, len(found) + 1)]
    return [one["name"][0]["text"] for one in found]


async def count(doors: Doors, text: str = "") -> int:
    """Return how many Patients match ``text``, an identifier."""
    asked = (("_summary", "count"), *([("identifier", f"{SYSTEM}|{text}")] if text else []))
    response = await doors.ask(Request("search-type", "Patient", parameters=tuple(asked)))
    total: int = json_of(response)["total"]
    return total


@pytest.mark.parametrize("how", ["alone", "in a transaction", "in a batch"])
async def test_conditional_creates(doors: Doors, how: str) -> None:
    """One criterion makes one resource."""
    at_once = AT_ONCE if how == "alone" else BUNDLES
    for round in range(ROUNDS):
        value = f"{how[-5:]}{round}"
        text = f"identifier={SYSTEM}|{value}"
        type = how.rpartition(" ")[2]
        request = (
            Request(*("create", "Patient"), body=known(value), if_none_exist=text, base_url=BASE)
            if how == "alone"
            else bundle(entry("POST", "Patient", known(value), ifNoneExist=text), type=type)
        )
        responses = await doors.at_once([request] * at_once)
        said = (
            [str(one.status) for one in responses]
            if how == "alone"
            else [one for response in responses for one in statuses(response)]
        )
        assert sorted(said) == [*(["200"] * (at_once - 1)), "201"]
        assert await count(doors, value) == 1


async def test_conditional_creates_alone_and_in_bundles(doors: Doors) -> None:
    """Those of a group and those of transactions see each other's claims; others with the same
    identifier, and what it does not name, are in nobody's way."""
    for round in range(ROUNDS):
        value = f"mixed{round}"
        text = f"identifier={SYSTEM}|{value}"
        single = Request("create", "Patient", body=known(value), if_none_exist=text, base_url=BASE)
        other = f"identifier=urn:other|{value}"
        apart = replace(single, body={"resourceType": "Patient"}, if_none_exist=other)
        several = bundle(entry("POST", "Patient", known(value), ifNoneExist=text))
        free = Request("create", "Patient", body=known(f"{value}-free"), base_url=BASE)
        asked = [single, single, several, several, free, free, apart, single]
        responses = await doors.at_once(asked * 4)
        assert {one.status for one in responses} <= {200, 201}
        assert [one.status for n, one in enumerate(responses) if n % 8 in (4, 5, 6)] == [201] * 12
        assert await count(doors, value) == 1
        assert await count(doors, f"{value}-free") == 8


async def test_conditional_updates(doors: Doors) -> None:
    """One creates, the others update what it made: all of them are in its history."""
    for round in range(ROUNDS):
        asked = (("identifier", f"{SYSTEM}|{round}"),)
        responses = await doors.at_once(
            [
                Request(
                    "conditional-update",
                    "Patient",
                    body=known(str(round), name=[{"text": f"{n}"}]),
                    parameters=asked,
                )
                for n in range(AT_ONCE // 2)
            ]
        )
        assert told(responses) == {201: 1, 200: AT_ONCE // 2 - 1}
        [id] = {one.location.split("/")[1] for one in responses}
        order = await marks(doors.ask, f"Patient/{id}")
        sent = [str(n) for n in range(AT_ONCE // 2)]
        assert sorted(order) == sorted(sent)
        assert [order[one.version - 1] for one in responses] == sent


async def test_blind_updates(doors: Doors) -> None:
    """Each is a version of its own, the one that was told, and says what was sent."""
    for round in range(ROUNDS):
        requests = [put(marked(f"b{round}", str(n))) for n in range(AT_ONCE)]
        responses = await doors.at_once(requests)
        assert told(responses) == {201: 1, 200: AT_ONCE - 1}
        order = await marks(doors.ask, f"Patient/b{round}")
        assert [order[one.version - 1] for one in responses] == [str(n) for n in range(AT_ONCE)]


async def test_guarded_updates(doors: Doors) -> None:
    """Of those that replace one version, one does; the others are told 412."""
    for round in range(ROUNDS):
        await doors.ask(put(marked(f"g{round}", "first")))
        responses = await doors.at_once(
            [put(marked(f"g{round}", str(n)), if_match=frozenset("1")) for n in range(AT_ONCE)]
        )
        assert told(responses) == {200: 1, 412: AT_ONCE - 1}
        winner = [one.status for one in responses].index(200)
        assert await marks(doors.ask, f"Patient/g{round}") == ["first", str(winner)]


async def test_bundles_on_crossing_resources(doors: Doors) -> None:
    """A then B, and B then A: each bundle is whole, and both resources have them in one order."""
    for round in range(ROUNDS):
        a, b = f"a{round}", f"z{round}"

        def crossing(n: int, places: tuple[str, str] = (a, b)) -> Request:
            ordered = places if n % 2 else places[::-1]
            return bundle(*(entry("PUT", f"Patient/{id}", marked(id, str(n))) for id in ordered))

        responses = await doors.at_once([crossing(n) for n in range(BUNDLES)])
        assert told(responses) == {200: BUNDLES}
        order = await marks(doors.ask, f"Patient/{a}")
        assert sorted(order) == sorted(str(n) for n in range(BUNDLES))
        assert await marks(doors.ask, f"Patient/{b}") == order


async def test_guarded_bundles_on_crossing_resources(doors: Doors) -> None:
    """Each replaces the first versions of both: one does."""
    for round in range(ROUNDS):
        places = (f"c{round}", f"y{round}")
        for id in places:
            await doors.ask(put(marked(id, "first")))
        responses = await doors.at_once(
            [
                bundle(
                    *(
                        entry("PUT", f"Patient/{id}", marked(id, str(n)), ifMatch='W/"1"')
                        for id in (places if n % 2 else places[::-1])
                    )
                )
                for n in range(BUNDLES)
            ]
        )
        assert told(responses) == {200: 1, 412: BUNDLES - 1}
        winner = [one.status for one in responses].index(200)
        for id in places:
            assert await marks(doors.ask, f"Patient/{id}") == ["first", str(winner)]


async def test_bundles_that_claim_in_crossing_order(doors: Doors) -> None:
    """Two criteria each, in both orders: two resources, whoever makes them."""
    for round in range(ROUNDS):
        values = (f"k{round}", f"l{round}")
        entries = [
            entry("POST", "Patient", known(one), ifNoneExist=f"identifier={SYSTEM}|{one}")
            for one in values
        ]
        responses = await doors.at_once(
            [bundle(*(entries if n % 2 else entries[::-1])) for n in range(BUNDLES)]
        )
        assert told(responses) == {200: BUNDLES}
        made = [one for response in responses for one in statuses(response)]
        assert Counter(made) == {"201": 2, "200": 2 * BUNDLES - 2}
        assert [await count(doors, one) for one in values] == [1, 1]


async def test_one_key(doors: Doors) -> None:
    """Of requests with one Idempotency-Key one is made, and all are told of it."""
    for round in range(ROUNDS):
        before = await count(doors)
        request = Request(
            "create", "Patient", body=known("x"), base_url=BASE, idempotency_key=f"race-{round}"
        )
        responses = await doors.at_once([request] * AT_ONCE)
        assert len({(one.status, one.location, one.body) for one in responses}) == 1
        assert await count(doors) == before + 1
