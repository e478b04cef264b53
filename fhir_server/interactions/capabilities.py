"""capabilities: ``GET [base]/metadata``. https://hl7.org/fhir/R4/http.html#capabilities"""

from fhir_server.context import Context
from fhir_server.interactions.parameters import known_only, subset_of, value_of
from fhir_server.messages import ANY_VERSION, Request, Response
from fhir_server.outcome import invalid_value
from fhir_server.r4.json import encode
from fhir_server.store.documents import instant
from fhir_server.terminology.capabilities import terminology_capabilities
from fhir_server.terminology.grammars import GRAMMAR_SYSTEMS

_SYSTEMS = "systems"
_MAY_STAY = ("Cache-Control", "no-cache")  # kept, and asked for again by its tag
_MODES = ("full", "normative", "terminology")


async def capabilities(request: Request, context: Context) -> Response:
    """Return the CapabilityStatement of what is registered.

    With ``mode=terminology`` it is the TerminologyCapabilities. What is served is normative or
    trial use as R4 says, so that ``mode=normative`` is the same as ``full``.
    """
    known_only(request, ("mode", "_summary", "_elements"))
    mode = value_of(request, "mode") or "full"
    if mode not in _MODES:
        raise invalid_value("mode", mode, f"one of {', '.join(_MODES)}")
    if mode == "terminology":
        return await _terminology(request, context)
    body, tag = context.capabilities(request.base_url, await context.store.guides())
    if request.if_none_match is not None and {tag, ANY_VERSION} & request.if_none_match:
        return Response(304, headers=(("ETag", f'W/"{tag}"'), _MAY_STAY))
    subset = subset_of(request, ("CapabilityStatement",), context.definitions)
    body = subset.applied(body, context.definitions)
    return Response(200, body, headers=(("ETag", f'W/"{tag}"'), _MAY_STAY))


async def _terminology(request: Request, context: Context) -> Response:
    """Return what the terminology service can do, and for which code systems."""
    memory = await context.store.conformance.memory()
    systems = memory.get(_SYSTEMS)
    if systems is None:
        shelves = await context.store.concepts.shelves()
        systems = [
            *((one.system, one.version) for one in reversed(shelves)),
            *await context.store.conformance.whole_systems(),
            *context.definitions.whole_systems,
            *((url, "") for url in GRAMMAR_SYSTEMS),
        ]
        memory.put(_SYSTEMS, systems, 100 * len(systems))
    found = terminology_capabilities(systems, request.base_url, instant(context.now()))
    subset = subset_of(request, ("TerminologyCapabilities",), context.definitions)
    return Response(200, subset.applied(encode(found), context.definitions))
