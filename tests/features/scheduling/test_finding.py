"""https://profiles.ihe.net/ITI/Scheduling/ITI-115.html; design/scheduling.md, sections 2 and 3."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from fhir_server.app import Server
from fhir_server.dispatch import answer
from fhir_server.features.scheduling import candidates, looking
from fhir_server.features.scheduling.proposals import proposed
from fhir_server.messages import Request
from fhir_server.outcome import FhirError
from fhir_server.r4.json import decode
from fhir_server.security.principal import Principal
from tests.features.scheduling.finding import (
    BASE,
    DAY,
    HOURS,
    NOW,
    Json,
    ask,
    busy,
    find,
    put,
    remove,
    schedule,
)
from tests.features.scheduling.rules import available, parameters, service, span

CASES: dict[str, tuple[tuple[tuple[str, str], ...], list[str]]] = {
    "a practitioner; what is taken is left out": (
        (("practitioner", "Practitioner/p1"),),
        ["09:00 p1", "10:00 p1", "10:30 p1"],
    ),
    "a practitioner who has a role": (
        (("practitioner", "p2"),),
        ["09:00 r2", "09:30 r2", "10:00 r2", "10:30 r2"],
    ),
    "several are any of them, the first preferred": (
        (("practitioner", "Practitioner/p2"), ("practitioner", "Practitioner/p1")),
        ["09:00 r2", "09:00 p1", "09:30 r2", "10:00 r2", "10:00 p1", "10:30 r2", "10:30 p1"],
    ),
    "a doctor and a room": (
        (("practitioner", "Practitioner/p1"), ("location-reference", "Location/room1")),
        ["10:00 p1 room1", "10:30 p1 room1"],
    ),
    "a place without a Schedule is where they are": (
        (("practitioner", "p1"), ("practitioner", "p2"), ("location-reference", "building")),
        ["09:00 r2", "09:30 r2", "10:00 r2", "10:30 r2"],
    ),
    "who is at a place": (
        (("location-reference", "Location/building"),),
        ["09:00 r2", "09:30 r2", "10:00 r2", "10:30 r2"],
    ),
    "an address": (
        (("location-string", "Dhak"),),
        ["09:00 r2", "09:30 r2", "10:00 r2", "10:30 r2"],
    ),
    "a specialty of a Schedule": (
        (("specialty", "urn:specialty|cardio"),),
        ["09:00 p1", "10:00 p1", "10:30 p1"],
    ),
    "a specialty of a role, and its organization": (
        (("specialty", "urn:specialty|derma"), ("organization", "Organization/heart")),
        ["09:00 r2", "09:30 r2", "10:00 r2", "10:30 r2"],
    ),
    "a specialty that nobody has": ((("specialty", "urn:specialty|neuro"),), []),
    "a practitioner without a Schedule": ((("practitioner", "Practitioner/ghost"),), []),
    "a Schedule with the buffer of a service, for which there is no room": (
        (("schedule", "Schedule/s1"), ("service-type-reference", "HealthcareService/h1")),
        ["10:00 p1", "10:30 p1"],
    ),
    "the zone of the actor": (
        (("practitioner", "Practitioner/p3"),),
        ["09:00 p3", "09:30 p3", "10:00 p3", "10:30 p3"],
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_what_is_found(world: Server, case: str) -> None:
    """Different kinds of actors are all wanted, of one kind anyone, in the order of preference."""
    asked, expected = CASES[case]

    assert await find(world, *asked) == expected


async def test_a_proposal(world: Server) -> None:
    """An Appointment as it would be booked, its Slots contained and referenced, local times."""
    bundle = await ask(
        world,
        ("start", "2036-12-01T00:00:00+06:00"),
        ("_count", "1"),
        end=DAY[1],
        practitioner="Practitioner/p3",
        patient_reference="Patient/amina",
    )
    [entry] = bundle["entry"]
    found = entry["resource"]

    assert (bundle["type"], bundle["total"]) == ("searchset", 4)
    assert entry["fullUrl"] == f"{BASE}/Appointment/{found['id']}"
    assert entry["search"] == {"mode": "match"}
    assert found["status"] == "proposed"
    assert (found["start"], found["end"]) == (
        "2036-12-01T09:00:00+06:00",
        "2036-12-01T09:30:00+06:00",
    )
    assert found["contained"][0]["schedule"] == {"reference": "Schedule/s3"}
    assert found["slot"] == [{"reference": f"#{found['contained'][0]['id']}"}]
    assert [one["actor"]["reference"] for one in found["participant"]] == [
        "Practitioner/p3",
        "Patient/amina",
    ]
    assert world.context.validate({**found, "status": "proposed"}) == ()


async def test_a_proposal_belongs_to_who_asked(world: Server) -> None:
    """It is read again by its id, for some minutes, and by nobody else."""
    bundle = await ask(world, start=DAY[0], end=DAY[1], practitioner="Practitioner/p1")
    ids = [one["resource"]["id"] for one in bundle["entry"]]
    context = world.context

    for one in bundle["entry"]:
        assert await proposed(one["resource"]["id"], context) == [one["resource"]]
    others = [
        replace(context, principal=Principal("user", "somebody")),
        replace(context, now=lambda: NOW + timedelta(minutes=11)),
    ]
    for other in others:
        with pytest.raises(FhirError) as refused:
            await proposed(ids[0], other)
        assert refused.value.issues[0].code == "not-found"
    for wrong in (f"{ids[0][:-1]}9", f"{ids[0][:-1]}0", "x", "$gt-1", "a" * 64):
        with pytest.raises(FhirError):
            await proposed(wrong, context)


async def test_nothing_is_stored_as_a_resource(world: Server) -> None:
    """A proposal is no Appointment: it is not read, and no search finds it."""
    bundle = await ask(world, start=DAY[0], end=DAY[1], practitioner="Practitioner/p1")
    id = bundle["entry"][0]["resource"]["id"]
    request = Request("read", "Appointment", id, base_url=BASE)

    assert (await answer(world.registry, request, world.context)).status == 404


async def test_count_and_total(world: Server) -> None:
    """``_count`` bounds the entries, ``total`` says how many there are."""
    bundle = await ask(world, start="2036-12-01", end="2036-12-05", practitioner="p2", _count="3")
    assert (len(bundle["entry"]), bundle["total"]) == (3, 20)


async def test_holds_and_what_expired(world: Server) -> None:
    """A hold is not offered; once it is over it is, with nothing done about it."""
    until = "2036-11-20T00:10:00Z"
    hold: Json = {
        "resourceType": "Appointment",
        "id": "hold",
        "status": "pending",
        "start": "2036-12-01T10:00:00Z",
        "end": "2036-12-01T10:30:00Z",
        "participant": [{"actor": {"reference": "Practitioner/p1"}, "status": "accepted"}],
        "extension": [
            {"url": "urn:fhir-server:StructureDefinition:hold-expires", "valueDateTime": until}
        ],
    }
    await put(
        world,
        {**hold, "extension": [{**hold["extension"][0], "valueDateTime": "2036-11-20T00:10:00Z"}]},
    )
    asked = (("practitioner", "Practitioner/p1"),)
    assert await find(world, *asked) == ["09:00 p1", "10:30 p1"]

    later = replace(world.context, now=lambda: NOW + timedelta(minutes=10))
    assert await find(replace(world, context=later), *asked) == ["09:00 p1", "10:00 p1", "10:30 p1"]
    # To move it, it counts as gone.
    moved = (*asked, ("ignore-appointment", "Appointment/hold"))
    assert await find(world, *moved) == ["09:00 p1", "10:00 p1", "10:30 p1"]
    await remove(world, {"resourceType": "Appointment", "id": "hold"})


@pytest.mark.parametrize("role", ["bare", "none"])
async def test_a_role_that_nobody_has_is_taken_once(world: Server, role: str) -> None:
    """As one whom the clinic has yet to appoint; of a companion no time is offered."""
    bare = {"resourceType": "PractitionerRole", "id": "bare"}
    actor = f"PractitionerRole/{role}"
    own = [schedule("open", actor), schedule("theirs", "RelatedPerson/r")]
    await put(world, bare, *own)
    body = {
        "resourceType": "Appointment",
        "status": "booked",
        "start": "2036-12-01T09:30:00Z",
        "end": "2036-12-01T10:00:00Z",
        "participant": [{"actor": {"reference": actor}, "status": "accepted"}],
    }
    request = Request("create", "Appointment", body=body, base_url=BASE)
    statuses = [(await answer(world.registry, request, world.context)).status for _ in range(2)]
    assert statuses == [201, 409]

    found = await find(world, ("schedule", "Schedule/open"))
    assert [one[:5] for one in found] == ["09:00", "10:00", "10:30"]
    bundle = await ask(world, start=DAY[0], end=DAY[1], schedule="Schedule/theirs")
    assert bundle["total"] == 0
    await remove(world, *own)


async def test_the_patient_is_busy_as_well(world: Server) -> None:
    """What a patient has with another doctor is not offered to that patient."""
    booked = {
        "resourceType": "Appointment",
        "id": "other",
        "status": "booked",
        "start": "2036-12-01T10:15:00Z",
        "end": "2036-12-01T10:30:00Z",
        "participant": [
            {"actor": {"reference": one}, "status": "accepted"}
            for one in ("Patient/amina", "Practitioner/p2")
        ],
    }
    await put(world, booked)
    asked = (("practitioner", "Practitioner/p1"), ("patient-reference", "Patient/amina"))
    assert await find(world, *asked) == ["09:00 p1 amina", "10:30 p1 amina"]
    await remove(world, booked)


async def test_more_schedules_than_a_search_takes_alternatives(
    world: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their free Slots are looked up by portions."""
    doctors = (("practitioner", "p1"), ("practitioner", "p2"))
    expected = await find(world, *doctors)
    monkeypatch.setattr(looking, "_VALUES_AT_ONCE", 1)
    few = world.context.settings.model_copy(update={"search_values_max": 1})
    context = replace(world.context, settings=few)
    server = replace(world, context=context)
    assert await find(server, *doctors) == expected != []


