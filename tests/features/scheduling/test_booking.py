"""design/scheduling.md, section 9: S1, S3 to S8, S10, S13. Nobody gets a time that another has."""

import asyncio
import os
import random
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from fhir_server.app import Server, opened
from fhir_server.messages import Request
from fhir_server.r4.json import decode
from fhir_server.settings import Settings
from tests.features.scheduling.clinic import (
    BASE,
    ask,
    booked_in,
    call,
    is_ruled_out,
    is_taken,
    morning,
    proposed,
    put,
    read,
    schedule,
    total,
)

ROUNDS = int(os.environ.get("FHIR_TEST_BOOKING_ROUNDS", "2"))
LONG = ROUNDS >= 50
CONTENDERS = 64
SOME = 64 if LONG else 20


async def _clinic(server: Server, *schedules: dict[str, Any]) -> Server:
    for one in schedules or (schedule("p1", "Practitioner/p1"), schedule("p2", "Practitioner/p2")):
        response = await ask(server, put(one))
        assert response.status == 201, response.body
    return server


async def _at_once(server: Server, *requests: Request) -> Counter[int]:
    """Return how often each status was answered to ``requests``, made at once."""
    answers = await asyncio.gather(*(ask(server, one) for one in requests))
    assert all(is_taken(one) for one in answers if one.status == 409)
    return Counter(one.status for one in answers)


async def _intervals(server: Server, actor: str) -> list[tuple[datetime, datetime]]:
    asked = (("actor", actor), ("status", "booked,pending"), ("_count", "1000"))
    found = decode(
        (await ask(server, Request("search-type", "Appointment", parameters=asked))).body
    )
    times = [entry["resource"] for entry in found.get("entry", ())]
    return sorted(tuple(datetime.fromisoformat(t[n]) for n in ("start", "end")) for t in times)  # type: ignore[misc]


def _book(start: datetime, number: int = 0, **more: Any) -> Request:
    return call(
        "book", appointment=proposed(start, "p1"), patient_reference=f"Patient/{number}", **more
    )


async def test_of_many_bookings_of_one_time_one_is_made(server: Server) -> None:
    """S1: 64 parallel ``$book`` of one half hour: one 201, 63 x 409, one busy Slot.

    Those with a key do not wait for their turn (``turns.py``): the database has to decide.
    """
    await _clinic(server)
    for number in range(ROUNDS):
        start = morning() + timedelta(minutes=30 * number)
        requests = [_book(start, n) for n in range(CONTENDERS)]
        requests[::4] = [
            replace(one, idempotency_key=f"{start} {n}") for n, one in enumerate(requests[::4])
        ]
        found = await _at_once(server, *requests)
        assert found == {201: 1, 409: CONTENDERS - 1}

    assert await total(server, "Appointment", status="booked") == ROUNDS
    assert await total(server, "Slot", status="busy") == ROUNDS
    assert await total(server, "Slot") == ROUNDS


async def test_bookings_that_overlap_in_part_exclude_each_other(server: Server) -> None:
    """S1: random starts and lengths: whoever is booked overlaps with nobody."""
    await _clinic(server)
    chance = random.Random(1)
    requests = []
    for number in range(CONTENDERS):
        start = morning() + timedelta(minutes=chance.randrange(0, 120))
        asked = proposed(start, "p1", minutes=chance.choice((10, 15, 20, 45)))
        requests.append(call("book", appointment=asked, patient_reference=f"Patient/{number}"))
    found = await _at_once(server, *requests)
    times = await _intervals(server, "Practitioner/p1")

    assert found[201] == len(times) >= 2
    assert found[201] + found[409] == CONTENDERS
    assert all(before[1] <= after[0] for before, after in pairwise(times))


