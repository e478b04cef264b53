"""design/scheduling.md, section 4: blocks over booked time, and hours that are changed."""

from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fhir_server.app import Server
from fhir_server.features.scheduling.extensions import CONFLICTS_WITH, extensions
from fhir_server.messages import Request, Response
from fhir_server.patch.formats import JSON_PATCH, as_binary
from fhir_server.r4.json import decode, encode
from fhir_server.security.principal import Principal
from fhir_server.security.scopes import scopes_of
from tests.features.scheduling.test_holding import (
    BASE,
    appointment,
    at,
    bundle,
    create,
    put,
    read,
    schedule,
    slot,
)
from tests.features.scheduling.test_publishing import RULES
from tests.features.scheduling.test_waiting import Clinic, entry

BLOCK = slot("leave", "d1", 0, 120, "busy-unavailable")
OUTCOME = {"return": "OperationOutcome"}


@pytest.fixture
async def clinic(server: Server) -> Clinic:
    """A clinic whose doctor sees patients from 9:00 to 10:30, and has two appointments then."""
    made = Clinic(server)
    made.clock.time = datetime(2036, 11, 28, 6, tzinfo=UTC)
    one = schedule("d1", "PractitionerRole/r1", extension=[RULES])
    doctor = {"reference": "Practitioner/p1"}
    role = {"resourceType": "PractitionerRole", "id": "r1", "practitioner": doctor}
    for body in (role, one):
        assert (await made(put(body))).status == 201
    await made.worked()  # what a new Schedule has left
    return made


async def two(clinic: Clinic) -> list[str]:
    """Book two half hours; return the ids."""
    return [
        await clinic.make(appointment(0, 30, "Practitioner/p1", "Patient/a")),
        await clinic.make(appointment(60, 90, "PractitionerRole/r1", "Patient/b")),
    ]


def said(response: Response) -> list[str]:
    """Return what the issues of an OperationOutcome say."""
    return [one["diagnostics"] for one in decode(response.body)["issue"]]


def named(response: Response) -> list[str]:
    """Return the ids of the appointments that an answer names."""
    return [
        one.split("/")[1].split(" ")[0].rstrip(",")
        for one in said(response)
        if one.startswith("Appointment/")
    ]


async def marks(clinic: Clinic, id: str) -> list[str]:
    """Return what the Appointment ``id`` is said to conflict with."""
    found = await read(clinic, f"Appointment/{id}")
    return [one["valueReference"]["reference"] for one in extensions(found, CONFLICTS_WITH)]


@pytest.mark.parametrize("way", ["put", "create", "bundle", "patch"])
async def test_s14_a_block_over_booked_time_names_what_is_booked(clinic: Clinic, way: str) -> None:
    """It is refused, whichever way it is written, and nothing is marked."""
    booked = await two(clinic)
    if way == "patch":
        assert (await clinic(put({**BLOCK, "status": "free"}))).status == 201
        operation = {"op": "replace", "path": "/status", "value": "busy-unavailable"}
        body = as_binary(JSON_PATCH, encode([operation]))
        request = Request("patch", "Slot", "leave", body=body, base_url=BASE)
    else:
        request = {
            "put": put(BLOCK),
            "create": create({name: BLOCK[name] for name in BLOCK if name != "id"}),
            "bundle": bundle(BLOCK),
        }[way]
    response = await clinic(request)

    assert response.status == 409
    assert sorted(named(response)) == sorted(booked)
    issues = decode(response.body)["issue"]
    assert (issues[-1]["severity"], issues[-1]["code"]) == ("fatal", "not-found")
    assert await marks(clinic, booked[0]) == []


async def test_who_may_not_read_appointments_is_told_of_none(clinic: Clinic) -> None:
    """An administrator keeps calendars, and has no appointments."""
    booked = await two(clinic)
    for role, count in (("administrator", 0), ("backend", 2)):
        who = Principal("client", role, role, scopes_of("system/*.cruds"), (role,))
        asked = replace(clinic.context, principal=who)
        own = Clinic(clinic.server)
        own.context = asked
        response = await own(create({name: BLOCK[name] for name in BLOCK if name != "id"}))
        assert (response.status, len(named(response))) == (409, count), response.body
    assert len(booked) == 2


