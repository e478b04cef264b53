"""A world: a server on a database of its own whose clock and ids begin at the same place in both,
asked through the HTTP facade."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from fhir_server.app import Server
from fhir_server.context import Context
from fhir_server.http.facade import Facade
from fhir_server.http.site import FHIR_PATH
from fhir_server.interactions.access import AccessRights
from fhir_server.messages import Resource
from fhir_server.security.plan import Filter, Rights
from fhir_server.security.principal import SERVER, Principal
from fhir_server.security.scopes import scopes_of
from fhir_server.store.changes import FINAL, Change
from fhir_server.store.commit import Commit
from tests.security.two_worlds.resources import (
    RESTRICTED,
    UNIVERSAL,
    alone,
    made,
    resources_of,
    shared_resources,
)

_BEGIN = datetime(2024, 5, 1, 12, tzinfo=UTC)
_PAGE_KEY = bytes(range(32))
_LABEL = f"{RESTRICTED['system']}|{RESTRICTED['code']}"
_NOT_FOR_PATIENTS = ("Group", "List", "Person", "AuditEvent")

PATIENT = Principal("user", "anna", "app", scopes_of("patient/*.cruds"), ("patient",), patient="a")
"""The patient, with the scopes that the server itself turns into rights."""
BROAD = Principal("user", "broad", "app", patient="a")
"""The patient, who also sees what is universal and not restricted."""
BY_KEYS = Principal("user", "by keys", "app", fhir_user="Practitioner/shared", patient="a")
"""Somebody whose rights are told by search keys."""
OTHER = Principal("user", "bert", "app", patient="b")
ASKING = {"patient": PATIENT, "broad": BROAD, "by-keys": BY_KEYS, "other": OTHER, "server": SERVER}


RIGHTS = AccessRights()


async def access(principal: Principal, context: Context) -> Rights:
    """Return what the principals of these tests may do."""
    if principal.scopes:
        return await RIGHTS(principal, context)
    may: dict[tuple[str, str], Filter] = {}
    types = context.definitions.resource_types
    for type in types:
        for letter in "cruds":
            if type in UNIVERSAL:
                may[type, letter] = {"labels": {"$nin": [_LABEL]}}
            elif principal.name == BY_KEYS.name and type in ("Observation", "Condition", "Patient"):
                key = "keys.address-city" if type == "Patient" else "keys.code"
                wanted = {"$gte": "only-a", "$lt": "only-a\x20"}
                city: Filter = {"_id": "a", key: {"$exists": True}}
                may[type, letter] = (
                    city if type == "Patient" else {key: {"$elemMatch": dict(wanted)}}
                )
            elif type == "Patient":
                may[type, letter] = {"_id": principal.patient}
            elif type not in _NOT_FOR_PATIENTS:
                may[type, letter] = {"compartments": f"Patient/{principal.patient}"}
    return Rights(may, ("administrator",))


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request. ``row`` is the row of the table in section 3.2 that it is about."""

    row: str
    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    asker: str = "broad"


