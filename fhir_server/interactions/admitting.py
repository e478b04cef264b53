"""Whether a request is admitted, and how much of the store it then sees. design/security.md.

The table says which letters of SMART scopes an interaction needs of its type: words divided by
spaces, all of them needed, and of each word one letter is enough. An operation says so itself
(``Operation.needs``); one that says nothing is for administrators.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from fhir_server.context import Context
from fhir_server.messages import Request
from fhir_server.outcome import FhirError, Issue
from fhir_server.security.plan import Rights
from fhir_server.security.principal import SERVER
from fhir_server.security.rights import has_power
from fhir_server.store.resources import ResourceStore

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
    "search-compartment": "s",
    "search-system": SIGNED_IN,
    "create": "c",
    "update": "u",
    "patch": "u",
    "delete": "d",
    # What matches is searched for; what comes of it is judged as the change that it is.
    "conditional-update": "s cu",
    "conditional-patch": "s u",
    "conditional-delete": "s d",
    # Each entry is judged by itself.
    "transaction": SIGNED_IN,
}
_WORDS = (OPEN, SIGNED_IN, ADMINISTRATOR)
# The letters that open what an interaction shows; to others, whatever may be read or found.
_SEEN: Mapping[str, str] = {
    **dict.fromkeys(("read", "vread", "history-instance"), "r"),
    **dict.fromkeys(("history-type", "history-system"), "s"),
    **dict.fromkeys(("search-type", "search-compartment", "search-system"), "s"),
}
_ALL_SEEN = "rs"
_EVERY_TYPE = "*"  # of a compartment


async def admitted(request: Request, needs: str, context: Context) -> Context:
    """Return ``context`` as ``request`` may have it: its store shows what its principal may see.

    An administrator's operation is about the server, and gets the store whole, as does what is
    open to everybody: neither answers with resources that somebody asks for.

    Raises ``login`` (401) where nobody asks for what is not open, ``forbidden`` (403) for a type
    or an operation that the principal has no right to.
    """
    principal = context.principal
    if principal.is_unrestricted:
        return context
    if needs == OPEN:
        return replace(context, store=context.store.as_server)
    if principal.kind == "nobody":
        raise not_signed_in()
    rights = await context.access(principal, context)
    check(request, needs, rights)
    if rights.purpose != principal.purpose:  # as by break-glass
        context = replace(context, principal=replace(principal, purpose=rights.purpose))
    if needs == ADMINISTRATOR:
        return replace(context, store=context.store.as_server, rights=rights)
    plan = rights.plan(_SEEN.get(request.interaction, _ALL_SEEN))
    return context.seeing(context.store.narrowed(plan), rights)


def check(request: Request, needs: str, rights: Rights) -> None:
    """Raise ``forbidden`` where ``rights`` have not what ``request`` ``needs``."""
    if needs == ADMINISTRATOR and ADMINISTRATOR not in rights.roles:
        raise forbidden(f"{request.interaction} is for administrators.")
    if needs in _WORDS:
        return
    words = needs.split()
    if request.if_none_exist is not None:
        words.append("s")
    type = request.version if request.interaction == "search-compartment" else request.type
    for word in words:
        if not _has_one(type, word, rights):
            what = f" of {type}" if type else ""
            raise forbidden(f"Your scopes do not open {request.interaction}{what}.")


def _has_one(type: str, letters: str, rights: Rights) -> bool:
    """Whether ``rights`` have one of ``letters`` of ``type``; of any, where that is none."""
    if type in ("", _EVERY_TYPE):
        return any(letter in letters for _, letter in rights.may)
    return any(rights.allows(type, letter) for letter in letters)


def check_part(request: Request, context: Context) -> None:
    """Raise ``forbidden`` where a part of a request, such as an entry, may not be asked for."""
    if context.rights is not None:
        check(request, NEEDS.get(request.interaction, ADMINISTRATOR), context.rights)


def check_power(power: str, context: Context) -> None:
    """Raise ``forbidden`` where whoever asks has not the right ``power``, which belongs to no type,
    such as ``scheduling.override``."""
    if not has_power(context.principal, power):
        raise forbidden(f"This needs the right {power}, by a role and the scope of that name.")


def check_named(types: Iterable[str], context: Context) -> None:
    """Raise ``forbidden`` where a search names a type that may not be searched."""
    for type in types:
        if not may_search(type, context):
            raise forbidden(f"Your scopes do not open a search of {type}.")


def may_search(type: str, context: Context) -> bool:
    """Whether whoever asks may search ``type`` at all."""
    return context.rights is None or context.rights.allows(type, "s")


def searchable(context: Context) -> ResourceStore:
    """Return the store as far as it may be searched: what is found by criteria is no more than
    what a search finds."""
    if context.rights is None:
        return context.store
    return context.store.narrowed(context.rights.plan("s"))


def as_server(context: Context) -> Context:
    """Return ``context`` for what this server does by itself while it answers somebody."""
    return replace(context, principal=SERVER, rights=None, store=context.store.as_server)


def not_signed_in() -> FhirError:
    """Return the refusal of a request without a good token. RFC 6750, section 3."""
    text = "This needs an access token, in the header Authorization: Bearer."
    return FhirError(Issue("login", text), headers=(("WWW-Authenticate", "Bearer"),))


def forbidden(text: str) -> FhirError:
    """Return the refusal of what the granted scopes do not open. RFC 6750, section 3.1."""
    said = 'Bearer error="insufficient_scope"'
    return FhirError(Issue("forbidden", text), headers=(("WWW-Authenticate", said),))
