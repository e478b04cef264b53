"""design/scheduling.md, section 4: what blocks, Slots of others and odd times take, whoever writes
them."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from fhir_server.app import Server
from fhir_server.features.scheduling import events
from fhir_server.features.scheduling.instants import instant_of
from fhir_server.features.scheduling.taking_up import taken
from fhir_server.messages import Request
from fhir_server.store.granules import BOOKINGS, GRANULES
from fhir_server.store.resources import ResourceStore
from tests.conftest import Fhir
from tests.features.scheduling import clinic as desk
from tests.features.scheduling.test_holding import (
    appointment,
    at,
    bundle,
    create,
    lasting,
    parameters,
    put,
    read,
    schedule,
    slot,
)


@pytest.fixture
async def clinic(fhir: Fhir) -> Fhir:
    """A clinic with a doctor who has a Schedule."""
    assert (await fhir(put(schedule("d1", "Practitioner/p1")))).status == 201
    return fhir


def within(id: str) -> dict[str, Any]:
    """Return the member of an Appointment that refers to the Slot ``id``."""
    return {"slot": [{"reference": f"Slot/{id}"}]}


async def test_a_block_is_no_appointments(clinic: Fhir) -> None:
    """Who refers to a block is refused like everybody, and the block stays whole; the buffer that
    a client has written beside its appointment is that appointment's."""
    block = slot("leave", "d1", 0, 480, "busy-unavailable")
    assert (await clinic(put(block))).status == 201
    inside = appointment(60, 90, "Practitioner/p1", "Patient/a", **within("leave"))
    assert (await clinic(create(inside))).status == 409
    beside = appointment(480, 510, "Practitioner/p1", "Patient/a", **within("leave"))
    assert (await clinic(create({**beside, "id": "x"}))).status == 201
    assert (await clinic(create(appointment(60, 90, "Practitioner/p1")))).status == 409

    override = create(appointment(90, 120, "Practitioner/p1", **within("leave")))
    there = await clinic(
        Request(override.interaction, "Appointment", body=override.body, override="Ill")
    )
    assert there.status == 201
    place = there.location.partition("/_history")[0].partition("/")[2]
    await clinic(Request("delete", "Appointment", place))
    assert (await read(clinic, "Slot/leave"))["status"] == "busy-unavailable"
    assert (await clinic(create(appointment(90, 120, "Practitioner/p1")))).status == 409


async def test_a_held_slot_becomes_no_block(clinic: Fhir) -> None:
    """Over booked time a block is refused, also where it was the Slot of the appointment."""
    await clinic(put(slot("s", "d1", 0, 30, "free")))
    await clinic(create(appointment(0, 30, "Practitioner/p1", "Patient/a", **within("s"))))
    assert (await clinic(put(slot("s", "d1", 0, 30, "busy-unavailable")))).status == 409


async def test_a_slot_of_another_time_stays_as_it_is(clinic: Fhir) -> None:
    """An appointment fills Slots of its own time and no others."""
    await clinic(put(slot("own", "d1", 0, 30, "free")))
    await clinic(put(slot("other", "d1", 600, 630, "free")))
    both = [{"reference": f"Slot/{id}"} for id in ("own", "other")]
    assert (await clinic(create(appointment(0, 30, "Patient/a", slot=both)))).status == 201
    found = [(await read(clinic, f"Slot/{id}"))["status"] for id in ("own", "other")]
    assert found == ["busy", "free"]


async def test_nothing_of_a_busy_slot_is_lost(clinic: Fhir) -> None:
    """Whoever takes over a Slot that is longer takes all of it."""
    assert (await clinic(put(slot("s", "d1", 0, 60)))).status == 201
    own = appointment(0, 30, "Practitioner/p1", "Patient/a", **within("s"))
    assert (await clinic(create(own))).status == 201
    assert (await clinic(create(appointment(30, 60, "Practitioner/p1")))).status == 409
    made = await clinic(
        bundle(slot("t", "d1", 90, 150), appointment(90, 120, "Patient/b", **within("t")))
    )
    assert made.status == 200
    assert (await clinic(create(appointment(120, 150, "Practitioner/p1")))).status == 409


async def test_a_block_leaves_no_room_and_has_no_buffers(clinic: Fhir) -> None:
    """Where five find room, none does in a block; it takes its own time, and none of the limit."""
    once = [{"url": "count", "valuePositiveInt": 1}, {"url": "per", "valueCode": "day"}]
    rules = parameters(
        slotCapacity={"valuePositiveInt": 5},
        bufferBefore=lasting(10),
        bookingLimit={"extension": once},
    )
    await clinic(put(schedule("d1", "Practitioner/p1", extension=[rules])))
    for n in range(2):
        block = slot(f"b{n}", "d1", 60 + n * 60, 90 + n * 60, "busy-unavailable")
        assert (await clinic(put(block))).status == 201
    assert (await clinic(create(appointment(70, 80, "Practitioner/p1", "Patient/a")))).status == 409
    assert (await clinic(create(appointment(30, 60, "Practitioner/p1", "Patient/a")))).status == 201


@pytest.mark.parametrize(
    ("times", "minutes"),
    [
        ({"start": at(0)}, 5),
        ({"start": at(0), "minutesDuration": 30}, 30),
        ({"start": at(0), "end": at(0)}, 5),
        ({"start": at(0), "end": at(-30)}, 5),
        ({"start": "2036-12-01T08:59:60Z", "end": at(5)}, 5),
    ],
)
async def test_a_start_is_taken_whatever_the_end_is(
    clinic: Fhir, times: dict[str, Any], minutes: int
) -> None:
    """As in messages that do not say how long it takes."""
    odd = {**appointment(0, 30, "Practitioner/p1", "Patient/a"), "end": None, **times}
    odd = {name: value for name, value in odd.items() if value is not None}
    assert (await clinic(create(odd))).status == 201
    assert (await clinic(create(appointment(0, 30, "Practitioner/p1")))).status == 409
    after = create(appointment(minutes, minutes + 30, "Practitioner/p1"))
    assert (await clinic(after)).status == 201


