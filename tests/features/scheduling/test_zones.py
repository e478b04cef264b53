"""design/scheduling.md, section 2: people are told of a time as the clocks of its place show it,
also where only the rules of a Schedule name these."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from fhir_server.app import Server
from fhir_server.features.scheduling.absences import noted
from fhir_server.features.scheduling.calendar_page import answered as calendar
from fhir_server.features.scheduling.zones import zone_at, zone_of_place
from fhir_server.messages import Request
from fhir_server.r4.json import decode
from fhir_server.settings import Settings
from tests.features.scheduling.clinic import parameters, schedule
from tests.features.scheduling.test_calendars_shown import called
from tests.features.scheduling.test_holding import BASE, put, slot
from tests.features.scheduling.test_waiting import Clinic, entry

# 23:30 in Dhaka, and 23:30 of the day before in Greenwich is 5:30 there.
LATE = datetime(2036, 12, 1, 17, 30, tzinfo=UTC)
DHAKA = ZoneInfo("Asia/Dhaka")


def visit(start: datetime, **more: Any) -> dict[str, Any]:
    """Return an Appointment of half an hour, written in UTC as some clients do."""
    return {
        "resourceType": "Appointment",
        "id": "late",
        "status": "booked",
        "start": start.isoformat(),
        "end": (start + timedelta(minutes=30)).isoformat(),
        "participant": [
            {"actor": {"reference": one}, "status": "accepted"}
            for one in ("Practitioner/p1", "Patient/a")
        ],
        **more,
    }


@pytest.fixture
async def clinic(server: Server) -> Clinic:
    """A clinic whose Schedule alone says that it is in Dhaka; the setting says UTC."""
    made = Clinic(server)
    made.clock.time = LATE - timedelta(hours=4)
    for body in (
        {"resourceType": "Practitioner", "id": "p1", "name": [{"text": "Dr Rahman"}]},
        {"resourceType": "Patient", "id": "a"},
        {"resourceType": "Location", "id": "room", "name": "Room"},
        schedule("d1", "Practitioner/p1", "Location/room", timezone="Asia/Dhaka"),
        schedule("broken", "Practitioner/p2", timezone="Mars/Base"),
    ):
        assert (await made(put(body))).status == 201
    return made


async def test_the_schedule_says_the_zone(clinic: Clinic) -> None:
    """Of its Slots first, then of who takes part; rules that cannot be read say nothing."""
    by_slot = visit(LATE, slot=[{"reference": "Slot/s"}], participant=[])
    assert (await clinic(put(slot("s", "d1", 0, 30)))).status == 201
    nobody = visit(LATE, participant=[{"actor": {"reference": "Patient/a"}, "status": "accepted"}])
    odd = visit(
        LATE, participant=[{"actor": {"reference": "Practitioner/p2"}, "status": "accepted"}]
    )
    zones = [await zone_at(one, clinic.context) for one in (visit(LATE), by_slot, nobody, odd)]
    assert [one.key for one in zones] == ["Asia/Dhaka", "Asia/Dhaka", "UTC", "UTC"]

    own = [{"url": "http://hl7.org/fhir/StructureDefinition/timezone", "valueCode": "Asia/Tokyo"}]
    for more, expected in (({}, "Asia/Dhaka"), ({"extension": own}, "Asia/Tokyo")):
        place = {"resourceType": "Location", "id": "room", **more}
        assert (await zone_of_place(place, clinic.context)).key == expected


async def test_the_calendar_is_that_of_the_schedule(clinic: Clinic) -> None:
    """A visit at 23:30 in Dhaka stands on that day, at that time."""
    assert (await clinic(put(visit(LATE)))).status == 201
    _, _, text = await called(calendar, clinic, "/calendar/p1?view=day&date=2036-12-01")
    assert "23:30" in text
    assert "Mon 01 Dec 2036" in text
    _, _, text = await called(calendar, clinic, "/calendar/p1?view=day&date=2036-12-02")
    assert "23:30" not in text
    status, _, _ = await called(calendar, clinic, "/calendar/p1?view=month")
    assert status == 400


async def test_an_offer_says_the_local_time(clinic: Clinic) -> None:
    """As it is stored, in the message, and on its page."""
    assert (await clinic(put(visit(LATE)))).status == 201
    waiting = await clinic.make(entry("Patient/b", "Practitioner/p1"))
    await clinic.change("late", status="cancelled")
    await clinic.worked()

    [offer] = await clinic.found("Appointment", ("_id", waiting))
    assert (offer["status"], offer["start"]) == ("pending", "2036-12-01T23:30:00+06:00")
    [message] = await clinic.messages()
    said = message["payload"][0]["contentString"]
    assert "2036-12-01 23:30" in said
    assert "until 2036-12-01 20:00" in said
    link = said[said.index("/offer/") :].split(" ", 1)[0]
    _, text = await clinic.page(link)
    assert "01 December 2036, 23:30" in text
    assert "20:00 on 01 December" in text


@pytest.mark.parametrize(
    ("now", "status"),
    [
        (LATE - timedelta(days=1), 409),
        (LATE - timedelta(hours=23), 201),  # half past midnight of the same day
        (LATE + timedelta(minutes=10), 201),
        (LATE + timedelta(minutes=31), 409),  # the next day
    ],
)
async def test_check_in_is_on_the_day(clinic: Clinic, now: datetime, status: int) -> None:
    """Days before or after, the wrong queue would get the patient, and the time would be spent."""
    assert (await clinic(put(visit(LATE)))).status == 201
    clinic.clock.time = now
    body = parameters()
    body["parameter"] = [{"name": "location", "valueReference": {"reference": "Location/room"}}]
    told = await clinic(Request("$check-in", "Appointment", "late", body=body, base_url=BASE))
    assert told.status == status, told.body
    found = decode(told.body)
    if status == 201:
        system = found["parameter"][-1]["resource"]["identifier"][0]["system"]
        assert system.endswith("/queue-token/room/2036-12-01")
    else:
        assert found["issue"][0]["code"] == "business-rule"
        assert "is on 2036-12-01" in found["issue"][0]["diagnostics"]


@pytest.mark.parametrize(
    ("reason", "later", "status"),
    [("", 1, 409), ("The bus was late", 1, 200), ("The bus was late", 24, 409)],
)
async def test_who_did_not_come_may_come_late(
    clinic: Clinic, reason: str, later: int, status: int
) -> None:
    """On the same day, and somebody says why."""
    one = visit(LATE.astimezone(DHAKA) - timedelta(hours=2))
    for state in ("booked", "noshow"):
        assert (await clinic(put({**one, "status": state}))).status in (200, 201)
    clinic.clock.time = LATE - timedelta(hours=2) + timedelta(hours=later)
    request = Request(
        "update", "Appointment", "late", body={**one, "status": "arrived"}, override=reason
    )
    assert (await clinic(request)).status == status


async def test_who_does_not_come_is_noted(clinic: Clinic) -> None:
    """After the minutes of the setting, once, and nothing that is older than a day."""
    old = visit(LATE - timedelta(days=2), id="old")
    assert (await clinic(put(old))).status == 201
    assert (await clinic(put(visit(LATE)))).status == 201
    settings = clinic.context.settings.model_copy(update={"scheduling_no_show_minutes": 20})
    clinic.context = replace(clinic.context, settings=settings)
    counts = []
    for seconds in (19 * 60, 20 * 60 + 1, 21 * 60):
        clinic.clock.time = LATE + timedelta(seconds=seconds)
        counts.append(await noted(clinic.context))
    assert counts == [0, 1, 0]
    found = {one["id"]: one["status"] for one in await clinic.found("Appointment")}
    assert found == {"old": "booked", "late": "noshow"}


@pytest.mark.parametrize("name", ["Mars/Base", "Asia", "../../etc/passwd", ""])
def test_a_setting_that_is_no_zone_is_refused(name: str) -> None:
    """At the start, with a sentence."""
    with pytest.raises(ValidationError, match="is no time zone"):
        Settings.model_validate({"scheduling_timezone": name})
