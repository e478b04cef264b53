"""Large contents: what nobody refers to is removed, what any version refers to stays."""

import asyncio
from datetime import UTC, datetime

import pytest

from fhir_server.app import Server
from fhir_server.messages import Content, Pieces
from fhir_server.store import contents
from fhir_server.store.changes import Change

CHUNK = contents._CHUNK_BYTES
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


async def pieces(*parts: bytes | BaseException) -> Pieces:
    """Yield ``parts``; raise what is an error among them."""
    for part in parts:
        if isinstance(part, BaseException):
            raise part
        yield part


async def kept(server: Server) -> dict[str, set[str]]:
    """Return the ids in each of the three collections."""
    database = server.database
    return {
        contents.UPLOADS: set(await database[contents.UPLOADS].distinct("_id")),
        contents.FILES: set(await database[contents.FILES].distinct("_id")),
        contents.CHUNKS: set(await database[contents.CHUNKS].distinct("files_id")),
    }


async def all_due(server: Server) -> None:
    """Let the time pass after which a content is looked at."""
    await server.database[contents.UPLOADS].update_many({}, {"$set": {"due": LONG_AGO}})


async def refer(server: Server, id: str, content: Content | None) -> None:
    """Write the next version of Binary/``id`` with ``content``."""
    resource = {"resourceType": "Binary", "contentType": "a/b"}
    change = Change("update", "Binary", id, resource, content=content)
    await server.context.store.write([change], server.context.now())


async def test_what_any_version_refers_to_stays(server: Server) -> None:
    """The current one, a historical one, that of what is deleted; only the orphan goes."""
    taken = server.context.contents
    current, past, deleted, orphan = [
        await taken.take(pieces(bytes([n]) * (CHUNK + n))) for n in range(1, 5)
    ]
    await refer(server, "a", past)
    await refer(server, "a", current)
    await refer(server, "b", deleted)
    await server.context.store.write([Change("delete", "Binary", "b")], server.context.now())
    await all_due(server)
    assert await taken.sweep() is False
    remaining = await kept(server)

    assert orphan.id not in remaining[contents.FILES]
    assert all(ids == {current.id, past.id, deleted.id} for ids in remaining.values())
    for content in (current, past, deleted):
        found = b"".join([one async for one in taken.pieces(content, 0, content.size)])
        assert len(found) == content.size


async def test_what_is_new_is_left_alone(server: Server) -> None:
    """A content whose document is still to be written is not taken away from it."""
    content = await server.context.contents.take(pieces(b"x"))
    await server.context.contents.sweep()

    assert content.id in (await kept(server))[contents.FILES]


async def test_what_is_referred_to_is_not_looked_at_all_the_time(server: Server) -> None:
    """Its next look is far away: the work does not grow with what is stored."""
    await refer(server, "a", await server.context.contents.take(pieces(b"x")))
    await all_due(server)
    await server.context.contents.sweep()
    [row] = await server.database[contents.UPLOADS].find().to_list()

    assert row["due"] > server.context.now()


@pytest.mark.parametrize("error", [OSError(), asyncio.CancelledError()], ids=["error", "end"])
async def test_a_broken_upload_leaves_nothing(server: Server, error: BaseException) -> None:
    """At once where it fails, by the sweep where the task ends or the process is killed."""
    taken = server.context.contents
    with pytest.raises(type(error)):
        await taken.take(pieces(b"x" * CHUNK * 9, error))
    assert bool((await kept(server))[contents.CHUNKS]) is isinstance(error, asyncio.CancelledError)
    await all_due(server)
    await taken.sweep()

    assert not any((await kept(server)).values())


async def test_what_a_broken_upload_wrote_late_is_removed(server: Server) -> None:
    """A command over its time may still be carried out after the upload was given up."""
    taken = server.context.contents
    with pytest.raises(ConnectionError):
        await taken.take(pieces(b"x" * CHUNK * 9, ConnectionError()))
    [id] = (await kept(server))[contents.UPLOADS]
    await server.database[contents.CHUNKS].insert_one({"files_id": id, "n": 0, "data": b"x"})
    await all_due(server)
    await taken.sweep()

    assert not any((await kept(server)).values())


async def test_the_sweep_goes_on_where_there_is_more(server: Server) -> None:
    """It does a bounded part at a time, and says whether there may be more."""
    for _ in range(contents._SWEPT_AT_ONCE + 1):
        await server.context.contents.take(pieces(b"x"))
    await all_due(server)

    assert await server.context.contents.sweep() is True
    assert await server.context.contents.sweep() is False
    assert not any((await kept(server)).values())


async def test_the_reference_is_found_by_an_index(server: Server) -> None:
    """Neither look goes through all Binaries."""
    await refer(server, "a", await server.context.contents.take(pieces(b"x")))
    for name in ("Binary", "Binary_history"):
        plan = await server.database[name].find({"content.id": "x"}).explain()
        assert "COLLSCAN" not in str(plan["queryPlanner"]["winningPlan"]), name
