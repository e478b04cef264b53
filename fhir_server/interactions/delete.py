"""delete: ``DELETE [base]/[type]/[id]``. https://hl7.org/fhir/R4/http.html#delete"""

from fhir_server.context import Context
from fhir_server.interactions.bodies import written
from fhir_server.interactions.parameters import known_only
from fhir_server.messages import Request, Response
from fhir_server.store.changes import Change


def change(request: Request, _context: Context) -> Change:
    """Return the change that ``request`` asks for."""
    known_only(request, ())
    return Change(
        "delete",
        request.type,
        request.id,
        if_match=request.if_match,
        if_none_match=request.if_none_match,
    )


async def delete(request: Request, context: Context) -> Response:
    """Mark the resource as deleted. Its versions stay; deleting again changes nothing."""
    return await written(change(request, context), request, context)
