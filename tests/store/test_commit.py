"""Reliability, section 4: writes that arrive together are committed together, each judged alone."""

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fhir_server.app import Server
from fhir_server.messages import Response
from fhir_server.outcome import FhirError
from fhir_server.store.answers import ANSWERS
from fhir_server.store.changes import Asked, Change, Once
from fhir_server.store.documents import Stored
from fhir_server.store.resources import ResourceStore
from fhir_server.store.writer import Overtaken
from tests.store.conftest import Commands, Stoppable
from tests.store.mongods import until

NOW = datetime(2024, 2, 29, 12, 0, tzinfo=UTC)
WRITERS = 12


def update(id: str, **members: Any) -> Change:
    """Return an update of a Patient, of one version if ``if_match`` names it."""
    matching = members.pop("if_match", None)
    resource = {"resourceType": "Patient", **members}
    return Change("update", "Patient", id, resource, if_match=matching)


def keyed(change: Change, key: str, said: str = "") -> Change:
    """Return ``change`` under ``key``; ``said`` is what else tells requests apart."""
    asked = Asked(key, said.encode(), NOW, NOW + timedelta(days=36500))
    return replace(change, once=Once(asked, lambda stored: Response(200, b"", stored.version)))


def create(id: str, **members: Any) -> Change:
    """Return the create of a Patient."""
    return Change("create", "Patient", id, {"resourceType": "Patient", **members})


async def made(store: ResourceStore, change: Change) -> Stored | Response:
    """Make ``change`` for itself."""
    if change.once:
        return await store.write_once(change, NOW)
    [stored] = await store.write([change], NOW)
    return stored


async def together(server: Server, changes: list[Change]) -> list[Any]:
    """Make all of ``changes`` at once, each for itself; refusals are among what is returned."""
    store = server.context.store
    return await asyncio.gather(
        *(made(store, change) for change in changes), return_exceptions=True
    )


async def test_writes_that_arrive_together_share_transactions(
    listened: Server, commands: Commands
) -> None:
    """64 replacements at once take far fewer commits than 64, and are all there."""
    changes = [update(f"p{number}") for number in range(64)]
    await listened.context.store.write(changes, NOW)
    commands.sent.clear()
    answers = await together(listened, [update(f"p{n}", active=True) for n in range(64)])

    assert {one.version for one in answers if isinstance(one, Stored)} == {2}
    assert len(answers) == 64
    assert len(commands.named("commitTransaction")) <= 32


async def test_writers_who_come_again_share_the_places_evenly(
    listened: Server, commands: Commands
) -> None:
    """Sixteen write, and eight of them again at once: those are one batch, none goes ahead. Who is
    left alone afterwards is not kept waiting."""
    await listened.context.store.write([update(f"p{n}") for n in range(16)], NOW)
    await together(listened, [update(f"p{n}", active=True) for n in range(16)])
    commands.sent.clear()
    await together(listened, [update(f"p{n}", active=False) for n in range(8)])
    assert len(commands.named("commitTransaction")) == 1

    [first] = await together(listened, [update("p0", active=True)])
    [second] = await together(listened, [update("p0", active=False)])
    assert (first.version, second.version) == (4, 5)


async def test_a_refused_write_delays_and_fails_nobody_else(server: Server) -> None:
    """Of writes that travel together each has its own answer: its version, or its refusal."""
    await server.context.store.write([update(f"p{n}") for n in range(30)], NOW)
    large = "x" * (server.context.settings.resource_bytes_max + 1)
    changes = [
        update(f"p{n}", active=True)
        if n % 3 == 0
        else update(f"p{n}", active=True, if_match=frozenset({"9"}))
        if n % 3 == 1
        else update(f"p{n}", language=large)
        for n in range(30)
    ]
    answers = await together(server, changes)
    statuses = [one.status if isinstance(one, FhirError) else 200 for one in answers]

    assert statuses == [200, 412, 413] * 10
    for number in range(30):
        found = await server.context.store.read("Patient", f"p{number}")
        assert found is not None
        assert found.version == (2 if number % 3 == 0 else 1)


async def test_writes_with_a_key_share_transactions(listened: Server, commands: Commands) -> None:
    """64 keyed creates take far fewer commits than 64; each has its answer beside it."""
    await listened.context.store.write([create("first")], NOW)
    commands.sent.clear()
    answers = await together(listened, [keyed(create(f"p{n}"), f"k{n}") for n in range(64)])

    assert all(isinstance(one, Stored) for one in answers)
    assert len(commands.named("commitTransaction")) <= 16
    assert await listened.database[ANSWERS].count_documents({}) == 64
    assert await listened.database["Patient"].count_documents({}) == 65


