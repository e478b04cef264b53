"""Who asked for an export, as of now: its token is long over, its registration may be as well.

design/security.md, section 3.2: the plan is computed anew for each page, of what is still granted.
"""

from dataclasses import replace

from fhir_server.context import Context
from fhir_server.interactions.admitting import forbidden
from fhir_server.security.principal import Principal
from fhir_server.security.scopes import granted, scopes_of


async def as_of_now(principal: Principal, context: Context) -> Principal:
    """Return ``principal`` with the scopes and roles that its client is still registered for; of a
    user, if an app of that user is still granted anything. Raises ``forbidden`` where it is over.

    Who comes by another issuer's tokens is registered there, and judged by what the token said.
    """
    if not principal.client or context.settings.auth_issuer:
        return principal
    client = await context.accounts.clients.client(principal.client)
    if client is None:
        raise forbidden("The client that asked for the export is not registered any more.")
    if principal.kind == "client":
        texts = [scope.text for scope in principal.scopes]
        left = granted(texts, client.scopes, ("system",), is_possible=lambda _: True)
        return replace(principal, scopes=scopes_of(" ".join(left)), roles=client.roles)
    grants = (await context.accounts.grants_of(principal.name)).values()
    if not any(grant.client == client.id for grant in grants):
        raise forbidden("What the user had granted to the app is over.")
    return principal
