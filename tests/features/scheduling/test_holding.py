"""design/scheduling.md, section 4: no time is given twice, whichever way it is written."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fhir_server.app import Server, opened
from fhir_server.dispatch import answer
from fhir_server.features.scheduling.parameters import PARAMETERS
from fhir_server.messages import Request, Response
from fhir_server.r4.json import decode
from fhir_server.settings import Settings
from fhir_server.store.changes import Change
from fhir_server.store.client import UnfitDatabaseError
from fhir_server.store.granules import BOOKINGS, GRANULES
from fhir_server.store.writer import Writer
from tests.conftest import Fhir

BASE = "http://fhir.example.org/fhir"
MORNING = datetime(2036, 12, 1, 9, tzinfo=UTC)


def at(minutes: int) -> str:
    """Return the instant so many minutes after nine."""
    return (MORNING + timedelta(minutes=minutes)).isoformat()


def schedule(id: str, *actors: str, **more: Any) -> dict[str, Any]:
    """Return the Schedule of ``actors``."""
    who = [{"reference": one} for one in actors]
    return {"resourceType": "Schedule", "id": id, "actor": who, **more}


def slot(id: str, of: str, start: int, end: int, status: str = "busy") -> dict[str, Any]:
    """Return a Slot of the Schedule ``of``."""
    return {
        "resourceType": "Slot",
        "id": id,
        "schedule": {"reference": f"Schedule/{of}"},
        "status": status,
        "start": at(start),
        "end": at(end),
    }


def appointment(
    start: int, end: int, *actors: str, status: str = "booked", **more: Any
) -> dict[str, Any]:
    """Return an Appointment with ``actors``."""
    return {
        "resourceType": "Appointment",
        "status": status,
        "start": at(start),
        "end": at(end),
        "participant": [{"actor": {"reference": one}, "status": "accepted"} for one in actors],
        **more,
    }


def create(body: dict[str, Any]) -> Request:
    """Return the request that creates ``body``."""
    return Request("create", body["resourceType"], body=body, base_url=BASE)


def put(body: dict[str, Any], **more: Any) -> Request:
    """Return the request that puts ``body`` where its id says."""
    return Request("update", body["resourceType"], body["id"], body=body, base_url=BASE, **more)


def bundle(*bodies: dict[str, Any], type: str = "transaction") -> Request:
    """Return a bundle that puts ``bodies``, or creates those without an id."""
    entries = [
        {
            "resource": one,
            "request": {"method": "PUT", "url": f"{one['resourceType']}/{one['id']}"}
            if "id" in one
            else {"method": "POST", "url": one["resourceType"]},
        }
        for one in bodies
    ]
    body = {"resourceType": "Bundle", "type": type, "entry": entries}
    return Request("transaction", body=body, base_url=BASE)


async def read(fhir: Fhir, place: str) -> dict[str, Any]:
    """Return the resource at ``place``."""
    type, _, id = place.partition("/")
    response = await fhir(Request("read", type, id, base_url=BASE))
    assert response.status == 200, place
    found: dict[str, Any] = decode(response.body)
    return found


@pytest.fixture
async def clinic(fhir: Fhir) -> Fhir:
    """A clinic with two doctors and a room, each with a Schedule."""
    for one in (
        schedule("d1", "Practitioner/p1", "Location/building"),
        schedule("d2", "Practitioner/p2", "Location/building"),
        schedule("room", "Location/room1"),
    ):
        assert (await fhir(put(one))).status == 201
    return fhir


async def test_a_time_is_given_once(clinic: Fhir, server: Server) -> None:
    """And says who is taken, not by whom."""
    first = await clinic(create(appointment(0, 30, "Practitioner/p1", "Patient/a")))
    second = await clinic(create(appointment(15, 45, "Practitioner/p1", "Patient/b")))
    after = await clinic(create(appointment(30, 60, "Practitioner/p1", "Patient/b")))

    assert (first.status, second.status, after.status) == (201, 409, 201)
    issues = decode(second.body)["issue"]
    assert [(one["severity"], one["code"]) for one in issues] == [
        ("error", "conflict"),
        ("fatal", "not-found"),
    ]
    assert "Practitioner/p1 is taken" in issues[0]["diagnostics"]
    assert "Appointment/" not in second.body.decode()
    assert await server.database[GRANULES].count_documents({}) == 2 * 12
    assert await server.database[BOOKINGS].count_documents({}) == 2


@pytest.mark.parametrize("contenders", [64])
async def test_of_many_at_once_one_succeeds(clinic: Fhir, contenders: int) -> None:
    """Whichever way they write: alone, in a bundle, as a Slot."""
    bodies = [
        appointment(n % 3 * 5, n % 3 * 5 + 30, "Practitioner/p1", f"Patient/{n}")
        for n in range(contenders)
    ]
    asked = [clinic(bundle(one) if n % 3 == 1 else create(one)) for n, one in enumerate(bodies)]
    slots = [clinic(put(slot(f"s{n}", "d1", 10, 20))) for n in range(3)]
    statuses = [one.status for one in await asyncio.gather(*asked, *slots)]

    assert sum(one < 300 for one in statuses) == 1
    assert {one for one in statuses if one >= 300} == {409}


async def test_places_beside_people_block_nobody(clinic: Fhir) -> None:
    """A building that stands in the Schedules of two doctors holds both; a room of its own does
    not."""
    both = ("Location/building", "Location/room1")
    first = await clinic(create(appointment(0, 30, "Practitioner/p1", both[0], "Patient/a")))
    second = await clinic(create(appointment(0, 30, "Practitioner/p2", *both, "Patient/b")))
    third = await clinic(create(appointment(35, 60, "Practitioner/p1", *both, "Patient/c")))
    fourth = await clinic(create(appointment(40, 60, "Practitioner/p2", *both, "Patient/d")))
    doctor = await clinic(create(appointment(40, 60, "Practitioner/p2", "Patient/d")))

    assert [one.status for one in (first, second, third, fourth, doctor)] == [
        *(201, 201, 201, 409, 201)
    ]


async def test_a_patient_is_in_one_place(clinic: Fhir) -> None:
    """Two appointments of one patient at a time are refused."""
    first = await clinic(create(appointment(0, 30, "Practitioner/p1", "Patient/a")))
    second = await clinic(create(appointment(0, 30, "Practitioner/p2", "Patient/a")))

    assert (first.status, second.status) == (201, 409)


async def test_what_is_optional_takes_nothing(clinic: Fhir) -> None:
    """Who need not be there, or has declined, is not taken."""
    one = appointment(0, 30, "Practitioner/p1", "Practitioner/p2", "Patient/a")
    one["participant"][1]["required"] = "information-only"
    await clinic(create(one))

    assert (await clinic(create(appointment(0, 30, "Practitioner/p2")))).status == 201


async def test_a_role_counts_as_its_practitioner(clinic: Fhir) -> None:
    """Whichever of the two the Schedule and the appointment name."""
    role = {"resourceType": "PractitionerRole", "id": "r3"}
    role["practitioner"] = {"reference": "Practitioner/p3"}  # type: ignore[assignment]
    await clinic(put(role))
    await clinic(put(schedule("d3", "PractitionerRole/r3")))
    first = await clinic(create(appointment(0, 30, "Practitioner/p3", "Patient/a")))
    second = await clinic(create(appointment(0, 30, "PractitionerRole/r3", "Patient/b")))

    assert (first.status, second.status) == (201, 409)


@pytest.mark.parametrize("status", ["cancelled", "noshow", "entered-in-error"])
async def test_what_ends_is_free_again(clinic: Fhir, server: Server, status: str) -> None:
    """And nothing of it is left."""
    one = {**appointment(0, 30, "Practitioner/p1", "Patient/a"), "id": "x"}
    await clinic(put(one))
    assert (await clinic(put({**one, "status": status}))).status == 200

    assert await server.database[GRANULES].count_documents({}) == 0
    assert await server.database[BOOKINGS].count_documents({}) == 0
    assert (await clinic(create(appointment(0, 30, "Practitioner/p1")))).status == 201


async def test_a_deleted_one_is_free_again(clinic: Fhir, server: Server) -> None:
    """As is one that is patched."""
    one = {**appointment(0, 30, "Practitioner/p1", "Patient/a"), "id": "x"}
    await clinic(put(one))
    await clinic(Request("delete", "Appointment", "x"))

    assert await server.database[GRANULES].count_documents({}) == 0


async def test_moved_over_its_own_time(clinic: Fhir) -> None:
    """S7: a time that overlaps its own is fine; a taken one is refused and nothing is lost."""
    one = {**appointment(0, 30, "Practitioner/p1", "Patient/a"), "id": "x"}
    await clinic(put(one))
    await clinic(create(appointment(45, 60, "Practitioner/p1", "Patient/b")))
    moved = await clinic(put({**one, "start": at(10), "end": at(40)}))
    taken = await clinic(put({**one, "start": at(20), "end": at(50)}))
    freed = await clinic(create(appointment(0, 10, "Practitioner/p1", "Patient/c")))
    kept = await clinic(create(appointment(35, 45, "Practitioner/p1", "Patient/c")))

    assert [one.status for one in (moved, taken, freed, kept)] == [200, 409, 201, 409]


async def test_slots_go_with_their_appointment(clinic: Fhir) -> None:
    """A Slot that is free becomes busy, and free again; it cannot be set free in between."""
    await clinic(put(slot("s", "d1", 0, 30, "free")))
    one = {**appointment(0, 30, "Patient/a", slot=[{"reference": "Slot/s"}]), "id": "x"}
    assert (await clinic(put(one))).status == 201
    assert (await read(clinic, "Slot/s"))["status"] == "busy"
    refused = await clinic(put(slot("s", "d1", 0, 30, "free")))
    gone = await clinic(Request("delete", "Slot", "s"))
    assert (refused.status, gone.status) == (409, 409)
    assert (await clinic(create(appointment(0, 30, "Practitioner/p1")))).status == 409
    await clinic(put({**one, "status": "cancelled"}))
    assert (await read(clinic, "Slot/s"))["status"] == "free"
    assert (await clinic(create(appointment(0, 30, "Practitioner/p1")))).status == 201


async def test_an_appointment_takes_over_a_busy_slot(clinic: Fhir) -> None:
    """The Slot that it refers to is its own; another's is not."""
    assert (await clinic(put(slot("s", "d1", 0, 30)))).status == 201
    other = await clinic(create(appointment(0, 30, "Practitioner/p1", "Patient/b")))
    own = appointment(0, 30, "Practitioner/p1", "Patient/a", slot=[{"reference": "Slot/s"}])
    assert (await clinic(create(own))).status == 201
    again = await clinic(create(own))

    assert (other.status, again.status) == (409, 409)


