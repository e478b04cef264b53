"""Terminology operations that are passed on to another server where this one cannot answer."""

from dataclasses import replace

from fhir_server.context import Context
from fhir_server.messages import Request, Response
from fhir_server.outcome import FhirError, Issue
from fhir_server.r4.json import encode
from fhir_server.registry import Operation
from fhir_server.remote.client import Refused, Unanswered
from fhir_server.terminology.elsewhere import systems_in

_UNKNOWN_HERE = ("not-found", "not-supported")


def passed_on(operation: Operation) -> Operation:
    """Return ``operation`` so that what is not known here is asked where a setting says.

    What is here comes first: the other server is asked after a refusal only, and never for a
    resource of this server.
    """

    async def handle(request: Request, context: Context) -> Response:
        try:
            return await operation.handler(request, context)
        except FhirError as error:
            remotes = context.terminology.remotes
            if request.id or not remotes or error.issues[0].code not in _UNKNOWN_HERE:
                raise
            named = [value for _, value in request.parameters], request.body
            system = next(systems_in(named, remotes), "")
            if not system:
                raise
            return await _asked(system, request, context)

    return replace(operation, handler=handle)


async def _asked(system: str, request: Request, context: Context) -> Response:
    path = f"{request.type}/{request.interaction}"
    try:
        found = await context.terminology.call(system, path, request.parameters, request.body)
    except Refused as error:
        text = f"The terminology server for {system} refuses this: {error}."
        raise FhirError(Issue("processing", text), status=error.status) from error
    except Unanswered as error:
        text = f"The terminology server for {system} cannot be asked: {error}."
        raise FhirError(Issue("transient", text)) from error
    return Response(200, encode(found))
