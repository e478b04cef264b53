"""ARCHITECTURE.md, section 16.3: majority and journaled, always.

Also https://www.mongodb.com/docs/manual/reference/write-concern/: what counts is what is on the
wire, so these tests read the commands that are sent.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fhir_server.app import Server
from fhir_server.dispatch import answer
from fhir_server.messages import Request
from fhir_server.store import client
from fhir_server.store.client import UnfitDatabaseError, check_replica_set, connect, is_ready
from tests.interactions.asking import bundle, entry, patient, put, statuses
from tests.store.conftest import Commands

WRITES = ("insert", "update", "delete", "findAndModify", "create", "createIndexes")
READS = ("find", "aggregate", "count", "distinct")


def concern(command: dict[str, Any]) -> tuple[Any, Any]:
    """Return the write concern of ``command``: how many, and whether journaled."""
    wanted = command.get("writeConcern", {})
    return wanted.get("w"), wanted.get("j")


async def everything(server: Server) -> list[int]:
    """Ask for each interaction once; return the statuses."""
    observation = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "x"},
        "subject": {"reference": "Patient?_id=a"},
    }
    requests = [
        put(patient("a")),
        put(patient("a", active=True)),
        Request("create", "Patient", body={"resourceType": "Patient"}),
        Request("read", "Patient", "a"),
        Request("vread", "Patient", "a", version="1"),
        Request("history-instance", "Patient", "a"),
        Request("history-type", "Patient"),
        Request("history-system"),
        Request("search-type", "Patient", parameters=(("_total", "accurate"),)),
        Request("search-type", "Patient", parameters=(("_sort", "name"), ("_total", "estimate"))),
        Request("search-type", "Patient", parameters=(("active", "true"), ("_summary", "count"))),
        bundle(put_entry := entry("PUT", "Patient/b", patient("b"))),
        bundle(entry("GET", "Patient/b"), entry("GET", "Patient?_id=b"), put_entry),
        bundle(entry("POST", "Observation", observation)),
        bundle(entry("DELETE", "Patient/b"), entry("GET", "Patient/a/_history")),
        bundle(entry("PUT", "Patient/d", patient("d")), entry("GET", "Patient?_sort=name,-_id")),
        bundle(entry("PUT", "Patient/c", patient("c")), type="batch"),
        Request("delete", "Patient", "a"),
    ]
    return [(await answer(server.registry, one, server.context)).status for one in requests]


async def test_every_write_is_acknowledged_by_a_majority_and_journaled(
    listened: Server, commands: Commands
) -> None:
    """Each writing command outside of a transaction, and each commit, says w: majority, j: true."""
    assert all(status < 300 for status in await everything(listened))
    alone = [
        one for one in commands.named(*WRITES) if "txnNumber" not in one or "autocommit" not in one
    ]
    commits = commands.named("commitTransaction", "abortTransaction")

    assert len(alone) >= 5
    assert len(commits) >= 5
    assert {(next(iter(one)), *concern(one)) for one in [*alone, *commits]} == {
        (name, "majority", True) for name in {next(iter(one)) for one in [*alone, *commits]}
    }


async def test_writes_inside_a_transaction_leave_the_concern_to_its_commit(
    listened: Server, commands: Commands
) -> None:
    """Commands of a transaction carry no concern of their own: MongoDB refuses one."""
    await everything(listened)
    inside = [one for one in commands.named(*WRITES, *READS) if one.get("autocommit") is False]

    assert {next(iter(one)) for one in inside} >= {"insert", "update", "find", "aggregate"}
    assert all("writeConcern" not in one for one in inside)
    started = [one for one in inside if one.get("startTransaction")]
    assert started
    assert {one["readConcern"]["level"] for one in started} == {"snapshot"}
    assert all("readConcern" not in one for one in inside if not one.get("startTransaction"))


async def test_every_read_sees_what_a_majority_has(listened: Server, commands: Commands) -> None:
    """Reads outside of a transaction say majority, from the primary."""
    await everything(listened)
    outside = [one for one in commands.named(*READS) if one.get("autocommit") is not False]
    levels = {
        (next(iter(one)), one.get("readConcern", {}).get("level"))
        for one in outside
        if one[next(iter(one))] != 1 and next(iter(one)) != "count"
    }

    assert {level for _, level in levels} == {"majority"}
    assert all(
        "$readPreference" not in one or one["$readPreference"]["mode"] == "primary"
        for one in outside
    )


async def test_the_control_sees_a_weaker_concern(listened: Server, commands: Commands) -> None:
    """The control: a write that asks for less is seen on the wire, so the tests above can fail."""
    weak = listened.database.with_options(
        write_concern=listened.database.write_concern.__class__(w=1)
    )
    await weak["Control"].insert_one({"_id": 1})

    assert concern(commands.named("insert")[-1]) == (1, None)


async def test_what_one_request_writes_is_one_transaction(
    listened: Server, commands: Commands
) -> None:
    """An insert, a replacement, a bundle of 1,000: each is one, with its record."""
    await answer(listened.registry, put(patient("a")), listened.context)
    inserted = len(commands.named("commitTransaction"))
    await answer(listened.registry, put(patient("a", active=True)), listened.context)
    replaced = len(commands.named("commitTransaction"))
    entries = [entry("PUT", f"Patient/n{n}", patient(f"n{n}")) for n in range(1000)]
    response = await answer(listened.registry, bundle(*entries), listened.context)

    assert statuses(response) == ["201"] * 1000
    assert (inserted, replaced, len(commands.named("commitTransaction"))) == (1, 2, 3)


async def test_every_command_for_a_request_has_a_deadline(
    listened: Server, commands: Commands
) -> None:
    """Section 16.2: every query carries maxTimeMS; so does every write."""
    await listened.context.store.indexes.ensure(["Patient", "Observation"])
    commands.sent.clear()
    await everything(listened)
    asked = commands.named("insert", "update", "find", "aggregate", "commitTransaction")

    assert asked
    assert [one for one in asked if not 0 < one.get("maxTimeMS", 0) <= 30_000] == []


async def test_a_replica_set_passes(mongodb_uri: str) -> None:
    """A writable replica set is fit, and ready."""
    connected = connect(mongodb_uri, connections_max=2)
    try:
        await check_replica_set(connected)
        assert await is_ready(connected["test"])
    finally:
        await connected.close()


@pytest.mark.parametrize(("seconds", "is_fit"), [(0, True), (-4, False), (4, False)])
async def test_another_clock_is_not_ready(mongodb_uri: str, seconds: int, is_fit: bool) -> None:
    """A server whose clock is apart from the database's would judge holds by another time."""
    connected = connect(mongodb_uri, connections_max=2)
    try:
        now = lambda: datetime.now(UTC) + timedelta(seconds=seconds)  # noqa: E731
        assert await is_ready(connected["test"], now) is is_fit
    finally:
        await connected.close()


async def test_nobody_there_is_named(unused_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing listens the message names the setting; readiness is no, not an error."""
    monkeypatch.setattr(client, "SERVER_SELECTION_TIMEOUT_MS", 300)
    connected = connect(f"mongodb://127.0.0.1:{unused_port}/", connections_max=2)
    try:
        with pytest.raises(UnfitDatabaseError, match="FHIR_MONGODB_URI"):
            await check_replica_set(connected)
        assert not await is_ready(connected["test"])
    finally:
        await connected.close()
