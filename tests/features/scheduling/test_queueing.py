"""design/scheduling.md, section 7, checks Q1 to Q3 and Q5: check in, take a number, be called."""

import asyncio
import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fhir_server.app import Server
from fhir_server.features.scheduling.parameters import SERVICE
from fhir_server.features.scheduling.queue import TRIAGE_EXTENSION
from fhir_server.messages import Request
from fhir_server.store.queues import CLAIMS, LEASE, QUEUES, claim_name
from tests.features.scheduling.queues import BARE, Desk, Told, reference, text


def appointment(patient: str, place: str, **more: Any) -> dict[str, Any]:
    """Return the members of an Appointment of today."""
    who = [patient, place, "Practitioner/dr"]
    start = datetime.now(UTC) - timedelta(minutes=1)
    return {
        "status": "booked",
        "start": start.isoformat(timespec="seconds"),
        "end": (start + timedelta(minutes=30)).isoformat(timespec="seconds"),
        "participant": [{"actor": {"reference": one}, "status": "accepted"} for one in who],
        **more,
    }


# ------------------------------------------------------------------------------ numbers


async def test_two_hundred_at_once_get_two_hundred_numbers(two: list[Server], place: str) -> None:
    """Q1: 200 parallel tokens at two servers are 1 to 200, each once."""
    desks = [Desk(one) for one in two]
    told = await asyncio.gather(*(desks[n % 2]("$issue-token", place, **BARE) for n in range(200)))
    assert {one.status for one in told} == {201}
    assert sorted(one["token"] for one in told) == [f"CARD-{n:03d}" for n in range(1, 201)]
    assert {one["encounter"]["status"] for one in told} == {"arrived"}


async def test_midnight_of_the_place_begins_anew(desk: Desk, place: str) -> None:
    """Q5: midnight in Dhaka restarts at 001 on the same UTC date; the identifier has the date."""
    clock = [datetime(2026, 12, 1, 17, 59, 30, tzinfo=UTC)]
    late = replace(desk, now=lambda: clock[0])
    before = [await late("$issue-token", place, **BARE) for _ in range(2)]
    clock[0] += timedelta(minutes=1)
    after = await late("$issue-token", place, **BARE)
    assert [one["token"] for one in (*before, after)] == ["CARD-001", "CARD-002", "CARD-001"]
    systems = [one["encounter"]["identifier"][0]["system"] for one in (before[0], after)]
    assert [one.rpartition("/")[2] for one in systems] == ["2026-12-01", "2026-12-02"]
    assert "/queue-token/" + place.partition("/")[2] in systems[0]
    # Who waits at midnight is called before those of the new day; at noon not any more.
    assert (await late.call(place))["token"] == "CARD-001"
    clock[0] += timedelta(hours=12)
    assert (await late.call(place))["encounter"]["id"] == after["encounter"]["id"]
    assert (await late.call(place)).status == 404


async def test_nobody_is_lost_in_the_night(desk: Desk, two: list[Server], place: str) -> None:
    """Who waits since the afternoon is called after midnight, and sent on then; who never came is
    not looked at any more when the next day has begun."""
    clock = [datetime(2026, 12, 1, 9, 30, tzinfo=UTC)]
    late = replace(desk, now=lambda: clock[0])
    lab = await late.service(f"lab-{place[9:]}", "Laboratory")
    patients = [await late.take(place) for _ in range(3)]
    clock[0] = datetime(2026, 12, 1, 21, 59, tzinfo=UTC)  # 03:59 in Dhaka
    assert (await late.call(place))["token"] == "CARD-001"
    assert (await late.call(place, "2"))["token"] == "CARD-002"
    await late("$transfer", patients[0], to=reference(lab))
    await late("$skip", patients[1])
    clock[0] += timedelta(hours=3)
    assert (await late.call(place, service=reference(lab)))["token"] == "CARD-001"
    assert (await late.call(place))["token"] == "CARD-002"
    assert (await late.call(place)).status == 404

    queues = two[0].database[QUEUES]
    here = {"location": place.partition("/")[2], "waits": True}
    assert [one["number"] async for one in queues.find(here)] == [3]
    await late.take(place)
    assert [one["number"] async for one in queues.find(here)] == [1]


