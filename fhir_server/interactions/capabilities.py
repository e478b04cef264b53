"""capabilities: ``GET [base]/metadata``. https://hl7.org/fhir/R4/http.html#capabilities"""

from fhir_server.context import Context
from fhir_server.interactions.parameters import known_only, subset_of, value_of
from fhir_server.messages import ANY_VERSION, Request, Response
from fhir_server.outcome import invalid_value

_MODES = ("full", "normative", "terminology")


async def capabilities(request: Request, context: Context) -> Response:
    """Return the CapabilityStatement of what is registered.

    ``mode`` may be ignored (http.html#capabilities), and is: there is no terminology service yet,
    and what is served is normative or trial use as R4 says.
    """
    known_only(request, ("mode", "_summary", "_elements"))
    mode = value_of(request, "mode") or "full"
    if mode not in _MODES:
        raise invalid_value("mode", mode, f"one of {', '.join(_MODES)}")
    body, tag = context.capabilities(request.base_url, await context.store.guides())
    if request.if_none_match is not None and {tag, ANY_VERSION} & request.if_none_match:
        return Response(304, headers=(("ETag", f'W/"{tag}"'),))
    subset = subset_of(request, ("CapabilityStatement",), context.definitions)
    body = subset.applied(body, context.definitions)
    return Response(200, body, headers=(("ETag", f'W/"{tag}"'),))
