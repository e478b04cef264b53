"""design/scheduling.md, sections 3 to 5: who may book, confirm, cancel and override, and what they
are told."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from fhir_server.app import Server, opened
from fhir_server.messages import Request
from fhir_server.r4.json import decode
from fhir_server.security.principal import NOBODY, Principal
from fhir_server.security.scopes import OVERRIDE, scopes_of
from fhir_server.settings import Settings
from tests.conftest import drop
from tests.features.scheduling.clinic import (
    BASE,
    ask,
    booked_in,
    call,
    is_ruled_out,
    is_taken,
    issues,
    morning,
    proposed,
    put,
    read,
    schedule,
    total,
)
from tests.interactions.patches import json_patch


def _user(name: str, *roles: str, who: str = "") -> Principal:
    return Principal("user", name, roles=roles, fhir_user=who or f"Practitioner/{name}")


DESK = _user("desk", "front-desk")
LEAD = _user("lead", "front-desk-lead")
NURSE = _user("nurse", "nurse")
ANALYST = _user("analyst", "analyst")
AMINA = _user("amina", "patient", who="Patient/amina")
KARIM = _user("karim", "patient", who="Patient/karim")
APP = replace(
    LEAD, client="app", scopes=scopes_of("user/Appointment.cruds user/Schedule.rs user/Slot.rs")
)
BACKEND = Principal("client", "kiosk", scopes=scopes_of("system/*.cruds"))


async def _with_doctor(server: Server) -> Server:
    cutoffs = {"cancelCutoff": timedelta(days=1), "rescheduleCutoff": timedelta(days=2)}
    for resource in (
        schedule("p1", "Practitioner/p1", **cutoffs),
        {"resourceType": "Patient", "id": "amina"},
        {"resourceType": "Patient", "id": "karim"},
    ):
        assert (await ask(server, put(resource))).status == 201
    return server


@pytest.fixture
async def clinic(server: Server) -> Server:
    """A clinic with a doctor."""
    return await _with_doctor(server)


@pytest.fixture(scope="module")
async def shared_clinic(mongodb_uri: str) -> AsyncIterator[Server]:
    """The same, for tests that are in no other's way."""
    named = Settings.model_validate({"mongodb_database": f"test-{uuid4().hex[:12]}"})
    async with opened(named, mongodb_uri) as server:
        yield await _with_doctor(server)
        await drop(server.database)


def _book(days: int = 7, **more: Any) -> Request:
    return call("book", appointment=proposed(morning(days), "p1"), **more)


@pytest.mark.parametrize(
    ("who", "status"), [(DESK, 201), (NURSE, 201), (AMINA, 201), (ANALYST, 403), (NOBODY, 401)]
)
async def test_who_may_book(shared_clinic: Server, who: Principal, status: int) -> None:
    """Whoever may create Appointments: of those who only read them nobody."""
    answer = await ask(shared_clinic, _book(), who)
    assert answer.status == status
    if status == 201:
        await ask(shared_clinic, call("cancel", booked_in(answer)["id"]))


async def test_a_patient_books_for_himself(clinic: Server) -> None:
    """He is meant where nobody is named; for another he gets nothing, and sees nothing."""
    answer = await ask(clinic, _book(), AMINA)
    booked = booked_in(answer)
    assert [p["actor"]["reference"] for p in booked["participant"]][-1] == "Patient/amina"
    refused = await ask(clinic, _book(8, patient_reference="Patient/karim"), AMINA)
    assert refused.status == 403
    for name in ("cancel", "confirm", "reschedule"):
        given: dict[str, Any] = {"start": morning(9)} if name == "reschedule" else {}
        assert (await ask(clinic, call(name, booked["id"], **given), KARIM)).status == 404
    assert (await ask(clinic, call("cancel", booked["id"]), AMINA)).status == 200
    assert await total(clinic, "Slot") == 0