async def test_a_service_that_is_gone_stops_nobody(desk: Desk, place: str) -> None:
    """Who waits for a service that was deleted meanwhile is called, as are all behind."""
    gone = await desk.service(f"gone-{place[9:]}", "Gone")
    await desk.take(place, service=reference(gone))
    await desk.take(place)
    await desk.ask(Request("delete", "HealthcareService", gone.partition("/")[2]))
    told = [await desk.call(place, counter) for counter in ("1", "2")]
    assert [one.status for one in told] == [200, 200]
    assert told[0]["encounter"]["status"] == "in-progress"


async def test_services_with_the_same_letters_share_their_numbers(desk: Desk, place: str) -> None:
    """What is called out in one place is never there twice on a day."""
    services = [await desk.service(f"s{n}", name) for n, name in enumerate(("Cardio A", "CARDs"))]
    told = [
        await desk("$issue-token", place, **BARE, service=reference(services[n % 2]))
        for n in range(4)
    ]
    assert [one["token"] for one in told] == [f"CARD-{n:03d}" for n in range(1, 5)]


async def test_a_patient_has_one_number_in_a_queue(two: list[Server], desk: Desk) -> None:
    """A second token is 409 and names the first, also when both are asked for at once; it is free
    again when the visit ends, by whatever way."""
    place = await desk.place("once")
    await desk.put("Patient", "once")
    given = {"patient": reference("Patient/once")}
    desks = [Desk(one) for one in two]
    told = await asyncio.gather(*(desks[n % 2]("$issue-token", place, **given) for n in range(8)))
    assert Counter(one.status for one in told) == {201: 1, 409: 7}
    [first] = [one for one in told if one.status == 201]
    refused = await desk("$issue-token", place, **given)
    assert refused.code == "duplicate"
    assert first["token"] in refused.body["issue"][0]["diagnostics"]

    encounter = first["encounter"]
    await desk.put("Encounter", encounter["id"], **{**encounter, "status": "cancelled"})
    again = await desk("$issue-token", place, **given)
    assert again.status == 201
    called = await desk.call(place)
    assert called["token"] == again["token"]
    assert (await desk("$finish", f"Encounter/{again['encounter']['id']}")).status == 200
    assert (await desk("$issue-token", place, **given)).status == 201


async def test_a_refusal_wastes_no_number(desk: Desk, place: str) -> None:
    """Of somebody who has a number already, none is taken."""
    await desk.put("Patient", "p1")
    given = {"patient": reference("Patient/p1")}
    assert (await desk("$issue-token", place, **given)).status == 201
    for _ in range(3):
        assert (await desk("$issue-token", place, **given)).status == 409
    assert (await desk("$issue-token", place, **BARE))["token"] == "CARD-002"


async def test_a_process_that_dies_leaves_a_gap_and_no_double(
    desk: Desk, two: list[Server], place: str
) -> None:
    """A number was taken and nothing written: the next one gets the next number."""

    async def dies(request: Request, context: Any) -> Any:
        if request.interaction == "create":
            raise SystemExit
        return await two[0].context.perform(request, context)

    dying = replace(two[0].context, perform=dies)
    handler = two[0].registry.operations[("Location", "$issue-token")].handler
    body = {"resourceType": "Parameters", "parameter": [{"name": "bare", "valueBoolean": True}]}
    with pytest.raises(SystemExit):
        await handler(
            Request("$issue-token", "Location", place.partition("/")[2], body=body), dying
        )
    assert (await desk("$issue-token", place, **BARE))["token"] == "CARD-002"
    assert (await desk("$queue", place))["waiting"] == 1


