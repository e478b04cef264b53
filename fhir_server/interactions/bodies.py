"""What every writing interaction does with its body and its answer.

https://hl7.org/fhir/R4/http.html#ops
"""

from collections.abc import Callable
from functools import partial

from fhir_server.context import Context
from fhir_server.interactions.idempotency import written_once
from fhir_server.interactions.judging import check_profiles, remarks
from fhir_server.interactions.parameters import known_only
from fhir_server.messages import Request, Resource, Response
from fhir_server.outcome import FhirError, Issue, invalid_value, operation_outcome
from fhir_server.r4.json import decode_stored, encode
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

# RFC 7234, 5.5: what the client would else not know. Nobody who does not know it minds.
_WARNING = "Warning"
_COUNTED = '199 - "{} issues against profiles; Prefer: return=OperationOutcome shows them"'


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
    check_profiles(resource, context)
    return resource


def issues_of(resource: Resource, context: Context) -> tuple[Issue, ...]:
    """Return what is wrong with ``resource``, or why this server cannot do what it asks for."""
    if issues := context.validate(resource):
        return issues
    if resource["resourceType"] == SEARCH_PARAMETER:
        return added_issues(resource, context.parameters)
    return ()


def judging(context: Context) -> Callable[[Resource], None]:
    """Return what refuses (422) the resource that a patch or an operation has made of another:
    what was sent is well formed; what it comes to is not."""

    def check(after: Resource) -> None:
        if issues := issues_of(after, context):
            raise FhirError(*issues, status=422)
        check_profiles(after, context)

    return check


async def written(change: Change, request: Request, context: Context) -> Response:
    """Make ``change`` alone, once where its request has a key, and return the answer."""
    if request.idempotency_key is not None:
        return await written_once(change, request, context, partial(answer, request=request))
    [stored] = await context.store.write([change], context.now())
    return answer(stored, request, await remarks_on(stored, context))


async def remarks_on(stored: Stored, context: Context) -> tuple[Issue, ...]:
    """Return what is to be said of what was written, where the setting warns."""
    if stored.deleted or context.settings.mode_of(stored.type) != "warn":
        return ()
    return await remarks(decode_stored(stored.json), context)


def answer(stored: Stored, request: Request, remarks: tuple[Issue, ...] = ()) -> Response:
    """Return the answer to a write, with the body that the client prefers. ``remarks`` are in an
    OperationOutcome; who gets none is told by a header that there are some.

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
        body = _said(stored, remarks)
    headers = ((_WARNING, _COUNTED.format(len(remarks))),) if remarks else ()
    location = f"{stored.type}/{stored.id}/_history/{stored.version}"
    return Response(
        *(status, body, stored.version, stored.last_updated, location, headers), remarks=remarks
    )


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


def _said(stored: Stored, remarks: tuple[Issue, ...] = ()) -> bytes:
    what = _DONE[stored.interaction] if stored.changed else "is unchanged"
    if stored.deleted and not stored.changed:
        what = "was not there"
    text = f"{stored.type}/{stored.id} {what}; its version is {stored.version}."
    done = Issue("informational", text, severity="information")
    return encode(operation_outcome([done, *remarks]))
