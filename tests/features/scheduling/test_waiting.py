"""design/scheduling.md, section 6: a free time is offered to those who wait for one."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fhir_server.app import Server, opened
from fhir_server.context import Context
from fhir_server.dispatch import answer
from fhir_server.features.scheduling import waitlist
from fhir_server.features.scheduling.events import work
from fhir_server.features.scheduling.extensions import hold_expires, moment
from fhir_server.features.scheduling.offer_page import answered
from fhir_server.features.scheduling.parameters import PARAMETERS, SERVICE
from fhir_server.features.scheduling.waiting import (
    entry_version,
    in_turn,
    link_token,
    place_for,
    read_token,
)
from fhir_server.messages import Request, Response
from fhir_server.r4.json import decode
from fhir_server.settings import Settings
from fhir_server.store.offers import FREED, Freed
from tests.features.scheduling.test_holding import (
    BASE,
    MORNING,
    appointment,
    at,
    bundle,
    create,
    put,
    read,
    schedule,
    slot,
)

DAY = MORNING.date().isoformat()


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        """Begin with now."""
        self.time = datetime.now(UTC)

    def __call__(self) -> datetime:
        """Return the time that it shows."""
        return self.time


class Clinic:
    """A clinic with two doctors; its server, and what works off what becomes free there."""

    def __init__(self, server: Server) -> None:
        """Set the clock of ``server``."""
        self.server = server
        self.clock = Clock()
        self.context: Context = replace(server.context, now=self.clock)

    async def __call__(self, request: Request) -> Response:
        """Answer ``request``."""
        return await answer(self.server.registry, request, self.context)

    async def make(self, body: dict[str, Any]) -> str:
        """Create ``body``; return its id."""
        response = await self(create(body))
        assert response.status == 201, response.body
        id: str = decode(response.body)["id"]
        return id

    async def change(self, id: str, **more: Any) -> Response:
        """Change the Appointment ``id``."""
        found = await read(self, f"Appointment/{id}")
        return await self(put({**found, **more}))

    async def worked(self) -> int:
        """Work off what is due; return how much that was."""
        count = 0
        while await work(self.context):
            count += 1
        return count

    async def found(self, type: str, *asked: tuple[str, str]) -> list[dict[str, Any]]:
        """Return what a search finds."""
        response = await self(Request("search-type", type, parameters=asked, base_url=BASE))
        assert response.status == 200, response.body
        return [one["resource"] for one in decode(response.body).get("entry", ())]

    async def messages(self) -> list[dict[str, Any]]:
        """Return the messages to those who were asked."""
        return await self.found("CommunicationRequest")

    async def page(self, path: str, method: str = "GET") -> tuple[int, str]:
        """Return status and text of the page at ``path``."""
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {"method": method, "path": path, "fhir_server.context": self.context}
        await answered(scope, None, send)
        return sent[0]["status"], sent[1]["body"].decode()


def entry(patient: str, *actors: str, **more: Any) -> dict[str, Any]:
    """Return an entry of the waiting list."""
    return {
        "resourceType": "Appointment",
        "status": "waitlist",
        "minutesDuration": 30,
        "participant": [
            {"actor": {"reference": one}, "status": "accepted"} for one in (*actors, patient)
        ],
        **more,
    }


@pytest.fixture
async def clinic(server: Server) -> Clinic:
    """The clinic."""
    made = Clinic(server)
    for one in (schedule("d1", "Practitioner/p1"), schedule("d2", "Practitioner/p2")):
        assert (await made(put(one))).status == 201
    await made.worked()  # what new Schedules have left
    return made


async def booked(clinic: Clinic, start: int = 0, doctor: str = "p1", patient: str = "a") -> str:
    """Book half an hour; return the id."""
    actors = (f"Practitioner/{doctor}", f"Patient/{patient}")
    return await clinic.make(appointment(start, start + 30, *actors))


async def test_the_first_who_waits_is_asked(clinic: Clinic) -> None:
    """W1: by priority, then age; one has a hold and one message, the others wait on."""
    old = await booked(clinic)
    day = {"requestedPeriod": [{"start": DAY, "end": DAY}]}
    last = await clinic.make(entry("Patient/b", priority=0, **day))
    second = await clinic.make(entry("Patient/c", "Practitioner/p1", priority=2, **day))
    first = await clinic.make(entry("Patient/d", "Practitioner/p1", priority=1, **day))
    other = await clinic.make(entry("Patient/e", "Practitioner/p2", priority=1, **day))

    assert (await clinic.change(old, status="cancelled")).status == 200
    assert await clinic.worked() == 1

    offer = await read(clinic, f"Appointment/{first}")
    assert (offer["status"], offer["minutesDuration"]) == ("pending", 30)
    assert (moment(offer["start"]), moment(offer["end"])) == (moment(at(0)), moment(at(30)))
    until = hold_expires(offer)
    assert until is not None
    assert until - clinic.clock() == pytest.approx(timedelta(minutes=30), abs=timedelta(seconds=1))
    for id in (last, second, other):
        assert (await read(clinic, f"Appointment/{id}"))["status"] == "waitlist"
    [message] = await clinic.messages()
    assert message["recipient"] == [{"reference": "Patient/d"}]
    assert message["about"] == [{"reference": f"Appointment/{first}"}]
    assert "/offer/" in message["payload"][0]["contentString"]


async def test_who_does_not_answer_makes_room_for_the_next(clinic: Clinic) -> None:
    """W2 and W4: and when nobody does, the time is free, and all wait as before."""
    old = await booked(clinic)
    first = await clinic.make(entry("Patient/b", priority=1, requestedPeriod=[{"start": DAY}]))
    second = await clinic.make(entry("Patient/c", "Practitioner/p1", "Practitioner/p2"))
    before = [await read(clinic, f"Appointment/{one}") for one in (first, second)]
    await clinic.change(old, status="cancelled")
    await clinic.worked()
    assert (await read(clinic, f"Appointment/{first}"))["status"] == "pending"

    clinic.clock.time += timedelta(minutes=31)
    assert await clinic.worked() == 2
    assert (await read(clinic, f"Appointment/{first}"))["status"] == "waitlist"
    assert (await read(clinic, f"Appointment/{second}"))["status"] == "pending"

    clinic.clock.time += timedelta(minutes=31)
    await clinic.worked()
    for was in before:
        now = await read(clinic, f"Appointment/{was['id']}")
        assert {**now, "meta": 0} == {**was, "meta": 0, "created": was["meta"]["lastUpdated"]}
    assert len(await clinic.messages()) == 2
    taken = await clinic.server.context.store.granules.taken(
        ["Practitioner/p1"], MORNING, MORNING + timedelta(hours=1)
    )
    assert not [one for one in taken if one["h"]]
    assert await clinic.server.database[FREED].count_documents({}) == 0


async def test_no_entry_has_two_offers(clinic: Clinic, mongodb_uri: str) -> None:
    """W3: two times become free at once, two servers offer them."""
    old = [await booked(clinic, 0), await booked(clinic, 60)]
    waiting = [await clinic.make(entry(f"Patient/w{n}")) for n in range(10)]
    async with opened(clinic.server.context.settings, mongodb_uri) as other:
        second = Clinic(other)
        await asyncio.gather(*(clinic.change(one, status="cancelled") for one in old))
        await asyncio.gather(clinic.worked(), second.worked(), clinic.worked(), second.worked())

    found = [await read(clinic, f"Appointment/{one}") for one in waiting]
    offers = [one for one in found if one["status"] == "pending"]
    assert len({one["start"] for one in offers}) == len(offers) == 2
    assert len(await clinic.messages()) == 2
    assert all(entry_version(one) == "1" for one in offers)


async def test_a_link_books_once(clinic: Clinic) -> None:
    """Opening it changes nothing; pressing the button books, and a second time does not."""
    old = await booked(clinic)
    id = await clinic.make(entry("Patient/b"))
    await clinic.change(old, status="cancelled")
    await clinic.worked()
    [message] = await clinic.messages()
    link = "/offer/" + message["payload"][0]["contentString"].partition("/offer/")[2].split(" ")[0]

    status, text = await clinic.page(link)
    assert (status, "Take this time" in text) == (200, True)
    assert (await read(clinic, f"Appointment/{id}"))["status"] == "pending"
    assert (await clinic.page(link[:-1], "POST"))[0] == 404
    assert (await clinic.page(link, "PUT"))[0] == 405
    assert (await clinic.page(link, "POST"))[0] == 200

    now = await read(clinic, f"Appointment/{id}")
    assert (now["status"], now.get("extension")) == ("booked", None)
    assert {one["status"] for one in now["participant"]} == {"accepted"}
    assert "already" in (await clinic.page(link, "POST"))[1]
    clinic.clock.time += timedelta(hours=1)
    await clinic.worked()
    assert (await read(clinic, f"Appointment/{id}"))["status"] == "booked"


async def test_who_declines_makes_room_at_once(clinic: Clinic) -> None:
    """And is not asked for this time again; an offer that is over cannot be accepted."""
    old = await booked(clinic)
    first = await clinic.make(entry("Patient/b", priority=1))
    second = await clinic.make(entry("Patient/c"))
    await clinic.change(old, status="cancelled")
    await clinic.worked()
    link = f"/offer/{link_token(clinic.context.page_key, first, '1')}"
    assert (await clinic.page(link + "/decline", "POST"))[0] == 200
    await clinic.worked()
    assert (await read(clinic, f"Appointment/{first}"))["status"] == "waitlist"
    assert (await read(clinic, f"Appointment/{second}"))["status"] == "pending"
    assert (await clinic.page(link, "POST"))[0] == 410

    late = f"/offer/{link_token(clinic.context.page_key, second, '1')}"
    clinic.clock.time += timedelta(minutes=31)
    assert (await clinic.page(late, "POST"))[0] == 410


async def test_a_time_that_cannot_be_offered_is_not_offered_to_everybody(
    clinic: Clinic, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the rules of its calendar cannot be read any more."""
    monkeypatch.setattr(waitlist, "_REFUSED_MAX", 2)
    old = await booked(clinic)
    for n in range(4):
        await clinic.make(entry(f"Patient/w{n}"))
    wrong = {"url": PARAMETERS, "extension": [{"url": "slotCapacity", "valuePositiveInt": 20_000}]}
    broken = {**schedule("d1", "Practitioner/p1"), "extension": [wrong]}
    assert (await clinic(put(broken))).status == 200
    await clinic.change(old, status="cancelled")
    await clinic.worked()

    said = [one.getMessage() for one in caplog.records if "cannot be offered" in one.getMessage()]
    assert len(said) == 2
    assert await clinic.messages() == []