async def test_a_free_slot_opens(world: Server) -> None:
    """Its time is offered whatever the hours say."""
    extra = busy("free1", "s1", "16:00:00", "17:00:00", "free")
    await put(world, extra)
    assert (await find(world, ("schedule", "Schedule/s1")))[-2:] == ["16:00 p1", "16:30 p1"]
    await remove(world, extra)


async def test_capacity_and_limits(world: Server) -> None:
    """Room for two is offered until two are there; a limit of the day closes the day."""
    limit = [{"url": "count", "valuePositiveInt": 2}, {"url": "per", "valueCode": "day"}]
    rules = parameters(
        HOURS,
        {"url": "bookingLimit", "extension": limit},
        duration=span(30),
        slotCapacity={"valuePositiveInt": 2},
    )
    who = {"resourceType": "Practitioner", "id": "p9"}
    two = schedule("s9", "Practitioner/p9", extension=(rules,))
    first, second = (
        {
            "resourceType": "Appointment",
            "id": f"a{number}",
            "status": "booked",
            "start": "2036-12-01T09:00:00Z",
            "end": "2036-12-01T09:30:00Z",
            "participant": [{"actor": {"reference": "Practitioner/p9"}, "status": "accepted"}],
        }
        for number in (1, 2)
    )
    await put(world, who, two, first)
    assert len(await find(world, ("practitioner", "p9"))) == 4
    await put(world, second)
    assert await find(world, ("practitioner", "p9")) == []
    assert (
        len((await ask(world, start="2036-12-02", end="2036-12-02", practitioner="p9"))["entry"])
        == 4
    )
    await remove(world, who, two, first, second)


