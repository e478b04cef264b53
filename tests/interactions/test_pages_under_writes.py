"""https://hl7.org/fhir/R4/http.html#paging

Pages are walked while others write: what nobody changes is there exactly once.
"""

import asyncio
from random import Random
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from fhir_server.app import Server
from fhir_server.messages import Request
from fhir_server.store.changes import Change
from tests.conftest import Fhir
from tests.interactions.asking import BASE, json_of

UNCHANGED = 400
WRITERS = 4
HOT = 12
PAGE = 2
# A key that every document has, single keys that may be missing, an array, and two keys.
ORDERS = ("", "_lastUpdated", "-date", "identifier", "-value-string,date")
PAGES = 1000


def observation(random: Random, id: str) -> Any:
    """Return an Observation: its keys may be missing, and many have the same."""
    found: dict[str, Any] = {
        "resourceType": "Observation",
        "id": id,
        "status": "final",
        "code": {"text": "x"},
    }
    if random.random() < 0.7:
        found["effectiveDateTime"] = f"2020-01-{random.randint(1, 28):02d}"
    if random.random() < 0.7:
        letters = [random.choice("abcdef") for _ in range(random.randint(1, 3))]
        found["identifier"] = [{"value": letter} for letter in letters]
    if random.random() < 0.5:
        found["valueString"] = random.choice("uvwxyz")
    return found


def any_id(random: Random) -> str:
    """Return an id that lies anywhere among the others."""
    return f"{random.getrandbits(48):012x}"


class Walk:
    """One walk through all pages of an order, and the writers that run beside it.

    Each page that is asked for lets one writer write, while the page is read.
    """

    def __init__(self, fhir: Fhir, random: Random) -> None:
        self.fhir = fhir
        self.random = random
        self.seen: list[str] = []
        self.pages = 0
        self.written = 0
        self._turn = asyncio.Semaphore(0)
        self._is_over = False
        self._hot = [f"hot{number}" for number in range(HOT)]

    async def along(self, order: str) -> None:
        """Follow ``next`` to the end."""
        writers = [asyncio.create_task(self._write()) for _ in range(WRITERS)]
        parameters = [("_count", str(PAGE)), *([("_sort", order)] if order else [])]
        while parameters:
            self._turn.release()
            request = Request(
                "search-type", "Observation", parameters=tuple(parameters), base_url=BASE
            )
            answer = await self.fhir(request)
            body = json_of(answer)
            assert answer.status == 200, body
            entries = [one["resource"]["id"] for one in body.get("entry", ())]
            assert len(set(entries)) == len(entries) <= PAGE
            self.seen += entries
            self.pages += 1
            url = {link["relation"]: link["url"] for link in body["link"]}.get("next", "")
            parameters = parse_qsl(urlsplit(url).query, keep_blank_values=True)
        self._is_over = True
        for _ in writers:
            self._turn.release()
        await asyncio.gather(*writers)

    async def _write(self) -> None:
        while True:
            await self._turn.acquire()
            if self._is_over:
                return
            kind = self.random.random()
            hot = self.random.choice(self._hot)
            if kind < 0.5:
                id = any_id(self.random)
            elif kind < 0.9:
                id = hot
            else:
                await self.fhir(Request("delete", "Observation", hot))
                continue
            body = observation(self.random, id)
            answer = await self.fhir(Request("update", "Observation", id, body=body))
            assert answer.status in (200, 201)
            self.written += 1


@pytest.mark.slow
async def test_a_thousand_pages_beside_four_writers(server: Server, fhir: Fhir) -> None:
    """In each order, what nobody changes is neither missed nor repeated."""
    random = Random(3)
    unchanged = [observation(random, any_id(random)) for _ in range(UNCHANGED)]
    for one in unchanged:  # at times of their own
        change = Change("update", "Observation", one["id"], one)
        await server.context.store.write([change], server.context.now())
    ids = {one["id"] for one in unchanged}
    pages = written = 0
    for order in ORDERS:
        walk = Walk(fhir, random)
        await walk.along(order)
        seen = [id for id in walk.seen if id in ids]
        assert len(seen) == len(set(seen)), f"repeated, by {order or 'id'}"
        assert set(seen) == ids, f"missed, by {order or 'id'}"
        pages += walk.pages
        written += walk.written

    assert pages >= PAGES
    assert written >= PAGES / 2