async def test_together_in_a_bundle(clinic: Fhir) -> None:
    """Slot and Appointment in one transaction, in either order."""
    one = appointment(0, 30, "Patient/a", slot=[{"reference": "Slot/s"}])
    made = await clinic(bundle(slot("s", "d1", 0, 30), {**one, "id": "x"}))
    assert made.status == 200
    freed = await clinic(
        bundle(slot("s", "d1", 0, 30, "free"), {**one, "id": "x", "status": "cancelled"})
    )
    assert freed.status == 200
    assert (await clinic(create(appointment(0, 30, "Practitioner/p1")))).status == 201


HOLD = {"url": "urn:fhir-server:StructureDefinition:hold-expires"}


def held(id: str, seconds: float, patient: str = "Patient/a") -> dict[str, Any]:
    """Return a hold that expires in so many seconds."""
    expires = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")
    one = appointment(0, 30, "Practitioner/p1", patient, status="pending")
    return {**one, "id": id, "extension": [{**HOLD, "valueDateTime": expires}]}


async def test_a_hold_holds_until_it_expires(clinic: Fhir, server: Server) -> None:
    """S4: then whoever comes has the time, the hold is cancelled, and nothing is left of it."""
    assert (await clinic(put(held("h", 0.4)))).status == 201
    early = await clinic(create(appointment(20, 30, "Practitioner/p1", "Patient/b")))
    await asyncio.sleep(0.5)
    late = await clinic(create(appointment(20, 30, "Practitioner/p1", "Patient/b")))

    assert (early.status, late.status) == (409, 201)
    assert (await read(clinic, "Appointment/h"))["status"] == "cancelled"
    assert await server.database[GRANULES].count_documents({"h.a": "Appointment/h"}) == 0
    confirmed = {**held("h", 60), "status": "booked"}
    assert (await clinic(put(confirmed))).status == 409