async def test_who_may_not_have_it_is_in_nobodys_way(clinic: Clinic) -> None:
    """A limit of the service that one waits for is not that of the next."""
    services = [f"HealthcareService/{one}" for one in ("h1", "h2")]
    for one in services:
        assert (await clinic(put({"resourceType": one[:17], "id": one[18:]}))).status == 201
    limit = [
        {"url": "count", "valuePositiveInt": 1},
        {"url": "per", "valueCode": "day"},
    ]
    rules = [{"url": "service", "valueReference": {"reference": one}} for one in services]
    groups = [[rules[0], {"url": "bookingLimit", "extension": limit}], [rules[1]]]
    said = [{"url": PARAMETERS, "extension": one} for one in groups]
    assert (await clinic(put({**schedule("d1", "Practitioner/p1"), "extension": said}))).status
    first, second = [
        [{"text": "x", "extension": [{"url": SERVICE, "valueReference": {"reference": one}}]}]
        for one in services
    ]
    await clinic.make(appointment(60, 90, "Practitioner/p1", "Patient/a", serviceType=first))
    old = await clinic.make(appointment(0, 30, "Practitioner/p1", "Patient/b", serviceType=second))
    full = await clinic.make(entry("Patient/c", priority=1, serviceType=first))
    waits = await clinic.make(entry("Patient/d", serviceType=second))
    await clinic.change(old, status="cancelled")
    await clinic.worked()

    assert (await read(clinic, f"Appointment/{full}"))["status"] == "waitlist"
    assert (await read(clinic, f"Appointment/{waits}"))["status"] == "pending"