async def test_a_service_gives_hours_and_duration(world: Server) -> None:
    """A Schedule that says nothing itself has the rules of its service; buffers are Slots too."""
    typed = [
        {
            "extension": [
                {
                    "url": "urn:fhir-server:StructureDefinition:service",
                    "valueReference": {"reference": "HealthcareService/h1"},
                }
            ]
        }
    ]
    plain = schedule("s8", "Practitioner/p8", extension=(), serviceType=typed)
    await put(world, {"resourceType": "Practitioner", "id": "p8"}, plain)

    bundle = await ask(
        world, start=DAY[0], end=DAY[1], visit_type="urn:type|checkup", practitioner="p8"
    )
    [first, *_] = [one["resource"] for one in bundle["entry"]]

    assert [one["resource"]["start"][11:16] for one in bundle["entry"]] == ["13:00", "14:00"]
    assert first["minutesDuration"] == 60
    assert [(one["status"], one["start"][11:16]) for one in first["contained"]] == [
        ("busy", "13:00"),
        ("busy-unavailable", "14:00"),
    ]
    assert first["serviceType"][0]["text"] == "Check-up"
    [said] = first["serviceType"][0]["extension"]
    assert said["valueReference"] == {"reference": "HealthcareService/h1"}
    assert world.context.validate(first) == ()
    await remove(world, plain)


