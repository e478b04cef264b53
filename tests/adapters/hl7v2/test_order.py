"""design/hl7v2.md, sections 6 and 7: what must not wait for itself, and what must not overtake."""

import asyncio
from dataclasses import replace
from time import monotonic
from typing import Any

import pytest

from adapters.hl7v2 import outcomes
from adapters.hl7v2.chains import Chains
from adapters.hl7v2.interface import Interface
from fhir_server.store.inbox import RAW_BYTES_MAX, Inbox, Row, Selection
from tests.adapters.hl7v2.conftest import OpenSite, Site, adt, oru


async def test_h22_a_dead_message_that_is_repeated_does_not_wait_for_itself(
    open_site: OpenSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row is tried again while the repetition waits for the outcome, with one worker too."""

    async def faulty(*_: Any) -> Any:
        raise RuntimeError

    site = await open_site(hl7_retry_s_max=0.1, hl7_workers=1)
    peer = await site.peer()
    with monkeypatch.context() as patched:
        patched.setattr("adapters.hl7v2.inbox.applied", faulty)
        assert await peer.ask(adt("D1")) == "AE"
        await site.settled()
    assert [row["state"] for row in await site.rows()] == ["dead"]
    began = monotonic()

    assert await peer.ask(adt("D1")) == "AA"
    assert monotonic() - began < 8  # hl7_apply_s_max is 10


async def test_h21_a_dead_message_repaired_badly_is_dead_at_once(site: Site) -> None:
    """The second one has the number then, and its own fault is told."""
    peer = await site.peer()
    nobody = adt("D2", "").replace(b"PID|1||^^^CLINIC^MR|", b"PID|1|||")
    assert await peer.ask(nobody) == "AE"
    began = monotonic()
    assert await peer.ask(nobody.replace(b"Rahman", b"Rahim")) == "AE"

    assert monotonic() - began < 8
    assert [row["state"] for row in await site.rows()] == ["dead", "dead"]


async def test_h16_what_cannot_be_read_is_kept_though_its_number_is_taken(site: Site) -> None:
    """Another message has the control id: the bytes are kept all the same, without it."""
    peer = await site.peer()
    assert await peer.ask(adt("D3")) == "AA"
    unreadable = adt("D3", family="R\xe9", m18="UNICODE UTF-8").decode().encode("latin-1")
    assert await peer.ask(unreadable) == "AE"
    first, second = await site.rows()

    assert (second["state"], second["raw"]) == ("dead", unreadable)
    assert second.get("key") is None
    assert first["state"] == "done"


async def test_h26_a_large_message_is_not_overtaken_by_a_small_one(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes longer to be kept; what comes behind it is kept behind it."""
    insert = Inbox.insert

    async def slow(self: Inbox, row: Row) -> None:
        await asyncio.sleep(0.5)
        await insert(self, row)

    monkeypatch.setattr(Inbox, "insert", slow)
    note = "x" * (RAW_BYTES_MAX + 1)
    large = adt("L0", family="First", m15="AL", m16="NE") + f"NTE|1||{note}\r".encode()
    peer, other = await site.peer(), await site.peer()
    await peer.send(large)
    await site.until(lambda: bool(site.intake.chains.places))
    await other.send(adt("L1", family="Second", m15="AL", m16="NE"))
    await peer.answer()
    await other.answer()
    await site.settled()
    [patient] = await site.search("Patient")

    assert patient["name"][0]["family"] == "Second"
    assert patient["meta"]["versionId"] == "2"


async def test_h26_who_was_first_stays_first_though_found_last() -> None:
    """A look may find the later one of two while the earlier one is still being written."""
    chains = Chains()
    arrived = chains.enter(["a"], 1)
    running = chains.enter(["a", "b"], 0)
    found = chains.enter(["a"], 2)
    await running.turn()
    before = chains.enter(["b"], -1)
    turns = [asyncio.create_task(one.turn()) for one in (found, arrived, before)]
    await asyncio.sleep(0)
    assert not any(one.done() for one in turns)
    running.leave()
    running.leave()
    await asyncio.sleep(0)
    assert [one.done() for one in turns] == [False, True, True]
    arrived.leave()
    await turns[0]
    found.leave()
    before.leave()

    assert not chains.places


async def test_h26_a_number_that_looks_like_a_handle_is_a_number(site: Site) -> None:
    """Our own words for resources of the same message are none that a message can have."""
    peer = await site.peer()
    text = oru("C1", results=1, filler="change:77").replace(b"^Test 1^", b"^change:0^")

    assert await peer.ask(text) == "AA"
    [found] = await site.search("Observation")
    assert found["code"]["coding"][0]["display"] == "change:0"


async def test_h27_who_begins_at_once_gets_the_same_intake(site: Site) -> None:
    """The listener and the first request over HTTP: two would not keep each other's order."""
    contexts = [site.server.context, replace(site.server.context)]
    interface = Interface()
    first, second = await asyncio.gather(*map(interface.intake, contexts))

    assert first is second


async def test_h15_who_waits_long_looks_rarely_and_without_the_bytes(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands may wait for a backlog, each for a message of megabytes."""
    looks: list[Selection] = []
    select = Inbox.select

    async def counted(self: Inbox, wanted: Selection) -> list[Row]:
        looks.append(wanted)
        return await select(self, wanted)

    monkeypatch.setattr(Inbox, "select", counted)
    monkeypatch.setattr(outcomes, "_LOOK_S", 0.05)
    inbox = site.server.context.store.inbox
    await inbox.insert(Row("held-up", 1, "applying", site.server.context.now(), raw=b"x"))
    waiting = site.intake.outcomes
    assert await waiting.of("held-up", waiting.expect("held-up"), 1.0) is None

    assert {one.ids for one in looks} == {("held-up",)}
    assert len(looks) <= 12  # 20, were it each time as soon
    assert await waiting.of("gone", waiting.expect("gone"), 1.0) is None
    assert not waiting.is_awaited("held-up")
