"""Section 4 of design/security.md: rows in the database, chains, heads, retention."""

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import AutoReconnect, PyMongoError

from fhir_server.app import Server, opened
from fhir_server.interactions.auditing import drop_old, sign_heads
from fhir_server.outcome import FhirError
from fhir_server.security.audit import Row
from fhir_server.security.principal import DEMO
from fhir_server.settings import Settings
from fhir_server.store import audit as audit_module
from fhir_server.store import audit_chain
from fhir_server.store.audit import AUDIT, HEADS, Audit, Lane
from fhir_server.store.audit_chain import Verification
from fhir_server.store.transactions import transacted

AT = datetime(2026, 3, 1, tzinfo=UTC)


def row(n: int = 0, days: int = 0) -> Row:
    """Return a row."""
    return Row(AT + timedelta(days=days), "read", DEMO, "Patient", f"p{n}")


@pytest.fixture
def audit(server: Server) -> Audit:
    """What records."""
    assert server.context.store.audit is not None
    return server.context.store.audit


async def faults(server: Server, outside: list[dict[str, Any]] | None = None) -> list[str]:
    """Return the names of the faults in what is recorded."""
    look = Verification(server.database, server.audit_keys, outside or ())
    return [one.name async for one in look.faults()]


async def _recorded(audit: Audit, *days: int) -> None:
    for one in days:
        audit.add(row(one, one))
        await audit.flushed()


async def _appended(lane: Lane, audit: Audit, n: int) -> None:
    async def work(session: AsyncClientSession) -> None:
        await lane.append([row(n)], session)

    await transacted(audit.database.client, work, time.monotonic() + 10)


async def test_rows_that_wait_are_written_together_after_a_moment(audit: Audit) -> None:
    """Nobody waits for them; they are one block."""
    for n in range(300):
        audit.add(row(n))
    assert await audit.database[AUDIT].count_documents({}) == 0
    while await audit.database[AUDIT].count_documents({}) < 300:
        await asyncio.sleep(0.01)

    assert await audit.database[AUDIT].count_documents({"block.count": 300}) == 1


async def test_transactions_at_once_have_chains_of_their_own(server: Server, audit: Audit) -> None:
    """They do not wait for each other; a chain that is free is used again."""

    async def one(n: int) -> None:
        async with audit.lane() as lane:
            await _appended(lane, audit, n)

    for _ in range(3):
        await asyncio.gather(*map(one, range(5)))

    chains = {one["_id"].partition(".")[0] async for one in server.database[AUDIT].find()}
    assert 2 <= len(chains) <= 5
    assert len(audit.heads) == len(chains)
    assert await faults(server) == []


async def test_a_chain_whose_last_block_may_be_there_is_not_used_again(
    server: Server, audit: Audit
) -> None:
    """Where the answer to a commit was lost: the next block would else stand beside it."""
    await _recorded(audit, 1)

    async def lost() -> None:
        async with audit.lane() as lane:
            await _appended(lane, audit, 2)
            raise AutoReconnect  # after the commit

    with pytest.raises(AutoReconnect):
        await lost()
    await _recorded(audit, 3)

    chains = {one["_id"].partition(".")[0] async for one in server.database[AUDIT].find()}
    assert len(chains) == 2
    assert await faults(server) == []


async def test_what_is_rolled_back_leaves_no_gap(server: Server, audit: Audit) -> None:
    """The next block follows the last that was written."""
    await _recorded(audit, 1)
    with pytest.raises(LookupError):
        async with audit.lane():
            raise LookupError
    await _recorded(audit, 2)

    chains = {one["_id"].partition(".")[0] async for one in server.database[AUDIT].find()}
    assert len(chains) == 1
    assert await faults(server) == []


