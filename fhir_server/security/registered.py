"""What of the scopes that are asked for a client may have: no more than it was registered for.

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html; RFC 6749, section 3.3.
"""

from collections.abc import Collection, Iterable, Iterator
from urllib.parse import urlencode

from fhir_server.security.scopes import Scope, scope_of

CONTEXT_SCOPES = frozenset(
    (
        *("openid", "fhirUser", "profile", "launch", "launch/patient", "launch/encounter"),
        *("offline_access", "online_access"),
    )
)
"""The scopes about no resource that an app may be registered for."""
INTROSPECT = "introspect"
"""Of a backend that may ask what any token stands for, such as another resource server."""
_OF_BACKENDS = frozenset((INTROSPECT,))


def is_scope(text: str) -> bool:
    """Whether a client may be registered for the scope ``text``."""
    return text in CONTEXT_SCOPES | _OF_BACKENDS or scope_of(text) is not None


def granted(
    asked: Iterable[str], registered: Collection[str], levels: Collection[str]
) -> tuple[str, ...]:
    """Return what of the scopes ``asked`` is within those ``registered``, each once, in order.

    A scope that is wider than what is registered gives what both have in common: of
    ``patient/*.cruds`` a client that is registered for ``patient/Observation.rs`` gets that.
    ``levels`` are those that this way of asking may have: ``user`` and ``patient``, or ``system``.
    """
    plain = _OF_BACKENDS if "system" in levels else CONTEXT_SCOPES
    known = [one for text in registered if (one := scope_of(text)) is not None]
    found: dict[str, None] = {}
    for text in asked:
        scope = scope_of(text)
        if scope is not None and scope.level in levels:
            found.update(dict.fromkeys(_common(scope, known)))
        elif text in plain and text in registered:
            found[text] = None
    return tuple(found)


def _common(asked: Scope, registered: Iterable[Scope]) -> Iterator[str]:
    for one in registered:
        if one.level != asked.level or (
            "*" not in (one.type, asked.type) and one.type != asked.type
        ):
            continue
        type = asked.type if one.type == "*" else one.type
        letters = "".join(letter for letter in asked.letters if letter in one.letters)
        if not letters:
            continue
        parameters = tuple(dict.fromkeys((*asked.parameters, *one.parameters)))
        if (type, letters, parameters) == (asked.type, asked.letters, asked.parameters):
            yield asked.text
        else:
            query = f"?{urlencode(parameters, safe='|:,/')}" if parameters else ""
            yield f"{asked.level}/{type}.{letters}{query}"
