"""Reliability, sections 1, 7 and 13: what was acknowledged outlives the kill of any process.

Eight writers over HTTP note what was acknowledged. Server, mongod or both are killed with -9 under
that load and started again on the same data; every note must be there, versions must be without a
gap, a transaction must be whole, and what stands beside a resource must be what it says.
"""

import asyncio
import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bson
import httpx
import pytest

from fhir_server.app import specification
from fhir_server.artifacts import artifacts_root
from fhir_server.r4.json import decode
from fhir_server.search.index import index
from fhir_server.store.client import Database, connect, database_of
from fhir_server.store.documents import HISTORY_SUFFIX
from tests.faults.serving import Serving
from tests.store.mongods import until
from tests.store.test_documents import as_text

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

WRITERS = 8
ROUNDS = 3
KILLED = -9  # the exit code of what was killed
HOT = 3  # resources that all writers change
ACKNOWLEDGED = (150, 400)  # how many writes before the kill, at random


@dataclass(frozen=True)
class Note:
    """One acknowledged write: what a client was told."""

    type: str
    id: str
    version: int
    sha256: str  # of the body in the answer; empty for a deletion


@dataclass
class Load:
    """Writers, what they were told, and whether they shall go on."""

    base: str
    notes: list[Note] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    going: bool = True

    async def write(self, number: int) -> None:
        """Write until told to stop, one after the other, of all kinds."""
        chance = random.Random(number)
        async with httpx.AsyncClient(base_url=self.base, timeout=5) as client:
            step = 0
            while self.going:
                step += 1
                try:
                    await self._one(client, chance, f"{number}-{step}")
                except httpx.HTTPError:
                    self.statuses[0] += 1
                    await asyncio.sleep(0.01)

    async def _one(self, client: httpx.AsyncClient, chance: random.Random, mark: str) -> None:
        kind = chance.random()
        body = {"resourceType": "Patient", "name": [{"family": mark}], "birthDate": "1970-01"}
        if kind < 0.4:
            id = f"hot{chance.randrange(HOT)}"
            self._noted(await client.put(f"/Patient/{id}", json={**body, "id": id}))
        elif kind < 0.6:
            self._noted(await client.post("/Patient", json=body))
        elif kind < 0.7:
            id = f"hot{chance.randrange(HOT)}"
            self._noted(await client.delete(f"/Patient/{id}"), f"Patient/{id}")
        else:
            await self._pair(client, chance.randrange(4), mark)

    async def _pair(self, client: httpx.AsyncClient, pair: int, mark: str) -> None:
        """Write the same mark into two resources of two types, in one transaction."""
        person = {"resourceType": "Person", "id": f"pair{pair}", "name": [{"text": mark}]}
        basic = {"resourceType": "Basic", "id": f"pair{pair}", "code": {"text": mark}}
        entries = [
            {
                "resource": one,
                "request": {"method": "PUT", "url": f"{one['resourceType']}/pair{pair}"},
            }
            for one in (person, basic)
        ]
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
        answer = await client.post("", json=bundle, headers={"Prefer": "return=representation"})
        self.statuses[answer.status_code] += 1
        if answer.status_code == 200:
            for one in decode(answer.content)["entry"]:
                resource = one["resource"]
                version = int(resource["meta"]["versionId"])
                text = answer.content[
                    answer.content.index(
                        b'{"resourceType":"%s"' % resource["resourceType"].encode()
                    ) :
                ]
                self.notes.append(
                    Note(resource["resourceType"], resource["id"], version, _hash_of_first(text))
                )

    def _noted(self, answer: httpx.Response, place: str = "") -> None:
        self.statuses[answer.status_code] += 1
        if answer.status_code not in (200, 201, 204) or "etag" not in answer.headers:
            return
        version = int(answer.headers["etag"][3:-1])
        if not place:
            resource = decode(answer.content)
            place = f"Patient/{resource['id']}"
        type, _, id = place.partition("/")
        sha256 = hashlib.sha256(answer.content).hexdigest() if answer.content else ""
        self.notes.append(Note(type, id, version, sha256))


def _hash_of_first(text: bytes) -> str:
    """Return the hash of the JSON object that ``text`` begins with; no text in it has braces."""
    depth = 0
    for place, sign in enumerate(text):
        depth += (sign == ord("{")) - (sign == ord("}"))
        if depth == 0:
            return hashlib.sha256(text[: place + 1]).hexdigest()
    raise AssertionError("an object that does not end")


@asynccontextmanager
async def database(serving: Serving) -> AsyncIterator[Database]:
    """The database of the server, which runs."""
    port = decode((serving.data / "mongod.json").read_bytes())["port"]
    client = connect(f"mongodb://127.0.0.1:{port}/?directConnection=true", connections_max=4)
    try:
        yield database_of(client, "fhir")
    finally:
        await client.close()


async def everything(found: Database) -> dict[tuple[str, str], dict[int, dict[str, Any]]]:
    """Return every version of everything: (type, id) -> version -> document."""
    versions: dict[tuple[str, str], dict[int, dict[str, Any]]] = defaultdict(dict)
    for name in await found.list_collection_names():
        if not name[0].isupper():
            continue
        type = name.removesuffix(HISTORY_SUFFIX)
        for document in await found[name].find().to_list():
            key = document["_id"]
            id = key if isinstance(key, str) else key["id"]
            assert document["version"] not in versions[type, id], f"{type}/{id} has one twice"
            versions[type, id][document["version"]] = document
    return versions


