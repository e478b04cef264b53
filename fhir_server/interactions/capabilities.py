"""capabilities: ``GET [base]/metadata``. https://hl7.org/fhir/R4/http.html#capabilities"""

from fhir_server.context import Context
from fhir_server.interactions.parameters import known_only, subset_of, value_of
from fhir_server.messages import Request, Response
from fhir_server.outcome import FhirError, Issue, invalid_value

_MODES = ("full", "normative", "terminology")


async def capabilities(request: Request, context: Context) -> Response:
    """Return the CapabilityStatement of what is registered.

    ``mode`` is ``full`` or ``normative``; ``terminology`` would be a TerminologyCapabilities.
    """
    known_only(request, ("mode", "_summary", "_elements"))
    mode = value_of(request, "mode") or "full"
    if mode not in _MODES:
        raise invalid_value("mode", mode, f"one of {', '.join(_MODES)}")
    if mode == "terminology":
        raise FhirError(
            Issue("not-supported", "There are no TerminologyCapabilities: no terminology service.")
        )
    body = context.capabilities(request.base_url, mode)
    return Response(200, subset_of(request).applied(body, context.definitions))
