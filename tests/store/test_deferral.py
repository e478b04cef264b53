"""ARCHITECTURE.md, section 16.2: indexes that are made at the end of a load."""

from typing import Any

import pytest

from fhir_server.app import Server, opened
from fhir_server.dispatch import answer
from fhir_server.messages import Request
from fhir_server.settings import Settings
from fhir_server.store import deferral
from fhir_server.store.client import UnfitDatabaseError
from fhir_server.store.indexes import DEFERRED, Indexes
from tests.interactions.asking import patient, put


async def begin(server: Server) -> None:
    store = server.context.store
    await deferral.begin(store.keys, store.indexes)


async def end(server: Server) -> None:
    store = server.context.store
    await deferral.end(store.keys, store.indexes)


async def is_noted(server: Server) -> bool:
    return await server.database["server"].find_one({"_id": DEFERRED}) is not None


async def written(server: Server) -> None:
    await answer(server.registry, put(patient()), server.context)


async def test_indexes_are_made_at_the_end(server: Server) -> None:
    """Meanwhile a type has none but that of ids; then all, and searches find what was loaded."""
    await begin(server)
    await written(server)
    for name in ("Patient", "Patient_history"):
        assert list(await server.database[name].index_information()) == ["_id_"]

    await end(server)

    assert await server.context.store.indexes.missing() == ()
    assert not await is_noted(server)
    found = await server.perform(Request("search-type", "Patient"))
    assert found.body.count(b'"mode":"match"') == 1


async def test_a_database_with_resources_keeps_its_indexes(server: Server) -> None:
    """It would be searched without them: the load is refused and says how it is not."""
    await written(server)
    with pytest.raises(UnfitDatabaseError, match="Load without --defer-indexes"):
        await begin(server)
    assert not await is_noted(server)
    assert not server.context.store.indexes.deferred


async def test_nobody_else_is_there(
    server: Server, settings: Settings, mongodb_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another server on the database nothing is deferred; while it is, none can begin."""
    async with opened(settings, mongodb_uri):
        with pytest.raises(UnfitDatabaseError, match="Stop it"):
            await begin(server)
    await begin(server)
    with pytest.raises(UnfitDatabaseError, match="under way"):
        await begin(server)
    monkeypatch.setattr(deferral, "_PATIENCE_S", 0)
    with pytest.raises(UnfitDatabaseError, match="Wait until it has ended"):
        async with opened(settings, mongodb_uri):
            pass
    async with opened(settings, mongodb_uri, deferring=True) as helping:
        await written(helping)  # as the processes of the load do
    assert list(await server.database["Patient"].index_information()) == ["_id_"]


async def test_what_a_killed_load_left_is_made_before_anybody_asks(
    server: Server, settings: Settings, mongodb_uri: str
) -> None:
    """Whoever opens the database next makes the indexes; a load can be repeated."""
    await begin(server)
    await written(server)
    gone = {"$set": {"by": "a process that is not heard of"}}
    await server.database["server"].update_one({"_id": DEFERRED}, gone)

    async with opened(settings, mongodb_uri) as after:
        assert await after.context.store.indexes.missing() == ()
        assert not await is_noted(after)


async def test_a_type_is_never_without_note_and_indexes(server: Server) -> None:
    """Who helps a load that was killed goes on for a while: of what it makes then, it makes the
    indexes itself."""
    store = server.context.store
    await begin(server)
    helping = Indexes(server.database, server.context.parameters, store.keys.began, deferred=True)
    await helping.ensure(["Patient"])
    await server.database["server"].delete_one({"_id": DEFERRED})

    await helping.ensure(["Basic"])

    missing = {name.partition(".")[0] for name in await store.indexes.missing()}
    assert missing == {"Patient", "Patient_history"}


async def test_what_is_made_just_before_the_note_is_deleted_has_its_indexes(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the next server had seen already which collections there are."""
    store = server.context.store
    await begin(server)
    gone = {"$set": {"by": "a process that is not heard of"}}
    await server.database["server"].update_one({"_id": DEFERRED}, gone)
    helping = Indexes(server.database, server.context.parameters, store.keys.began, deferred=True)
    forget = deferral._forget

    async def later(*given: Any) -> None:
        await helping.ensure(["Patient"])
        await forget(*given)

    monkeypatch.setattr(deferral, "_forget", later)
    after = Indexes(server.database, server.context.parameters, store.keys.began)
    assert await deferral.settled(store.keys, after) == ("Patient",)
    assert await after.missing() == ()