async def test_a_hold_that_is_confirmed_stays(clinic: Fhir) -> None:
    """Pending becomes booked; the end of the hold means nothing then."""
    await clinic(put(held("h", 0.3)))
    assert (await clinic(put({**held("h", 60), "status": "booked"}))).status == 200
    await asyncio.sleep(0.4)
    late = await clinic(create(appointment(20, 30, "Practitioner/p1", "Patient/b")))

    assert late.status == 409


async def test_what_is_over_takes_nothing(clinic: Fhir) -> None:
    """What is imported of the past is not compared."""
    past = {"start": "2020-01-01T09:00:00Z", "end": "2020-01-01T09:30:00Z"}
    one = {**appointment(0, 30, "Practitioner/p1", status="fulfilled"), **past}
    statuses = [(await clinic(create(one))).status for _ in range(2)]

    assert statuses == [201, 201]


@pytest.mark.parametrize(
    ("before", "after", "status"),
    [
        ("", "fulfilled", 409),
        ("", "waitlist", 201),
        ("", "cancelled", 201),
        ("booked", "fulfilled", 409),
        ("booked", "arrived", 200),
        ("booked", "pending", 409),
        ("cancelled", "booked", 409),
    ],
)
async def test_states(clinic: Fhir, before: str, after: str, status: int) -> None:
    """Section 5 of the design page."""
    one = {**appointment(0, 30, "Practitioner/p1"), "id": "x"}
    if before == "cancelled":
        await clinic(put(one))
    if before:
        assert (await clinic(put({**one, "status": before}))).status < 300

    assert (await clinic(put({**one, "status": after}))).status == status


