"""What the tests of the queue share: a place, a way to ask, and what is told."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from fhir_server.app import Server
from fhir_server.dispatch import answer
from fhir_server.messages import Request
from fhir_server.r4.json import decode
from fhir_server.security.principal import Principal

Json = dict[str, Any]
TIMEZONE = "http://hl7.org/fhir/StructureDefinition/timezone"


@dataclass(frozen=True)
class Told:
    """An answer: its status, its body, and what its parameters are by name."""

    status: int
    body: Json

    def __getitem__(self, name: str) -> Any:
        """Return the value of the parameter ``name``."""
        [one] = [one for one in self.body["parameter"] if one["name"] == name]
        return _value(one)

    @property
    def code(self) -> str:
        """The code of the first issue."""
        return str(self.body["issue"][0]["code"])

    def all(self, name: str) -> list[Json]:
        """Return the parts, by their names, of each parameter ``name``."""
        return [
            {part["name"]: _value(part) for part in one["part"]}
            for one in self.body["parameter"]
            if one["name"] == name
        ]


def _value(one: Mapping[str, Any]) -> Any:
    return one.get("resource") or next(one[name] for name in one if name.startswith("value"))


def reference(to: str) -> Json:
    """Return the value of a parameter that is a Reference."""
    return {"valueReference": {"reference": to}}


def text(said: str) -> Json:
    """Return the value of a parameter that is a string."""
    return {"valueString": said}


BARE: Json = {"bare": {"valueBoolean": True}}


@dataclass(frozen=True)
class Desk:
    """Somebody at ``server`` who asks."""

    server: Server
    principal: Principal | None = None
    now: Callable[[], datetime] | None = None

    async def __call__(self, operation: str, on: str, **given: Json) -> Told:
        """Call ``operation`` on ``Type/id``."""
        type, _, id = on.partition("/")
        body = {
            "resourceType": "Parameters",
            "parameter": [{"name": name, **value} for name, value in given.items()],
        }
        request = Request(operation, type, id, body=body if given else None)
        return await self.ask(request)

    async def ask(self, request: Request) -> Told:
        """Pass ``request`` through the front door."""
        context = self.server.context
        if self.now is not None:
            context = replace(context, now=self.now)
        if self.principal is not None:
            context = context.asked_by(self.principal)
        response = await answer(self.server.registry, request, context)
        return Told(response.status, decode(response.body) if response.body else {})

    async def read(self, on: str) -> Json:
        """Return the resource ``Type/id``."""
        type, _, id = on.partition("/")
        return (await self.ask(Request("read", type, id))).body

    async def put(self, type: str, id: str, /, **members: Any) -> None:
        """Store a resource."""
        body = {**members, "resourceType": type, "id": id}
        told = await self.ask(Request("update", type, id, body=body))
        assert told.status in (200, 201), told.body

    async def place(self, id: str, zone: str = "Asia/Dhaka", **members: Any) -> str:
        """Store a Location; return its reference."""
        extension = [{"url": TIMEZONE, "valueCode": zone}]
        await self.put("Location", id, **({"name": "Cardiology", "extension": extension} | members))
        return f"Location/{id}"

    async def service(self, id: str, name: str, /, **members: Any) -> str:
        """Store a HealthcareService; return its reference."""
        await self.put("HealthcareService", id, name=name, **members)
        return f"HealthcareService/{id}"

    async def take(self, place: str, **given: Json) -> str:
        """Give a number to nobody known; return its Encounter."""
        told = await self("$issue-token", place, **(BARE | given))
        assert told.status == 201, told.body
        return f"Encounter/{told['encounter']['id']}"

    async def call(self, place: str, counter: str = "1", **given: Json) -> Told:
        """Call the next one."""
        return await self("$call-next", place, counter=text(counter), **given)


Ask = Callable[..., Awaitable[Told]]
