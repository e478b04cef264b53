"""design/scheduling.md, section 2: what everybody may know of free times, and nothing else."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from fhir_server.app import opened
from fhir_server.dispatch import answer
from fhir_server.features.scheduling.extensions import moment
from fhir_server.messages import Request, Response
from fhir_server.r4.json import decode
from fhir_server.security.principal import NOBODY
from fhir_server.settings import Settings
from tests.conftest import drop
from tests.features.scheduling.test_holding import (
    BASE,
    appointment,
    at,
    create,
    put,
    read,
    schedule,
    slot,
)
from tests.features.scheduling.test_waiting import Clinic, entry

RULES = {
    "url": "urn:fhir-server:StructureDefinition:scheduling-parameters",
    "extension": [
        {
            "url": "duration",
            "valueDuration": {
                "value": 30,
                "unit": "min",
                "code": "min",
                "system": "http://unitsofmeasure.org",
            },
        },
        {
            "url": "availability",
            "extension": [
                {
                    "url": "availableTime",
                    "extension": [
                        *(
                            {"url": "daysOfWeek", "valueCode": day}
                            for day in ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
                        ),
                        {"url": "availableStartTime", "valueTime": "09:00:00"},
                        {"url": "availableEndTime", "valueTime": "10:30:00"},
                    ],
                },
            ],
        },
    ],
}


async def made(clinic: Clinic) -> Clinic:
    """Fill ``clinic``: on 1 December 2036 a doctor has three times, of which one is booked."""
    clinic.clock.time = datetime(2036, 12, 1, 6, tzinfo=UTC)
    place = {"resourceType": "Location", "id": "l1", "name": "Main"}
    for body in (
        {
            **place,
            "telecom": [{"system": "phone", "value": "0123"}],
            "managingOrganization": {"display": "x"},
        },
        schedule("d1", "Practitioner/p1", "Location/l1", extension=[RULES], comment="private"),
        schedule("d2", "Practitioner/p2"),
        schedule("d3", "Patient/a"),
        schedule("off", "Practitioner/p1", active=False, extension=[RULES]),
        slot("s1", "d2", 0, 20, "free"),
        slot("s2", "d2", 20, 40, "busy"),
    ):
        assert (await clinic(put(body))).status == 201
    booked = appointment(30, 60, "Practitioner/p1", "Patient/a", comment="secret")
    assert (await clinic(create(booked))).status == 201
    return clinic


def public(name: str) -> Settings:
    """Return the settings of a clinic that publishes, on the database ``name``."""
    said = {"scheduling_publish": True, "scheduling_publish_days": 2, "mongodb_database": name}
    return Settings.model_validate(said)


@pytest.fixture(scope="module")
async def published(mongodb_uri: str) -> AsyncIterator[Clinic]:
    """A clinic that publishes, for all tests that write nothing."""
    async with opened(public(f"test-{uuid4().hex[:12]}"), mongodb_uri) as server:
        yield await made(Clinic(server))
        await drop(server.database)


@pytest.fixture
async def clinic(mongodb_uri: str, settings: Settings) -> AsyncIterator[Clinic]:
    """The same, for one that writes."""
    async with opened(public(settings.mongodb_database), mongodb_uri) as server:
        yield await made(Clinic(server))


async def asked(clinic: Clinic, name: str, *parameters: tuple[str, str]) -> Response:
    """Return what somebody gets who has not signed in."""
    request = Request(name, parameters=parameters, base_url=BASE, reading=True)
    context = replace(clinic.context, principal=NOBODY)
    return await answer(clinic.server.registry, request, context)


def rows(response: Response) -> list[dict[str, Any]]:
    """Return the lines of a file."""
    assert (response.status, response.media_type) == (200, "application/fhir+ndjson")
    return [decode(one) for one in response.body.splitlines()]


async def test_what_is_published(published: Clinic) -> None:
    """The manifest names every file; the files have the places, the calendars and what is free."""
    response = await asked(published, "$bulk-publish")
    assert (response.status, response.media_type) == (200, "application/json")
    assert response.headers == (("Cache-Control", "public, max-age=300"),)
    manifest = decode(response.body)
    assert manifest["request"] == f"{BASE}/$bulk-publish"
    assert [one["type"] for one in manifest["output"]] == ["Location", "Schedule", "Slot", "Slot"]
    assert manifest["output"][2]["url"] == f"{BASE}/$bulk-publish-file?type=Slot&date=2036-12-01"

    file = "$bulk-publish-file"
    [place] = rows(await asked(published, file, ("type", "Location")))
    assert place.keys() == {"resourceType", "id", "name", "telecom"}
    calendars = rows(await asked(published, file, ("type", "Schedule")))
    assert [one["id"] for one in calendars] == ["d1", "d2"]
    assert calendars[0]["actor"][0] == {"reference": "Location/l1"}
    assert "comment" not in calendars[0]

    today = await asked(published, file, ("type", "Slot"), ("date", "2036-12-01"))
    times = [(one["schedule"]["reference"], one["start"][11:16]) for one in rows(today)]
    assert times == [("Schedule/d1", "09:00"), ("Schedule/d1", "10:00"), ("Schedule/d2", "09:00")]
    for text in (b"Patient", b"secret", b"private"):
        assert text not in today.body + response.body
    tomorrow = await asked(published, file, ("type", "Slot"), ("date", "2036-12-02"))
    assert len(rows(tomorrow)) == 3


async def test_what_is_published_is_kept_for_a_while(clinic: Clinic) -> None:
    """And made anew after that; a time keeps its id."""
    day = (("type", "Slot"), ("date", "2036-12-01"))
    before = rows(await asked(clinic, "$bulk-publish-file", *day))
    await clinic(create(appointment(0, 30, "Practitioner/p1", "Patient/b")))
    assert rows(await asked(clinic, "$bulk-publish-file", *day)) == before
    clinic.clock.time += timedelta(minutes=6)
    after = await asked(clinic, "$bulk-publish-file", *day)
    assert rows(after) == before[1:]
    assert after.headers == (("Cache-Control", "public, max-age=300"),)
    clinic.clock.time += timedelta(seconds=200)
    kept = await asked(clinic, "$bulk-publish-file", *day)
    assert kept.headers == (("Cache-Control", "public, max-age=100"),)


async def test_a_free_slot_opens_what_is_published(clinic: Clinic) -> None:
    """One of the night before too, however it names its Schedule."""
    night = slot("night", "d1", -11 * 60, -8 * 60, "free")
    base = clinic.context.parameters.base_urls[0]
    of = {"schedule": {"reference": f"{base}/Schedule/d1"}}
    assert (await clinic(put({**night, **of}))).status == 201
    clinic.clock.time = datetime(2036, 11, 30, 20, tzinfo=UTC)
    day = (("type", "Slot"), ("date", "2036-12-01"))
    found = rows(await asked(clinic, "$bulk-publish-file", *day))
    assert [one["start"][11:16] for one in found][:2] == ["00:00", "00:30"]


@pytest.mark.parametrize(
    ("parameters", "status"),
    [
        ((("type", "Patient"),), 400),
        ((), 400),
        ((("type", "Slot"),), 404),
        ((("type", "Slot"), ("date", "2036-12-03")), 404),
        ((("type", "Slot"), ("date", "x")), 404),
        ((("type", "Location"), ("patient", "a")), 400),
    ],
)
async def test_nothing_else_is(
    published: Clinic, parameters: tuple[tuple[str, str], ...], status: int
) -> None:
    """No other type, no other day."""
    assert (await asked(published, "$bulk-publish-file", *parameters)).status == status


async def test_it_is_off_by_default(server: Any) -> None:
    """A clinic says that it publishes, or it does not."""
    for name in ("$bulk-publish", "$bulk-publish-file"):
        request = Request(name, base_url=BASE, reading=True)
        assert (await answer(server.registry, request, server.context)).status == 403


async def test_a_block_that_goes_frees_all_its_times(clinic: Clinic) -> None:
    """Each that the rules offer is offered to an entry; the one that is booked is not."""
    block = slot("leave", "d1", 60, 180, "busy-unavailable")
    assert (await clinic(put(block))).status == 201
    waiting = [await clinic.make(entry(f"Patient/w{n}", "Practitioner/p1")) for n in range(3)]
    assert (await clinic(put({**block, "start": at(120), "status": "free"}))).status == 200
    await clinic.worked()
    found = [await read(clinic, f"Appointment/{one}") for one in waiting]
    assert [one["status"] for one in found] == ["pending", "waitlist", "waitlist"]
    assert moment(found[0]["start"]) == moment(at(60))