@dataclass(frozen=True, slots=True)
class Answer:
    """All that a client sees."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def header(self, name: str) -> str:
        """Return the header ``name``, or ``""``."""
        return dict(self.headers).get(name.encode(), b"").decode()


@dataclass(slots=True)
class Numbers:
    """The clock and the ids of a world. A request has one moment, however often it looks: what a
    process remembers for a second would else show in the time of the next."""

    run: str = "load"
    count: int = 0
    ticks: int = 0

    def now(self) -> datetime:
        """Return the moment of the request."""
        return _BEGIN + timedelta(milliseconds=7 * self.ticks)

    def new_id(self) -> str:
        """Return the next id."""
        self.count += 1
        return f"new-{self.run}-{self.count:06}"


@dataclass(frozen=True, slots=True)
class World:
    """One of the two: a server, and its numbers."""

    server: Server
    numbers: Numbers
    facade: Facade
    loaded: dict[str, list[str]] = field(default_factory=dict)

    def begin(self, run: str) -> None:
        """Let clock and ids begin again, for ``run``."""
        self.numbers.run, self.numbers.count, self.numbers.ticks = run, 0, 1_000_000

    async def ask(self, call: Call) -> Answer:
        """Return what is answered to ``call``."""
        self.numbers.ticks += 1
        sent: list[dict[str, Any]] = []
        parts = [{"type": "http.request", "body": call.body, "more_body": False}]
        gone = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if parts:
                return parts.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        headers = {"host": "two.example.org", "x-asker": call.asker, **call.headers}
        scope = {
            "type": "http",
            "method": call.method,
            "scheme": "http",
            "path": f"{FHIR_PATH}/{call.path}".rstrip("/"),
            "raw_path": f"{FHIR_PATH}/{call.path}".encode(),
            "query_string": call.query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
        await self.facade(scope, receive, send)
        body = b"".join(one.get("body", b"") for one in sent[1:])
        return Answer(sent[0]["status"], tuple(sent[0]["headers"]), body)

    async def write(self, resources: Sequence[Resource]) -> None:
        """Write ``resources`` as they are, each with a version before unless it is one of those
        that stay as they are, whatever they refer to."""
        for more in ({}, {"language": "en"}):
            for start in range(0, len(resources), 50):
                some = resources[start : start + 50]
                changes = [
                    Change("update", one["resourceType"], one["id"], {**one, **more})
                    for one in some
                    if not (more and one["resourceType"] in FINAL)
                ]
                await self._make(changes)

    async def _make(self, changes: Sequence[Change]) -> None:
        self.numbers.ticks += 1
        context = self.server.context
        writer = context.store.commit.writer
        free = replace(writer, integrity=replace(writer.integrity, kept=(), checked=()))
        await replace(context.store, commit=Commit(free)).write(changes, context.now())

    async def load(self, few: bool, with_b: bool) -> None:
        """Write what there is in this world."""
        table = self.server.context.parameters
        await self.write(shared_resources())
        await self.write(resources_of("a", table, few))
        await self.delete(GONE.format("a"))
        await self.move("moved", "b" if with_b else "c", "a")
        await self.write([REFERS, {**REFERS, "id": "refers-b", "derivedFrom": _TO_B}])
        if with_b:
            await self.write([*resources_of("b", table, few, least=200), alone()])
            await self.delete(GONE.format("b"))
            await self.move("left", "a", "b")
            call = Call("claims", "POST", "Observation", body=OWN, headers=_CLAIMED, asker="other")
            assert (await self.ask(call)).status == 201
        await self.forget()

    async def move(self, id: str, whose: str, then: str) -> None:
        """Write the Observation ``id`` of patient ``whose``, which is then that of another."""
        for one in (whose, then):
            body = made("Observation", id, one, self.server.context.parameters)
            await self._make([Change("update", "Observation", id, body)])

    async def delete(self, id: str) -> None:
        """Write the Condition ``id``, which is deleted again."""
        whose = id.rpartition("-")[2]
        body = {
            "resourceType": "Condition",
            "id": id,
            "subject": {"reference": f"Patient/{whose}"},
            "code": {"coding": [{"code": f"only-{whose}"}]},
        }
        await self._make([Change("update", "Condition", id, body)])
        await self._make([Change("delete", "Condition", id)])

    async def forget(self) -> None:
        """Remove what a run has created; it changes nothing else that A sees."""
        database = self.server.database
        for name in ("Observation", "Patient", "claims", "idempotency"):
            there = database[name]
            if name not in self.loaded:
                self.loaded[name] = [one["_id"] for one in await there.find({}).to_list()]
            await there.delete_many({"_id": {"$nin": self.loaded[name]}})
            await database[f"{name}_history"].delete_many({"_id.id": {"$nin": self.loaded[name]}})


GONE = "gone-{}"
_TO_B = [{"reference": "Observation/observation-b"}]
REFERS = {
    "resourceType": "Observation",
    "id": "refers",
    "status": "final",
    "code": {"coding": [{"system": "urn:codes", "code": "only-a"}]},
    "subject": {"reference": "Patient/a"},
    "derivedFrom": [
        {"reference": "Observation/moved/_history/1"},
        *_TO_B,
    ],
}
"""What is A's and refers to what is not."""
OWN = (
    b'{"resourceType":"Observation","status":"final","code":{"text":"x"},'
    b'"identifier":[{"system":"urn:mrn","value":"claimed"}],"subject":{"reference":"Patient/b"}}'
)
_CLAIMED = {
    "content-type": "application/fhir+json",
    "if-none-exist": "identifier=claimed",
    "idempotency-key": '"the-same-key"',
}


def world_of(server: Server) -> World:
    """Return ``server`` with numbers of its own."""
    numbers = Numbers()
    context = replace(
        server.context,
        now=numbers.now,
        new_id=numbers.new_id,
        page_key=_PAGE_KEY,
        access=access,
    )
    seeded = replace(server, context=context)
    perform: Callable[..., Awaitable[Any]] = seeded.perform

    async def identify(headers: Mapping[bytes, bytes]) -> Principal:
        return ASKING[headers[b"x-asker"].decode()]

    facade = Facade(
        FHIR_PATH,
        perform,
        server.context.settings,
        numbers.new_id,
        server.registry.interactions,
        lambda: server.xml,
        identify,
        server.registry.is_native,
    )
    return World(seeded, numbers, facade)
