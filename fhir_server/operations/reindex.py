"""``$reindex`` and ``$reindex-status``: writing the search keys of stored resources anew.

A server does by itself what a new search parameter or a new release asks for; the status tells how
far it is. ``$reindex`` has it done for whole types, where an administrator has reason to.
"""

from typing import Any

from fhir_server.context import Context
from fhir_server.interactions.parameters import known_only
from fhir_server.messages import Request, Response
from fhir_server.outcome import FhirError, Issue, invalid_value, unknown_type
from fhir_server.r4.json import encode
from fhir_server.registry import Operation, Task
from fhir_server.store.documents import instant
from fhir_server.store.reindex import Job

_DEFINITION = "urn:fhir-server:OperationDefinition:"


async def start(request: Request, context: Context) -> Response:
    """Have the types of the body's parameters ``type`` indexed anew, or else all that are in use.

    The answer is 202 with the state; Content-Location is where it can be asked for again. Raises
    ``structure`` for a body that is no Parameters, ``value`` for other parameters.
    """
    known_only(request, ())
    named = _types(request.body)
    for type in named:
        if type not in context.definitions.resource_types:
            raise unknown_type(type, context.definitions.resource_types)
    await context.reindex.ask(named or await context.store.indexes.existing())
    found = await _state(context)
    place = f"{request.base_url}/$reindex-status"
    return Response(202, found.body, headers=(("Content-Location", place),))


async def status(request: Request, context: Context) -> Response:
    """Return Parameters with a part for each type that is, or was, indexed anew."""
    known_only(request, ())
    return await _state(context)


async def _state(context: Context) -> Response:
    jobs = await context.reindex.jobs()
    parameters = [{"name": "type", "part": _parts(job)} for job in jobs]
    unusable = [
        {"name": "notServed", "valueString": why} for why in context.parameters.unusable.values()
    ]
    body: dict[str, Any] = {"resourceType": "Parameters"}
    if parameters or unusable:
        body["parameter"] = [*parameters, *unusable]
    return Response(200, encode(body))


def _types(body: dict[str, Any] | None) -> list[str]:
    if body is None:
        return []
    if body.get("resourceType") != "Parameters":
        raise invalid_value("The body", body.get("resourceType"), "Parameters", "resourceType")
    members = body.get("parameter", [])
    if not isinstance(members, list) or not all(isinstance(one, dict) for one in members):
        raise FhirError(Issue("structure", "Parameters.parameter is a list of objects."))
    for one in members:
        if one.get("name") != "type" or not isinstance(one.get("valueCode"), str):
            raise invalid_value("A parameter", one.get("name"), "type with a valueCode")
    return [one["valueCode"] for one in members]


def _parts(job: Job) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [
        {"name": "name", "valueCode": job.type},
        {"name": "status", "valueCode": job.status},
        {"name": "done", "valueUnsignedInt": job.done},
        {"name": "total", "valueUnsignedInt": job.total},
    ]
    if job.ended:
        parts.append({"name": "ended", "valueInstant": instant(job.ended)})
    parts += [{"name": "failed", "valueId": id} for id in job.failed]
    return parts + [{"name": "pending", "valueString": field} for field in job.pending]


async def _run(context: Context) -> None:
    await context.reindex.run()


REINDEX = Operation("$reindex", _DEFINITION + "reindex", start, affects_state=True)
STATUS = Operation("$reindex-status", _DEFINITION + "reindex-status", status)
TASK = Task("reindex", _run)