async def test_s15_the_alias(world: Server) -> None:
    """S15: ``schedule`` and ``service-type-reference``, hourly starts around the clock."""
    typed = [
        {
            "extension": [
                {
                    "url": "https://medplum.com/fhir/service-type-reference",
                    "valueReference": {"reference": "HealthcareService/alias"},
                }
            ]
        }
    ]
    plain = schedule("s7", "Practitioner/p3", extension=(), serviceType=typed)
    await put(world, plain)
    asked: Json = {"start": "2036-12-01T00:00:00Z", "end": "2036-12-01T06:00:00Z"}

    bundle = await ask(
        world, **asked, schedule="Schedule/s7", service_type_reference="HealthcareService/alias"
    )
    found = [one["resource"] for one in bundle["entry"]]
    times = [datetime.fromisoformat(one["start"]).astimezone(UTC).hour for one in found]
    urls = [one["url"] for one in found[0]["serviceType"][0]["extension"]]

    # The other Schedule of the same doctor has nothing booked.
    assert times == [0, 1, 2, 3, 4, 5]
    assert "https://medplum.com/fhir/service-type-reference" in urls
    assert found[0]["contained"][0]["status"] == "busy"
    series = await ask(
        world,
        **asked,
        schedule="Schedule/s7",
        service_type_reference="HealthcareService/alias",
        occurrence_count="3",
        _count="1",
    )
    [collection] = [one["resource"] for one in series["entry"]]
    assert collection["type"] == "collection"
    assert [one["resource"]["start"][:10] for one in collection["entry"]] == [
        "2036-12-01",
        "2036-12-08",
        "2036-12-15",
    ]
    first, *_, last = (one["resource"] for one in collection["entry"])
    assert (await proposed(last["id"], world.context))[0]["id"] == first["id"]
    await remove(world, plain)


async def test_a_series_leaves_out_what_one_week_has_taken(world: Server) -> None:
    """Each of its occurrences has to be free."""
    other = {
        **busy("b2", "s1", "09:00:00", "09:30:00"),
        "start": "2036-12-08T09:00:00Z",
        "end": "2036-12-08T09:30:00Z",
    }
    await put(world, other)
    bundle = await ask(world, start=DAY[0], end=DAY[1], practitioner="p1", occurrence_count="2")
    starts = [one["resource"]["entry"][0]["resource"]["start"][11:16] for one in bundle["entry"]]
    assert starts == ["10:00", "10:30"]
    await remove(world, other)


async def test_post_with_timing_and_identifier(world: Server) -> None:
    """What cannot stand in a URL comes as Parameters."""
    body = {
        "resourceType": "Parameters",
        "parameter": [
            {"name": "start", "valueDateTime": "2036-12-01"},
            {"name": "end", "valueDateTime": "2036-12-07"},
            {
                "name": "practitioner",
                "valueReference": {"identifier": {"system": "urn:staff", "value": "2"}},
            },
            {
                "name": "timing",
                "valueTiming": {"repeat": {"dayOfWeek": ["wed"], "timeOfDay": ["10:30:00"]}},
            },
        ],
    }
    request = Request("$find", "Appointment", body=body, base_url=BASE)
    response = await answer(world.registry, request, world.context)
    found = [one["resource"]["start"] for one in decode(response.body)["entry"]]

    assert found == ["2036-12-03T10:30:00+00:00"]