async def test_who_waits_keeps_his_place_and_who_comes_along(clinic: Clinic) -> None:
    """An offer is with the patient's companion; whoever declines it is as old as before."""
    mother = {"actor": {"reference": "RelatedPerson/m"}, "status": "accepted"}
    old, waits = await booked(clinic), entry("Patient/b")
    first = await clinic.make({**waits, "participant": [*waits["participant"], mother]})
    second = await clinic.make(entry("Patient/c"))
    await clinic.change(old, status="cancelled")
    await clinic.worked()
    offer = await read(clinic, f"Appointment/{first}")
    there = [one["actor"]["reference"] for one in offer["participant"]]
    assert there == ["Practitioner/p1", "Patient/b", "RelatedPerson/m"]

    link = f"/offer/{link_token(clinic.context.page_key, first, '1')}"
    assert (await clinic.page(link + "/decline", "POST"))[0] == 200
    entries = [await read(clinic, f"Appointment/{one}") for one in (second, first)]
    assert [one["id"] for one in in_turn(entries)] == [first, second]


async def test_who_did_not_answer_waits_on_though_another_took_the_time(clinic: Clinic) -> None:
    """Also where it was taken before the end of the offer was written."""
    old = await booked(clinic)
    waits = await clinic.make(entry("Patient/b"))
    await clinic.change(old, status="cancelled")
    await clinic.worked()
    clinic.clock.time += timedelta(minutes=31)
    taken = await booked(clinic, patient="c")
    await clinic.worked()

    assert (await read(clinic, f"Appointment/{waits}"))["status"] == "waitlist"
    assert (await read(clinic, f"Appointment/{taken}"))["status"] == "booked"


