"""Whether a request is admitted, and how much of the store it then sees. design/security.md.

The table says which letter of a SMART scope an interaction needs of its type. An operation says so
itself (``Operation.needs``); one that says nothing is for administrators.
"""

from collections.abc import Mapping
from dataclasses import replace

from fhir_server.context import Context
from fhir_server.messages import Request
from fhir_server.outcome import FhirError, Issue
from fhir_server.security.plan import Rights

OPEN = "open"
"""What every principal may call, such as the CapabilityStatement."""
SIGNED_IN = "signed-in"
"""What everybody may call who is somebody; the store shows what that one may see."""
ADMINISTRATOR = "administrator"

NEEDS: Mapping[str, str] = {
    "capabilities": OPEN,
    "read": "r",
    "vread": "r",
    "history-instance": "r",
    "history-type": "s",
    "history-system": SIGNED_IN,
    "search-type": "s",
    "search-compartment": SIGNED_IN,
    "search-system": SIGNED_IN,
    "create": "c",
    "update": "u",
    "patch": "u",
    "delete": "d",
    "conditional-update": "u",
    "conditional-patch": "u",
    "conditional-delete": "d",
    "transaction": SIGNED_IN,
}
_SEEN = {"r": "r", "s": "s"}
_ALL_SEEN = "rs"


async def admitted(request: Request, needs: str, context: Context) -> Context:
    """Return ``context`` as ``request`` may have it: its store shows what its principal may see.

    Raises ``login`` (401) where nobody asks for what is not open, ``forbidden`` (403) for a type
    or an operation that the principal has no right to.
    """
    principal = context.principal
    if principal.is_unrestricted:
        return context
    if needs != OPEN and principal.kind == "nobody":
        raise not_signed_in()
    rights = await context.access(principal, context)
    check(request, needs, rights)
    plan = rights.plan(_SEEN.get(needs, _ALL_SEEN))
    if rights.purpose != principal.purpose:  # as by break-glass
        context = replace(context, principal=replace(principal, purpose=rights.purpose))
    return replace(context, store=context.store.narrowed(plan), rights=rights)


def check(request: Request, needs: str, rights: Rights) -> None:
    """Raise ``forbidden`` where ``rights`` have not what ``request`` ``needs``."""
    if needs in (OPEN, SIGNED_IN):
        return
    if needs == ADMINISTRATOR:
        if ADMINISTRATOR not in rights.roles:
            raise forbidden(f"{request.interaction} is for administrators.")
    elif not any(rights.allows(request.type, letter) for letter in needs):
        raise forbidden(f"Your scopes do not open {request.interaction} of {request.type}.")


def not_signed_in() -> FhirError:
    """Return the refusal of a request without a good token. RFC 6750, section 3."""
    text = "This needs an access token, in the header Authorization: Bearer."
    return FhirError(Issue("login", text), headers=(("WWW-Authenticate", "Bearer"),))


def forbidden(text: str) -> FhirError:
    """Return the refusal of what the granted scopes do not open. RFC 6750, section 3.1."""
    said = 'Bearer error="insufficient_scope"'
    return FhirError(Issue("forbidden", text), headers=(("WWW-Authenticate", said),))