@pytest.mark.parametrize(("type", "together"), [("MedicationRequest", True), ("Slot", False)])
async def test_what_is_seldom_refused_is_committed_together(
    clinic: Fhir, monkeypatch: pytest.MonkeyPatch, type: str, together: bool
) -> None:
    """Orders of medicines are looked at by a rule that refuses none; Slots by one that does."""
    sizes: list[int] = []
    each = Writer.each

    async def counted(self: Writer, changes: Sequence[Change], *more: Any) -> Any:
        sizes.append(len(changes))
        return await each(self, changes, *more)

    monkeypatch.setattr(Writer, "each", counted)
    order = {"status": "active", "intent": "order", "subject": {"reference": "Patient/a"}}
    order |= {"resourceType": "MedicationRequest", "medicationCodeableConcept": {"text": "x"}}
    some = [order if type == "MedicationRequest" else slot("", "d1", n, n + 1) for n in range(12)]
    bodies = [{name: value for name, value in one.items() if name != "id"} for one in some]
    found = await asyncio.gather(*(clinic(create(one)) for one in bodies))
    assert (max(sizes) > 1) is together
    if together:
        assert {one.status for one in found} == {201}


async def test_blocks(clinic: Fhir) -> None:
    """A blocked time is taken; one of more than 31 days is refused."""
    block = slot("b", "d1", 0, 24 * 60, "busy-unavailable")
    assert (await clinic(put(block))).status == 201
    assert (await clinic(create(appointment(600, 630, "Practitioner/p1")))).status == 409
    long = slot("c", "d2", 0, 32 * 24 * 60, "busy-unavailable")
    assert (await clinic(put(long))).status == 409
    assert (await clinic(put({**block, "status": "free"}))).status == 200
    assert (await clinic(create(appointment(600, 630, "Practitioner/p1")))).status == 201


async def test_the_end_of_time(clinic: Fhir) -> None:
    """There is time behind every appointment, for its buffer."""
    buffer = {"url": "bufferAfter", "valueDuration": {"value": 2, "unit": "h"}}
    rules = {"extension": [{"url": PARAMETERS, "extension": [buffer]}]}
    assert (await clinic(put(schedule("d9", "Practitioner/p9", **rules)))).status == 201
    last = {"start": "9999-12-31T22:30:00Z", "end": "9999-12-31T23:00:00Z"}
    one = {**appointment(0, 30, "Practitioner/p9"), **last}
    assert (await clinic(create(one))).status == 409