async def test_only_the_holder_or_a_scheduler_confirms(clinic: Server) -> None:
    """What another patient holds is not there for him."""
    held = booked_in(await ask(clinic, call("hold", appointment=proposed(morning(), "p1")), AMINA))
    assert (await ask(clinic, call("confirm", held["id"]), KARIM)).status == 404
    place = f"Appointment/{held['id']}"
    assert (await ask(clinic, call("book", appointment_reference=place), KARIM)).status == 404
    other = {"patient_reference": "Patient/karim"}
    stolen = await ask(clinic, call("confirm", held["id"], **other), DESK)
    assert (stolen.status, issues(stolen)) == (403, [("error", "forbidden")])
    assert (await ask(clinic, call("confirm", held["id"]), DESK)).status == 200


async def test_cutoffs_bind_patients(clinic: Server) -> None:
    """Too late for the patient is not too late for the front desk."""
    soon = morning(0) if morning(0) > clinic.context.now() else morning(1)
    soon += timedelta(minutes=30)
    asked = call("book", appointment=proposed(soon, "p1"), patient_reference="Patient/amina")
    booked = booked_in(await ask(clinic, asked, DESK))
    assert is_ruled_out(await ask(clinic, call("cancel", booked["id"]), AMINA))
    moved = call("reschedule", booked["id"], start=morning(9))
    assert is_ruled_out(await ask(clinic, moved, AMINA))
    assert (await ask(clinic, moved, DESK)).status == 200
    assert (await ask(clinic, call("cancel", booked["id"]), AMINA)).status == 200


async def test_a_patient_takes_and_frees_time_by_operations(clinic: Server) -> None:
    """What binds a patient is in these: a plain write, alone, patched or in a bundle, is no way
    around; it is one to wait for a time, and to say something."""
    times = {
        "start": morning().isoformat(),
        "end": (morning() + timedelta(minutes=30)).isoformat(),
    }
    people = [
        {"actor": {"reference": f"{who}"}, "status": "accepted"}
        for who in ("Patient/amina", "Practitioner/p1")
    ]
    plain = {"resourceType": "Appointment", **times, "participant": people}
    booked = booked_in(await ask(clinic, _book(), AMINA))
    later = (morning() + timedelta(hours=1)).isoformat()

    def create(status: str) -> Request:
        return Request("create", "Appointment", body={**plain, "status": status})

    cancelled = {**booked, "status": "cancelled"}
    entry = {
        "resource": cancelled,
        "request": {"method": "PUT", "url": f"Appointment/{booked['id']}"},
    }
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
    patch = json_patch({"op": "replace", "path": "/status", "value": "cancelled"})
    for asked in (
        *(create(status) for status in ("booked", "pending")),
        *(
            put({**booked, "status": status})
            for status in ("cancelled", "arrived", "noshow", "entered-in-error")
        ),
        put({**booked, "end": later}),
        put({**booked, "participant": booked["participant"][1:]}),
        Request("patch", "Appointment", booked["id"], body=patch),
        Request("transaction", body=bundle, base_url=BASE),
    ):
        refused = await ask(clinic, asked, AMINA)
        assert (refused.status, issues(refused)) == (403, [("error", "forbidden")]), asked
    assert (await ask(clinic, put({**booked, "comment": "By bus."}), AMINA)).status == 200

    waiting = await ask(clinic, create("waitlist"), AMINA)
    assert (
        await ask(clinic, put({**decode(waiting.body), "status": "cancelled"}), AMINA)
    ).status == 200
    soon = {"start": morning(200), "end": morning(200) + timedelta(minutes=30)}
    plain |= {name: moment.isoformat() for name, moment in soon.items()}
    beyond = decode((await ask(clinic, create("proposed"), AMINA)).body)
    assert is_ruled_out(await ask(clinic, call("confirm", beyond["id"]), AMINA))
    assert (await ask(clinic, call("confirm", beyond["id"]), DESK)).status == 200


