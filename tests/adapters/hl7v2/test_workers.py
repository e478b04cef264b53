"""design/hl7v2.md, sections 6 and 7: who works off what waits, in which order. H22, H26, H28."""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from adapters.hl7v2 import workers
from adapters.hl7v2.ack import answered
from adapters.hl7v2.apply import applied
from adapters.hl7v2.chains import Chains, Place
from adapters.hl7v2.messages import changes_of
from fhir_server.store.inbox import Inbox, Row
from tests.adapters.hl7v2.conftest import OpenSite, Site, adt, control_of, running

MAPPING = "adapters.hl7v2.reading.changes_of"


async def test_h22_a_row_whose_lease_is_over_is_taken_up_once(site: Site) -> None:
    """Another process had it, and is gone."""
    peer = await site.peer()
    assert await peer.ask(adt("E0", m15="AL", m16="NE")) == "CA"
    await site.settled()
    [row] = await site.rows()
    gone = {"state": "applying", "owner": "gone", "lease": datetime.now(UTC) - timedelta(1)}
    lost = {"_id": "lost", "sequence": row["sequence"] + 1, **gone, "raw": adt("E1", "P2")}
    keys = {"key": "CLINIC|LIS|E1", "digest": b"x", "patients": ["a"], "received": row["received"]}
    await site.server.database["inbox"].insert_one({**lost, **keys})
    await site.settled()
    *_, found = await site.rows()

    assert found["state"] == "done"
    assert "owner" not in found
    assert len(await site.search("Patient", identifier="P2")) == 1


async def test_h22_two_processes_apply_each_row_once(site: Site) -> None:
    """Only one leads; when it ends, the other goes on."""
    second = running(site.server, leads=False)
    interface = await second.__aenter__()
    assert interface.listener is not None
    peer = await site.peer()
    await peer.send(*[adt(f"E{n}", family=f"N{n}", m15="AL", m16="NE") for n in range(20)])
    for number in range(20):
        assert answered(await peer.answer()) == ("CA", f"E{number}")
    await site.settled()
    [patient] = await site.search("Patient")
    await second.__aexit__(None, None, None)

    assert patient["meta"]["versionId"] == "20"
    assert patient["name"][0]["family"] == "N19"


