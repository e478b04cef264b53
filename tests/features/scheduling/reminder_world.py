"""What the tests of reminders share: a clock that is set, patients, appointments, a sink."""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from fhir_server.app import Server
from fhir_server.context import Context
from fhir_server.features.scheduling.delivering import Deliveries
from fhir_server.features.scheduling.reminder_policy import desk_of
from fhir_server.messages import Request, Resource
from fhir_server.r4.json import decode
from fhir_server.registry import Outgoing
from fhir_server.store.notices import OUTBOX

NOON = datetime(2036, 12, 1, 6, tzinfo=UTC)
"""Noon of a Monday in Dhaka."""
REMINDING = {
    "reminder_channels": ["sms", "email"],
    "scheduling_timezone": "Asia/Dhaka",
    "clinic_name": "Shapla Clinic",
    "clinic_phone": "16263",
    "reminder_timeout_s": 0.2,
}


@dataclass(slots=True)
class Clock:
    """Says what time it is; the test moves it."""

    at: datetime = NOON

    def __call__(self) -> datetime:
        """Return the time."""
        return self.at

    def pass_by(self, **how_long: float) -> None:
        """Let time pass."""
        self.at += timedelta(**how_long)


@dataclass(slots=True)
class Sink:
    """Takes messages, and remembers them with the time."""

    clock: Clock
    taken: list[tuple[datetime, Outgoing]] = field(default_factory=list)
    before: Callable[[Outgoing], Awaitable[None]] | None = None

    async def __call__(self, outgoing: Outgoing) -> None:
        """Take a message, unless ``before`` raises."""
        if self.before is not None:
            await self.before(outgoing)
        self.taken.append((self.clock(), outgoing))

    @property
    def keys(self) -> Counter[str]:
        """How often each message was taken."""
        return Counter(one.key for _, one in self.taken)


@dataclass(frozen=True, slots=True)
class World:
    """A server, a clock, and what sends."""

    server: Server
    clock: Clock
    sink: Sink
    context: Context

    def deliveries(self) -> Deliveries:
        """Return what another process would send with."""
        desk = desk_of(self.context.settings)
        return Deliveries(self.context, desk, {"sms": self.sink, "email": self.sink})

    async def work(self) -> None:
        """Work off what is due."""
        deliveries = self.deliveries()
        while await deliveries.one():
            pass

    async def ask(self, request: Request) -> Resource:
        """Pass the front door; return what is answered."""
        response = await self.context.perform(request, self.context)
        return decode(response.body) if response.body else {}

    async def write(self, *resources: Resource) -> None:
        """Write ``resources``, in one transaction where there are several."""
        if len(resources) == 1:
            [one] = resources
            await self.ask(Request("update", one["resourceType"], one["id"], body=one))
            return
        entry = [
            {
                "request": {"method": "PUT", "url": f"{one['resourceType']}/{one['id']}"},
                "resource": one,
            }
            for one in resources
        ]
        body = {"resourceType": "Bundle", "type": "transaction", "entry": entry}
        await self.ask(Request("transaction", body=body))

    async def all(self, type: str, **parameters: str) -> list[Resource]:
        """Return what a search finds."""
        asked = (*parameters.items(), ("_count", "1000"))
        found = await self.ask(Request("search-type", type, parameters=asked))
        return [one["resource"] for one in found.get("entry", ())]

    async def rows(self, **wanted: Any) -> list[dict[str, Any]]:
        """Return rows of the outbox."""
        return await self.server.database[OUTBOX].find(wanted).sort("due", 1).to_list()


def world(server: Server) -> World:
    """Return the world around ``server``."""
    clock = Clock()
    return World(server, clock, Sink(clock), replace(server.context, now=clock))


def patient(id: str, *telecom: tuple[str, str], **more: Any) -> Resource:
    """Return a Patient with ``telecom``, as ``("phone", "+880…")``."""
    return {
        "resourceType": "Patient",
        "id": id,
        "name": [{"given": ["Amina"], "family": "Secret"}],
        "telecom": [{"system": system, "value": value} for system, value in telecom],
        **more,
    }


def appointment(
    id: str, start: datetime, *actors: str, status: str = "booked", **more: Any
) -> Resource:
    """Return an Appointment of half an hour."""
    return {
        "resourceType": "Appointment",
        "id": id,
        "status": status,
        "start": start.isoformat(),
        "end": (start + timedelta(minutes=30)).isoformat(),
        "participant": [
            {"actor": {"reference": one}, "status": "accepted"} for one in actors or ("Patient/p",)
        ],
        **more,
    }


def opted_out(id: str, patient: str, channel: str = "") -> Resource:
    """Return a Consent that wants no messages."""
    code = [{"coding": [{"system": "urn:fhir-server:CodeSystem:channel", "code": channel}]}]
    return {
        "resourceType": "Consent",
        "id": id,
        "status": "active",
        "scope": {"coding": [{"code": "treatment"}]},
        "category": [
            {
                "coding": [
                    {"system": "urn:fhir-server:CodeSystem:consent-category", "code": "no-messages"}
                ]
            }
        ],
        "patient": {"reference": patient},
        "policyRule": {"coding": [{"code": "OPTOUT"}]},
        "provision": {"type": "deny", **({"code": code} if channel else {})},
    }
