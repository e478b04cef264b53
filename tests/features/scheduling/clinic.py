"""What tests of bookings share: a clinic with Schedules, and the calls of its front desk."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from fhir_server.app import Server
from fhir_server.dispatch import answer
from fhir_server.messages import Request, Resource, Response
from fhir_server.r4.json import decode
from fhir_server.security.principal import Principal

BASE = "http://fhir.example.org/fhir"
PARAMETERS = "urn:fhir-server:StructureDefinition:scheduling-parameters"
ALIAS = "https://medplum.com/fhir/StructureDefinition/SchedulingParameters"


def morning(days: int = 7) -> datetime:
    """Return nine o'clock UTC, so many days from now: within every horizon."""
    day = datetime.now(UTC) + timedelta(days=days)
    return day.replace(hour=9, minute=0, second=0, microsecond=0)


def _value(value: Any) -> Resource:
    if isinstance(value, list):
        return {"extension": value}
    if isinstance(value, timedelta):
        minutes = value // timedelta(minutes=1)
        return {"valueDuration": {"value": minutes, "unit": "min", "code": "min"}}
    return {"valuePositiveInt": value} if isinstance(value, int) else {"valueCode": value}


def rules(**parts: Any) -> Resource:
    """Return the extension with the parameters ``parts``; open all day unless they say else."""
    always = [{"url": "availableTime", "extension": [{"url": "allDay", "valueBoolean": True}]}]
    said = {"duration": timedelta(minutes=30), "availability": always, **parts}
    inside = [{"url": name, **_value(value)} for name, value in said.items()]
    return {"url": PARAMETERS, "extension": inside}


def schedule(id: str, *actors: str, **parts: Any) -> Resource:
    """Return an active Schedule of ``actors`` with the parameters ``parts``."""
    return {
        "resourceType": "Schedule",
        "id": id,
        "active": True,
        "extension": [rules(**parts)],
        "actor": [{"reference": one} for one in actors],
    }


def proposed(
    start: datetime, *schedules: str, minutes: int = 30, actors: tuple[str, ...] = (), **more: Any
) -> Resource:
    """Return a proposed Appointment in ``schedules`` (ids), as ``$find`` would propose it."""
    times = {"start": start.isoformat(), "end": (start + timedelta(minutes=minutes)).isoformat()}
    slots = [
        {
            "resourceType": "Slot",
            "id": f"s{number}",
            "schedule": {"reference": f"Schedule/{one}"},
            "status": "free",
            **times,
        }
        for number, one in enumerate(schedules)
    ]
    people = actors or tuple(f"Practitioner/{one}" for one in schedules)
    return {
        "resourceType": "Appointment",
        "status": "proposed",
        "contained": slots,
        "slot": [{"reference": f"#{one['id']}"} for one in slots],
        **times,
        "participant": [{"actor": {"reference": one}, "status": "needs-action"} for one in people],
        **more,
    }


def parameters(**given: Any) -> Resource:
    """Return Parameters; underscores are hyphens, resources resources, texts strings."""
    found = []
    for name, value in given.items():
        one: Resource = {"name": name.replace("_", "-")}
        if name == "override":
            one["part"] = [{"name": "reason", "valueString": value}]
        elif isinstance(value, dict):
            one["resource"] = value
        elif name.endswith(("reference", "schedule")):
            one["valueReference"] = {"reference": value}
        elif isinstance(value, datetime):
            one["valueDateTime"] = value.isoformat()
        elif isinstance(value, int):
            one["valueInteger"] = value
        else:
            one["valueString"] = value
        found.append(one)
    body: Resource = {"resourceType": "Parameters"}
    return {**body, "parameter": found} if found else body


def call(name: str, id: str = "", **given: Any) -> Request:
    """Return the call of the operation ``name`` of Appointment, of the one with ``id`` if given."""
    return Request(f"${name}", "Appointment", id, body=parameters(**given), base_url=BASE)


def put(resource: Resource) -> Request:
    """Return the request that puts ``resource`` where its id says."""
    type, id = resource["resourceType"], resource["id"]
    return Request("update", type, id, body=resource, base_url=BASE)


async def ask(server: Server, request: Request, principal: Principal | None = None) -> Response:
    """Return what ``server`` answers, to ``principal`` if one is given."""
    context = server.context
    if principal is not None:
        context = replace(context, principal=principal)
    return await answer(server.registry, request, context)


def booked_in(response: Response) -> Resource:
    """Return the Appointment of an answer."""
    entries = decode(response.body)["entry"]
    found: Resource = entries[0]["resource"]
    assert found["resourceType"] == "Appointment"
    return found


def issues(response: Response) -> list[tuple[str, str]]:
    """Return severity and code of what was refused."""
    found = decode(response.body)
    assert found["resourceType"] == "OperationOutcome", found
    return [(issue["severity"], issue["code"]) for issue in found["issue"]]


TAKEN = [("error", "conflict"), ("fatal", "not-found")]


def is_taken(response: Response) -> bool:
    """Whether somebody else has the time."""
    found = issues(response)
    return response.status == 409 and found[0] == TAKEN[0] and found[-1] == TAKEN[1]


def is_ruled_out(response: Response) -> bool:
    """Whether a state or a rule forbids it."""
    return response.status == 409 and issues(response) == [("error", "business-rule")]


async def read(server: Server, place: str) -> Resource:
    """Return the resource at ``place``."""
    type, _, id = place.partition("/")
    response = await ask(server, Request("read", type, id, base_url=BASE))
    assert response.status == 200, response.body
    return decode(response.body)


async def total(server: Server, type: str, **parameters: str) -> int:
    """Return how many of ``type`` a search finds."""
    asked = (*((name, value) for name, value in parameters.items()), ("_summary", "count"))
    response = await ask(server, Request("search-type", type, parameters=asked, base_url=BASE))
    found: int = decode(response.body)["total"]
    return found