# ------------------------------------------------------------------------------ check-in


async def test_check_in_and_to_the_end(desk: Desk, place: str) -> None:
    """The Appointment becomes checked-in and fulfilled, the Encounter arrived, in-progress and
    finished, and nothing of that is left out of statusHistory."""
    await desk.put("Patient", "amina")
    await desk.put("Practitioner", "dr")
    await desk.put("Appointment", "a1", **appointment("Patient/amina", place))
    told = await desk("$check-in", "Appointment/a1", priority={"valueCode": "UR"})
    assert (told.status, told["state"], told["ahead"]) == (201, "waiting", 0)
    encounter = told["encounter"]
    assert encounter["subject"] == {"reference": "Patient/amina"}
    assert encounter["appointment"] == [{"reference": "Appointment/a1"}]
    assert encounter["participant"] == [{"individual": {"reference": "Practitioner/dr"}}]
    assert encounter["location"][0]["location"] == {"reference": place}
    assert encounter["priority"]["coding"][0]["code"] == "UR"
    assert (await desk.read("Appointment/a1"))["status"] == "checked-in"
    again = await desk("$check-in", "Appointment/a1")
    assert (again.status, again.code) == (409, "business-rule")

    called = await desk.call(place, "3")
    assert (called["token"], called["counter"]) == (told["token"], "3")
    on = f"Encounter/{encounter['id']}"
    assert (await desk.read(on)) == called["encounter"]
    ended = (await desk("$finish", on))["encounter"]
    assert ended["status"] == "finished"
    assert [one["status"] for one in ended["statusHistory"]] == ["arrived", "in-progress"]
    assert ended["period"]["end"] == ended["statusHistory"][-1]["period"]["end"]
    assert (await desk.read("Appointment/a1"))["status"] == "fulfilled"
    assert (await desk("$finish", on)).status == 409


@pytest.mark.parametrize("way", ["participant", "serviceType", "parameter"])
async def test_the_service_of_an_appointment_is_the_queue(desk: Desk, place: str, way: str) -> None:
    """Of who takes part, of what the serviceType stands for, or as it is said."""
    service = await desk.service("eyes", "Eye clinic", location=[{"reference": place}])
    members = appointment(f"Patient/eyes-{way}", place)
    members["participant"] = members["participant"][:1]  # the place is that of the service
    named = {"reference": service}
    if way == "participant":
        members["participant"].append({"actor": named, "status": "accepted"})
    if way == "serviceType":
        members["serviceType"] = [
            {"text": "Eyes", "extension": [{"url": SERVICE, "valueReference": named}]}
        ]
    await desk.put("Appointment", f"eyes-{way}", **members)
    given = {"service": reference(service)} if way == "parameter" else {}
    told = await desk("$check-in", f"Appointment/eyes-{way}", **given)
    assert (told.status, told["token"]) == (201, "EYE-001"), told.body
    assert told["encounter"]["location"][0]["location"] == {"reference": place}


async def test_a_patient_with_a_version_checks_in(desk: Desk, place: str) -> None:
    """However an Appointment names who comes: the number and the visit are that patient's."""
    await desk.put("Patient", "versioned")
    one = appointment("Patient/versioned/_history/1", place)
    await desk.put("Appointment", f"versioned-{place[9:]}", **one)
    told = await desk("$check-in", f"Appointment/versioned-{place[9:]}")
    assert told.status == 201, told.body
    assert told["encounter"]["subject"] == {"reference": "Patient/versioned"}


async def test_one_check_in_of_many_at_once(two: list[Server], desk: Desk) -> None:
    """Eight parallel check-ins of one Appointment at two servers: one Encounter."""
    place = await desk.place("many")
    await desk.put("Appointment", "many", **appointment("Patient/many", place))
    desks = [Desk(one) for one in two]
    told = await asyncio.gather(*(desks[n % 2]("$check-in", "Appointment/many") for n in range(8)))
    assert Counter(one.status for one in told) == {201: 1, 409: 7}
    found = await desk.ask(
        Request("search-type", "Encounter", parameters=(("appointment", "Appointment/many"),))
    )
    assert found.body["total"] == 1