async def test_two_processes(clinic: Fhir, mongodb_uri: str, settings: Settings) -> None:
    """Two servers on one database give a time once."""
    async with opened(settings, mongodb_uri) as other:

        async def there(request: Request) -> Response:
            return await answer(other.registry, request, other.context)

        for round in range(5):
            start = round * 60
            asked = [
                (clinic if n % 2 else there)(
                    create(appointment(start, start + 30, "Practitioner/p1", f"Patient/{n}"))
                )
                for n in range(16)
            ]
            statuses = [one.status for one in await asyncio.gather(*asked)]
            assert sorted(statuses) == [201, *[409] * 15]


def parameters(**parts: Any) -> dict[str, Any]:
    """Return the extension of a Schedule with ``parts``."""
    said = [{"url": name, **value} for name, value in parts.items()]
    return {"url": PARAMETERS, "extension": said}


def lasting(count: int) -> dict[str, Any]:
    """Return a Duration in minutes."""
    unit = {"unit": "min", "system": "http://unitsofmeasure.org", "code": "min"}
    return {"valueDuration": {"value": count, **unit}}


async def test_buffers_are_taken_too(clinic: Fhir) -> None:
    """Before and after; a patient needs none."""
    buffers = parameters(bufferBefore=lasting(5), bufferAfter=lasting(10))
    await clinic(put(schedule("d1", "Practitioner/p1", extension=[buffers])))
    first = await clinic(create(appointment(0, 30, "Practitioner/p1", "Patient/a")))
    early = await clinic(create(appointment(40, 60, "Practitioner/p1", "Patient/b")))
    late = await clinic(create(appointment(45, 60, "Practitioner/p1", "Patient/a")))

    assert [one.status for one in (first, early, late)] == [201, 409, 201]


async def test_capacity(clinic: Fhir) -> None:
    """S3: with room for five, exactly five of 64 at once, and no more after an expired hold."""
    five = parameters(slotCapacity={"valuePositiveInt": 5})
    await clinic(put(schedule("d1", "Practitioner/p1", extension=[five])))
    for n in range(3):
        assert (await clinic(put(held(f"h{n}", 0.2, f"Patient/h{n}")))).status == 201
    assert (await clinic(put(held("live", 600, "Patient/live")))).status == 201
    await asyncio.sleep(0.25)
    asked = [
        clinic(create(appointment(n % 3 * 5, 30, "Practitioner/p1", f"Patient/{n}")))
        for n in range(64)
    ]
    statuses = [one.status for one in await asyncio.gather(*asked)]

    assert statuses.count(201) == 4
    assert set(statuses) == {201, 409}


async def test_a_limit_of_a_day(clinic: Fhir) -> None:
    """S10: three a day, of 32 who want different times at once; another day is another matter."""
    inside = [{"url": "count", "valuePositiveInt": 3}, {"url": "per", "valueCode": "day"}]
    limit = parameters(bookingLimit={"extension": inside})
    await clinic(put(schedule("d1", "Practitioner/p1", extension=[limit])))
    asked = [
        clinic(create(appointment(n * 10, n * 10 + 10, "Practitioner/p1", f"Patient/{n}")))
        for n in range(32)
    ]
    answers = await asyncio.gather(*asked)
    refused = next(one for one in answers if one.status == 409)
    day = 24 * 60
    tomorrow = await clinic(create(appointment(day, day + 10, "Practitioner/p1")))

    assert sorted(one.status for one in answers) == [201] * 3 + [409] * 29
    assert decode(refused.body)["issue"][0]["code"] == "business-rule"
    assert tomorrow.status == 201


async def test_granules_keep_their_length(
    clinic: Fhir, mongodb_uri: str, settings: Settings
) -> None:
    """While times ahead are taken; what is on one grid is not seen on the other."""
    one = {**appointment(0, 30, "Practitioner/p1"), "id": "x"}
    await clinic(put(one))
    others = settings.model_copy(update={"scheduling_granule_minutes": 15})
    with pytest.raises(UnfitDatabaseError, match="pieces of 5 minutes"):
        async with opened(others, mongodb_uri):
            pass
    await clinic(put({**one, "status": "cancelled"}))
    async with opened(others, mongodb_uri) as server:
        await answer(server.registry, put({**one, "id": "y"}), server.context)
        assert await server.database[GRANULES].count_documents({}) == 2