async def test_a_patient_does_not_jump_the_queue(clinic: Server) -> None:
    """Priority and age of who waits are the clinic's to say."""
    entry = {
        "resourceType": "Appointment",
        "status": "waitlist",
        "created": datetime.now(UTC).isoformat(),
        "participant": [{"actor": {"reference": "Patient/amina"}, "status": "accepted"}],
    }
    for more in ({"priority": 1}, {"created": "2020-01-01"}):
        new = Request("create", "Appointment", body={**entry, **more})
        assert (await ask(clinic, new, AMINA)).status == 403
    made = await ask(clinic, Request("create", "Appointment", body=entry), AMINA)
    entry = {**entry, "id": decode(made.body)["id"]}
    old = {**entry, "created": "2020-01-01"}
    assert (await ask(clinic, put({**entry, "priority": 1}), DESK)).status == 200
    assert (await ask(clinic, put({**old, "priority": 1}), AMINA)).status == 403
    assert (await ask(clinic, put(entry), AMINA)).status == 403
    said = {**entry, "priority": 1, "comment": "Mornings only."}
    assert (await ask(clinic, put(said), AMINA)).status == 200


async def test_who_came_is_noted_by_the_clinic(clinic: Server) -> None:
    """``$no-show`` and ``$complete``, by the table of states."""
    booked = booked_in(await ask(clinic, _book(), AMINA))
    assert (await ask(clinic, call("no-show", booked["id"]), AMINA)).status == 403
    assert is_ruled_out(await ask(clinic, call("complete", booked["id"]), DESK))
    answer = await ask(clinic, call("no-show", booked["id"], reason="Nobody came."), DESK)
    assert (answer.status, booked_in(answer)["status"]) == (200, "noshow")
    assert booked_in(answer)["comment"] == "Nobody came."

    other = booked_in(await ask(clinic, _book(8), AMINA))
    arrived = {**other, "status": "arrived"}
    assert (await ask(clinic, put(arrived), DESK)).status == 200
    assert (
        booked_in(await ask(clinic, call("complete", other["id"]), DESK))["status"] == "fulfilled"
    )


async def test_a_time_is_overridden_by_who_has_the_right(clinic: Server) -> None:
    """The reason is in the Appointment, the Slot says that it is overbooked."""
    first = booked_in(await ask(clinic, _book(patient_reference="Patient/amina"), DESK))
    again = _book(patient_reference="Patient/karim", override="An emergency.")
    for who in (DESK, NURSE, KARIM, APP, BACKEND):
        refused = await ask(clinic, again, who)
        assert (refused.status, issues(refused)) == (403, [("error", "forbidden")]), who
    answer = await ask(clinic, again, LEAD)
    entries = [entry["resource"] for entry in decode(answer.body)["entry"]]
    assert answer.status == 201
    assert [e["valueString"] for e in entries[0]["extension"]] == ["An emergency."]
    assert entries[1]["overbooked"] is True
    assert "overbooked" not in await read(clinic, first["slot"][0]["reference"])
    with_scope = replace(APP, others=(OVERRIDE,))
    third = _book(override="Another.")
    assert (await ask(clinic, third, with_scope)).status == 201
    assert (await ask(clinic, third, replace(BACKEND, others=(OVERRIDE,)))).status == 201
    no_reason = await ask(clinic, _book(override=" "), LEAD)
    assert no_reason.status == 400
    trail = await ask(clinic, Request("search-type", "AuditEvent", parameters=(("_count", "50"),)))
    said = [one["resource"].get("outcomeDesc") for one in decode(trail.body)["entry"]]
    assert said.count("Override: An emergency.") == 2  # of the Appointment and of its Slot


