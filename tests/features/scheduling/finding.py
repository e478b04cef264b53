"""The world in which times are looked for, and what asks for them."""

from datetime import UTC, datetime
from typing import Any

from fhir_server.app import Server
from fhir_server.dispatch import answer
from fhir_server.messages import Request
from fhir_server.r4.json import decode
from tests.features.scheduling.rules import alias, available, parameters, service, span

Json = dict[str, Any]
BASE = "http://fhir.example.org/fhir"
DHAKA = {"url": "http://hl7.org/fhir/StructureDefinition/timezone", "valueCode": "Asia/Dhaka"}
CARDIO = {"coding": [{"system": "urn:specialty", "code": "cardio"}]}
DERMA = {"coding": [{"system": "urn:specialty", "code": "derma"}]}
CHECKUP = {"coding": [{"system": "urn:type", "code": "checkup"}], "text": "Check-up"}
NOW = datetime(2036, 11, 20, tzinfo=UTC)
DAY = ("2036-12-01", "2036-12-01")  # a Monday
HOURS = available("mon tue wed thu fri", "09:00:00", "11:00:00")
HALF = parameters(HOURS, duration=span(30))


def schedule(id: str, *actors: str, extension: Any = (HALF,), **more: Any) -> Json:
    """Return a Schedule of ``actors``."""
    who = [{"reference": one} for one in actors]
    found = {"resourceType": "Schedule", "id": id, "actor": who, **more}
    return {**found, "extension": list(extension)} if extension else found


def busy(id: str, of: str, start: str, end: str, status: str = "busy") -> Json:
    """Return a Slot on the first of December; times in UTC."""
    return {
        "resourceType": "Slot",
        "id": id,
        "schedule": {"reference": f"Schedule/{of}"},
        "status": status,
        "start": f"2036-12-01T{start}Z",
        "end": f"2036-12-01T{end}Z",
    }


WORLD: tuple[Json, ...] = (
    {
        "resourceType": "Practitioner",
        "id": "p1",
        "name": [{"prefix": ["Dr."], "given": ["Rahima"], "family": "Khatun"}],
    },
    {
        "resourceType": "Practitioner",
        "id": "p2",
        "identifier": [{"system": "urn:staff", "value": "2"}],
    },
    {"resourceType": "Practitioner", "id": "p3", "extension": [DHAKA]},
    {"resourceType": "Patient", "id": "amina"},
    {"resourceType": "Organization", "id": "heart", "name": "Heart"},
    {
        "resourceType": "Location",
        "id": "room1",
        "name": "Room 1",
        "address": {"city": "Sylhet"},
    },
    {"resourceType": "Location", "id": "building", "name": "House", "address": {"city": "Dhaka"}},
    {
        "resourceType": "PractitionerRole",
        "id": "r2",
        "practitioner": {"reference": "Practitioner/p2"},
        "specialty": [DERMA],
        "organization": {"reference": "Organization/heart"},
        "location": [{"reference": "Location/building"}],
    },
    service(
        parameters(duration=span(60), bufferAfter=span(15)),
        id="h1",
        name="Check-up",
        type=[CHECKUP],
        availableTime=[
            {
                "daysOfWeek": ["mon"],
                "availableStartTime": "13:00:00",
                "availableEndTime": "15:00:00",
            }
        ],
    ),
    service(alias(duration=span(30)), id="alias", type=[CHECKUP]),
    schedule("s1", "Practitioner/p1", specialty=[CARDIO]),
    schedule("s2", "PractitionerRole/r2"),
    schedule("s3", "Practitioner/p3"),
    schedule(
        "room1", "Location/room1", extension=(parameters(available("mon", "10:00:00", "12:00:00")),)
    ),
    schedule("ghost", "Practitioner/ghost", active=False),
    busy("b1", "s1", "09:30:00", "10:00:00"),
)


async def put(server: Server, *bodies: Json) -> None:
    """Store ``bodies`` under their ids."""
    for body in bodies:
        request = Request("update", body["resourceType"], body["id"], body=body, base_url=BASE)
        response = await answer(server.registry, request, server.context)
        assert response.status in (200, 201), response.body


async def remove(server: Server, *bodies: Json) -> None:
    """Delete ``bodies`` again."""
    for body in reversed(bodies):
        request = Request("delete", body["resourceType"], body["id"], base_url=BASE)
        response = await answer(server.registry, request, server.context)
        assert response.status == 204, response.body


async def ask(server: Server, *given: tuple[str, str], status: int = 200, **more: Any) -> Json:
    """Return what ``$find`` answers by GET; ``_`` in names stands for ``-``."""
    named = tuple((name[0] + name[1:].replace("_", "-"), text) for name, text in more.items())
    request = Request(
        *("$find", "Appointment"), parameters=(*given, *named), base_url=BASE, reading=True
    )
    response = await answer(server.registry, request, server.context)
    assert response.status == status, response.body
    return decode(response.body)


async def find(server: Server, *given: tuple[str, str], **more: Any) -> list[str]:
    """Return the starts on the first of December, each with its first actor."""
    start, end = DAY
    bundle = await ask(server, ("start", start), ("end", end), ("_count", "100"), *given, **more)
    found = [one["resource"] for one in bundle.get("entry", ()) if one["search"]["mode"] == "match"]
    assert bundle["total"] == len(found)
    return [f"{one['start'][11:16]} {who(one)}" for one in found]


def who(appointment: Json) -> str:
    """Return the ids of those who have to be there."""
    needed = (one for one in appointment["participant"] if one["required"] == "required")
    return " ".join(one["actor"]["reference"].partition("/")[2] for one in needed)