async def test_h22_a_backlog_is_not_read_again_for_each_of_its_rows(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of more rows than are known at a time, each look brings half as many new ones."""
    looks = []
    waiting = Inbox.waiting

    async def counted(self: Inbox, after: int, count: int) -> list[Row]:
        looks.append(count)
        return await waiting(self, after, count)

    monkeypatch.setattr(workers, "_KNOWN_MAX", 20)
    monkeypatch.setattr(workers, "_BEAT_S", 60.0)
    monkeypatch.setattr(Inbox, "waiting", counted)
    peer = await site.peer()
    count = 100
    await peer.send(*[adt(f"B{n}", family=f"N{n}", m15="AL", m16="NE") for n in range(count)])
    for number in range(count):
        assert answered(await peer.answer()) == ("CA", f"B{number}")
    async with asyncio.timeout(60):
        while await site.server.database["inbox"].count_documents({"state": {"$ne": "done"}}):
            await asyncio.sleep(0.02)
    [patient] = await site.search("Patient")

    assert patient["meta"]["versionId"] == str(count)
    assert patient["name"][0]["family"] == f"N{count - 1}"
    assert len(looks) <= 4 * count / 10


async def test_h26_what_comes_while_rows_are_looked_for_is_not_overtaken(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that the look has not seen, and that was not taken either, comes before the next."""
    waiting, seen, go_on = Inbox.waiting, asyncio.Event(), asyncio.Event()

    async def slow(self: Inbox, after: int, count: int) -> list[Row]:
        rows = await waiting(self, after, count)
        seen.set()
        await go_on.wait()
        return rows

    monkeypatch.setattr(workers, "_BEAT_S", 0.5)
    monkeypatch.setattr(Inbox, "waiting", slow)
    assert site.interface.workers is not None
    site.interface.workers._complete = False
    site.interface.workers.look()
    await seen.wait()
    peer = await site.peer()
    assert await peer.ask(adt("W0", family="First", m15="AL", m16="NE")) == "CA"
    go_on.set()
    assert await peer.ask(adt("W1", family="Second", m15="AL", m16="NE")) == "CA"
    monkeypatch.setattr(Inbox, "waiting", waiting)
    await site.settled()
    [patient] = await site.search("Patient")

    rows = [(r["control_id"], r["state"], r["sequence"]) for r in await site.rows()]
    assert patient["name"][0]["family"] == "Second", (rows, patient["meta"]["versionId"])
    assert patient["meta"]["versionId"] == "2"


async def test_h28_a_row_in_retry_holds_up_its_patient_only(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our own fault: it is kept, AE says so; another patient's goes on; then both are applied."""
    broken = asyncio.Event()
    broken.set()

    def faulty(message: Any, *rest: Any, **more: Any) -> Any:
        if broken.is_set() and message.control_id == "R1":
            raise RuntimeError
        return changes_of(message, *rest, **more)

    monkeypatch.setattr(MAPPING, faulty)
    peer = await site.peer()
    await peer.send(adt("R1", "P1", "First"))
    answer = await peer.answer()
    assert answered(answer) == ("AE", "R1")
    assert b"207^" in answer
    assert [row["state"] for row in await site.rows()] == ["retry"]
    assert await peer.ask(adt("R2", "P2")) == "AA"
    broken.clear()
    await site.settled()

    assert [row["state"] for row in await site.rows()] == ["done", "done"]
    assert await peer.ask(adt("R1", "P1", "First")) == "AA"
    assert len(await site.search("Patient")) == 2


APPLYING = "adapters.hl7v2.inbox.applied"


async def test_h28_the_next_one_of_the_patient_waits_for_a_row_in_retry(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other patients go on; then both are applied, in order."""
    broken = asyncio.Event()
    broken.set()

    async def faulty(item: Any, *rest: Any) -> Any:
        if broken.is_set() and item.header.control_id == "R1":
            raise RuntimeError
        return await applied(item, *rest)

    monkeypatch.setattr(APPLYING, faulty)
    peer, second, third = [await site.peer() for _ in range(3)]
    assert await peer.ask(adt("R1", "P1", "First")) == "AE"
    await second.send(adt("R2", "P1", "Second"))
    assert await third.ask(adt("X1", "P2")) == "AA"
    assert [row["control_id"] for row in await site.rows() if row["state"] == "done"] == ["X1"]
    broken.clear()
    assert answered(await second.answer()) == ("AA", "R2")
    [patient] = await site.search("Patient", identifier="P1")

    assert (patient["name"][0]["family"], patient["meta"]["versionId"]) == ("Second", "2")


async def test_h28_after_the_limit_the_next_one_goes_on(
    open_site: OpenSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is dead, and nobody waits for it any more."""

    async def faulty(item: Any, *rest: Any) -> Any:
        if item.header.control_id == "R1":
            raise RuntimeError
        return await applied(item, *rest)

    site = await open_site(hl7_retry_s_max=0.1)
    monkeypatch.setattr(APPLYING, faulty)
    peer = await site.peer()
    assert await peer.ask(adt("R1", "P1", "First")) == "AE"
    assert await peer.ask(adt("R2", "P1", "Second")) == "AA"

    assert [row["state"] for row in await site.rows()] == ["dead", "done"]


async def test_h27_patients_are_applied_beside_each_other(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight patients are applied at the same time; messages of one patient one after the other."""
    together, under_way, most = asyncio.Barrier(8), 0, 0

    async def met(*arguments: Any) -> Any:
        async with asyncio.timeout(20):
            await together.wait()
        return await applied(*arguments)

    async def counted(*arguments: Any) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.02)  # long enough for another to begin
        try:
            return await applied(*arguments)
        finally:
            under_way -= 1

    async def all_asked(texts: Iterable[bytes]) -> None:
        asked = [peer.ask(text) for peer, text in zip(peers, texts, strict=True)]
        assert await asyncio.gather(*asked) == ["AA"] * 8

    peers = [await site.peer() for _ in range(8)]
    for number in range(8):
        assert await peers[0].ask(adt(f"A{number}", f"P{number}")) == "AA"
    monkeypatch.setattr(APPLYING, met)
    await all_asked(adt(f"eight{n}", f"P{n}", f"N{n}") for n in range(8))
    monkeypatch.setattr(APPLYING, counted)
    await all_asked(adt(f"one{n}", "P0", f"N{n}") for n in range(8))

    assert most == 1


async def test_h28_what_fails_for_too_long_is_dead(
    open_site: OpenSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the limit it waits for a person; a repetition has it tried at once."""

    def faulty(*_: Any, **__: Any) -> Any:
        raise RuntimeError

    site = await open_site(hl7_retry_s_max=0.1)
    monkeypatch.setattr(MAPPING, faulty)
    peer = await site.peer()
    await peer.send(adt("R1"))
    assert control_of(await peer.answer()) == "R1"
    await site.settled()
    assert [row["state"] for row in await site.rows()] == ["dead"]
    monkeypatch.setattr(MAPPING, changes_of)

    assert await peer.ask(adt("R1")) == "AA"


async def test_h26_a_chain_is_left_in_order() -> None:
    """Who shares a key waits for the last one before; who leaves early lets nobody overtake."""
    chains = Chains()
    done: list[str] = []

    async def work(name: str, place: Place, turns: int) -> None:
        await place.turn()
        for _ in range(turns):
            await asyncio.sleep(0)
        done.append(name)
        place.leave()

    first, second = chains.enter(["a"], 1), chains.enter(["b"], 2)
    merge = chains.enter(["a", "b"], 3)
    gives_up = chains.enter(["a"], 4)
    last, other = chains.enter(["a"], 6), chains.enter(["c"], 7)
    found = chains.enter(["a"], 5)
    gives_up.leave()
    await asyncio.gather(
        *(work("last", last, 0), work("merge", merge, 5), work("first", first, 20)),
        *(work("second", second, 10), work("other", other, 0), work("found", found, 5)),
    )

    assert done == ["other", "second", "first", "merge", "found", "last"]
    assert not chains.places
