"""The Parameters that operations take and give. https://hl7.org/fhir/R4/operations.html"""

from collections.abc import Iterable, Mapping
from typing import Any

from fhir_server.context import Context
from fhir_server.messages import Request
from fhir_server.outcome import FhirError, Issue, invalid_value, nearest, shown
from fhir_server.r4.json import encode


def parameters_in(request: Request, context: Context, known: Mapping[str, str]) -> dict[str, Any]:
    """Return the parameters of the body by name; each may be given once.

    ``known`` is name -> the member that has the value, such as ``valueMeta``. Raises ``structure``
    for what is no Parameters, ``value`` for another parameter and for one without that value.
    """
    body = request.body
    if body is None:
        return {}
    if body.get("resourceType") != "Parameters":
        raise invalid_value("The body", body.get("resourceType"), "Parameters", "resourceType")
    if issues := context.validate(body):
        raise FhirError(*issues)
    found: dict[str, Any] = {}
    for one in body.get("parameter", ()):
        name = one.get("name")
        if name not in known:
            text = f"{request.interaction} has no parameter {shown(name)}.{nearest(name, known)}"
            raise FhirError(Issue("value", text, "Parameters.parameter"))
        if name in found or known[name] not in one:
            text = f"{name} is to be given once, with a {known[name]}."
            raise FhirError(Issue("value", text, "Parameters.parameter"))
        found[name] = one[known[name]]
    return found


def parameters_out(parameters: Iterable[Mapping[str, Any]]) -> bytes:
    """Return Parameters with ``parameters`` as JSON."""
    return encode({"resourceType": "Parameters", "parameter": list(parameters)})
