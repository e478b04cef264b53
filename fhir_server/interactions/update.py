"""update: ``PUT [base]/[type]/[id]``. https://hl7.org/fhir/R4/http.html#update"""

from fhir_server.context import Context
from fhir_server.interactions.bodies import valid_body, written
from fhir_server.messages import Request, Response
from fhir_server.outcome import invalid_value
from fhir_server.store.changes import Change


def change(request: Request, context: Context) -> Change:
    """Return the change that ``request`` asks for."""
    resource = valid_body(request, context)
    if resource.get("id") != request.id:
        expected = f"'{request.id}', as in the URL"
        raise invalid_value("The resource's id", resource.get("id"), expected, f"{request.type}.id")
    return Change(
        "update",
        request.type,
        request.id,
        resource,
        if_match=request.if_match,
        if_none_match=request.if_none_match,
        content=request.content,
    )


async def update(request: Request, context: Context) -> Response:
    """Write the body as the next version of ``[type]/[id]``; create it if the id is new."""
    return await written(change(request, context), request, context)
