"""What a principal may do: scopes, then role, then what Consent and labels take away.

design/security.md, section 3.1. The pure parts are in ``fhir_server/security/``.
"""

from fhir_server.context import Context
from fhir_server.interactions.consenting import subtracted
from fhir_server.security.plan import Filter, Rights
from fhir_server.security.principal import Principal


async def rights_of(principal: Principal, context: Context) -> Rights:
    """Return all that ``principal`` may do. What is not granted is not there."""
    may: dict[tuple[str, str], Filter] = {}
    for scope in principal.scopes:
        types = context.definitions.resource_types if scope.type == "*" else (scope.type,)
        if scope.level != "patient" or not principal.patient or scope.parameters:
            continue
        predicate: Filter = {"compartments": f"Patient/{principal.patient}"}
        for type in types:
            for letter in scope.letters:
                may[type, letter] = predicate
    rights = Rights(may, principal.roles, principal.purpose)
    return await subtracted(rights, principal, context)