@pytest.mark.parametrize("had", ["PractitionerRole/r1", "Practitioner/p1"])
@pytest.mark.parametrize("wants", ["PractitionerRole/r1", "Practitioner/p1"])
async def test_a_role_is_whose_it_is(clinic: Clinic, had: str, wants: str) -> None:
    """Who waits for a doctor is asked for what was booked in a role of his, and for no other's."""
    for role, doctor in (("r1", "p1"), ("r2", "p2")):
        of = {"practitioner": {"reference": f"Practitioner/{doctor}"}}
        assert (await clinic(put({"resourceType": "PractitionerRole", "id": role, **of}))).status
    old = await clinic.make(appointment(0, 30, had, "Patient/a"))
    others = await clinic.make(entry("Patient/b", "PractitionerRole/r2", priority=1))
    waits = await clinic.make(entry("Patient/c", wants))
    await clinic.change(old, status="cancelled")
    await clinic.worked()

    assert (await read(clinic, f"Appointment/{others}"))["status"] == "waitlist"
    assert (await read(clinic, f"Appointment/{waits}"))["status"] == "pending"


async def test_an_offer_is_confirmed_like_any_hold(clinic: Clinic) -> None:
    """By who is signed in as well; nothing of the offer stays."""
    old = await booked(clinic)
    id = await clinic.make(entry("Patient/b"))
    await clinic.change(old, status="cancelled")
    await clinic.worked()
    done = await clinic(Request("$confirm", "Appointment", id, base_url=BASE))
    assert done.status == 200, done.body
    now = await read(clinic, f"Appointment/{id}")
    assert (now["status"], now.get("extension")) == ("booked", None)


