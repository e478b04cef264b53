"""ARCHITECTURE.md, section 16.2: the indexes that must exist."""

import asyncio

import pytest

from fhir_server.app import Server
from fhir_server.dispatch import answer
from fhir_server.messages import Request
from fhir_server.store.indexes import Indexes
from tests.conftest import Emptied
from tests.interactions.asking import patient, put

INDEXES_MAX = 64  # of MongoDB, per collection


def fresh(server: Server) -> Indexes:
    """Return what another process on the same database would have."""
    return Indexes(server.database, server.context.parameters, server.context.store.keys.began)


async def test_a_type_gets_its_collections_when_it_is_first_written_to(server: Server) -> None:
    """An empty database has none; a write of a type makes that type's two, with their indexes."""
    indexes = server.context.store.indexes
    assert await indexes.existing() == ()

    await answer(server.registry, put(patient()), server.context)

    assert await indexes.existing() == ("Patient",)
    names = await server.database.list_collection_names()
    assert {"Patient", "Patient_history"} <= set(names)
    assert await indexes.missing() == ()


async def test_a_read_makes_nothing(server: Server, emptied: Emptied) -> None:
    """Whoever asks for what is not there does not make collections."""
    for request in (
        Request("read", "Patient", "p"),
        Request("search-type", "Patient"),
        Request("history-type", "Patient"),
        Request("delete", "Patient", "p", if_match=frozenset({"1"})),
    ):
        await answer(server.registry, request, server.context)

    names = set(await server.database.list_collection_names())
    assert names <= {*emptied.at_start, "Patient", "Patient_history"}
    assert "Patient" not in names or await server.context.store.indexes.missing() == ()


async def test_what_is_missing_is_named_and_made_at_the_next_start(server: Server) -> None:
    """An index that somebody dropped is reported by its name, and made again."""
    await server.context.store.indexes.ensure(["Observation"])
    before = await server.database["Observation"].index_information()
    dropped = next(name for name in before if name != "_id_")
    await server.database["Observation"].drop_index(dropped)
    await server.database["Observation_history"].drop_indexes()
    after_a_restart = fresh(server)

    missing = await after_a_restart.missing()
    assert f"Observation.{dropped}" in missing
    assert len(missing) == 3
    assert await after_a_restart.ensure_existing() == ("Observation",)
    assert await after_a_restart.missing() == ()
    assert await server.database["Observation"].index_information() == before


async def test_many_makers_at_once_make_it_once(server: Server) -> None:
    """Processes that write a new type at the same time do not get in each other's way."""
    makers = [fresh(server) for _ in range(8)]
    await asyncio.gather(
        *(maker.ensure(["Patient", "Basic"]) for maker in makers for _ in range(4))
    )

    assert await makers[0].existing() == ("Basic", "Patient")
    assert await makers[0].missing() == ()


async def test_what_was_ensured_costs_nothing(server: Server) -> None:
    """A second time no command is sent: the collection may even be gone."""
    indexes = server.context.store.indexes
    await indexes.ensure(["Basic"])
    await server.database.drop_collection("Basic")
    await indexes.ensure(["Basic"])

    assert await indexes.existing() == ("Basic",)  # its history is still there
    assert "Basic" not in await server.database.list_collection_names()


def test_no_type_has_too_many_indexes(server: Server) -> None:
    """MongoDB takes 64; every entry costs a write, so a type has far fewer."""
    indexes = server.context.store.indexes
    counts = {type: len(indexes.wanted(type)) for type in server.context.definitions.resource_types}

    assert len(counts) > 140
    assert max(counts.values()) < INDEXES_MAX / 4


async def test_every_type_can_be_made(server: Server) -> None:
    """MongoDB accepts the indexes of a type of each shape."""
    types = ("Observation", "Encounter", "MedicationRequest", "ValueSet", "Appointment", "Task")
    await fresh(server).ensure(types)

    assert await fresh(server).missing() == ()


# A find that the server sends all day -> it reads an index, not the collection.
SHAPES = {
    "newest first": ({}, [("last_updated", -1), ("_id", 1)]),
    "a compartment": ({"compartments": "Patient/1"}, [("_id", 1)]),
}


@pytest.mark.parametrize(("filter", "sort"), SHAPES.values(), ids=SHAPES)
async def test_hot_shapes_read_an_index(
    server: Server, filter: dict[str, str], sort: list[tuple[str, int]]
) -> None:
    """Neither a scan of the collection nor a sort in memory is in the plan."""
    await server.context.store.indexes.ensure(["Observation"])
    cursor = server.database["Observation"].find(filter).sort(sort)
    plan = str((await cursor.explain())["queryPlanner"]["winningPlan"])

    assert "IXSCAN" in plan
    assert "COLLSCAN" not in plan
    assert "'SORT'" not in plan