async def test_conditional_creates_share_transactions(listened: Server, commands: Commands) -> None:
    """64 with criteria of their own take far fewer commits than 64; of those that have the same
    claim one is made, and the others are told to look again."""
    store = listened.context.store
    await store.write([create("first")], NOW)
    seen = [await store.seen_claims([f"c{n}"]) for n in range(64)]
    commands.sent.clear()
    changes = [replace(create(f"p{n}"), claims=seen[n]) for n in range(64)]
    answers = await together(listened, changes)

    assert all(isinstance(one, Stored) for one in answers)
    assert len(commands.named("commitTransaction")) <= 16
    late = [replace(create(f"q{n}"), claims=seen[n] if n % 2 else {}) for n in range(64)]
    answers = await together(listened, late)
    assert [type(one) for one in answers] == [Stored, Overtaken] * 32
    again = await store.seen_claims(["c1"])
    answers = await together(listened, [replace(create(f"r{n}"), claims=again) for n in range(8)])
    assert sorted(type(one).__name__ for one in answers) == ["Overtaken"] * 7 + ["Stored"]
    assert await listened.database["Patient"].count_documents({}) == 1 + 64 + 32 + 1


async def test_a_used_key_fails_nobody_in_its_batch(server: Server) -> None:
    """Of 40 at once ten were asked for before, two of those by another request."""
    for n in range(10):
        await server.context.store.write_once(keyed(create(f"a{n}"), f"k{n}"), NOW)
    asked = [keyed(create(f"b{n}"), f"k{n}", "other" if n < 2 else "") for n in range(40)]
    answers = await together(server, asked)

    assert [one.status for one in answers[:2]] == [422, 422]
    assert all(isinstance(one, Response) for one in answers[2:10])
    assert all(isinstance(one, Stored) for one in answers[10:])
    assert await server.database["Patient"].count_documents({}) == 40


async def test_a_key_that_another_process_holds_holds_up_nobody_else(server: Server) -> None:
    """The others of its batches are made while it waits; then it is told the first answer."""
    store = server.context.store
    held, go_on = asyncio.Event(), asyncio.Event()
    asked = Asked("held", b"", NOW, NOW + timedelta(days=36500))

    async def slow(bound: ResourceStore) -> None:
        assert await bound.first_answer(asked) is None
        held.set()
        await go_on.wait()
        await bound.keep_answer(asked, Response(299))

    first = asyncio.create_task(store.in_transaction(slow, ["Patient"]))
    await held.wait()
    waiting = [asyncio.create_task(made(store, keyed(create(f"w{n}"), "held"))) for n in range(3)]
    answers = [
        one
        for _ in range(3)
        for one in await together(server, [keyed(create(f"p{n}"), f"k{n}") for n in range(30)])
    ]

    assert not any(map(asyncio.Task.done, waiting))
    assert sum(isinstance(one, Stored) for one in answers) == 30
    assert not any(isinstance(one, BaseException) for one in answers)
    go_on.set()
    await first
    assert [await one for one in waiting] == [Response(299)] * 3
    assert await server.database["Patient"].count_documents({}) == 30


async def test_an_answer_whose_time_is_over_is_replaced_in_a_batch(server: Server) -> None:
    """Also before MongoDB has removed it; the others of the batch are not failed by it."""
    old = [keyed(create(f"a{n}"), f"k{n}") for n in range(5)]
    for one in old:
        assert one.once
        over = replace(one.once.asked, now=NOW - timedelta(days=2), until=NOW)
        await server.context.store.write_once(replace(one, once=replace(one.once, asked=over)), NOW)
    answers = await together(server, [keyed(create(f"b{n}"), f"k{n}", "new") for n in range(20)])

    assert all(isinstance(one, Stored) for one in answers)
    assert await server.database[ANSWERS].count_documents({}) == 20


async def test_writers_of_one_resource_never_share_a_batch(server: Server) -> None:
    """48 writers of three resources: every version is written, none twice."""
    changes = [update(f"p{n % 3}", language=f"x-{n}") for n in range(48)]
    answers = await together(server, changes)
    versions = sorted((one.id, one.version) for one in answers if isinstance(one, Stored))

    assert versions == [(f"p{k}", version) for k in range(3) for version in range(1, 17)]