@pytest.mark.parametrize(
    ("operation", "on", "given", "status", "code"),
    [
        ("$check-in", "Appointment/none", {}, 404, "not-found"),
        ("$check-in", "Appointment/nowhere", {}, 400, "required"),
        ("$check-in", "Appointment/gone", {}, 409, "business-rule"),
        ("$check-in", "Appointment/nowhere", {"location": text("x")}, 400, "value"),
        ("$check-in", "Appointment/nowhere", {"location": reference("Patient/x")}, 400, "value"),
        ("$issue-token", "Location/none", BARE, 404, "not-found"),
        ("$issue-token", "Location/bad", {}, 400, "required"),
        (
            "$issue-token",
            "Location/bad",
            {**BARE, "patient": reference("Patient/p")},
            400,
            "required",
        ),
        ("$issue-token", "Location/bad", {"patient": reference("Patient/none")}, 404, "not-found"),
        ("$issue-token", "Location/bad", {**BARE, "priority": {"valueCode": "NOW"}}, 400, "value"),
        ("$issue-token", "Location/bad", {**BARE, "x": text("y")}, 400, "value"),
        ("$call-next", "Location/bad", {}, 400, "required"),
        ("$call-next", "Location/bad", {"counter": text("<b>")}, 400, "value"),
        ("$call-next", "Location/bad", {"counter": text("Dr. Abdur Rahman")}, 400, "value"),
        ("$call-next", "Location/bad", {"counter": text("1")}, 404, "not-found"),
        ("$recall", "Encounter/none", {}, 404, "not-found"),
        ("$skip", "Encounter/plain", {}, 404, "not-found"),
        ("$transfer", "Encounter/plain", {}, 400, "required"),
        ("$transfer", "Encounter/plain", {"to": reference("Patient/p")}, 400, "required"),
    ],
)
async def test_what_cannot_be_is_said(
    desk: Desk, operation: str, on: str, given: dict[str, Any], status: int, code: str
) -> None:
    """Each refusal is an OperationOutcome of the client's fault."""
    await desk.place("bad")
    nobody = {**appointment("Patient/p", "Practitioner/x"), "status": "booked"}
    await desk.put("Appointment", "nowhere", **nobody)
    await desk.put(
        "Appointment", "gone", **appointment("Patient/p", "Location/bad", status="proposed")
    )
    plain = {"status": "arrived", "class": {"code": "AMB"}}
    await desk.put("Encounter", "plain", **plain)
    told = await desk(operation, on, **given)
    assert (told.status, told.code) == (status, code), told.body


# ------------------------------------------------------------------------------ calling


async def test_each_is_called_once(two: list[Server], desk: Desk, place: str) -> None:
    """Q2: 150 waiting, 20 counters of two servers x 10 calls: 150 called once, 50 x 404."""
    desks = [Desk(one) for one in two]
    await asyncio.gather(*(desks[n % 2].take(place) for n in range(150)))

    async def counter(number: int) -> list[Told]:
        return [await desks[number % 2].call(place, str(number)) for _ in range(10)]

    told = [one for some in await asyncio.gather(*map(counter, range(20))) for one in some]
    assert Counter(one.status for one in told) == {200: 150, 404: 50}
    called = [one["token"] for one in told if one.status == 200]
    assert len(set(called)) == 150
    empty = next(one for one in told if one.status == 404)
    assert empty.body["issue"][0]["details"]["coding"][0]["code"] == "no-patient"
    assert {one["encounter"]["status"] for one in told if one.status == 200} == {"in-progress"}


