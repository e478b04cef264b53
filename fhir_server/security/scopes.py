"""SMART scopes: ``patient/Observation.rs?category=laboratory``, versions 1 and 2.

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html

=========================  ==============================================================
scope                      what it is
=========================  ==============================================================
``level/type.letters``     what may be done with resources; ``type`` may be ``*``
``level/type.read``        version 1: ``rs``; ``.write`` is ``cud``, ``.*`` is ``cruds``
``launch``, ``launch/...`` which context an app asks for
``openid fhirUser``        who signs in; ``profile`` is the older word
``offline_access``         a refresh token that outlives the login, ``online_access`` one
                           that does not
``scheduling.override``    one of our own: a time that is taken may be given out again
=========================  ==============================================================
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal
from urllib.parse import parse_qsl, quote

import re2 as re

Level = Literal["patient", "user", "system"]

LETTERS = "cruds"
EVERY_TYPE = "*"
_OF_VERSION_1 = {"read": "rs", "write": "cud", "*": LETTERS}
# RFC 6749, 3.3: a scope is of visible ASCII without quotation mark and backslash.
_SCOPE = re.compile(
    r"(patient|user|system)/([A-Z][A-Za-z]{1,63}|\*)\.(read|write|\*|c?r?u?d?s?)"
    r"(?:\?([!#-\[\]-~]{1,1000}))?"
)
_CONTEXT = re.compile(r"launch(?:/[a-z]{1,64})?|openid|fhirUser|profile|(?:off|on)line_access")
_IDENTITY = ("fhirUser", "profile")
OF_BACKENDS = frozenset(("introspect", "hl7v2/submit"))
"""The scopes of backends that are about no resource: to ask what any token stands for, to hand in
HL7 v2 messages."""
OVERRIDE = "scheduling.override"
"""The scope to take a time that is taken, or to book against the rules, with a reason."""
POWERS = frozenset((OVERRIDE,))
"""The scopes about no resource that a backend and an app can have: of a user no more than the
roles give."""
_SCOPES_MAX = 400  # a client that lists each letter of each type by itself is mistaken
_UNQUOTED = ":/|,.-_~$!*'();@"


@dataclass(frozen=True, slots=True)
class Scope:
    """What may be done with resources of ``type`` (``*`` is every type).

    ``letters`` are some of ``cruds``, in that order; ``parameters`` are search parameters that a
    resource has to meet, as name and value. ``text`` is the scope as it was written, which says
    all the rest.
    """

    text: str
    level: Level = field(compare=False)
    type: str = field(compare=False)
    letters: str = field(compare=False)
    parameters: tuple[tuple[str, str], ...] = field(default=(), compare=False)


def scope_of(text: str) -> Scope | None:
    """Return the scope that ``text`` is; ``None`` for one that is about no resource, or is none."""
    found = _SCOPE.fullmatch(text)
    if found is None:
        return None
    level, type, said, query = found.groups()
    letters = _OF_VERSION_1.get(said, said)
    if not letters or (said in _OF_VERSION_1 and query):
        return None
    parameters = tuple(parse_qsl(query, keep_blank_values=True)) if query else ()
    if query and not parameters:
        return None
    return Scope(text, level, type, letters, parameters)


def scopes_of(text: str) -> tuple[Scope, ...]:
    """Return the scopes about resources in ``text``, which are divided by spaces."""
    return tuple(scope for one in text.split(" ") if (scope := scope_of(one)) is not None)


def is_context(text: str) -> bool:
    """Whether ``text`` is a scope about launch context, identity or refresh tokens."""
    return _CONTEXT.fullmatch(text) is not None


def scope_text(
    level: Level, type: str, letters: str, parameters: Iterable[tuple[str, str]] = ()
) -> str:
    """Return the scope of version 2 that says this.

    >>> scope_text("user", "Observation", "rs", [("category", "laboratory")])
    'user/Observation.rs?category=laboratory'
    """
    said = "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in parameters)
    return f"{level}/{type}.{letters}{'?' if said else ''}{said}"


def _quoted(text: str) -> str:
    return quote(text, safe=_UNQUOTED)


def covers(scope: Scope, other: Scope) -> bool:
    """Whether whoever has ``scope`` has all that ``other`` says.

    What is constrained covers only what is constrained in the same way, or more.
    """
    return (
        scope.level == other.level
        and scope.type in (EVERY_TYPE, other.type)
        and set(other.letters) <= set(scope.letters)
        and set(scope.parameters) <= set(other.parameters)
    )


def common(one: Scope, other: Scope) -> Scope | None:
    """Return what both scopes say, or ``None`` if that is nothing."""
    for scope, beside in ((one, other), (other, one)):
        if covers(scope, beside):
            return beside
    letters = "".join(letter for letter in one.letters if letter in other.letters)
    types = {one.type, other.type} - {EVERY_TYPE}
    if one.level != other.level or not letters or len(types) > 1:
        return None
    parameters = tuple(dict.fromkeys((*one.parameters, *other.parameters)))
    type = next(iter(types), EVERY_TYPE)
    text = scope_text(one.level, type, letters, parameters)
    return Scope(text, one.level, type, letters, parameters)


def is_plain(scope: Scope) -> bool:
    """Whether ``scope`` has no parameters: one that can be granted whatever they would mean."""
    return not scope.parameters


def granted(
    asked: Iterable[str],
    registered: Collection[str],
    levels: Collection[str],
    *,
    is_possible: Callable[[Scope], bool] = is_plain,
    has_fhir_user: bool = True,
) -> tuple[str, ...]:
    """Return the scopes that may be granted of those ``asked``, to a client that is ``registered``
    for others: nothing that is not in both, each once, in the order of asking.

    A scope that is wider than what is registered gives what both have in common: of
    ``patient/*.cruds`` a client that is registered for ``patient/Observation.rs`` gets that.
    ``levels`` are those that this kind of grant can have: ``patient`` and ``user`` where somebody
    signs in, ``system`` where nobody does. ``is_possible`` says whether there is the type, and
    whether the parameters can be a condition on one resource: chains and the shape of a result
    cannot (``interactions/access.py``). ``has_fhir_user`` says that whoever signs in is a resource
    here. Of what is unknown nothing is granted.
    """
    allowed = [one for text in registered if (one := scope_of(text)) is not None]
    found: dict[str, None] = {}
    for text in islice(asked, _SCOPES_MAX):
        scope = scope_of(text)
        if scope is None:
            if text in registered and _is_granted(text, levels, has_fhir_user=has_fhir_user):
                found[text] = None
        elif scope.level in levels:
            found.update((one.text, None) for one in _within(scope, allowed) if is_possible(one))
    return tuple(found)


def _is_granted(text: str, levels: Collection[str], *, has_fhir_user: bool) -> bool:
    """Whether the scope ``text``, which is about no resource, is for this kind of grant."""
    if text in POWERS:
        return True
    if "system" in levels:
        return text in OF_BACKENDS
    return is_context(text) and (has_fhir_user or text not in _IDENTITY)


def _within(scope: Scope, allowed: Iterable[Scope]) -> list[Scope]:
    """Return what of ``scope`` is in one of ``allowed``; each part that no other part covers."""
    parts = [part for one in allowed if (part := common(scope, one)) is not None]
    if scope in parts:
        return [scope]
    kept: list[Scope] = []
    for part in dict.fromkeys(parts):
        if not any(covers(one, part) for one in kept):
            kept = [one for one in kept if not covers(part, one)] + [part]
    return kept


def wants_patient(scopes: Iterable[Scope]) -> bool:
    """Whether one of ``scopes`` is of no use without a patient in context."""
    return any(scope.level == "patient" for scope in scopes)