async def test_a_write_is_overridden_by_a_header(clinic: Server) -> None:
    """X-Override-Reason on a plain write, and on a bundle; without the right it is refused."""
    await ask(clinic, _book(patient_reference="Patient/amina"), DESK)
    body = {**proposed(morning(), actors=("Practitioner/p1",)), "status": "booked"}
    body = {name: value for name, value in body.items() if value}
    create = Request("create", "Appointment", body=body, base_url=BASE)
    assert is_taken(await ask(clinic, create, LEAD))
    overriding = replace(create, override="Twins.")
    assert (await ask(clinic, overriding, DESK)).status == 403
    answer = await ask(clinic, overriding, LEAD)
    assert answer.status == 201
    place = answer.location.partition("/_history")[0]
    [why] = (await read(clinic, place))["extension"]
    assert why["valueString"] == "Twins."
    entry = {"resource": body, "request": {"method": "POST", "url": "Appointment"}}
    for kind in ("transaction", "batch"):
        bundle = {"resourceType": "Bundle", "type": kind, "entry": [entry]}
        asked = Request("transaction", body=bundle, base_url=BASE, override="Triplets.")
        [said] = decode((await ask(clinic, asked, LEAD)).body)["entry"]
        assert said["response"]["status"].startswith("201"), kind
    reading = Request("read", "Appointment", place.partition("/")[2], override="x")
    assert (await ask(clinic, reading, DESK)).status == 200


async def test_an_app_of_a_patient_books_for_that_patient(clinic: Server) -> None:
    """With the scopes for it, and nothing else."""
    scopes = scopes_of("patient/Appointment.cu patient/Appointment.rs patient/Schedule.rs")
    app = replace(AMINA, client="app", patient="amina", scopes=scopes)
    assert (await ask(clinic, _book(), app)).status == 201
    reading = replace(app, scopes=scopes_of("patient/Appointment.rs"))
    assert (await ask(clinic, _book(8), reading)).status == 403


async def test_a_booking_sent_again_is_the_same_booking(clinic: Server) -> None:
    """Idempotency-Key: also when both are under way at once; a refusal is judged anew."""
    asked = replace(_book(patient_reference="Patient/amina"), idempotency_key="k1")
    answers = await asyncio.gather(*(ask(clinic, asked, DESK) for _ in range(8)))
    assert {answer.status for answer in answers} == {201}
    assert len({booked_in(answer)["id"] for answer in answers}) == 1
    assert await total(clinic, "Appointment") == 1
    other = replace(_book(patient_reference="Patient/karim"), idempotency_key="k2")
    assert is_taken(await ask(clinic, other, DESK))
    cancel = replace(call("cancel", booked_in(answers[0])["id"]), idempotency_key="k3")
    assert [(await ask(clinic, cancel, DESK)).status for _ in range(2)] == [200, 200]
    assert (await ask(clinic, other, DESK)).status == 201


async def test_bookings_in_a_batch_stand_each_for_itself(clinic: Server) -> None:
    """And a batch that is sent again with its key books nothing twice."""
    calls = [_book(days).body for days in (7, 7, 8)]
    entries = [
        {"resource": body, "request": {"method": "POST", "url": "Appointment/$book"}}
        for body in calls
    ]
    bundle = {"resourceType": "Bundle", "type": "batch", "entry": entries}
    asked = Request("transaction", body=bundle, base_url=BASE, idempotency_key="k")
    found = [decode((await ask(clinic, asked, DESK)).body)["entry"] for _ in range(2)]
    for said in found:
        statuses = sorted(one["response"]["status"][:3] for one in said)
        assert statuses == ["201", "201", "409"]
    assert await total(clinic, "Appointment") == 2
    bundle = {**bundle, "type": "transaction"}
    refused = await ask(clinic, Request("transaction", body=bundle, base_url=BASE), DESK)
    assert (refused.status, issues(refused)[0][1]) == (400, "not-supported")


