"""ARCHITECTURE.md, section 16.3, coalesced reads"""

import asyncio
from typing import Any

from fhir_server.app import Server
from fhir_server.messages import Request
from fhir_server.store.documents import Stored
from fhir_server.store.fetch import Fetch
from tests.conftest import Fhir


async def filled(fhir: Fhir, count: int) -> list[str]:
    """Ids of patients that are there."""
    ids = [f"p{number}" for number in range(count)]
    for id in ids:
        body = {"resourceType": "Patient", "id": id, "active": True}
        assert (await fhir(Request("update", "Patient", id, body=body))).status == 201
    return ids


async def test_each_gets_its_own(server: Server, fhir: Fhir) -> None:
    """A hundred reads at once, some of the same id, some of none: every answer is the right one."""
    ids = await filled(fhir, 10)
    asked = [*ids, "nobody"] * 9

    found = await asyncio.gather(*(server.context.store.read("Patient", id) for id in asked))

    for id, stored in zip(asked, found, strict=True):
        assert (stored is None) == (id == "nobody")
        assert stored is None or (stored.id == id and f'"id":"{id}"'.encode() in stored.json)


class _Counting:
    """Stands for the database: counts the commands that the real one gets."""

    def __init__(self, database: Any) -> None:
        self.database = database
        self.commands: list[str] = []

    def __getitem__(self, type: str) -> Any:
        collection, commands = self.database[type], self.commands

        class Counted:
            def find_one(self, *args: Any, **kwargs: Any) -> Any:
                commands.append("one")
                return collection.find_one(*args, **kwargs)

            def find(self, *args: Any, **kwargs: Any) -> Any:
                commands.append("many")
                return collection.find(*args, **kwargs)

        return Counted()


async def test_those_who_wait_go_together(server: Server, fhir: Fhir) -> None:
    """Fifty reads at once are one command; what comes while it is under way is another, and what
    comes while both are waits for the first that ends."""
    ids = await filled(fhir, 50)
    counting = _Counting(server.database)
    fetch = Fetch(counting, server.context.store.fetch.deadline)  # type: ignore[arg-type]

    reading = []
    for some in (ids[:30], ids[30:31], ids[31:]):
        reading += [asyncio.create_task(fetch.one("Patient", id)) for id in some]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    found = await asyncio.gather(*reading)

    assert [document["_id"] for document in found if document] == ids
    assert counting.commands == ["many", "one", "many"]


async def test_a_client_that_leaves_takes_nobody_along(server: Server, fhir: Fhir) -> None:
    """Cancelled reads, alone or waiting, leave the others their answers, and the lane open."""
    ids = await filled(fhir, 8)
    reads = [asyncio.create_task(server.context.store.read("Patient", id)) for id in ids * 2]
    await asyncio.sleep(0)
    for read in reads[::3]:
        read.cancel()

    answers = await asyncio.gather(*reads, return_exceptions=True)

    for place, (id, answer) in enumerate(zip(ids * 2, answers, strict=True)):
        assert place % 3 == 0 or (isinstance(answer, Stored) and answer.id == id)
    assert await server.context.store.read("Patient", ids[0])


async def test_a_failure_is_told_to_all_who_wait(server: Server, fhir: Fhir) -> None:
    """When the command fails, everybody gets the refusal, and the next read works again."""
    await filled(fhir, 1)
    fetch = server.context.store.fetch
    broken = Fetch(server.database.client["x" * 64 + "y"], fetch.deadline)  # no such name can be

    answers = await asyncio.gather(
        *(broken.one("Patient", str(number)) for number in range(20)), return_exceptions=True
    )

    assert all(isinstance(answer, Exception) for answer in answers)
    assert await fetch.one("Patient", "p0")