async def test_a_client_that_leaves_takes_nobody_along(server: Server) -> None:
    """Of 40 writers every other one is cancelled at once; the others are all answered."""
    store = server.context.store
    await store.write([update("first")], NOW)
    tasks = [asyncio.create_task(store.write([update(f"p{n}")], NOW)) for n in range(40)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)

    assert all(isinstance(one, list) for one in answers[1::2])
    for number in range(1, 40, 2):
        assert await store.read("Patient", f"p{number}") is not None
    [after] = await store.write([update("after")], NOW)
    assert after.version == 1


# Kind -> whether the resource is there before, and the change.
KINDS: dict[str, tuple[bool, Any]] = {
    "update with If-Match": (
        True,
        lambda id: update(id, language=f"x-{id}", if_match=frozenset({"1"})),
    ),
    "update": (True, lambda id: update(id, language=f"x-{id}")),
    "creation with If-None-Match": (
        False,
        lambda id: Change(
            "update",
            "Patient",
            id,
            {"resourceType": "Patient", "language": f"x-{id}"},
            if_none_match=frozenset({"*"}),
        ),
    ),
    "create": (
        False,
        lambda id: Change(
            "create", "Patient", id, {"resourceType": "Patient", "language": f"x-{id}"}
        ),
    ),
}


KINDS |= {
    f"{name} and a key": (there, lambda id, change=change: keyed(change(id), f"key-{id}"))
    for name, (there, change) in KINDS.items()
}


@pytest.mark.parametrize(("there", "change"), KINDS.values(), ids=KINDS)
async def test_a_commit_whose_answer_is_lost_is_never_answered_as_a_refusal(
    stoppable: Stoppable, there: bool, change: Any
) -> None:
    """Section 1: a 4xx says that nothing was written, also when a batch is judged again.

    The database stands still when a batch is to be committed, until the deadline is over; then it
    commits. Each writer must be told its version, or 503; 412 over its own write would be a lie.
    """
    patient = stoppable.patient.context.store
    ids = [f"p{number}" for number in range(WRITERS)]
    if there:
        await patient.write([update(id) for id in ids], NOW)
    # Two writers keep the line busy; the others gather behind them and go as one batch, whose
    # commit is the third where the two need one as well.
    stoppable.stop_at("commitTransaction", nth=3 if there else 1)

    async def release() -> None:
        await stoppable.stopped.wait()
        end = time.monotonic() + 0.9  # longer than the deadline of the hasty server
        await until(lambda: time.monotonic() > end, "the deadline")
        stoppable.go_on()

    releasing = asyncio.create_task(release())
    answers = await together(stoppable.hasty, [change(id) for id in ids])
    await releasing
    await patient.write([update("marker")], NOW)

    for id, answer in zip(ids, answers, strict=True):
        found = await patient.read("Patient", id)
        own = found is not None and f'"x-{id}"'.encode() in found.json
        if isinstance(answer, Stored):
            assert own
            assert found is not None
            assert found.version == answer.version == (2 if there else 1)
            assert answer.created is not there
        else:
            assert isinstance(answer, FhirError)
            assert answer.status == 503, (id, str(answer), own)
        if change(id).once:  # whatever was told: asked again, it is made once
            again = await patient.write_once(change(id), NOW)
            assert isinstance(again, Response) is own
            assert again.version == (2 if there else 1)


async def test_an_answer_whose_time_is_over_does_not_hide_who_was_faster(server: Server) -> None:
    """Whose criteria somebody else has claimed is told so at once, alone and in a batch, also where
    its key still has an answer that is over."""
    store = server.context.store
    seen = [await store.seen_claims([f"c{n}"]) for n in range(20)]
    for n in range(20):
        await store.write([replace(create(f"f{n}"), claims=seen[n])], NOW)
        old = keyed(create(f"a{n}"), f"k{n}")
        assert old.once
        over = replace(old.once.asked, now=NOW - timedelta(days=2), until=NOW)
        await store.write_once(replace(old, once=replace(old.once, asked=over)), NOW)
    late = [replace(keyed(create(f"b{n}"), f"k{n}"), claims=seen[n]) for n in range(20)]
    began = time.monotonic()

    assert [type(one) for one in await together(server, late[:1])] == [Overtaken]
    assert [type(one) for one in await together(server, late[1:])] == [Overtaken] * 19
    assert time.monotonic() - began < 5
    assert await server.database["Patient"].count_documents({}) == 40
