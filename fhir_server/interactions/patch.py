"""patch: ``PATCH [base]/[type]/[id]``. https://hl7.org/fhir/R4/http.html#patch

The patch is applied to the version that is replaced, inside the attempt to write: when another
write comes in between, it is applied again to what that one has written.
"""

from typing import Any

from fhir_server.context import Context
from fhir_server.interactions.bodies import judging, written
from fhir_server.interactions.parameters import known_only
from fhir_server.messages import Request, Resource, Response
from fhir_server.outcome import FhirError, Issue, shown
from fhir_server.patch.bounds import Bounds
from fhir_server.patch.formats import patch_of
from fhir_server.patch.narrative import safe_narrative
from fhir_server.store.changes import Change


def change(request: Request, context: Context) -> Change:
    """Return the change that ``request`` asks for."""
    known_only(request, ())
    return change_of(request, request.id, context)


def change_of(request: Request, id: str, context: Context) -> Change:
    """Return the change that the patch in ``request`` makes of ``[type]/[id]``, whoever chose it.

    Raises status 400 for what is no patch; what the patch comes to is judged when it is written.
    """
    settings = context.settings
    body = request.body
    is_parameters = body is not None and body.get("resourceType") == "Parameters"
    if body is not None and is_parameters and (issues := context.validate(body)):
        raise FhirError(*issues)
    bounds = Bounds(settings.patch_operations_max, settings.resource_bytes_max, settings.depth_max)
    patch = patch_of(body, context.definitions, context.xml, bounds)

    def revise(before: Resource) -> Resource:
        return safe_narrative(before, _same_resource(before, patch(before)))

    return Change(
        "patch",
        request.type,
        id,
        if_match=request.if_match,
        if_none_match=request.if_none_match,
        revise=revise,
        check=judging(context),
    )


async def patch(request: Request, context: Context) -> Response:
    """Change a part of ``[type]/[id]``, which must be there, and answer like an update."""
    return await written(change(request, context), request, context)


def _same_resource(before: Resource, after: Any) -> Resource:
    """Return ``after`` once it is known to be the resource that ``before`` is."""
    if not isinstance(after, dict):
        text = "The patch leaves no JSON object; a resource is one. Nothing was changed."
        raise FhirError(Issue("processing", text))
    for name in ("resourceType", "id"):
        if after.get(name) != before[name]:
            does = f"makes {name} {shown(after[name])}" if name in after else f"removes {name}"
            text = f"The patch {does}; it stays {shown(before[name])}. Nothing was changed."
            place = name if name == "resourceType" else f"{before['resourceType']}.{name}"
            raise FhirError(Issue("business-rule", text, place))
    return after