async def test_as_many_are_booked_as_there_is_room_for(server: Server) -> None:
    """S3: capacity 5: exactly 5; with three expired holds and a live one: exactly 4."""
    await _clinic(server, schedule("p1", "Practitioner/p1", slotCapacity=5, holdMinutes=1))
    found = await _at_once(server, *(_book(morning(), n) for n in range(SOME)))
    assert found == {201: 5, 409: SOME - 5}

    later = morning() + timedelta(hours=2)
    held = [await ask(server, call("hold", appointment=proposed(later, "p1"))) for _ in range(4)]
    assert {one.status for one in held} == {201}
    for answer in held[:3]:
        await _expire(server, booked_in(answer))
    found = await _at_once(
        server,
        *(
            call("book", appointment=proposed(later, "p1"), patient_reference=f"Patient/{n}")
            for n in range(SOME)
        ),
    )
    assert found == {201: 4, 409: SOME - 4}


async def _expire(server: Server, held: dict[str, Any]) -> None:
    """Let a minute pass for the hold ``held``, in the granules as well as in the Appointment."""
    over = datetime.fromisoformat(held["start"]) - timedelta(days=30)
    body = {
        **held,
        "extension": [
            {**held["extension"][0], "valueDateTime": over.isoformat()},
            *held["extension"][1:],
        ],
    }
    assert (await ask(server, put(body))).status == 200


async def test_a_hold_that_has_expired_is_gone(server: Server) -> None:
    """S4: as long as it lasts nobody else gets the time; then another does, with no worker running,
    and who held it is told so."""
    await _clinic(server)
    answer = await ask(server, call("hold", appointment=proposed(morning(), "p1")))
    held = booked_in(answer)
    assert answer.status == 201
    assert answer.location.startswith(f"Appointment/{held['id']}/_history/")
    assert held["status"] == "pending"
    assert (await read(server, held["slot"][0]["reference"]))["status"] == "busy-tentative"
    assert is_taken(await ask(server, _book(morning(), 2)))

    await _expire(server, held)
    assert (await ask(server, _book(morning(), 2))).status == 201
    refused = await ask(server, call("confirm", held["id"]))
    assert refused.status == 409
    assert (await read(server, f"Appointment/{held['id']}"))["status"] == "cancelled"

    other = booked_in(await ask(server, call("hold", appointment=proposed(morning(8), "p1"))))
    await _expire(server, other)
    assert is_taken(await ask(server, call("confirm", other["id"])))  # though nobody else came


async def test_a_hold_is_confirmed(server: Server) -> None:
    """By ``$confirm``, or by ``$book`` with a reference; the patient can come with it."""
    await _clinic(server)
    for number, name in enumerate(("confirm", "book")):
        asked = call("hold", appointment=proposed(morning(7 + number), "p1"))
        held = booked_in(await ask(server, asked))
        place = f"Appointment/{held['id']}"
        given = {"patient_reference": "Patient/amina"}
        if name == "confirm":
            answer = await ask(server, call(name, held["id"], **given))
        else:
            answer = await ask(server, call(name, appointment_reference=place, **given))
        booked = booked_in(answer)
        assert answer.status == 200
        assert decode(answer.body)["type"] == "searchset"
        assert booked["id"] == held["id"]
        assert booked["status"] == "booked"
        assert "extension" not in booked
        assert [(p["actor"]["reference"], p["status"]) for p in booked["participant"]] == [
            ("Practitioner/p1", "accepted"),
            ("Patient/amina", "accepted"),
        ]
        assert (await read(server, booked["slot"][0]["reference"]))["status"] == "busy"
        assert is_ruled_out(await ask(server, call("confirm", held["id"])))


async def test_a_patient_holds_three_times_at_most(server: Server) -> None:
    """Also where they are asked for at once."""
    await _clinic(server)
    requests = [
        call("hold", appointment=proposed(morning(7 + n), "p1"), patient_reference="Patient/a")
        for n in range(6)
    ]
    answers = await asyncio.gather(*(ask(server, one) for one in requests))
    assert Counter(one.status for one in answers) == {201: 3, 409: 3}
    assert all(is_ruled_out(one) for one in answers if one.status == 409)