async def test_an_emergency_is_next(desk: Desk, place: str) -> None:
    """Q3: before all who came earlier; urgent before routine."""
    order = ("R", "UR", "R", "EM")
    told = [
        await desk("$issue-token", place, **BARE, priority={"valueCode": code}) for code in order
    ]
    assert [one["ahead"] for one in told] == [0, 0, 2, 0]
    called = [(await desk.call(place))["token"] for _ in order]
    assert called == ["CARD-004", "CARD-002", "CARD-001", "CARD-003"]


async def test_what_a_dead_process_has_taken_is_called_by_another(
    two: list[Server], desk: Desk, place: str
) -> None:
    """A counter took who is next and died before it wrote: ten seconds later others call it."""
    await desk.take(place)
    now = desk.server.context.now()
    queues = two[1].context.store.queues
    taken = await queues.next((place.partition("/")[2], None), "call of the dead", "9", now)
    assert taken is not None
    assert (await desk.call(place)).status == 404
    assert timedelta(seconds=5) <= LEASE <= timedelta(seconds=15)  # nobody waits for it longer
    later = replace(desk, now=lambda: now + LEASE + timedelta(milliseconds=1))
    assert (await later.call(place))["token"] == taken.token
    # The dead one wakes up: what it had taken is not its own any more.
    assert await queues.change(taken, ("calling",), {"state": "called"}) is None


async def test_a_call_that_is_sent_again_calls_nobody_else(two: list[Server], place: str) -> None:
    """With an id of the caller's own the answer is told again, at any server, also at once."""
    desks = [Desk(one) for one in two]
    for _ in range(3):
        await desks[0].take(place)
    given = {"call": {"valueId": "call-1"}}
    told = await asyncio.gather(*(desks[n % 2].call(place, "2", **given) for n in range(6)))
    assert {one["token"] for one in told if one.status == 200} == {"CARD-001"}
    assert {one.status for one in told} <= {200, 503}
    assert (await desks[1].call(place, "2", **given))["token"] == "CARD-001"
    assert (await desks[1].call(place, "2"))["token"] == "CARD-002"


async def test_who_left_is_not_called(desk: Desk, place: str) -> None:
    """An Encounter that was deleted, or ended by a plain write, is passed over."""
    gone, ended, there = [await desk.take(place) for _ in range(3)]
    await desk.ask(Request("delete", "Encounter", gone.partition("/")[2]))
    await desk.put(
        "Encounter", ended.partition("/")[2], **{**(await desk.read(ended)), "status": "cancelled"}
    )
    assert (await desk.call(place))["encounter"]["id"] == there.partition("/")[2]


async def test_a_visit_that_ends_by_a_plain_write_leaves_the_queue(desk: Desk, place: str) -> None:
    """Whoever looks sees it gone, and a visit that was finished so counts as a service time."""
    served, waits, there = [await desk.take(place) for _ in range(3)]
    await desk.call(place)
    for on, status in ((served, "finished"), (waits, "cancelled")):
        found = await desk.read(on)
        await desk.put("Encounter", on.partition("/")[2], **{**found, "status": status})
    told = await desk("$queue", place)
    assert [one["encounter"]["reference"] for one in told.all("entry")] == [there]
    [today] = told.all("today")
    assert (today["served"], told["waiting"]) == (1, 1)
    assert (await desk("$finish", served)).status == 409


async def test_skip_goes_behind_and_the_third_time_out(desk: Desk, place: str) -> None:
    """Back to waiting behind those present; absent after three; recalled by name only."""
    first, second = [await desk.take(place, priority={"valueCode": c}) for c in ("EM", "R")]
    assert (await desk("$skip", first)).status == 409  # not called yet
    assert (await desk.call(place))["token"] == "CARD-001"
    told = await desk("$skip", first)
    assert (told["state"], told["encounter"]["status"]) == ("waiting", "arrived")
    assert (await desk.call(place))["token"] == "CARD-002"
    await desk("$finish", second)
    for state in ("waiting", "absent"):
        assert (await desk.call(place))["token"] == "CARD-001"
        assert (await desk("$skip", first))["state"] == state
    assert (await desk.call(place)).status == 404
    back = await desk("$recall", first, counter=text("7"))
    assert (back["state"], back["counter"], back["encounter"]["status"]) == (
        *("called", "7"),
        "in-progress",
    )
    history = [one["status"] for one in back["encounter"]["statusHistory"]]
    assert history == ["arrived", "in-progress"] * 3 + ["arrived"]


