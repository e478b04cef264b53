"""What the operations of the queue read, write and answer: resources by the rights of who asks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fhir_server.context import Context
from fhir_server.features.scheduling import queue
from fhir_server.messages import Request, Resource, Response
from fhir_server.operations.bodies import parameters_out
from fhir_server.outcome import FhirError, Issue, invalid_value
from fhir_server.r4.json import decode
from fhir_server.store.queues import Entry, Queues
from fhir_server.store.resources import ResourceStore

DEFINITION = "urn:fhir-server:OperationDefinition:"
_MINUTES = {"unit": "min", "system": "http://unitsofmeasure.org", "code": "min"}


@dataclass(frozen=True, slots=True)
class Read:
    """A resource, and the version that it was read in."""

    resource: Resource
    version: int


async def read(type: str, id: str, context: Context) -> Read:
    """Return ``type/id`` as who asks may see it. Raises ``not-found`` and ``deleted``."""
    response = await context.perform(Request("read", type, id), context)
    body = decode(response.body, depth_max=context.settings.depth_max)
    return Read(body, response.version)


async def write(resource: Resource, version: int, context: Context) -> Resource:
    """Write ``resource`` over its ``version``, by the rights of who asks; return it as stored."""
    type, id = resource["resourceType"], resource["id"]
    wanted = Request("update", type, id, body=resource, if_match=frozenset((str(version),)))
    response = await context.perform(wanted, context)
    return decode(response.body, depth_max=context.settings.depth_max)


def reference_id(reference: Any, *types: str) -> str:
    """Return the id that a Reference to one of ``types`` here has, ``""`` for any other."""
    text = reference.get("reference", "") if isinstance(reference, dict) else ""
    type, _, id = text.partition("/")
    return id if type in types and "/" not in id else ""


def named_id(given: Mapping[str, Any], name: str, *types: str) -> str:
    """Return the id that the parameter ``name`` refers to, ``""`` where it is not given. Raises
    ``value`` where it is no reference to one of ``types``."""
    if name not in given:
        return ""
    id = reference_id(given[name], *types)
    if not id:
        said = str(given[name].get("reference", ""))
        raise invalid_value(name, said[:80], f"a reference such as {types[0]}/1")
    return id


def base_of(context: Context) -> str:
    """Return the FHIR base, in which the systems of numbers begin: the same for every client."""
    settings = context.settings
    return settings.base_url.rstrip("/") or f"http://{settings.host}:{settings.port}/fhir"


async def expected(queues: Queues, location: str, service: str, context: Context) -> queue.Expected:
    """Return what the queue was like of late."""
    last = await queues.finished(location, service, None, queue.SERVICES_KNOWN)
    since = context.now() - queue.COUNTERS_SEEN
    counters = await queues.counters(location, service, since)
    times = (queue.served_s(one) for one in last)
    return queue.Expected(tuple(one for one in times if one is not None), counters)


def duration(seconds: float) -> dict[str, Any]:
    """Return ``seconds`` as a Duration in whole minutes, rounded up."""
    return {"value": -int(-seconds // 60), **_MINUTES}


def answered(
    entry: Entry, encounter: Resource, *more: Mapping[str, Any], status: int = 200
) -> Response:
    """Return the answer that tells of ``entry``: number, state, counter, and the Encounter."""
    out: list[Mapping[str, Any]] = [
        {"name": "token", "valueString": entry.token},
        {"name": "state", "valueCode": entry.state},
    ]
    if entry.counter:
        out.append({"name": "counter", "valueString": entry.counter})
    out += more
    out.append({"name": "encounter", "resource": encounter})
    place = f"Encounter/{entry.id}" if status == 201 else ""
    return Response(status, parameters_out(out), location=place)


def wrong_state(entry: Entry, operation: str) -> FhirError:
    """Return the refusal of ``operation`` on an entry in its state."""
    text = f"{entry.token} {queue.IN_WORDS[entry.state]}; {operation} is not possible then."
    return FhirError(Issue("business-rule", text), status=409)


async def entry_of(store: ResourceStore, id: str) -> Entry:
    """Return the entry of the Encounter ``id``. Raises ``not-found``."""
    entry = await store.queues.of(id)
    if entry is None:
        raise FhirError(Issue("not-found", f"Encounter/{id} has no number in a queue."))
    return entry