REFUSED: dict[str, tuple[dict[str, str], int, str]] = {
    "no start": ({"end": "2036-12-01"}, 400, "needs start"),
    "no end": ({"start": "2036-12-01"}, 400, "needs end"),
    "32 days": ({"start": "2036-12-01", "end": "2037-01-01"}, 400, "more than 31 days"),
    "backwards": ({"start": "2036-12-02", "end": "2036-12-01"}, 400, "not after start"),
    "no date": ({"start": "soon", "end": "2036-12-01"}, 400, "soon"),
    "no zone": ({"start": "2036-12-01T09:00:00", "end": "2036-12-01"}, 400, "with its zone"),
    "the first day": ({"start": "0001-01-01", "end": "0001-01-02"}, 400, "nearer"),
    "the last": (
        {"start": "9999-12-30", "end": "9999-12-30", "occurrence-count": "52"},
        400,
        "near",
    ),
    "a count of 1,001": ({"_count": "1001"}, 400, "1 to 1,000"),
    "no token": ({"specialty": "cardio"}, 400, "system|code"),
    "a list of tokens": ({"specialty": "urn:a|b,urn:c|d"}, 400, "system|code"),
    "another type": ({"practitioner": "Patient/amina"}, 400, "Practitioner/1"),
    "an operator": ({"practitioner": '{"$gt":""}'}, 400, "Practitioner/1"),
    "an unknown parameter": ({"practitoner": "p1"}, 400, "practitioner"),
    "what is not served": ({"reason": "a|b"}, 400, "not served"),
    "no such Schedule": ({"schedule": "Schedule/none"}, 404, "Schedule/none"),
    "a Schedule that is not active": ({"schedule": "Schedule/ghost"}, 400, "not active"),
    "no such service": ({"service-type-reference": "none"}, 404, "HealthcareService/none"),
    "no such patient": ({"patient-reference": "Patient/none"}, 404, "Patient/none"),
    "no such appointment": ({"ignore-appointment": "Appointment/none"}, 404, "Appointment/none"),
    "no duration": (
        {"location-reference": "Location/room1"},
        400,
        "No duration is said by Schedule/room1",
    ),
    "a series of 53": ({"occurrence-count": "53"}, 400, "1 to 52"),
    "a series within a month": ({"occurrence-count": "2", "end": "2036-12-20"}, 400, "7 days"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_refused(world: Server, case: str) -> None:
    """With a sentence that says what was expected."""
    given, status, words = REFUSED[case]
    asked = (
        given
        if "start" in given or given.keys() == {"end"}
        else {"start": DAY[0], "end": DAY[1], **given}
    )

    outcome = await ask(world, *asked.items(), status=status)

    assert words in outcome["issue"][0]["diagnostics"]


async def test_rules_that_cannot_be_read_are_said(world: Server) -> None:
    """Alone they refuse the question; among others they are a warning beside what is found."""
    wrong = schedule("bad", "Practitioner/p1", extension=(parameters(HOURS, duration=span(0)),))
    await put(world, wrong)
    outcome = await ask(world, start=DAY[0], end=DAY[1], schedule="Schedule/bad", status=422)
    issue = outcome["issue"][0]
    assert (issue["code"], issue["expression"]) == (
        "extension",
        ["Schedule.extension[0].extension[0]"],
    )

    bundle = await ask(world, start=DAY[0], end=DAY[1], practitioner="p1")
    last = bundle["entry"][-1]
    assert (last["search"]["mode"], last["resource"]["issue"][0]["severity"]) == (
        "outcome",
        "warning",
    )
    assert bundle["total"] == 3
    await remove(world, wrong)


async def test_notice_and_horizon(world: Server) -> None:
    """Not sooner than the notice, not later than the horizon of 90 days."""
    soon = replace(world.context, now=lambda: datetime(2036, 12, 1, 9, 45, tzinfo=UTC))
    assert await find(replace(world, context=soon), ("practitioner", "p1")) == [
        "10:00 p1",
        "10:30 p1",
    ]
    early = replace(world.context, now=lambda: datetime(2036, 9, 1, tzinfo=UTC))
    assert await find(replace(world, context=early), ("practitioner", "p1")) == []


async def test_what_is_offered_can_be_booked_and_nothing_else(world: Server) -> None:
    """Until nothing is offered: the rule that guards every write and ``$find`` are of one mind."""
    rules = parameters(
        HOURS,
        duration=span(25),
        alignmentInterval=span(15),
        bufferBefore=span(10),
        bufferAfter=span(5),
        slotCapacity={"valuePositiveInt": 2},
    )
    await put(world, schedule("s6", "Practitioner/p6", extension=(rules,)))

    async def booked(start: str) -> int:
        begin = datetime.fromisoformat(f"2036-12-01T{start}:00+00:00")
        body = {
            "resourceType": "Appointment",
            "status": "booked",
            "start": begin.isoformat(),
            "end": (begin + timedelta(minutes=25)).isoformat(),
            "participant": [{"actor": {"reference": "Practitioner/p6"}, "status": "accepted"}],
        }
        request = Request("create", "Appointment", body=body, base_url=BASE)
        return (await answer(world.registry, request, world.context)).status

    quarters = [f"{hour:02}:{minute:02}" for hour in (9, 10) for minute in (0, 15, 30, 45)]
    count = 0
    while offered := [one[:5] for one in await find(world, ("practitioner", "p6"))]:
        for start in quarters[:-1]:
            if start not in offered and count:
                assert await booked(start) == 409, start
        assert await booked(offered[count % 2 - 1]) == 201
        count += 1
    assert count == 6, "three at a time of 40 minutes each in two hours, by two"


async def test_what_would_cost_too_much_is_refused(world: Server) -> None:
    """A start every minute, around the clock, and each has to be looked at."""
    day = available("mon tue wed thu fri sat sun", "00:00:00", "00:00:00")
    minutes = parameters(day, duration=span(1))
    await put(
        world, *(schedule(f"m{n}", f"Practitioner/m{n}", extension=(minutes,)) for n in range(5))
    )
    asked = [("start", "2036-12-01"), ("end", "2036-12-31")]
    doctors = [("practitioner", f"Practitioner/m{n}") for n in range(5)]

    assert (await ask(world, *asked, *doctors))["total"] == 5 * 31 * 1440
    timing = {"name": "timing", "valueTiming": {"repeat": {"when": ["MORN"]}}}
    given = [
        *({"name": name, "valueDateTime": value} for name, value in asked),
        *({"name": name, "valueReference": {"reference": value}} for name, value in doctors),
    ]
    body = {"resourceType": "Parameters", "parameter": [*given, timing]}
    request = Request("$find", "Appointment", body=body, base_url=BASE)
    response = await answer(world.registry, request, world.context)
    assert (response.status, decode(response.body)["issue"][0]["code"]) == (403, "too-costly")


async def test_rules_are_not_read_of_more_than_can_be_combined(
    world: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Schedule may be for a thousand services, and its rules may be long."""
    many = [f"HealthcareService/m{n}" for n in range(5)]
    services = [{"resourceType": "HealthcareService", "id": one[18:]} for one in many]
    await put(world, *services, schedule("long", "Practitioner/long", *many))
    asked = [("start", DAY[0]), ("end", DAY[1]), ("practitioner", "long")]
    assert (await ask(world, *asked))["total"] == 5 * 4

    monkeypatch.setattr(candidates, "_COMBINATIONS_MAX", 4)
    monkeypatch.setattr(candidates, "rules", None)
    outcome = await ask(world, *asked, status=403)
    assert outcome["issue"][0]["code"] == "too-costly"


async def test_an_answer_is_no_longer_than_a_page(world: Server) -> None:
    """Whatever a service says of itself, and however many are asked for."""
    asked = [("start", DAY[0]), ("end", DAY[1])]
    said = [{"text": "x" * 100_000}]
    await put(
        world,
        service(id="said", type=said, specialty=said),
        *(
            schedule(f"long{n}", f"Practitioner/long{n}", "HealthcareService/said")
            for n in range(9)
        ),
    )
    nine = [("practitioner", f"Practitioner/long{n}") for n in range(9)]
    bundle = await ask(world, *asked, *nine, ("_count", "1000"))
    assert bundle["total"] == 9 * 4
    assert 1 < len(bundle["entry"]) < 15


@pytest.mark.parametrize("type", ["batch", "transaction"])
async def test_in_a_bundle(world: Server, type: str) -> None:
    """It is answered there as well; in a transaction it sees what that has taken."""
    booked = {
        "resourceType": "Slot",
        "id": f"in-{type}",
        "status": "busy-unavailable",
        "schedule": {"reference": "Schedule/s1"},
        "start": "2036-12-01T09:00:00Z",
        "end": "2036-12-01T09:30:00Z",
    }
    url = f"Appointment/$find?start={DAY[0]}&end={DAY[1]}&practitioner=p1"
    entries = [
        {"request": {"method": "PUT", "url": f"Slot/in-{type}"}, "resource": booked},
        {"request": {"method": "GET", "url": url}},
    ]
    body = {"resourceType": "Bundle", "type": type, "entry": entries}
    request = Request("transaction", body=body, base_url=BASE)
    found = decode((await answer(world.registry, request, world.context)).body)["entry"][1]

    starts = [one["resource"]["start"][11:16] for one in found["resource"]["entry"]]
    assert starts == ["10:00", "10:30"]
    await remove(world, booked)
