"""The calendar of a practitioner: at a secret address, and as a page for staff."""

import asyncio
from collections.abc import AsyncIterator
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from icalendar import Calendar

from fhir_server.app import bearer, opened
from fhir_server.features.scheduling.calendar_feed import answered as feed
from fhir_server.features.scheduling.calendar_page import answered as page
from fhir_server.features.scheduling.daybook import Entry
from fhir_server.features.scheduling.ical import feed as ical
from fhir_server.interactions.people import SignedIn, people_of
from fhir_server.messages import Request, Response
from fhir_server.r4.json import decode
from fhir_server.security.principal import Principal
from fhir_server.security.scopes import scopes_of
from fhir_server.settings import Settings
from fhir_server.store.users import User
from tests.conftest import drop
from tests.features.scheduling.test_holding import (
    BASE,
    appointment,
    at,
    create,
    put,
    schedule,
    slot,
)
from tests.features.scheduling.test_waiting import Clinic

RAHIMA = {"family": "<Begum>", "given": ["Rahima"]}


async def made(clinic: Clinic) -> Clinic:
    """Fill ``clinic``: on 1 December 2036 a doctor has two appointments and a block."""
    clinic.clock.time = datetime(2036, 12, 1, 6, tzinfo=UTC)
    for body in (
        {"resourceType": "Practitioner", "id": "p1", "name": [{"text": "Dr Rahman"}]},
        {"resourceType": "Practitioner", "id": "p2"},
        {"resourceType": "Patient", "id": "a", "name": [RAHIMA]},
        schedule("d1", "Practitioner/p1"),
        slot("leave", "d1", 120, 240, "busy-unavailable"),
    ):
        assert (await clinic(put(body))).status == 201
    check = {"serviceType": [{"text": "Check-up"}]}
    for start, status in ((0, "booked"), (60, "pending"), (15_000, "booked"), (400_000, "booked")):
        one = appointment(start, start + 30, "Practitioner/p1", "Patient/a", status=status)
        assert (await clinic(create({**one, **check}))).status == 201
    return clinic


@pytest.fixture(scope="module")
async def filled(mongodb_uri: str) -> AsyncIterator[Clinic]:
    """A clinic in development, for all tests here."""
    named = Settings.model_validate({"mongodb_database": f"test-{uuid4().hex[:12]}"})
    async with opened(named, mongodb_uri) as server:
        yield await made(Clinic(server))
        await drop(server.database)


@pytest.fixture
def clinic(filled: Clinic) -> Clinic:
    """The same, to be asked otherwise."""
    return copy(filled)


