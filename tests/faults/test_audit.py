"""A9 of design/security.md: what was answered is recorded, whenever the server is killed; and all
tampering with the record is found.

Eight clients send requests of all kinds, each with an id of its own, while the server is killed
with -9. ``FHIR_AUDIT_REQUESTS`` is how many are answered before that, 400 unless it says so.
"""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from fhir_server.app import specification
from fhir_server.artifacts import artifacts_root
from fhir_server.r4.json import decode
from fhir_server.security.chain import Key, place, placed
from fhir_server.security.sealing import opened
from fhir_server.store.audit import AUDIT
from fhir_server.store.audit_chain import Verification
from fhir_server.store.client import Database, connect, database_of
from tests.faults.serving import Serving, command

REQUESTS = int(os.environ.get("FHIR_AUDIT_REQUESTS", "400"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120 + REQUESTS // 5)]

CLIENTS = 8
LOST_S_MAX = 0.5  # 50 ms of waiting, and the flush, which a busy machine draws out
CHANGED = ("create", "update", "patch", "delete")
BASE = "http://127.0.0.1/fhir"


@dataclass(frozen=True)
class Note:
    """One answer: when it came, its status, and how many changes and other things it tells of."""

    at: float
    status: int
    changes: int
    others: int


@dataclass
class Load:
    """Clients, what they were told by request id, and whether they shall go on."""

    base: str
    notes: dict[str, Note] = field(default_factory=dict)
    going: bool = True

    async def ask(self, number: int) -> None:
        """Ask until told to stop, one after the other."""
        chance = random.Random(number)
        async with httpx.AsyncClient(base_url=self.base, timeout=10) as client:
            step = 0
            while self.going:
                step += 1
                id = f"{number}-{step}"
                method, path, body, changes, others = _request(chance, number)
                try:
                    answer = await client.request(
                        method, path, json=body, headers={"X-Request-Id": id}
                    )
                except httpx.HTTPError:
                    await asyncio.sleep(0.01)
                    continue
                self.notes[id] = Note(time.monotonic(), answer.status_code, changes, others)


def _request(chance: random.Random, number: int) -> tuple[str, str, Any, int, int]:
    """Return method, path, body; how many changes that is, and what else is recorded of it."""
    id = f"p{number}-{chance.randrange(20)}"
    body = {"resourceType": "Patient", "id": id, "gender": chance.choice(["male", "female"])}
    entries = [
        {"request": {"method": "PUT", "url": f"Patient/{id}"}, "resource": body},
        {"request": {"method": "POST", "url": "Patient"}, "resource": {"resourceType": "Patient"}},
        {"request": {"method": "GET", "url": f"Patient/{id}"}},
    ]
    kinds: list[tuple[str, str, Any, int, int]] = [
        ("PUT", f"Patient/{id}", body, 1, 0),
        ("POST", "Patient", {"resourceType": "Patient"}, 1, 0),
        ("DELETE", f"Patient/{id}", None, 1, 0),
        ("GET", f"Patient/{id}", None, 0, 1),
        ("GET", f"Patient?gender=male&_id={id}", None, 0, 1),
        ("GET", "Patient/none", None, 0, 1),
        ("GET", "Nothing/1", None, 0, 1),
        ("GET", "a/b/c/d", None, 0, 1),
        ("POST", "Patient", {"resourceType": "Nothing"}, 0, 1),
        ("POST", "", {"resourceType": "Bundle", "type": "transaction", "entry": entries}, 2, 2),
        ("POST", "", {"resourceType": "Bundle", "type": "batch", "entry": entries}, 2, 2),
        ("GET", f"Patient/{id}/_history", None, 0, 1),
    ]
    return chance.choice(kinds)


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Callable[..., Serving]]:
    """Servers, of which nothing is left behind."""
    made: list[Serving] = []

    def make(**settings: object) -> Serving:
        made.append(Serving(tmp_path, **settings))
        return made[-1]

    yield make
    for one in made:
        one.clean_up()


@asynccontextmanager
async def database(serving: Serving) -> AsyncIterator[Database]:
    """The database of the server."""
    port = decode((serving.data / "mongod.json").read_bytes())["port"]
    client = connect(f"mongodb://127.0.0.1:{port}/?directConnection=true", connections_max=4)
    try:
        yield database_of(client, "fhir")
    finally:
        await client.close()


async def _loaded(serving: Serving) -> tuple[Load, float]:
    """Ask until enough is answered, then kill the server; return what was told, and when."""
    load = Load(serving.base)
    asking = [asyncio.create_task(load.ask(number)) for number in range(CLIENTS)]
    while len(load.notes) < REQUESTS:
        await asyncio.sleep(0.005)
    serving.kill()
    killed = time.monotonic()
    load.going = False
    await asyncio.gather(*asking)
    return load, killed


async def _faults(data: Database) -> list[str]:
    """Return the names of the faults in the record, each once."""
    master, sealed = (
        await data["server"]
        .find({"_id": {"$in": ["audit_key", "master_key"]}}, sort=[("_id", -1)])
        .to_list()
    )
    key = Key(opened(master["key"], sealed["key"], "audit_key"))
    look = Verification(data, {key.name: key})
    return list(dict.fromkeys([one.name async for one in look.faults()]))


@pytest.mark.parametrize("reads", ["strict", "buffered"])
async def test_what_was_answered_is_recorded_though_the_server_is_killed(
    serving: Callable[..., Serving], reads: str, tmp_path: Path
) -> None:
    """Every change has its record, and every record of a change its version; reads have theirs,
    all of them where the setting is strict, else all but those of the last moment."""
    server = serving(audit_reads=reads)
    server.start()
    load, killed = await _loaded(server)
    server.start()
    async with database(server) as data:
        rows = await data[AUDIT].find({"request": {"$exists": True}}).to_list()
        by_request: dict[str, Counter[str]] = {}
        for row in rows:
            kind = "change" if row["did"] in CHANGED and row["status"] < 400 else "other"
            by_request.setdefault(row["request"], Counter())[kind] += 1
        missing = 0
        for id, note in load.notes.items():
            found = by_request.get(id, Counter())
            wanted = note.changes if note.status < 400 else 0
            assert found["change"] == wanted, (id, note, found)
            if found["other"] != note.changes - wanted + note.others:
                missing += 1
                assert killed - note.at < LOST_S_MAX, (id, note, found)
        assert missing == 0 or reads == "buffered"
        await _every_version_has_one_record(data, rows)
        assert await _faults(data) == []
    await _all_valid(server)
    assert server.stop() == 0
    verified = command("audit", "verify", "--data", str(server.data), folder=tmp_path)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "faults: 0" in verified.stderr


async def _every_version_has_one_record(data: Database, rows: list[dict[str, Any]]) -> None:
    """The rows of changes are those of the versions there are, and no others."""
    recorded = Counter(
        (one["id"], one["version"])
        for one in rows
        if one["did"] in CHANGED and one["status"] < 400 and one.get("version")
    )
    current = await data["Patient"].find({}, {"version": 1}).to_list()
    versions = {(one["_id"], one["version"]) for one in current}
    async for one in data["Patient_history"].find({}, {"_id": 1}):
        versions.add((one["_id"]["id"], one["_id"]["version"]))
    assert versions == set(recorded)


async def _all_valid(server: Serving) -> None:
    """Every AuditEvent is one of R4."""
    structural = specification(artifacts_root(None), ()).validator
    async with httpx.AsyncClient(timeout=30) as client:
        url = f"{server.base}/AuditEvent?_count=500"
        count = 0
        while url:
            bundle = (await client.get(url)).json()
            for one in bundle["entry"]:
                count += 1
                assert structural.issues(one["resource"]) == ()
            url = next((one["url"] for one in bundle["link"] if one["relation"] == "next"), "")
    assert count > REQUESTS


async def _change(data: Database, id: str) -> None:
    await data[AUDIT].update_one({"_id": id}, {"$set": {"agents": ["user/nobody"]}})


async def _delete(data: Database, id: str) -> None:
    await data[AUDIT].delete_one({"_id": id})


async def _insert(data: Database, id: str) -> None:
    found = await data[AUDIT].find_one({"_id": id})
    chain, sequence, row = placed(id) or ("", 0, 0)
    await data[AUDIT].insert_one({**(found or {}), "_id": place(chain, sequence, row + 4096)})


async def _swap(data: Database, id: str) -> None:
    chain = id.partition(".")[0]
    one, other = await data[AUDIT].find({"_id": {"$gt": id}}).sort("_id", 1).limit(2).to_list()
    assert one["_id"].startswith(chain)
    assert other["_id"].startswith(chain)
    for row, id in ((one, other["_id"]), (other, one["_id"])):
        await data[AUDIT].replace_one({"_id": id}, {**row, "_id": id})


async def _truncate(data: Database, id: str) -> None:
    chain, sequence, _ = placed(id) or ("", 0, 0)
    bounds = {"$gte": place(chain, sequence, 0), "$lt": f"{chain}/"}
    await data[AUDIT].delete_many({"_id": bounds})


TAMPERINGS: dict[str, Callable[[Database, str], Awaitable[None]]] = {
    "change": _change,
    "delete": _delete,
    "insert": _insert,
    "swap": _swap,
    "truncate": _truncate,
}


async def test_all_tampering_is_found(serving: Callable[..., Serving], tmp_path: Path) -> None:
    """Change, delete, insert, swap, truncate, each alone in a record of many requests: 5 of 5."""
    outside = tmp_path / "heads"
    server = serving(audit_heads=outside)
    server.start()
    await _loaded(server)
    server.start()
    async with httpx.AsyncClient(base_url=server.base) as client:
        for _ in range(3):
            await client.get("/Patient/none")
            await client.post("/Patient", json={"resourceType": "Patient"})
    assert server.stop() == 0
    server.start()
    async with database(server) as data:
        whole = await data[AUDIT].find().to_list()
        ids = sorted(one["_id"] for one in whole)
        id = ids[len(ids) // 2]
        found = {}
        for name, tamper in TAMPERINGS.items():
            await tamper(data, id)
            found[name] = await _faults(data)
            await data[AUDIT].delete_many({"_id": {"$in": ids}})
            await data[AUDIT].delete_many({"_id": {"$regex": r"\.1[0-9a-f]{3}$"}})
            await data[AUDIT].insert_many(whole)
            assert await _faults(data) == []
        assert [name for name, faults in found.items() if not faults] == []
        assert "chain-cut" in found["truncate"]
        last = max(one.partition(".")[0] for one in ids)
        await data[AUDIT].delete_many({"_id": {"$gte": last, "$lt": f"{last}/"}})
        await data["audit_heads"].delete_many({})
    verified = command(
        *("audit", "verify", "--heads", str(outside), "--data", str(server.data)), folder=tmp_path
    )
    assert verified.returncode == 1, verified.stdout + verified.stderr
    assert "chain-cut" in verified.stdout
