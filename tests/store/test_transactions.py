"""Reliability, sections 1 and 3: what is tried again, until when, and what is then said."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from pymongo.errors import AutoReconnect, DuplicateKeyError, OperationFailure, PyMongoError

from fhir_server.app import Server, opened
from fhir_server.outcome import FhirError
from fhir_server.settings import Settings
from fhir_server.store.changes import Change
from fhir_server.store.history import Wanted
from fhir_server.store.resources import ResourceStore
from fhir_server.store.transactions import StaleRead, repeated, transacted
from tests.store.conftest import Stoppable

NOW = datetime(2024, 2, 29, 12, 0, tzinfo=UTC)


def change(id: str = "p", **members: Any) -> Change:
    """Return an update of a Patient."""
    return Change("update", "Patient", id, {"resourceType": "Patient", **members})


def transient() -> PyMongoError:
    """Return the error of a transaction that met another."""
    return OperationFailure("x", 112, {"errorLabels": ["TransientTransactionError"]})


# Error -> whether it is tried again.
ERRORS: dict[str, tuple[Callable[[], Exception], bool]] = {
    "a stale read": (StaleRead, True),
    "a conflict": (transient, True),
    "an id that is taken": (lambda: DuplicateKeyError("x", 11000), True),
    "a duplicate in a bulk": (
        lambda: OperationFailure("x", 65, {"writeErrors": [{"code": 11000}]}),
        True,
    ),
    "another fault in a bulk": (
        lambda: OperationFailure("x", 65, {"writeErrors": [{"code": 121}]}),
        False,
    ),
    "another failure": (lambda: OperationFailure("x", 2), False),
    "a lost connection": (lambda: AutoReconnect("x"), False),
    "a refusal": (lambda: FhirError.__new__(FhirError), False),
    "a mistake of ours": (lambda: KeyError("x"), False),
}


@pytest.mark.parametrize(("error", "again"), ERRORS.values(), ids=ERRORS)
async def test_what_is_tried_again(error: Callable[[], Exception], again: bool) -> None:
    """Only what MongoDB says was not written, and may succeed, is tried again."""
    tries = 0

    async def attempt() -> str:
        nonlocal tries

        tries += 1
        if tries < 4:
            raise error()
        return "done"

    if again:
        assert await repeated(attempt, time.monotonic() + 5) == "done"
        assert tries == 4
    else:
        with pytest.raises(type(error())):
            await repeated(attempt, time.monotonic() + 5)
        assert tries == 1


async def test_trying_ends_with_a_word() -> None:
    """At the deadline the answer is 503 with Retry-After, and says what happened."""
    began = time.monotonic()

    async def attempt() -> None:
        raise StaleRead

    with pytest.raises(FhirError) as refused:
        await repeated(attempt, began + 0.3)

    assert refused.value.status == 503
    assert refused.value.issues[0].code == "transient"
    assert "nothing was written" in str(refused.value)
    assert "Retry-After" in dict(refused.value.headers)
    assert time.monotonic() - began < 1


async def test_a_transaction_that_fails_leaves_nothing(server: Server) -> None:
    """What the work raises is raised; what it wrote is not there."""
    marks = server.database["Marks"]

    async def work(session: Any) -> None:
        await marks.insert_one({"_id": 1}, session=session)
        raise KeyError("half way")

    with pytest.raises(KeyError, match="half way"):
        await transacted(server.database.client, work, time.monotonic() + 5)

    assert await marks.count_documents({}) == 0


async def test_a_transaction_that_is_cancelled_leaves_nothing(server: Server) -> None:
    """A task that is cancelled half way aborts, and the document is free for others at once."""
    store = server.context.store
    await store.write([change()], NOW)
    inside = asyncio.Event()

    async def work(bound: ResourceStore) -> None:
        await bound.write([change(active=True)], NOW)
        inside.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(store.in_transaction(work, ["Patient"]))
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    began = time.monotonic()
    [stored] = await store.write([change(active=False)], NOW)

    assert stored.version == 2
    assert time.monotonic() - began < 2


async def test_work_that_meets_another_write_is_done_again(server: Server) -> None:
    """A transaction whose document was replaced meanwhile runs again, on the new version."""
    store = server.context.store
    await store.write([change()], NOW)
    runs = 0

    async def work(bound: ResourceStore) -> int:
        nonlocal runs
        runs += 1
        before = await bound.read("Patient", "p")
        if runs == 1:
            await store.write([change(gender="male")], NOW)
        await bound.write([change(gender="female")], NOW)
        assert before is not None
        return before.version

    assert await store.in_transaction(work, ["Patient"]) == 2
    assert runs == 2
    after = await store.read("Patient", "p")
    assert after is not None
    assert after.version == 3


async def test_a_transaction_joins_the_one_around_it(server: Server) -> None:
    """Inside a transaction ``in_transaction`` opens no other: all of it happens or nothing."""
    store = server.context.store

    async def inner(bound: ResourceStore) -> None:
        await bound.write([change("inner")], NOW)

    async def outer(bound: ResourceStore) -> None:
        await bound.write([change("outer")], NOW)
        await bound.in_transaction(inner, ["Patient"])
        raise KeyError

    with pytest.raises(KeyError):
        await store.in_transaction(outer, ["Patient"])

    assert await store.read("Patient", "inner") is None
    assert await store.read("Patient", "outer") is None


async def test_a_first_write_of_a_type_inside_a_transaction(server: Server) -> None:
    """A type that was never written gets its collections, and 16 first writers meet in peace."""
    store = server.context.store

    async def one(number: int) -> None:
        async def work(bound: ResourceStore) -> None:
            await bound.write(
                [Change("update", "Basic", f"b{number}", {"resourceType": "Basic"})], NOW
            )

        await store.in_transaction(work, ["Patient"])

    await asyncio.gather(*map(one, range(16)))

    assert await server.database["Basic"].count_documents({}) == 16
    assert await store.indexes.missing() == ()


async def test_a_document_that_is_held_gives_503_at_the_deadline(
    server: Server, settings: Settings, mongodb_uri: str
) -> None:
    """While another transaction holds the document a write waits, and then says what it did."""
    store = server.context.store
    await store.write([change()], NOW)
    async with (
        opened(settings.model_copy(update={"write_timeout_s": 0.5}), mongodb_uri) as hasty,
        server.database.client.start_session() as session,
        await session.start_transaction(),
    ):
        await server.database["Patient"].update_one(
            {"_id": "p"}, {"$set": {"held": True}}, session=session
        )
        began = time.monotonic()
        with pytest.raises(FhirError) as refused:
            await hasty.context.store.write([change(active=True)], NOW)
        seconds = time.monotonic() - began
        await session.abort_transaction()
    after = await store.read("Patient", "p")

    assert refused.value.status == 503
    assert 0.2 < seconds < 3
    assert after is not None
    assert after.version == 1


NEW = Change("create", "Patient", "new", {"resourceType": "Patient"})
WORK: dict[str, tuple[str, Callable[[ResourceStore], Awaitable[Any]]]] = {
    "a creation": ("insert", lambda store: store.write([NEW], NOW)),
    "a creation by PUT": ("insert", lambda store: store.write([change("new")], NOW)),
    "two creations": ("commitTransaction", lambda store: store.write([NEW, change("other")], NOW)),
    "a replacement": (
        "commitTransaction",
        lambda store: store.write([change("there", active=True)], NOW),
    ),
    "a transaction": (
        "commitTransaction",
        lambda store: store.in_transaction(
            lambda bound: bound.write([change("there", active=True)], NOW), ["Patient"]
        ),
    ),
    "a replacement stopped before": (
        "update",
        lambda store: store.write([change("there", active=True)], NOW),
    ),
}


@pytest.mark.parametrize(("at", "work"), WORK.values(), ids=WORK)
async def test_a_write_of_unknown_outcome_does_not_promise_that_nothing_was_written(
    stoppable: Stoppable,
    at: str,
    work: Callable[[ResourceStore], Awaitable[Any]],
) -> None:
    """Section 1: a database that stops answering while it has the write may still make it.

    mongod is stopped (SIGSTOP), not killed: what is sent to it lies in its socket, and is done when
    it goes on. An answer that says "nothing was written" is then a lie.
    """
    patient = stoppable.patient.context.store
    await patient.write([change("there")], NOW)
    stoppable.stop_at(at)
    with pytest.raises(FhirError) as refused:
        await work(stoppable.hasty.context.store)
    stoppable.go_on()
    # A marker behind what lies in the socket: when it is written, that has been decided.
    await patient.write([change("marker")], NOW)
    found = [await patient.read("Patient", id) for id in ("new", "other", "there")]
    written = any(one is not None and (one.id != "there" or one.version > 1) for one in found)

    assert refused.value.status == 503
    assert "Retry-After" in dict(refused.value.headers)
    if written:
        assert "nothing was written" not in str(refused.value).lower()


LOST: dict[str, Callable[[Server], Awaitable[Any]]] = {
    "a creation": lambda server: server.context.store.write([NEW], NOW),
    "two creations": lambda server: server.context.store.write([NEW, change("other")], NOW),
    "a type that was never written": lambda server: server.context.store.write(
        [Change("create", "Basic", "b", {"resourceType": "Basic"})], NOW
    ),
    "a read": lambda server: server.context.store.read("Patient", "p"),
    "an earlier version": lambda server: server.context.store.vread("Patient", "p", 1),
    "a history": lambda server: server.context.store.history(Wanted("", "", 5)),
}


async def test_a_database_that_is_gone_is_a_503(stoppable: Stoppable) -> None:
    """Whatever is asked for, the answer comes by the deadline and says when to come again."""
    stoppable.kill()
    for name, work in LOST.items():
        began = time.monotonic()
        with pytest.raises(FhirError) as refused:
            await work(stoppable.hasty)

        assert refused.value.status == 503, name
        assert "Retry-After" in dict(refused.value.headers), name
        assert time.monotonic() - began < 3, name