async def test_transfer_keeps_the_number(desk: Desk, place: str) -> None:
    """To triage and on to the doctor: one Encounter, one number; places are kept."""
    triage = await desk.service(
        "triage", "Triage", extension=[{"url": TRIAGE_EXTENSION, "valueBoolean": True}]
    )
    type = [{"coding": [{"system": "http://x.example", "code": "card"}]}]
    doctor = await desk.service("doctor", "Doctor", type=type, location=[{"reference": place}])
    other = await desk.place("other")
    one = await desk.take(place, service=reference(triage))
    called = await desk.call(place, service=reference(triage))
    assert (called["token"], called["encounter"]["status"]) == ("TRIA-001", "triaged")
    assert (await desk("$transfer", one, to=reference(triage))).status == 409  # it is there
    moved = await desk("$transfer", one, to=reference(doctor))
    assert (moved["state"], moved["token"]) == ("waiting", "TRIA-001")
    assert moved["encounter"]["serviceType"] == type[0]
    assert (await desk.call(place, service=reference(triage))).status == 404
    called = await desk.call(place, "2", service=reference(doctor))
    assert (called["token"], called["encounter"]["status"]) == ("TRIA-001", "in-progress")
    moved = await desk("$transfer", one, to=reference(other), keepPriority={"valueBoolean": False})
    places = moved["encounter"]["location"]
    assert [(p["location"]["reference"], p["status"]) for p in places] == [
        (place, "completed"),
        (other, "active"),
    ]
    assert moved["encounter"]["status"] == "in-progress"  # the visit goes on elsewhere
    assert (await desk.call(other))["token"] == "TRIA-001"


async def test_no_number_is_in_a_place_twice(desk: Desk, place: str) -> None:
    """Two rooms that count by the same letters: who is sent from one to the other has another
    number where somebody has the same, and one that was brought along is not given again."""
    other = await desk.place(f"o{place[10:]}")
    first, second = [await desk.take(place) for _ in range(2)]
    assert (await desk("$issue-token", other, **BARE))["token"] == "CARD-001"
    moved = await desk("$transfer", first, to=reference(other))
    assert moved["token"] == "CARD-002"
    known = [one["value"] for one in moved["encounter"]["identifier"]]
    systems = [one["system"].split("/")[-2] for one in moved["encounter"]["identifier"]]
    assert (known, systems) == (["CARD-001", "CARD-002"], [place[9:], other[9:]])
    assert (await desk("$transfer", second, to=reference(other)))["token"] == "CARD-003"
    third = [await desk.take(place) for _ in range(2)][1]
    assert (await desk("$transfer", third, to=reference(other)))["token"] == "CARD-004", "kept"
    assert (await desk("$issue-token", other, **BARE))["token"] == "CARD-005"
    waiting = [one["token"] for one in (await desk("$queue", other)).all("entry")]
    assert sorted(waiting) == [f"CARD-00{n}" for n in range(1, 6)]


async def test_a_patient_with_a_number_there_is_not_moved(desk: Desk, place: str) -> None:
    """The unique number of a patient holds for a transfer too."""
    await desk.put("Patient", "moved")
    given = {"patient": reference("Patient/moved")}
    service = await desk.service("there", "Lab")
    one = (await desk("$issue-token", place, **given))["encounter"]
    await desk("$issue-token", place, **given, service=reference(service))
    told = await desk("$transfer", f"Encounter/{one['id']}", to=reference(service))
    assert (told.status, told.code) == (409, "duplicate")


