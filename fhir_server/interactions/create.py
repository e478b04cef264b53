"""create: ``POST [base]/[type]``. https://hl7.org/fhir/R4/http.html#create"""

from fhir_server.context import Context
from fhir_server.interactions.bodies import valid_body, written
from fhir_server.interactions.conditional import conditional
from fhir_server.messages import Request, Response
from fhir_server.store.changes import Change


def change(request: Request, context: Context) -> Change:
    """Return the change that ``request`` asks for.

    The resource gets an id of ours, whatever id it brings; a transaction, which must know the ids
    before it can rewrite references, has chosen it already as ``request.id``.
    """
    resource = valid_body(request, context)
    id = request.id or context.new_id()
    return Change("create", request.type, id, resource, content=request.content)


async def create(request: Request, context: Context) -> Response:
    """Write the body as version 1 under a new id, unless what If-None-Exist says is there."""
    if request.if_none_exist is not None:
        return await conditional(request, context)
    return await written(change(request, context), request, context)