async def called(app: Any, clinic: Clinic, path: str, method: str = "GET", **more: Any) -> Any:
    """Return status, headers and text of what ``app`` answers."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    place, _, query = path.partition("?")
    context = clinic.context
    scope = {
        "method": method,
        "path": place,
        "query_string": query.encode(),
        "scheme": "http",
        "headers": [],
        "fhir_server.context": context,
        "fhir_server.identify": bearer(context.settings, lambda: context.accounts),
        **more,
    }
    await app(scope, None, send)
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"].decode()


def link(id: str = "p1", **value: Any) -> Request:
    """Return the request for the address of a calendar."""
    body = {"resourceType": "Parameters", "parameter": [{"name": "revoke", **value}]}
    return Request(
        "$calendar-link", "Practitioner", id, body=body if value else None, base_url=BASE
    )


def path_of(response: Response) -> str:
    """Return the path of the address that was made."""
    assert response.status == 200, response.body
    url = decode(response.body)["parameter"][0]["valueUrl"]
    assert url.startswith("http://fhir.example.org/calendar-feed/")
    return str(url).removeprefix("http://fhir.example.org")


async def test_a_feed_has_times_and_no_names(clinic: Clinic) -> None:
    """From a week ago to 90 days ahead, with blocks."""
    path = path_of(await clinic(link()))
    status, headers, text = await called(feed, clinic, path)

    assert (status, headers[b"content-type"]) == (200, b"text/calendar; charset=utf-8")
    calendar = Calendar.from_ical(text)
    assert calendar["X-WR-CALNAME"] == "Dr Rahman"
    events = calendar.walk("VEVENT")
    assert [
        (one.decoded("DTSTART").isoformat(), str(one["SUMMARY"]), one["STATUS"]) for one in events
    ] == [
        (at(0), "Check-up", "CONFIRMED"),
        (at(60), "Check-up", "TENTATIVE"),
        (at(120), "Not available", "CONFIRMED"),
        (at(15_000), "Check-up", "CONFIRMED"),
    ]
    assert len({one["UID"] for one in events}) == 4
    assert "Begum" not in text


def test_a_feed_is_made_of_lines_of_75_bytes_whatever_a_name_is() -> None:
    """RFC 5545, 3.1: no text makes a line of its own, and Bangla stays as it was written."""
    then = datetime(2036, 12, 1, 9, tzinfo=UTC)
    bangla = "ক্\u200dষ " * 20
    entry = Entry(
        "Appointment/1", 1, then, then, "booked", "a\rATTENDEE:b\r\nX:1\x00", place=bangla
    )
    text = ical("Dr\r\nX:1", "h.example", [entry], then)

    assert max(map(len, text.split(b"\r\n"))) <= 75
    calendar = Calendar.from_ical(text)
    assert calendar["X-WR-CALNAME"] == "Dr X:1"
    [event] = calendar.walk("VEVENT")
    assert (event["SUMMARY"], event["LOCATION"]) == ("a ATTENDEE:b X:1", bangla.strip())
    assert "ATTENDEE" not in event


async def test_a_setting_has_names_in_it(clinic: Clinic) -> None:
    """A clinic that trusts its telephones says so."""
    path = path_of(await clinic(link()))
    named = clinic.context.settings.model_copy(update={"scheduling_calendar_names": True})
    clinic.context = replace(clinic.context, settings=named)
    _, _, text = await called(feed, clinic, path)
    assert "SUMMARY:Rahima <Begum>: Check-up" in text


async def test_an_address_can_be_taken_back(clinic: Clinic) -> None:
    """By another one, and for good; a wrong one is as one that never was."""
    first = path_of(await clinic(link()))
    second = path_of(await clinic(link()))
    assert (await called(feed, clinic, first))[0] == 404
    assert (await called(feed, clinic, second))[0] == 200
    assert (await called(feed, clinic, second, "POST"))[0] == 405
    assert (await clinic(link(valueBoolean=True))).status == 200
    assert (await called(feed, clinic, second))[0] == 404
    assert (await called(feed, clinic, "/calendar-feed/x"))[0] == 404
    assert (await clinic(link(valueString="true"))).status == 400
    assert (await clinic(link("nobody"))).status == 404


async def test_a_practitioner_has_one_address(clinic: Clinic) -> None:
    """However many are made at a time."""
    made = await asyncio.gather(*(clinic(link()) for _ in range(6)))
    found = [(await called(feed, clinic, path_of(one)))[0] for one in made]
    assert sorted(found) == [200, *[404] * 5]


@pytest.mark.parametrize(
    ("scopes", "status"),
    [
        ("user/*.rs", 200),
        ("user/Practitioner.r user/Appointment.s", 200),
        ("user/Practitioner.rs", 403),
        ("user/Practitioner.rs patient/Appointment.rs", 403),
        ("user/Practitioner.rs user/Appointment.rs?status=booked", 403),
    ],
)
async def test_an_app_gives_away_no_more_than_it_has(
    clinic: Clinic, scopes: str, status: int
) -> None:
    """The address opens all appointments of the practitioner, for as long as it is there."""
    named = Principal("user", "rahman", "app", scopes_of(scopes), ("physician",))
    who = replace(named, fhir_user="Practitioner/p1", patient="a")
    clinic.context = clinic.context.asked_by(who)
    assert (await clinic(link())).status == status


@pytest.mark.parametrize(
    ("fhir_user", "role", "status"),
    [
        ("Practitioner/p1", "physician", 200),
        ("Practitioner/p2", "physician", 403),
        ("Practitioner/p2", "front-desk", 403),
        ("Practitioner/p2", "administrator", 200),
        ("Patient/a", "patient", 403),
    ],
)
async def test_whose_address_it_is(clinic: Clinic, fhir_user: str, role: str, status: int) -> None:
    """The practitioner's own, or an administrator's to give."""
    scopes = scopes_of("user/*.cruds")
    who = Principal("user", "somebody", scopes=scopes, roles=(role,), fhir_user=fhir_user)
    clinic.context = clinic.context.asked_by(who)
    assert (await clinic(link())).status == status


async def test_a_page_shows_a_week_or_a_day(clinic: Clinic) -> None:
    """With names, which are escaped, and nothing inline."""
    status, _, text = await called(page, clinic, "/calendar/p1")
    assert status == 200
    assert text.count("<section") == 7
    assert "Rahima &lt;Begum&gt;" in text
    assert "Check-up (held)" in text
    assert "Not available" in text
    assert "style=" not in text
    assert "<script" not in text
    status, _, text = await called(page, clinic, "/calendar/p1?view=day&date=2036-12-11")
    assert (status, text.count("<section"), text.count("<li ")) == (200, 1, 1)
    _, _, text = await called(page, clinic, "/calendar/p1?date=2036-12-02&view=day")
    assert text.count("<li ") == 0


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/calendar/nobody", 404),
        ("/calendar/a/b", 404),
        ("/calendar/", 404),
        ("/calendar/p1?date=x", 400),
        ("/calendar/p1?date=9999-12-31", 200),
        ("/calendar/p1?date=0001-01-01", 200),
        ("/calendar/p1?view=year", 400),
        ("/calendar.css", 200),
    ],
)
async def test_what_is_no_calendar(clinic: Clinic, path: str, status: int) -> None:
    """Is no failure of the server."""
    assert (await called(page, clinic, path))[0] == status


async def test_in_production_staff_sign_in(mongodb_uri: str, settings: Settings) -> None:
    """By the session of the browser; roles say what is shown, and patients have no page."""
    update = {"mode": "production", "base_url": BASE, "master_key": "00" * 32}
    closed = Settings.model_validate({**settings.model_dump(exclude_unset=True), **update})
    async with opened(closed, mongodb_uri) as server:
        clinic = await made(Clinic(server))
        assert (await called(page, clinic, "/calendar/p1"))[0] == 401
        people = people_of(clinic.context)
        seen, cookie = {}, [(b"", b"")]
        for role in ("front-desk", "lab", "patient"):
            user = User(role, role, (role,), fhir_user=f"Practitioner/{role}")
            await people.users.add(user, clinic.clock())
            kept = await people.set_password(user, "correct horse battery")
            assert kept is not None
            begun = await people._begun(kept, is_whole=True, began=clinic.clock())
            assert isinstance(begun, SignedIn)
            cookie = [(b"cookie", b"x=y; fhir-session=" + begun.cookie.encode())]
            seen[role] = await called(page, clinic, "/calendar/p1", headers=cookie)
        assert [seen[one][0] for one in seen] == [200, 403, 401]
        assert "Rahima" in seen["front-desk"][2]
        clinic.clock.time += timedelta(hours=13)
        assert (await called(page, clinic, "/calendar/p1", headers=cookie))[0] == 401