async def test_the_queue_and_its_waits(desk: Desk, place: str) -> None:
    """People ahead, predicted wait and the measures of the day, by the clock."""
    clock = [datetime(2026, 12, 1, 4, tzinfo=UTC)]
    at = replace(desk, now=lambda: clock[0])
    for _ in range(5):
        await at.take(place)
    assert "predicted-wait" not in (await at("$queue", place)).all("entry")[0]
    for counter in ("1", "2"):
        clock[0] += timedelta(minutes=4)
        called = await at.call(place, counter)
        clock[0] += timedelta(minutes=6)
        await at("$finish", f"Encounter/{called['encounter']['id']}")
    told = await at("$queue", place)
    assert told["waiting"] == 3
    entries = told.all("entry")
    assert [(one["token"], one["ahead"]) for one in entries] == [
        *(("CARD-003", 0), ("CARD-004", 1)),
        ("CARD-005", 2),
    ]
    assert [one["predicted-wait"]["value"] for one in entries] == [0, 3, 6]  # x 6 min / 2 counters
    [today] = told.all("today")
    assert (today["served"], today["counters"]) == (2, 2)
    assert (today["wait-median"]["value"], today["wait-90"]["value"]) == (9, 14)
    assert today["service-median"]["value"] == 6


STATUS_OF = {
    "waiting": {"arrived", "in-progress"},  # of who was transferred it goes on
    "called": {"in-progress"},
    "absent": {"arrived"},
    "done": {"finished"},
}


async def test_whatever_many_do_at_once_queue_and_encounters_agree(two: list[Server]) -> None:
    """Eight counters at two servers do everything with the same twelve patients: each entry is what
    its Encounter says, each patient has a number in a queue as long as the visit goes on."""
    desks = [Desk(one) for one in two]
    places = [await desks[0].place(f"many-{n}") for n in range(2)]
    for n in range(12):
        await desks[0].put("Patient", f"many-{n}")
    encounters: list[str] = []

    async def work(number: int) -> Counter[int]:
        chance, desk, statuses = random.Random(number), desks[number % 2], Counter[int]()
        for _ in range(16):
            place = chance.choice(places)
            kind = chance.choice(("issue", "call", "call", "skip", "transfer", "finish", "recall"))
            if kind == "issue" or not encounters:
                patient = reference(f"Patient/many-{chance.randrange(12)}")
                told = await desk("$issue-token", place, patient=patient)
                if told.status == 201:
                    encounters.append(f"Encounter/{told['encounter']['id']}")
            elif kind == "call":
                told = await desk.call(place, str(number))
            else:
                given = {"to": reference(place)} if kind == "transfer" else {}
                if kind == "recall":  # who was absent is at no counter any more
                    given = {"counter": {"valueString": str(number)}}
                told = await desk(f"${kind}", chance.choice(encounters), **given)
            statuses[told.status] += 1
        return statuses

    told = sum(await asyncio.gather(*map(work, range(8))), Counter[int]())
    assert set(told) <= {200, 201, 404, 409}, told
    ids = [one.partition("/")[2] for one in encounters]
    rows = await two[0].database[QUEUES].find({"_id": {"$in": ids}}).to_list()
    assert len(rows) == len(encounters)
    open_claims = set()
    for row in rows:
        encounter = await desks[0].read(f"Encounter/{row['_id']}")
        assert encounter["status"] in STATUS_OF[row["state"]], (row, encounter)
        assert row.get("waits", False) == (row["state"] == "waiting"), row
        assert encounter["identifier"][-1]["value"] == row["token"]
        if row["state"] != "done":
            parts = (row[name] for name in ("location", "service", "date", "patient"))
            open_claims.add((claim_name(*parts), row["_id"]))
    found = await two[0].database[CLAIMS].find({"entry": {"$in": ids}}).to_list()
    assert {(one["_id"], one["entry"]) for one in found} == open_claims
    assert len({one for one, _ in open_claims}) == len(open_claims)
