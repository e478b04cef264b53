"""SMART scopes: ``patient/Observation.rs?category=laboratory``, versions 1 and 2.

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html
"""

from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl

import re2 as re

Level = Literal["patient", "user", "system"]

_LETTERS = "cruds"
_OF_VERSION_1 = {"read": "rs", "write": "cud", "*": _LETTERS}
_SCOPE = re.compile(
    r"(patient|user|system)/([A-Z][A-Za-z]{1,63}|\*)\.(read|write|\*|c?r?u?d?s?)(?:\?([!-~]{1,1000}))?"
)


@dataclass(frozen=True, slots=True)
class Scope:
    """What may be done with resources of ``type`` (``*`` is every type).

    ``letters`` are some of ``cruds``, in that order; ``parameters`` are search parameters that a
    resource has to meet, as name and value. ``text`` is the scope as it was written.
    """

    text: str
    level: Level
    type: str
    letters: str
    parameters: tuple[tuple[str, str], ...] = ()


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
    return Scope(text, level, type, letters, parameters)


def scopes_of(text: str) -> tuple[Scope, ...]:
    """Return the scopes about resources in ``text``, which are divided by spaces."""
    return tuple(scope for one in text.split(" ") if (scope := scope_of(one)) is not None)