@pytest.mark.parametrize("way", ["moved", "deleted", "hold", "block", "bundle"])
async def test_every_way_of_freeing_a_time_counts(clinic: Clinic, way: str) -> None:
    """An appointment that moves or goes, a hold that lapses, a block that goes, in a bundle too."""
    until = (clinic.clock() + timedelta(minutes=10)).isoformat()
    marks = [{"url": "urn:fhir-server:StructureDefinition:hold-expires", "valueDateTime": until}]
    old = ""
    if way == "block":
        assert (await clinic(put(slot("s1", "d1", 0, 30, "busy-unavailable")))).status == 201
    elif way == "hold":
        held = appointment(0, 30, "Practitioner/p1", "Patient/a", status="pending")
        old = await clinic.make({**held, "extension": marks})
    else:
        old = await booked(clinic)
    waits = await clinic.make(entry("Patient/b", "Practitioner/p1"))
    assert await clinic.worked() == 0
    if way == "moved":
        assert (await clinic.change(old, start=at(60), end=at(90))).status == 200
    elif way == "deleted":
        gone = Request("delete", "Appointment", old, base_url=BASE)
        assert (await clinic(gone)).status == 204
    elif way == "hold":
        clinic.clock.time += timedelta(minutes=11)
    elif way == "block":
        assert (await clinic(put(slot("s1", "d1", 0, 30, "free")))).status == 200
    else:
        found = await read(clinic, f"Appointment/{old}")
        assert (await clinic(bundle({**found, "status": "cancelled"}))).status == 200
    await clinic.worked()

    offer = await read(clinic, f"Appointment/{waits}")
    assert (offer["status"], moment(offer["start"])) == ("pending", moment(at(0)))
    if way == "hold":
        assert (await read(clinic, f"Appointment/{old}"))["status"] == "cancelled"


async def test_who_has_another_appointment_then_is_not_asked(clinic: Clinic) -> None:
    """The next one is."""
    old = await booked(clinic)
    await booked(clinic, 15, "p2", "b")
    busy = await clinic.make(entry("Patient/b", priority=1))
    free = await clinic.make(entry("Patient/c"))
    await clinic.change(old, status="cancelled")
    await clinic.worked()

    assert (await read(clinic, f"Appointment/{busy}"))["status"] == "waitlist"
    assert (await read(clinic, f"Appointment/{free}"))["status"] == "pending"


@pytest.fixture
async def quiet(mongodb_uri: str, settings: Settings) -> AsyncIterator[Clinic]:
    """A clinic that offers nothing by itself."""
    without = settings.model_copy(update={"scheduling_waitlist": False})
    async with opened(without, mongodb_uri) as server:
        yield Clinic(server)


async def test_it_can_be_switched_off(quiet: Clinic) -> None:
    """Then nothing is noted."""
    await quiet(put(schedule("d1", "Practitioner/p1")))
    await quiet.worked()
    await quiet.change(await booked(quiet), status="cancelled")
    assert await quiet.worked() == 0


@pytest.fixture
async def calling(mongodb_uri: str, settings: Settings) -> AsyncIterator[Clinic]:
    """A clinic that sends SMS, not between 22:00 and 8:00."""
    sms = settings.model_copy(update={"reminder_channels": ("sms",)})
    async with opened(sms, mongodb_uri) as server:
        yield Clinic(server)