async def test_nothing_is_answered_when_nothing_could_be_written_for_long(
    audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits is kept, and written when that is possible again."""
    written = Audit._written

    async def failing(_self: Audit, _rows: Any) -> None:
        raise PyMongoError

    monkeypatch.setattr(audit_module, "_RETRY_S", 0.001)
    monkeypatch.setattr(audit_module, "FAILING_S_MAX", 0.05)
    monkeypatch.setattr(Audit, "_written", failing)
    audit.add(row())
    with pytest.raises(FhirError) as refused:
        await audit.flushed()
    assert refused.value.status == 503
    with pytest.raises(FhirError):
        audit.check()
    monkeypatch.setattr(Audit, "_written", written)
    await audit.flushed()
    audit.check()
    assert await audit.database[AUDIT].count_documents({}) == 1


async def test_a_new_process_names_the_last_blocks_of_the_others(
    server: Server, audit: Audit, mongodb_uri: str, settings: Settings
) -> None:
    """So the end of a chain that nobody signed cannot be cut either."""
    await _recorded(audit, 1, 2, 3)
    async with opened(settings, mongodb_uri) as other:
        assert other.context.store.audit is not None
        await _recorded(other.context.store.audit, 4)
    assert await faults(server) == []
    [head] = audit.heads
    await server.database[AUDIT].delete_one({"_id": f"{head.chain}.00000002.0000"})

    assert await faults(server) == ["chain-cut"]


async def test_signed_heads_tell_that_the_end_is_cut(server: Server, audit: Audit) -> None:
    """In the database, or where these were removed, those that were kept outside."""
    await _recorded(audit, 1, 2)
    said = await sign_heads(server.context)
    assert said is not None
    assert await faults(server, [said]) == []
    await server.database[AUDIT].delete_many({})
    assert await faults(server) == ["chain-cut"]
    await server.database[HEADS].delete_many({})
    assert await faults(server) == []
    assert await faults(server, [said]) == ["chain-cut"]
    assert await faults(server, [{**said, "at": "2030"}]) == ["signature"]


async def test_retention_drops_whole_blocks_and_says_so(server: Server, audit: Audit) -> None:
    """What is left is in order, begins behind a signed marker, and cannot be cut further."""
    await _recorded(audit, 0, 1, 2, 3, 4)
    await sign_heads(server.context)
    days = (server.context.now() - AT).days - 2
    settings = server.context.settings.model_copy(update={"audit_days": days})
    context = replace(server.context, settings=settings)
    gone = await drop_old(context)
    await audit.flushed()

    left = await server.database[AUDIT].find({"did": "read"}).to_list()
    assert gone == 5 - len(left)
    assert 1 <= gone <= 4
    assert all(one["at"] >= AT + timedelta(days=1) for one in left)
    assert await server.database[AUDIT].count_documents({"did": "retention"}) == 1
    assert await faults(server) == []
    assert await drop_old(context) == 0
    await server.database[AUDIT].delete_one({"_id": min(one["_id"] for one in left)})
    assert "block-missing" in await faults(server)


async def test_what_retention_did_not_get_to_is_no_fault(server: Server, audit: Audit) -> None:
    """A process that ends between the marker and the removal leaves rows that are in order."""
    await _recorded(audit, 0, 1, 2, 3)
    rows = await server.database[AUDIT].find({"did": "read"}).sort("_id", 1).to_list()
    await audit_chain.drop(server.database, audit.key, AT + timedelta(days=2), AT)
    await server.database[AUDIT].insert_many(rows[:2])
    assert await faults(server) == []
    await server.database[AUDIT].delete_one({"_id": rows[0]["_id"]})
    assert await faults(server) == []
    await server.database[AUDIT].update_one({"_id": rows[1]["_id"]}, {"$set": {"id": "x"}})
    assert await faults(server) == ["row-changed"]
    await server.database[AUDIT].delete_one({"_id": rows[2]["_id"]})
    assert "block-missing" in await faults(server)


async def test_a_marker_that_is_not_ours_hides_nothing(server: Server, audit: Audit) -> None:
    """Who removes the beginning cannot say that retention did."""
    await _recorded(audit, 0, 1, 2)
    first, second, _ = await server.database[AUDIT].find().sort("_id", 1).to_list()
    await server.database[AUDIT].delete_one({"_id": first["_id"]})
    chain = first["_id"].partition(".")[0]
    marker = {
        "_id": f"dropped/{chain}",
        "kind": "dropped",
        "at": "2026",
        "chains": [[chain, 0, second["block"]["previous"].hex()]],
        "key": audit.key.name,
        "mac": "00" * 32,
    }
    await server.database[HEADS].insert_one(marker)

    assert set(await faults(server)) == {"signature", "block-missing"}
