"""design/scheduling.md, S4 and S15: what ``$find`` proposes is held, booked and allocated."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from fhir_server.app import Server, opened
from fhir_server.messages import Request, Resource, Response
from fhir_server.r4.json import decode
from fhir_server.security.principal import Principal
from fhir_server.settings import Settings
from tests.conftest import drop
from tests.features.scheduling.clinic import (
    ALIAS,
    BASE,
    ask,
    booked_in,
    call,
    is_taken,
    morning,
    put,
    read,
    schedule,
    total,
)

AMINA = Principal("user", "amina", roles=("patient",), fhir_user="Patient/amina")
KARIM = Principal("user", "karim", roles=("patient",), fhir_user="Patient/karim")
DESK = Principal("user", "desk", roles=("front-desk",), fhir_user="Practitioner/desk")


def _doctor(id: str, gender: str, *languages: str) -> Resource:
    spoken = [{"coding": [{"system": "urn:ietf:bcp:47", "code": one}]} for one in languages]
    return {
        "resourceType": "Practitioner",
        "id": id,
        "gender": gender,
        "communication": spoken or [{"text": "none"}],
    }


WORLD: list[Resource] = [
    {"resourceType": "Patient", "id": "amina"},
    {"resourceType": "Patient", "id": "karim"},
    {"resourceType": "HealthcareService", "id": "general", "active": True},
    {"resourceType": "HealthcareService", "id": "other", "active": True},
    _doctor("p1", "male", "en"),
    _doctor("p2", "female", "bn-BD", "en"),
    _doctor("p3", "female", "en"),
    schedule(
        "p1",
        *("Practitioner/p1", "HealthcareService/general"),
        bufferAfter=timedelta(minutes=10),
    ),
    schedule("p2", "Practitioner/p2", "HealthcareService/general"),
    schedule("p3", "Practitioner/p3", "HealthcareService/general"),
    {
        "resourceType": "Schedule",
        "id": "alias",
        "active": True,
        "actor": [{"reference": "Practitioner/p9"}, {"reference": "HealthcareService/other"}],
        "extension": [
            {
                "url": ALIAS,
                "extension": [
                    {"url": "duration", "valueDuration": {"value": 60, "unit": "min"}},
                    {"url": "bufferBefore", "valueDuration": {"value": 15, "unit": "min"}},
                ],
            }
        ],
    },
]


@pytest.fixture(scope="module")
async def world(mongodb_uri: str) -> AsyncIterator[Server]:
    """A clinic for the tests of this module, each of which has a day of its own."""
    named = Settings.model_validate({"mongodb_database": f"test-{uuid4().hex[:12]}"})
    async with opened(named, mongodb_uri) as server:
        for one in WORLD:
            response = await ask(server, put(one))
            assert response.status == 201, response.body
        yield server
        await drop(server.database)


def _find(start: datetime, hours: float = 2, **more: str) -> Request:
    asked = {
        "start": start.isoformat(),
        "end": (start + timedelta(hours=hours)).isoformat(),
        **{name.replace("_", "-"): value for name, value in more.items()},
    }
    parameters = tuple(asked.items())
    return Request("$find", "Appointment", parameters=parameters, base_url=BASE, reading=True)


async def _found(server: Server, request: Request, who: Principal | None = None) -> list[Resource]:
    response = await ask(server, request, who)
    assert response.status == 200, response.body
    entries = decode(response.body).get("entry", ())
    return [one["resource"] for one in entries if one["search"]["mode"] == "match"]


def _slots(response: Response) -> list[Resource]:
    entries = decode(response.body)["entry"]
    return [e["resource"] for e in entries if e["resource"]["resourceType"] == "Slot"]


async def test_a_proposal_is_held_and_booked_by_who_asked(world: Server) -> None:
    """By its id; for another it is not there, and what is held ``$find`` does not propose."""
    asked = _find(morning(7), schedule="Schedule/p2")
    first, second, *_ = await _found(world, asked, AMINA)
    place = f"Appointment/{first['id']}"
    for who in (KARIM, DESK):
        refused = await ask(world, call("hold", appointment_reference=place), who)
        assert refused.status == 404
    answer = await ask(world, call("hold", appointment_reference=place), AMINA)
    held = booked_in(answer)
    assert (answer.status, decode(answer.body)["type"], held["status"]) == (
        201,
        "searchset",
        "pending",
    )
    assert held["start"] == first["start"]
    others = await _found(world, asked, KARIM)
    assert second["start"] in [one["start"] for one in others]
    assert first["start"] not in [one["start"] for one in others]

    answer = await ask(
        world, call("book", appointment_reference=f"Appointment/{held['id']}"), AMINA
    )
    assert (answer.status, booked_in(answer)["status"]) == (200, "booked")
    again = await ask(world, call("book", appointment_reference=place), AMINA)
    assert is_taken(again)  # the proposal lasts; its time is gone


async def test_who_is_first_has_what_was_proposed_to_several(world: Server) -> None:
    """Each asked ``$find`` for himself; one of them gets the time."""
    asked = _find(morning(8), schedule="Schedule/p2")
    requests = []
    for number in range(8):
        first, *_ = await _found(world, asked, DESK)
        place = f"Appointment/{first['id']}"
        patient = f"Patient/{number}"
        requests.append(call("book", appointment_reference=place, patient_reference=patient))
    answers = await asyncio.gather(*(ask(world, one, DESK) for one in requests))
    assert Counter(one.status for one in answers) == {201: 1, 409: 7}


async def test_buffers_are_slots_that_go_with_the_appointment(world: Server) -> None:
    """They move with it, and are taken: what would touch them is refused."""
    first, *_ = await _found(world, _find(morning(9), schedule="Schedule/p1"), AMINA)
    answer = await ask(world, call("book", appointment=first), AMINA)
    booked, start = booked_in(answer), datetime.fromisoformat(first["start"])
    busy, buffer = _slots(answer)
    assert (busy["status"], buffer["status"]) == ("busy", "busy-unavailable")
    assert datetime.fromisoformat(buffer["end"]) == start + timedelta(minutes=40)
    assert [one["reference"] for one in booked["slot"]] == [
        f"Slot/{busy['id']}",
        f"Slot/{buffer['id']}",
    ]
    later = start + timedelta(hours=1)
    moved = booked_in(await ask(world, call("reschedule", booked["id"], start=later), AMINA))
    slots = [await read(world, one["reference"]) for one in moved["slot"]]
    assert [one["status"] for one in slots] == ["busy", "busy-unavailable"]
    assert datetime.fromisoformat(slots[1]["start"]) == later + timedelta(minutes=30)
    assert await total(world, "Slot", schedule="Schedule/p1") == 2
    assert (await ask(world, call("cancel", booked["id"]), AMINA)).status == 200
    assert await total(world, "Slot", schedule="Schedule/p1") == 0


async def test_starts_and_lengths_are_as_offered_for_patients(world: Server) -> None:
    """The front desk may fit somebody in between; a patient takes what is offered."""
    first, *_ = await _found(world, _find(morning(10), schedule="Schedule/p2"), AMINA)
    start, end = (datetime.fromisoformat(first[name]) for name in ("start", "end"))
    minutes = timedelta(minutes=10)
    for low, high in ((start + minutes, end + minutes), (start, end + minutes)):
        times = {"start": low.isoformat(), "end": high.isoformat()}
        slots = [{**one, **times} for one in first["contained"]]
        odd = {**first, **times, "contained": slots}
        assert (await ask(world, call("book", appointment=odd), AMINA)).status == 409
        answer = await ask(world, call("book", appointment=odd), DESK)
        assert answer.status == 201
        await ask(world, call("cancel", booked_in(answer)["id"]), DESK)


async def test_a_series_is_found_and_booked(world: Server) -> None:
    """``$find`` with ``occurrence-count`` proposes what is free each week; all are booked."""
    asked = _find(morning(11), schedule="Schedule/p2", occurrence_count="3")
    [first, *_] = await _found(world, asked, AMINA)
    proposals = [one["resource"] for one in first["entry"]]
    place = f"Appointment/{proposals[0]['id']}"
    answer = await ask(world, call("book", appointment_reference=place), AMINA)
    booked = [one["resource"] for one in decode(answer.body)["entry"]]
    assert answer.status == 201
    assert [one["start"] for one in booked] == [one["start"] for one in proposals]
    assert len({one["identifier"][0]["value"] for one in booked}) == 1


async def test_the_shape_of_another_server(world: Server) -> None:
    """S15: Schedules with the alias extension: ``$find``, ``$hold``, ``$book`` with the whole
    Appointment that was proposed, buffers and all."""
    asked = _find(morning(12).replace(hour=0), 24, schedule="Schedule/alias")
    first, second, *_ = await _found(world, asked)
    assert [one["status"] for one in first["contained"]] == ["busy", "busy-unavailable"]
    held = await ask(world, call("hold", appointment=first))
    assert (held.status, decode(held.body)["type"]) == (201, "transaction-response")
    assert booked_in(held)["status"] == "pending"
    assert [one["status"] for one in _slots(held)] == ["busy-tentative", "busy-unavailable"]
    assert is_taken(await ask(world, call("book", appointment=first)))
    later = (await _found(world, asked))[-1]
    booked = await ask(world, call("book", appointment=later, patient_reference="Patient/amina"))
    assert (booked.status, booked_in(booked)["status"]) == (201, "booked")
    assert [one["status"] for one in _slots(booked)] == ["busy", "busy-unavailable"]
    assert len([one for one in _slots(booked) if "extension" in one]) == 0
    assert second["start"] != first["start"]


# ---------------------------------------------------------------- $allocate


def _allocate(start: datetime, hours: float = 2, **more: Any) -> Request:
    given: dict[str, Any] = {
        "patient": "Patient/karim",
        "service": "HealthcareService/general",
        "earliest": start,
        "latest": start + timedelta(hours=hours),
        **more,
    }
    several = given.pop("practitioners", ())
    timing = given.pop("timing", None)
    request = call("allocate", **given)
    assert request.body is not None
    listed = request.body["parameter"]
    listed += [{"name": "practitioner", "valueString": one} for one in several]
    if timing is not None:
        listed.append({"name": "timing", "valueTiming": timing})
    return request


async def _who(world: Server, request: Request) -> str:
    answer = await ask(world, request, DESK)
    assert answer.status == 201, answer.body
    booked = booked_in(answer)
    assert booked["status"] == "booked"
    assert booked["participant"][-1]["actor"]["reference"] == "Patient/karim"
    actor: str = booked["participant"][0]["actor"]["reference"]
    await ask(world, call("cancel", booked["id"]), DESK)
    return actor


async def test_the_best_time_is_allocated(world: Server) -> None:
    """Preferences in their order, language, gender; of equal cost the first Schedule."""
    day = morning(13)
    assert await _who(world, _allocate(day)) == "Practitioner/p1"
    assert await _who(world, _allocate(day, language="bn")) == "Practitioner/p2"
    wanted = ("Practitioner/p3", "Practitioner/p2")
    assert await _who(world, _allocate(day, practitioners=wanted)) == "Practitioner/p3"
    assert await _who(world, _allocate(day, gender="female")) == "Practitioner/p2"
    # 10 for the second place is more than 5 for the language.
    asked = _allocate(day, practitioners=wanted, language="bn")
    assert await _who(world, asked) == "Practitioner/p3"


async def test_a_short_gap_is_avoided(world: Server) -> None:
    """Rather half an hour later than a gap that nobody can use."""
    day = morning(14)
    first, *_ = await _found(world, _find(day, schedule="Schedule/p2"), DESK)
    low, high = day + timedelta(minutes=40), day + timedelta(minutes=70)
    times = {"start": low.isoformat(), "end": high.isoformat()}
    between = {**first, **times, "contained": [{**first["contained"][0], **times}]}
    assert (await ask(world, call("book", appointment=between), DESK)).status == 201
    answer = await ask(world, _allocate(day, 3, practitioners=("Practitioner/p2",)), DESK)
    # 09:00-09:30 leaves ten minutes before 09:40; 10:30 leaves twenty after 10:10; 11:00 none.
    assert datetime.fromisoformat(booked_in(answer)["start"]) == day + timedelta(hours=2)


async def test_times_that_do_not_suit_are_out(world: Server) -> None:
    """``timing``; and where nothing is left it is 404."""
    day = morning(15)
    asked = _allocate(day, 4, timing={"repeat": {"timeOfDay": ["10:30:00"]}})
    answer = await ask(world, asked, DESK)
    assert datetime.fromisoformat(booked_in(answer)["start"]) == day + timedelta(minutes=90)
    nobody = _allocate(day, gender="other")
    assert (await ask(world, nobody, DESK)).status == 404


async def test_many_allocate_at_once(world: Server) -> None:
    """Each gets a time of his own as long as there are some."""
    day = morning(16)
    requests = [_allocate(day, 1, patient=f"Patient/all{n}") for n in range(8)]
    answers = await asyncio.gather(*(ask(world, one, DESK) for one in requests))
    # Two half hours each of p2 and p3, one of p1 with its buffer: five.
    found = Counter(one.status for one in answers)
    assert found[201] == 5
    assert found[404] + found[409] == 3
    times = [booked_in(one) for one in answers if one.status == 201]
    taken = {(one["start"], one["participant"][0]["actor"]["reference"]) for one in times}
    assert len(taken) == 5


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"service": "Patient/1"}, 400),
        ({"patient": "Group/1"}, 400),
        ({"latest": morning(1)}, 400),
        ({"timing": {"repeat": {"frequency": 2}}}, 400),
        ({"unknown": "x"}, 400),
    ],
)
async def test_what_cannot_be_allocated(world: Server, given: dict[str, Any], status: int) -> None:
    """Said in one sentence."""
    answer = await ask(world, _allocate(morning(17), **given), DESK)
    assert (answer.status, decode(answer.body)["resourceType"]) == (status, "OperationOutcome")