async def test_the_answer_follows_the_question(clinic: Server) -> None:
    """S15: a whole ``appointment`` gets a transaction-response with its Slots, IHE names a
    searchset; both say where the Appointment is."""
    answer = await ask(clinic, _book(comment="Brings her own cuff."), DESK)
    bundle = decode(answer.body)
    assert bundle["type"] == "transaction-response"
    assert [entry["resource"]["resourceType"] for entry in bundle["entry"]] == [
        "Appointment",
        "Slot",
    ]
    booked, slot = (entry["resource"] for entry in bundle["entry"])
    assert answer.location == f"Appointment/{booked['id']}/_history/1"
    assert bundle["entry"][0]["response"]["status"] == "201 Created"
    assert booked["comment"] == "Brings her own cuff."
    assert "contained" not in booked
    assert booked["slot"] == [{"reference": f"Slot/{slot['id']}"}]
    assert slot["schedule"] == {"reference": "Schedule/p1"}

    asked = proposed(morning(8), actors=("Practitioner/p1",))
    asked = {name: value for name, value in asked.items() if value}
    answer = await ask(clinic, call("book", appointment_resource=asked), DESK)
    bundle = decode(answer.body)
    assert (answer.status, bundle["type"], bundle["total"]) == (201, "searchset", 1)
    assert bundle["entry"][0]["fullUrl"] == f"{BASE}/Appointment/{booked_in(answer)['id']}"


async def test_an_appointment_resource_that_is_there_is_moved_or_cancelled(clinic: Server) -> None:
    """IHE ITI-117: ``$book`` with the id of one that is there."""
    booked = booked_in(await ask(clinic, _book(), DESK))
    later = morning() + timedelta(hours=3)
    there = {
        **booked,
        "start": later.isoformat(),
        "end": (later + timedelta(minutes=30)).isoformat(),
    }
    answer = await ask(clinic, call("book", appointment_resource=there), DESK)
    assert (answer.status, booked_in(answer)["start"]) == (200, there["start"])
    gone = {**booked_in(answer), "status": "cancelled", "cancelationReason": {"text": "ill"}}
    answer = await ask(clinic, call("book", appointment_resource=gone), DESK)
    assert booked_in(answer)["cancelationReason"] == {"text": "ill"}


async def test_a_patient_is_created_with_the_appointment(clinic: Server) -> None:
    """Or neither is there; one that is there already is meant, and stays as it is."""
    person = {"resourceType": "Patient", "name": [{"family": "Hossain"}]}
    booked = booked_in(await ask(clinic, _book(patient_resource=person), DESK))
    patient = booked["participant"][-1]["actor"]["reference"]
    assert (await read(clinic, patient))["name"] == [{"family": "Hossain"}]
    assert is_taken(await ask(clinic, _book(patient_resource=person), DESK))
    assert await total(clinic, "Patient", family="Hossain") == 1
    there = {"resourceType": "Patient", "id": "amina"}
    answer = await ask(clinic, _book(8, patient_resource=there), DESK)
    assert booked_in(answer)["participant"][-1]["actor"]["reference"] == "Patient/amina"
    assert await total(clinic, "Patient") == 3


BAD = [
    (call("book"), 400, "required"),
    (call("book", appointment_reference="Patient/1"), 400, "value"),
    (call("book", appointment_reference="Appointment/none-7"), 404, "not-found"),
    (call("hold", appointment_reference="Appointment/unknown"), 404, "not-found"),
    (call("confirm", "unknown"), 404, "not-found"),
    (call("cancel", "unknown"), 404, "not-found"),
    (call("book", appointment=proposed(morning(), "none")), 404, "not-found"),
    (call("book", appointment={"resourceType": "Patient"}), 400, "value"),
    (call("book", appointment=proposed(morning(), "p1", minutes=-5)), 400, "value"),
    (_book(occurrence_count=53), 400, "value"),
    (_book(occurrence_count=1), 400, "value"),
    (_book(unknown="x"), 400, "not-supported"),
    (call("reschedule", "x"), 400, "required"),
    (call("reschedule", "x", start="2036-12-01T09:00:00"), 400, "value"),
    (replace(_book(), reading=True), 405, "not-supported"),
]


@pytest.mark.parametrize(("request_", "status", "code"), BAD)
async def test_what_is_refused(
    shared_clinic: Server, request_: Request, status: int, code: str
) -> None:
    """Every error is an OperationOutcome with one sentence, and the client's."""
    answer = await ask(shared_clinic, request_, DESK)
    assert (answer.status, issues(answer)[0][1]) == (status, code), answer.body
    assert await total(shared_clinic, "Appointment", status="booked,pending") == 0
