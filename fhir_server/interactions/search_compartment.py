"""search-compartment: ``GET [base]/Patient/1/Observation?…`` and ``GET [base]/Patient/1/*``.

https://hl7.org/fhir/R4/search.html#compartment
"""

from fhir_server.context import Context
from fhir_server.interactions.search_system import search_types
from fhir_server.interactions.search_type import search_one
from fhir_server.messages import Request, Response
from fhir_server.outcome import FhirError, Issue, unknown_type
from fhir_server.search.parameters import COMPARTMENTS

ALL = "*"


async def search_compartment(request: Request, context: Context) -> Response:
    """Return a page of what is in the compartment and meets all parameters.

    The ``version`` of the request is the type that is searched for, or ``*``.
    """
    members = context.parameters.compartment_types(request.type)
    if not members:
        known = ", ".join(context.definitions.compartments)
        text = f"{request.type} has no compartment; these have: {known}."
        raise FhirError(Issue("not-supported", text), status=404)
    within, type = f"{request.type}/{request.id}", request.version
    context.parameters.check_complete(COMPARTMENTS, members if type == ALL else (type,))
    if type == ALL:
        return await search_types(request, context, members, within)
    types = context.definitions.resource_types
    if type not in types:
        raise unknown_type(type, types)
    if type not in members:
        text = f"{type} is never in the compartment of a {request.type}."
        raise FhirError(Issue("not-supported", text), status=404)
    return await search_one(request, type, context, within)