async def lost(found: Database, notes: list[Note]) -> list[Note]:
    """Return the notes that the database does not bear out."""
    versions = await everything(found)
    return [
        note
        for note in notes
        if (document := versions.get((note.type, note.id), {}).get(note.version)) is None
        or (hashlib.sha256(document["json"]).hexdigest() if "json" in document else "")
        != note.sha256
    ]


async def damaged(found: Database) -> list[str]:
    """Return what is wrong in the database itself: gaps, torn transactions, stale keys."""
    table = specification(artifacts_root(None), ()).parameters
    options = found.codec_options
    faults = []
    versions = await everything(found)
    for (type, id), by_number in versions.items():
        if sorted(by_number) != list(range(1, len(by_number) + 1)):
            faults.append(f"{type}/{id} has versions {sorted(by_number)}")
        current = by_number[max(by_number)]
        times = [by_number[number]["last_updated"] for number in sorted(by_number)]
        if times != sorted(set(times)):
            faults.append(f"{type}/{id} has times that do not rise")
        if current.get("deleted"):
            continue
        if as_text(current["resource"]) != as_text(decode(current["json"])):
            faults.append(f"{type}/{id}: native form and text differ")
        keys = index(decode(current["json"]), table).keys
        if (
            bson.decode(bson.encode({"k": keys}, codec_options=options), options)["k"]
            != current["keys"]
        ):
            faults.append(f"{type}/{id}: keys are not those of the resource")
    for type, id in list(versions):
        if type == "Person":
            marks = [
                [marks_of(by_number[n]) for n in sorted(by_number)]
                for by_number in (versions["Person", id], versions["Basic", id])
            ]
            if marks[0] != marks[1]:
                faults.append(f"pair {id} is torn: {marks[0][-2:]} and {marks[1][-2:]}")
    return faults


def marks_of(document: dict[str, Any]) -> str:
    """Return the mark in a Person or Basic."""
    resource = decode(document["json"])
    return str(resource["name"][0]["text"] if "name" in resource else resource["code"]["text"])


def _mongod_first(serving: Serving) -> None:
    serving.kill_mongod()
    serving.kill()


def _server_first(serving: Serving) -> None:
    serving.kill()
    serving.kill_mongod()


KILLS: dict[str, Callable[[Serving], None]] = {
    "server": lambda serving: serving.kill(),
    "mongod": lambda serving: serving.kill_mongod(),
    "both, mongod first": _mongod_first,
    "both, server first": _server_first,
}


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """A server on data of its own; nothing of it outlives the test."""
    one = Serving(tmp_path, write_timeout_s=1, request_timeout_s=1)
    yield one
    one.clean_up()


@pytest.mark.parametrize("kill", KILLS.values(), ids=KILLS)
async def test_what_was_acknowledged_outlives_a_kill(
    serving: Serving, kill: Callable[[Serving], None], request: pytest.FixtureRequest
) -> None:
    """Three times: write, kill, start again; nothing is lost, torn or without its keys."""
    chance = random.Random(request.node.name)
    notes: list[Note] = []
    for _ in range(ROUNDS):
        await asyncio.to_thread(serving.start)
        load = Load(serving.base)
        wanted = chance.randint(*ACKNOWLEDGED)
        async with asyncio.TaskGroup() as tasks:
            for number in range(WRITERS):
                tasks.create_task(load.write(number))
            await until(lambda: len(load.notes) >= wanted, f"{wanted} writes", 30)  # noqa: B023
            kill(serving)
            load.going = False
        # A server that has lost its mongod still ends as it should.
        assert await asyncio.to_thread(serving.stop) in (0, KILLED), serving.said
        await asyncio.to_thread(serving.start)
        notes += load.notes
        async with database(serving) as found:
            assert await lost(found, notes) == []
            assert await damaged(found) == []
        assert set(load.statuses) <= {0, 200, 201, 204, 503}, load.statuses
        assert await asyncio.to_thread(serving.stop) == 0
    assert len(notes) > ROUNDS * ACKNOWLEDGED[0]


async def test_the_control_reports_a_loss(serving: Serving) -> None:
    """The control: a version that is removed behind the server's back is seen to be missing."""
    await asyncio.to_thread(serving.start)
    load = Load(serving.base)
    async with asyncio.TaskGroup() as tasks:
        for number in range(WRITERS):
            tasks.create_task(load.write(number))
        await until(lambda: len(load.notes) >= 100, "100 writes", 30)
        load.going = False
    async with database(serving) as found:
        assert await lost(found, load.notes) == []
        assert await damaged(found) == []
        removed = await found["Patient_history"].find_one_and_delete({})
        assert removed is not None
        gone = [note.version for note in await lost(found, load.notes)]
        gaps = await damaged(found)
        torn = await found["Basic"].update_one({"_id": "pair0"}, {"$set": {"keys": {}}})
        stale = await damaged(found)

    assert gone == [removed["_id"]["version"]]
    assert len(gaps) == 1
    assert torn.modified_count == 1
    assert len(stale) == 2
    assert await asyncio.to_thread(serving.stop) == 0