async def test_s14_a_block_that_is_overridden_marks_what_it_stands_over(clinic: Clinic) -> None:
    """In the same write; patients are told once; an appointment that moves loses its mark."""
    booked = await two(clinic)
    store = replace(clinic.context.store, override="The doctor is ill.")
    plain, clinic.context = clinic.context, replace(clinic.context, store=store)
    assert (await clinic(put(BLOCK))).status == 201
    clinic.context = plain

    assert [await marks(clinic, one) for one in booked] == [["Slot/leave"]] * 2
    assert await clinic.messages() == []
    await clinic.worked()
    messages = await clinic.messages()
    patients = [{"reference": "Patient/a"}, {"reference": "Patient/b"}]
    assert sorted((one["subject"] for one in messages), key=str) == patients
    assert (await clinic.change(booked[0], comment="x")).status == 200
    assert await marks(clinic, booked[0]) == ["Slot/leave"]
    assert (await clinic.change(booked[0], start=at(200), end=at(230))).status == 200
    await clinic.worked()
    assert await marks(clinic, booked[0]) == []
    assert len(await clinic.messages()) == 2


def hours(end: str, **more: Any) -> Request:
    """Return the request that has the doctor stop at ``end``."""
    rules = deepcopy(RULES)
    rules["extension"][1]["extension"][0]["extension"][-1]["valueTime"] = end  # type: ignore[index]
    body = schedule("d1", "PractitionerRole/r1", extension=[rules])
    return put(body, **more)


async def test_changed_hours_name_what_lies_outside(clinic: Clinic) -> None:
    """At once for who asks; a minute later it is marked, with what was booked meanwhile."""
    first, second = await two(clinic)
    response = await clinic(hours("10:00:00", prefer=OUTCOME))
    assert response.status == 200
    assert named(response) == [second]
    assert {one.severity for one in response.remarks} == {"warning"}

    late = await clinic.make(appointment(70, 90, "Practitioner/p2", "Patient/c"))
    meanwhile = await clinic.make(appointment(90, 120, "Practitioner/p1", "Patient/c"))
    assert await clinic.worked() == 0
    clinic.clock.time += timedelta(seconds=61)
    await clinic.worked()
    ids = (first, second, late, meanwhile)
    assert [await marks(clinic, one) for one in ids] == [[], ["Schedule/d1"], [], ["Schedule/d1"]]

    response = await clinic(hours("11:00:00"))
    assert decode(response.body)["resourceType"] == "Schedule"
    clinic.clock.time += timedelta(seconds=61)
    await clinic.worked()
    assert [await marks(clinic, one) for one in (second, meanwhile)] == [[], []]


async def test_without_hours_nothing_lies_outside(clinic: Clinic) -> None:
    """A calendar without any is not closed to what was booked, nor what has a Slot of its own."""
    _, second = await two(clinic)
    bare = await clinic(put(schedule("d1", "PractitionerRole/r1"), prefer=OUTCOME))
    assert (bare.status, named(bare)) == (200, [])
    assert (await clinic(put(slot("own", "d1", 180, 210, "free")))).status == 201
    taken = appointment(180, 210, "Practitioner/p1", "Patient/z")
    await clinic.make({**taken, "slot": [{"reference": "Slot/own"}]})
    assert named(await clinic(hours("10:00:00", prefer=OUTCOME))) == [second]


async def test_a_time_outside_the_hours_is_offered_to_nobody(clinic: Clinic) -> None:
    """What was cancelled because the doctor is not there any more stays free."""
    first, second = await two(clinic)
    assert (await clinic(hours("10:00:00"))).status == 200
    waiting = [await clinic.make(entry(f"Patient/w{n}")) for n in range(2)]
    for one in (second, first):
        assert (await clinic.change(one, status="cancelled")).status == 200
    await clinic.worked()
    found = [await read(clinic, f"Appointment/{one}") for one in waiting]
    assert [(one["status"], one.get("start", "")[11:16]) for one in found] == [
        ("pending", "09:00"),
        ("waitlist", ""),
    ]
