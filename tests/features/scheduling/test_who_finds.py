"""https://profiles.ihe.net/ITI/Scheduling/ITI-115.html; design/scheduling.md: who finds."""

from dataclasses import replace

from fhir_server.app import Server
from fhir_server.dispatch import answer
from fhir_server.messages import Request
from fhir_server.r4.json import decode, encode
from fhir_server.security.principal import Principal
from fhir_server.security.scopes import scopes_of
from tests.features.scheduling.finding import BASE, DAY, DHAKA, busy, put, schedule

SECRETARY = Principal("user", "secretary", "app", scopes_of("user/*.cruds"), roles=("front-desk",))
AMINA = Principal(
    *("user", "amina", "app", scopes_of("patient/*.cruds")),
    roles=("patient",),
    fhir_user="Patient/amina",
    patient="amina",
)
LAB = Principal("client", "lab", scopes=scopes_of("system/Observation.rs"))


async def test_who_may_find(world: Server) -> None:
    """Front desk and patients find times; a patient none that say when another patient is busy."""
    other = {"resourceType": "Patient", "id": "rahim"}
    await put(world, other)

    async def status(principal: Principal, **given: str) -> int:
        pairs = {"start": DAY[0], "end": DAY[1], "practitioner": "p1", **given}
        request = Request("$find", "Appointment", parameters=tuple(pairs.items()), base_url=BASE)
        context = world.context.asked_by(principal)
        return (await answer(world.registry, request, context)).status

    mine = {"patient-reference": "Patient/amina"}
    theirs = {"patient-reference": "Patient/rahim"}
    assert [await status(SECRETARY), await status(SECRETARY, **theirs)] == [200, 200]
    assert [await status(AMINA), await status(AMINA, **mine)] == [200, 200]
    assert await status(AMINA, **theirs) == 404
    assert [await status(LAB), await status(Principal("nobody", "nobody"))] == [403, 401]


NARROW = replace(
    SECRETARY, scopes=scopes_of("user/Appointment.cruds user/Schedule.rs user/Slot.cruds")
)


async def test_hours_are_the_same_for_who_sees_less(world: Server) -> None:
    """Whoever may not read people, roles and services is told the same times, and no names."""
    role = {"resourceType": "PractitionerRole", "id": "r7", "extension": [DHAKA]}
    of_p7 = {"practitioner": {"reference": "Practitioner/p7"}}
    own = schedule("s7", "PractitionerRole/r7", "HealthcareService/h1", extension=())
    await put(world, {**role, **of_p7}, own, busy("b7", "s7", "07:00:00", "07:45:00"))
    asked = (("start", DAY[0]), ("end", DAY[1]), ("schedule", "Schedule/s7"))
    request = Request("$find", "Appointment", parameters=asked, base_url=BASE)
    told = [
        decode((await answer(world.registry, request, world.context.asked_by(who))).body)["entry"]
        for who in (SECRETARY, NARROW)
    ]
    times = [[one["resource"]["start"] for one in found] for found in told]
    assert times == [["2036-12-01T14:00:00+06:00"]] * 2
    [offered] = told[1]
    assert "display" not in str(offered)

    async def booked(offset: bytes) -> int:
        there = decode(encode(offered["resource"]).replace(b"+06:00", offset))
        given = [{"name": "appointment", "resource": there}]
        body = {"resourceType": "Parameters", "parameter": given}
        request = Request("$book", "Appointment", body=body, base_url=BASE)
        return (await answer(world.registry, request, world.context.asked_by(NARROW))).status

    assert [await booked(b"Z"), await booked(b"+06:00")] == [409, 201]