@pytest.mark.parametrize("offset", ["Z", "-06:00"])
async def test_what_no_clock_goes_on_from_is_refused(clinic: Fhir, offset: str) -> None:
    """The end of the calendar has no room for a buffer, or for another zone."""
    last = [f"9999-12-31T23:{minute}:59{offset}" for minute in ("00", "59")]
    odd = {**appointment(0, 30, "Practitioner/p1"), "start": last[0], "end": last[1]}
    assert (await clinic(create(odd))).status == 409


ODD = ("9999-12-31T23:59:59Z", "0001-01-01T00:00:00+06:00")


async def test_odd_times_are_the_callers_fault(server: Server) -> None:
    """Of operations: none makes the server count for long, or fail."""
    await desk.ask(server, desk.put(desk.schedule("p1", "Practitioner/p1")))
    whole = desk.proposed(desk.morning(), "p1")
    booked = desk.booked_in(await desk.ask(server, desk.call("book", appointment=whole)))
    for name in ("book", "hold"):
        for said in ({"end": ODD[0]}, {"start": ODD[1]}, {"start": ODD[0], "end": ODD[0]}):
            given = {**whole, **said, "contained": [{**whole["contained"][0], **said}]}
            assert (await desk.ask(server, desk.call(name, appointment=given))).status == 400
    for start in ODD:
        asked = replace(
            desk.call("reschedule", booked["id"]),
            body={
                "resourceType": "Parameters",
                "parameter": [{"name": "start", "valueDateTime": start}],
            },
        )
        assert (await desk.ask(server, asked)).status == 400
    long = desk.proposed(desk.morning(8), "p1", minutes=400 * 1440)
    assert desk.is_ruled_out(await desk.ask(server, desk.call("book", appointment=long)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-12-01T09:00:60Z", "2026-12-01T09:01:00+00:00"),
        ("2026-12-01T09:00:00.123456789+06:00", "2026-12-01T09:00:00.123456+06:00"),
        ("2026-12-01T09:00:00", None),
        ("2026-12", None),
        (*ODD[:1], None),
        (*ODD[1:], None),
        (7, None),
    ],
)
def test_instants(text: object, expected: str | None) -> None:
    """In their own offset; what cannot be counted with is none."""
    assert instant_of(text) == (datetime.fromisoformat(expected) if expected else None)


def soon(start: int, end: int, *actors: str) -> dict[str, Any]:
    """Return an Appointment of the next days, from so many minutes after nine."""
    times = {"start": start, "end": end}
    said = {name: desk.morning() + timedelta(minutes=count) for name, count in times.items()}
    return {**appointment(0, 30, *actors), **{name: one.isoformat() for name, one in said.items()}}


async def test_what_was_booked_before_there_was_a_schedule_takes_its_time(
    clinic: Fhir, server: Server
) -> None:
    """As after a migration: no time is given twice then either, and nothing is left of it when it
    ends. The time that another has taken meanwhile is both's."""
    early = {**soon(0, 30, "Practitioner/p2", "Patient/a"), "id": "early"}
    twins = [{**soon(60, 90, "Practitioner/p2", f"Patient/t{n}"), "id": f"t{n}"} for n in range(2)]
    over = {**soon(120, 150, "Practitioner/p2", "Patient/a"), "id": "over"}
    for one in (early, *twins, over, {**over, "status": "cancelled"}):
        assert (await clinic(put(one))).status < 300
    unused = {**schedule("d2", "Practitioner/p2"), "active": False}
    assert (await clinic(put(unused))).status == 201
    assert (await clinic(put({**unused, "active": True}))).status == 200
    await worked_off(server)

    for start in (0, 60):
        late = await clinic(create(soon(start, start + 30, "Practitioner/p2", "Patient/b")))
        assert late.status == 409
    assert (await clinic(create(soon(120, 150, "Practitioner/p2")))).status == 201
    await clinic(put({**twins[0], "status": "cancelled"}))
    assert (await clinic(create(soon(60, 90, "Practitioner/p2")))).status == 409
    for one in (early, twins[1]):
        assert (await clinic(put({**one, "status": "cancelled"}))).status == 200
    held = await server.database[BOOKINGS].distinct("_id")
    assert len(held) == 1


async def test_what_ends_while_it_is_taken_up_leaves_nothing(clinic: Fhir, server: Server) -> None:
    """Nobody holds a time for an appointment that was cancelled between the look and the write."""
    one = {**soon(0, 30, "Practitioner/p2"), "id": "x"}
    for body in (one, schedule("d2", "Practitioner/p2")):
        assert (await clinic(put(body))).status == 201
    await server.database[BOOKINGS].delete_many({})  # as if it was written unguarded
    ends = [{**one, "status": "cancelled"}]

    async def work(store: ResourceStore) -> None:
        await store.read("Appointment", "x")
        if ends:  # not when it is begun again
            assert (await clinic(put(ends.pop()))).status == 200
        await taken("x", store, server.context.now())

    await server.context.store.in_transaction(work, ("Appointment",))
    assert await server.database[BOOKINGS].count_documents({}) == 0
    assert await server.database[GRANULES].count_documents({}) == 0


async def worked_off(server: Server) -> None:
    """Work off what is due now."""
    while await events.work(server.context):
        pass
