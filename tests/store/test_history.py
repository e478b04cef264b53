"""https://hl7.org/fhir/R4/http.html#history

The property: whatever was written, walking a history by pages of any size gives every version
exactly once, the newest first.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fhir_server.app import Server
from fhir_server.store.changes import Change
from fhir_server.store.documents import Stored
from fhir_server.store.history import Wanted
from fhir_server.store.resources import ResourceStore

NOON = datetime(2024, 2, 29, 12, 0, tzinfo=UTC)
TYPES = ("Basic", "Patient", "Person")
IDS = ("A", "B-1", "a", "z.9")
PLACES = st.tuples(st.sampled_from(TYPES), st.sampled_from(IDS))
# One transaction: its writes, of different resources, and how the clock has moved since the last.
STEPS = st.lists(
    st.tuples(
        st.lists(
            st.tuples(PLACES, st.booleans()), min_size=1, max_size=4, unique_by=lambda w: w[0]
        ),
        st.sampled_from([0, 0, 0, 1, 7, -3, -1000]),
    ),
    max_size=12,
)
Steps = list[tuple[list[tuple[tuple[str, str], bool]], int]]
PROPERTY = hypothesis_settings(
    max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def key(one: Stored) -> tuple[datetime, str, str, int]:
    """Return what tells a version from any other."""
    return one.last_updated, one.type, one.id, one.version


async def written(server: Server, steps: Steps) -> list[Stored]:
    """Empty the database, make the writes, and return every version there is."""
    await server.context.store.indexes.ensure(TYPES)
    for type in TYPES:
        await server.database[type].delete_many({})
        await server.database[f"{type}_history"].delete_many({})
    found: list[Stored] = []
    now = NOON
    for number, (writes, milliseconds) in enumerate(steps):
        now += timedelta(milliseconds=milliseconds)
        changes = [
            Change("delete", type, id)
            if deletes
            else Change("update", type, id, {"resourceType": type, "language": f"x-{number}"})
            for (type, id), deletes in writes
        ]
        stored = await server.context.store.write(changes, now)
        found += [one for one in stored if one.changed]
    return found


async def walked(store: ResourceStore, wanted: Wanted) -> list[Stored]:
    """Return what all pages hold; fail for a page that is too long, or empty before the end."""
    found: list[Stored] = []
    while True:
        page = await store.history(wanted)
        assert len(page.entries) <= wanted.count
        found += page.entries
        if not page.more:
            return found
        assert page.entries
        wanted = replace(wanted, after=key(page.entries[-1]))


def check(got: list[Stored], expected: list[Stored]) -> None:
    """Check that ``got`` is ``expected``, each once, the newest first, the same content."""
    assert sorted(map(key, got)) == sorted(map(key, expected))
    assert all(one.last_updated >= other.last_updated for one, other in pairwise(got))
    contents = {key(one): (one.json, one.deleted) for one in expected}
    assert all((one.json, one.deleted) == contents[key(one)] for one in got)
    for one, other in pairwise([one for one in got if (one.type, one.id) == ("Basic", "A")]):
        assert one.version == other.version + 1


@PROPERTY
@given(steps=STEPS, count=st.integers(1, 9))
async def test_the_history_of_the_system(
    the_server: Callable[[], Server], steps: Steps, count: int
) -> None:
    """Every version of everything, once, newest first, whatever the page size and the clock."""
    server = the_server()
    versions = await written(server, steps)

    check(await walked(server.context.store, Wanted("", "", count)), versions)


@PROPERTY
@given(steps=STEPS, count=st.integers(1, 5), place=PLACES)
async def test_the_history_of_a_type_and_of_an_instance(
    the_server: Callable[[], Server], steps: Steps, count: int, place: tuple[str, str]
) -> None:
    """The same for a part of them, and the total of an instance is known from its first page."""
    server = the_server()
    store = server.context.store
    versions = await written(server, steps)
    type, id = place
    of_type = [one for one in versions if one.type == type]
    of_instance = [one for one in of_type if one.id == id]

    check(await walked(store, Wanted(type, "", count)), of_type)
    check(await walked(store, Wanted(type, id, count)), of_instance)
    if of_instance:
        assert (await store.history(Wanted(type, id, count))).total == len(of_instance)


@PROPERTY
@given(steps=STEPS, count=st.integers(1, 5), low=st.integers(-10, 30), width=st.integers(1, 20))
async def test_the_history_of_a_time(
    the_server: Callable[[], Server], steps: Steps, count: int, low: int, width: int
) -> None:
    """_since takes versions from an instant on; _at those current at some point of a range."""
    server = the_server()
    store = server.context.store
    versions = await written(server, steps)
    start = NOON + timedelta(milliseconds=low)
    end = start + timedelta(milliseconds=width)
    followers = {(one.type, one.id, one.version - 1): one.last_updated for one in versions}
    current = [
        one
        for one in versions
        if one.last_updated < end and followers.get((one.type, one.id, one.version), end) > start
    ]

    check(
        await walked(store, Wanted("", "", count, since=start)),
        [one for one in versions if one.last_updated >= start],
    )
    check(await walked(store, Wanted("", "", count, at=(start, end))), current)


async def test_pages_that_are_turned_while_others_write(server: Server) -> None:
    """What was there at the first page comes once, however it is replaced meanwhile."""
    store = server.context.store
    steps = [([((type, id), False) for type in TYPES for id in IDS], 1) for _ in range(4)]
    before = await written(server, steps)
    going = True

    async def writer(type: str) -> None:
        number = 0
        while going:
            number += 1
            resource = {"resourceType": type, "language": f"w-{number}"}
            moment = NOON + timedelta(seconds=number)
            await store.write([Change("update", type, IDS[number % 4], resource)], moment)

    tasks = [asyncio.create_task(writer(type)) for type in TYPES]
    try:
        for count in (1, 3, 5):
            got = await walked(store, Wanted("", "", count))
            old = [key(one) for one in got if one.last_updated < NOON + timedelta(milliseconds=500)]
            assert sorted(old) == sorted(map(key, before))
    finally:
        going = False
        await asyncio.gather(*tasks)
