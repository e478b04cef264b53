"""``$launch``: opening an app with a patient in context, for the one who asks (EHR launch).

https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html#launch-app-ehr-launch
"""

from typing import Any

from fhir_server.context import Context
from fhir_server.interactions.admitting import SIGNED_IN
from fhir_server.interactions.launching import launch_url, launched
from fhir_server.interactions.parameters import known_only
from fhir_server.messages import Request, Response
from fhir_server.operations.bodies import parameters_in, parameters_out
from fhir_server.outcome import FhirError, Issue, invalid_value
from fhir_server.registry import Operation

_KNOWN = {"client": "valueString", "patient": "valueReference", "encounter": "valueReference"}


async def launch(request: Request, context: Context) -> Response:
    """Return the value ``launch`` and the URL that opens the app, for this user and five minutes.

    What is to be in context is read as the one who asks: what that one does not see is not there.
    Raises ``required``, ``not-found``, and ``forbidden`` for who is no user.
    """
    known_only(request, ())
    given = parameters_in(request, context, _KNOWN)
    if context.principal.kind != "user":
        raise FhirError(Issue("forbidden", "An app is opened by a user who has signed in."))
    if "client" not in given:
        raise FhirError(Issue("required", "client is missing.", "Parameters.parameter"))
    ids = {}
    for name, type in (("patient", "Patient"), ("encounter", "Encounter")):
        ids[name] = await _seen(given, name, type, context) if name in given else ""
    client, value = await launched(context, context.principal.name, given["client"], **ids)
    out = [
        {"name": "launch", "valueString": value},
        {"name": "url", "valueUrl": launch_url(client, request.base_url, value)},
    ]
    return Response(201, parameters_out(out))


async def _seen(given: dict[str, Any], name: str, type: str, context: Context) -> str:
    reference = str(given[name].get("reference", ""))
    kind, _, id = reference.partition("/")
    if kind != type or not id or "/" in id:
        raise invalid_value(name, reference[:80], f"a reference such as {type}/1")
    await context.perform(Request("read", type, id), context)
    return id


LAUNCH = Operation(
    "$launch",
    "urn:fhir-server:OperationDefinition:launch",
    launch,
    affects_state=True,
    needs=SIGNED_IN,
)