@pytest.mark.parametrize(("hour", "due"), [(12, 12), (23, 32)])
async def test_an_offer_goes_out_as_reminders_do(calling: Clinic, hour: int, due: int) -> None:
    """In the language of its patient and not at night; the time to answer begins then."""
    calling.clock.time = datetime(2036, 11, 28, hour, tzinfo=UTC)
    bangla = {"language": {"coding": [{"system": "urn:ietf:bcp:47", "code": "bn"}]}}
    rahima = {"resourceType": "Patient", "id": "b", "communication": [bangla]}
    number = {"telecom": [{"system": "phone", "use": "mobile", "value": "+8801700000001"}]}
    assert (await calling(put({**rahima, **number}))).status == 201
    old = await booked(calling)
    id = await calling.make(entry("Patient/b"))
    await calling.change(old, status="cancelled")
    await calling.worked()

    offer = await read(calling, f"Appointment/{id}")
    sent = datetime(2036, 11, 28, tzinfo=UTC) + timedelta(hours=due)
    assert hold_expires(offer) == sent + timedelta(minutes=30)
    [message] = await calling.messages()
    text = message["payload"][0]["contentString"]
    assert link_token(calling.context.page_key, id, "1") in text
    assert "খালি" in text
    [row] = await calling.context.store.outbox.about(f"Appointment/{id}")
    assert (row.content["kind"], row.due, row.content["until"]) == (
        *("offer", sent),
        sent + timedelta(minutes=30),
    )


FREE = Freed(
    *("freed|Appointment/1|1", "freed", MORNING, MORNING, MORNING + timedelta(minutes=30)),
    *("Appointment/1", ["Location/room", "Practitioner/p1"], (), ["urn:s|x"]),
)


@pytest.mark.parametrize(
    ("more", "is_for"),
    [
        ({}, True),
        ({"status": "booked"}, False),
        ({"minutesDuration": 31}, False),
        ({"minutesDuration": None}, True),
        ({"requestedPeriod": [{"start": "2036-12-02"}]}, False),
        ({"requestedPeriod": [{"end": DAY}]}, True),
        ({"requestedPeriod": [{"end": "2036-11-30"}, {"start": DAY, "end": DAY}]}, True),
        ({"requestedPeriod": [{"start": at(1)}]}, False),
        ({"serviceType": [{"coding": [{"system": "urn:s", "code": "x"}]}]}, True),
        ({"serviceType": [{"coding": [{"system": "urn:s", "code": "y"}]}]}, False),
    ],
)
def test_what_is_for_an_entry(more: dict[str, Any], is_for: bool) -> None:
    """By its time, its length and what it is for."""
    assert (place_for({**entry("Patient/a"), **more}, FREE, (BASE,)) is not None) == is_for


@pytest.mark.parametrize(
    ("actors", "is_for"),
    [
        (("Practitioner/p1",), True),
        (("Practitioner/p2",), False),
        (("Practitioner/p2", "Practitioner/p1"), True),
        (("Practitioner/p1", "Location/other"), False),
        (("HealthcareService/h",), True),
        (("Device/d",), False),
    ],
)
def test_whom_an_entry_wants(actors: tuple[str, ...], is_for: bool) -> None:
    """Of each kind one of those that it names."""
    assert (place_for(entry("Patient/a", *actors), FREE, (BASE,)) is not None) == is_for


def test_whose_turn_it_is() -> None:
    """1 is first, 0 and none last; then the oldest."""
    some: list[dict[str, Any]] = [
        {"id": "none", "created": "2026-01-01"},
        {"id": "zero", "priority": 0, "created": "2026-01-02"},
        {"id": "two", "priority": 2, "created": "2026-01-01"},
        {"id": "young", "priority": 1, "created": "2026-03-01"},
        {"id": "old", "priority": 1, "created": "2026-02-01"},
    ]
    assert [one["id"] for one in in_turn(some)] == ["old", "young", "two", "none", "zero"]


@pytest.mark.parametrize(
    "text", ["", "a", "a.1", "a.1.", ".1.x", "a..x", "a.1.é", "a.2." + "x" * 24]
)
def test_a_token_of_another_make_is_none(text: str) -> None:
    """Only ours are taken."""
    assert read_token(b"k" * 32, text) is None
    assert read_token(b"k" * 32, link_token(b"k" * 32, "a.b", "3")) == ("a.b", "3")
    assert read_token(b"l" * 32, link_token(b"k" * 32, "a.b", "3")) is None