async def test_raw_writes_and_operations_exclude_each_other(server: Server) -> None:
    """S5: half raw ``POST Appointment``, half ``$book``: one success."""
    await _clinic(server)
    requests = [_book(morning(), n) for n in range(SOME // 2)]
    for number in range(SOME // 2):
        people = ("Practitioner/p1", f"Patient/raw{number}")
        body = proposed(morning(), actors=people, minutes=30)
        raw = {**body, "status": "booked"}
        raw = {name: value for name, value in raw.items() if value}
        requests.append(Request("create", "Appointment", body=raw, base_url=BASE))
    found = await _at_once(server, *requests)
    assert found == {201: 1, 409: SOME - 1}


async def test_of_several_actors_all_are_booked_or_none(server: Server) -> None:
    """S6: doctor and room, room busy: 409, doctor still free."""
    await _clinic(server, schedule("p1", "Practitioner/p1"), schedule("room", "Location/room"))
    room = proposed(morning(), "room", actors=("Location/room",))
    assert (await ask(server, call("book", appointment=room))).status == 201

    both = proposed(morning(), "p1", "room", actors=("Practitioner/p1", "Location/room"))
    refused = await ask(server, call("book", appointment=both))
    assert is_taken(refused)
    assert "Location/room" in refused.body.decode()
    assert await total(server, "Slot") == 1
    assert (await ask(server, _book(morning()))).status == 201


async def test_an_appointment_is_moved(server: Server) -> None:
    """S7: overlapping its own time: 200; onto a taken time: 409, the old time still taken."""
    await _clinic(server)
    booked = booked_in(await ask(server, _book(morning(), 1)))
    other = booked_in(await ask(server, _book(morning() + timedelta(hours=1), 2)))

    moved = await ask(
        server, call("reschedule", booked["id"], start=morning() + timedelta(minutes=15))
    )
    after = booked_in(moved)
    assert moved.status == 200
    assert after["id"] == booked["id"]
    assert datetime.fromisoformat(after["start"]) == morning() + timedelta(minutes=15)
    assert datetime.fromisoformat(after["end"]) == morning() + timedelta(minutes=45)
    assert await total(server, "Slot") == 2  # the one of the old time is gone
    slot = await read(server, after["slot"][0]["reference"])
    assert (slot["status"], slot["start"]) == ("busy", after["start"])

    refused = await ask(
        server, call("reschedule", booked["id"], start=datetime.fromisoformat(other["start"]))
    )
    assert is_taken(refused)
    assert is_taken(await ask(server, _book(morning() + timedelta(minutes=30), 3)))
    assert (await ask(server, _book(morning() - timedelta(minutes=15), 3))).status == 201


async def test_an_appointment_is_moved_to_another_doctor(server: Server) -> None:
    """With ``schedule``: who takes part changes with it."""
    await _clinic(server)
    booked = booked_in(await ask(server, _book(morning(), 1)))
    answer = await ask(
        server, call("reschedule", booked["id"], start=morning(), schedule="Schedule/p2")
    )
    after = booked_in(answer)
    assert answer.status == 200
    assert [p["actor"]["reference"] for p in after["participant"]] == [
        "Practitioner/p2",
        "Patient/1",
    ]
    slot = await read(server, after["slot"][0]["reference"])
    assert slot["schedule"]["reference"] == "Schedule/p2"
    assert (await ask(server, _book(morning(), 2))).status == 201


async def test_an_appointment_is_cancelled_once(server: Server) -> None:
    """S8: ``$cancel`` of ``arrived``: 409; two parallel cancels: one 200, one 409."""
    await _clinic(server)
    booked = booked_in(await ask(server, _book(morning(), 1)))
    answers = await asyncio.gather(
        *(ask(server, call("cancel", booked["id"], reason="pat")) for _ in range(2))
    )
    assert sorted(one.status for one in answers) == [200, 409]
    assert all(is_ruled_out(one) for one in answers if one.status == 409)
    after = await read(server, f"Appointment/{booked['id']}")
    assert after["status"] == "cancelled"
    assert after["cancelationReason"]["coding"][0]["code"] == "pat"
    assert await total(server, "Slot") == 0

    again = booked_in(await ask(server, _book(morning(), 2)))
    arrived = {**again, "status": "arrived"}
    assert (await ask(server, put(arrived))).status == 200
    assert is_ruled_out(await ask(server, call("cancel", again["id"])))


async def test_a_slot_of_a_client_is_taken_and_given_back(server: Server) -> None:
    """A Slot that a client has made is busy as long as its appointment is; then it is free."""
    await _clinic(server)
    start = morning()
    times = {"start": start.isoformat(), "end": (start + timedelta(minutes=30)).isoformat()}
    made: dict[str, Any] = {"resourceType": "Slot", "id": "own", "status": "free", **times}
    made["schedule"] = {"reference": "Schedule/p1"}
    assert (await ask(server, put(made))).status == 201
    asked = proposed(start, actors=("Practitioner/p1",), slot=[{"reference": "Slot/own"}])
    del asked["contained"]

    booked = booked_in(await ask(server, call("book", appointment_resource=asked)))
    assert booked["slot"] == [{"reference": "Slot/own"}]
    assert (await read(server, "Slot/own"))["status"] == "busy"
    assert is_taken(await ask(server, call("book", appointment_resource=asked)))
    assert (await ask(server, call("cancel", booked["id"]))).status == 200
    assert (await read(server, "Slot/own"))["status"] == "free"


async def test_limits_and_notice_are_kept(server: Server) -> None:
    """S10: limit 3 a day, 32 parallel: 3; notice PT2H, start in an hour: 409."""
    limit = [{"url": "count", "valuePositiveInt": 3}, {"url": "per", "valueCode": "day"}]
    await _clinic(
        server,
        schedule("p1", "Practitioner/p1", bookingLimit=limit),
        schedule("p2", "Practitioner/p2", minimumNotice=timedelta(hours=2)),
    )
    midnight = morning().replace(hour=0)
    requests = [
        call(
            "book",
            appointment=proposed(midnight + timedelta(minutes=30 * n), "p1"),
            patient_reference=f"Patient/{n}",
        )
        for n in range(32)
    ]
    answers = await asyncio.gather(*(ask(server, one) for one in requests))
    assert Counter(one.status for one in answers) == {201: 3, 409: 29}
    assert all(is_ruled_out(one) for one in answers if one.status == 409)

    soon = server.context.now().replace(second=0, microsecond=0) + timedelta(hours=1)
    soon -= timedelta(minutes=soon.minute % 30)
    assert is_ruled_out(await ask(server, call("book", appointment=proposed(soon, "p2"))))
    late = morning(200)
    assert is_ruled_out(await ask(server, call("book", appointment=proposed(late, "p2"))))


async def test_a_series_is_booked_as_a_whole(server: Server) -> None:
    """S13: series of 6, one taken: 409, nothing written; else six, a week apart, one identifier."""
    await _clinic(server)
    taken = booked_in(await ask(server, _book(morning() + timedelta(weeks=3), 9)))
    written = await total(server, "Appointment")
    refused = await ask(server, _book(morning(), 1, occurrence_count=6))
    assert is_taken(refused)
    assert await total(server, "Appointment") == written
    assert await total(server, "Slot") == written

    assert (await ask(server, call("cancel", taken["id"]))).status == 200
    answer = await ask(server, _book(morning(), 1, occurrence_count=6))
    found = [entry["resource"] for entry in decode(answer.body)["entry"]]
    booked = [one for one in found if one["resourceType"] == "Appointment"]
    assert answer.status == 201
    assert len(booked) == 6
    starts = [datetime.fromisoformat(one["start"]) for one in booked]
    assert starts == [morning() + timedelta(weeks=n) for n in range(6)]
    [name] = {one["identifier"][0]["value"] for one in booked}
    assert await total(server, "Appointment", identifier=name) == 6


async def test_two_servers_give_a_time_once(
    server: Server, mongodb_uri: str, settings: Settings
) -> None:
    """Two processes on one MongoDB are two writers like any others."""
    await _clinic(server)
    async with opened(settings, mongodb_uri) as second:
        for number in range(ROUNDS):
            start = morning() + timedelta(minutes=30 * number)
            servers = [(server, second)[n % 2] for n in range(16)]
            answers = await asyncio.gather(
                *(ask(one, _book(start, n)) for n, one in enumerate(servers))
            )
            assert Counter(one.status for one in answers) == {201: 1, 409: 15}
