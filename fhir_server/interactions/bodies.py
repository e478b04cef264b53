"""What every writing interaction does with its body and its answer.

https://hl7.org/fhir/R4/http.html#ops
"""

from functools import partial

from fhir_server.context import Context
from fhir_server.interactions.idempotency import written_once
from fhir_server.interactions.parameters import known_only
from fhir_server.messages import Request, Resource, Response
from fhir_server.outcome import FhirError, Issue, invalid_value, operation_outcome
from fhir_server.r4.json import encode
from fhir_server.search.added import added_issues
from fhir_server.store.changes import Change
from fhir_server.store.documents import Stored
from fhir_server.store.keys import SEARCH_PARAMETER

_DONE = {
    "create": "was created",
    "update": "was updated",
    "patch": "was changed",
    "delete": "was deleted",
}


def valid_body(request: Request, context: Context) -> Resource:
    """Return the body once it is known to be a valid resource of the URL's type.

    Raises ``structure`` without a body, ``value`` for another type, and every issue that the
    validator finds.
    """
    known_only(request, ())
    resource = request.body
    if resource is None:
        raise FhirError(Issue("structure", f"The {request.interaction} needs a resource as body."))
    if resource.get("resourceType") != request.type:
        raise invalid_value(
            "resourceType",
            resource.get("resourceType"),
            f"'{request.type}', as in the URL",
            "resourceType",
        )
    if issues := issues_of(resource, context):
        raise FhirError(*issues)
    return resource


def issues_of(resource: Resource, context: Context) -> tuple[Issue, ...]:
    """Return what is wrong with ``resource``, or why this server cannot do what it asks for."""
    if issues := context.validate(resource):
        return issues
    if resource["resourceType"] == SEARCH_PARAMETER:
        return added_issues(resource, context.parameters)
    return ()


async def written(change: Change, request: Request, context: Context) -> Response:
    """Make ``change`` alone, once where its request has a key, and return the answer."""
    if request.idempotency_key is not None:
        return await written_once(change, request, context, partial(answer, request=request))
    [stored] = await context.store.write([change], context.now())
    return answer(stored, request)


def answer(stored: Stored, request: Request) -> Response:
    """Return the answer to a write, with the body that the client prefers.

    https://hl7.org/fhir/R4/http.html#return
    """
    if stored.deleted:
        return _deletion(stored, request)
    status = 201 if stored.created else 200
    body = stored.json
    wish = request.prefer.get("return")
    if wish == "minimal":
        body = b""
    elif wish == "OperationOutcome":
        body = _said(stored)
    location = f"{stored.type}/{stored.id}/_history/{stored.version}"
    return Response(status, body, stored.version, stored.last_updated, location)


def _deletion(stored: Stored, request: Request) -> Response:
    version = stored.version
    moment = stored.last_updated if version else None
    if request.prefer.get("return") == "OperationOutcome":
        return Response(200, _said(stored), version, moment)
    return Response(204, b"", version, moment)


def refused(error: FhirError) -> Response:
    """Return the refusal ``error`` as a response."""
    body = encode(operation_outcome(error.issues))
    return Response(error.status, body, headers=error.headers)


def _said(stored: Stored) -> bytes:
    what = _DONE[stored.interaction] if stored.changed else "is unchanged"
    if stored.deleted and not stored.changed:
        what = "was not there"
    text = f"{stored.type}/{stored.id} {what}; its version is {stored.version}."
    return encode(operation_outcome([Issue("informational", text, severity="information")]))
