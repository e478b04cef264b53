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
from fhir_server.r4.json import decode
from fhir_server.registry import Operation

_KNOWN = {"client": "valueString", "patient": "valueReference", "encounter": "valueReference"}


async def launch(request: Request, context: Context) -> Response:
    """Return the value ``launch`` and the URL that opens the app, for this user and five minutes.

    What is to be in context is read as the one who asks: what that one does not see is not there. A
    visit brings its patient along. Raises ``required``, ``not-found``, ``forbidden`` for who is no
    user, and ``value`` for a visit of another patient.
    """
    known_only(request, ())
    given = parameters_in(request, context, _KNOWN)
    if context.principal.kind != "user":
        raise FhirError(Issue("forbidden", "An app is opened by a user who has signed in."))
    if "client" not in given:
        raise FhirError(Issue("required", "client is missing.", "Parameters.parameter"))
    encounter = await _seen(given, "encounter", "Encounter", context)
    subject = encounter.get("subject", {}).get("reference", "")
    if "patient" not in given and subject.startswith("Patient/"):
        given |= {"patient": {"reference": subject}}
    patient = await _seen(given, "patient", "Patient", context)
    if encounter and subject != f"Patient/{patient.get('id')}":
        raise invalid_value("encounter", encounter["id"], "a visit of the patient")
    client, value = await launched(
        *(context, context.principal.name, given["client"]),
        patient=patient.get("id", ""),
        encounter=encounter.get("id", ""),
    )
    out = [
        {"name": "launch", "valueString": value},
        {"name": "url", "valueUrl": launch_url(client, request.base_url, value)},
    ]
    return Response(201, parameters_out(out))


async def _seen(given: dict[str, Any], name: str, type: str, context: Context) -> dict[str, Any]:
    """Return the resource that the parameter ``name`` refers to, nothing where it is not given."""
    if name not in given:
        return {}
    reference = str(given[name].get("reference", ""))
    kind, _, id = reference.partition("/")
    if kind != type or not id or "/" in id:
        raise invalid_value(name, reference[:80], f"a reference such as {type}/1")
    response = await context.perform(Request("read", type, id), context)
    return decode(response.body, depth_max=context.settings.depth_max)


LAUNCH = Operation(
    "$launch",
    "urn:fhir-server:OperationDefinition:launch",
    launch,
    affects_state=True,
    needs=SIGNED_IN,
)
