"""Token parameters: codes, identifiers, booleans.

https://hl7.org/fhir/R4/search.html#token

A key is ``code SEPARATOR system``; a missing system is ``""``. The code comes first: one index then
answers ``code`` as a range and ``system|code`` as an equality. ``system|`` is answered from the
systems alone, which are kept beside the keys in ``[code]:system``. Codes are compared with case,
except where the element is a ``string`` (it is folded on both sides).

The system of a ContactPoint is its ``system``: ``phone|555``.

=================  ==========================================================================
modifier           what it does
=================  ==========================================================================
``:not``           everything that the same value does not find
``:text``          the text or display, or the text of an identifier's type, begins so
``:of-type``       ``system|code|value``: an identifier of that type
``:in`` and so on  see ``concepts.py``
=================  ==========================================================================
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from fhir_server.outcome import invalid_value
from fhir_server.search.escape import split, unescape
from fhir_server.search.keys import (
    AFTER,
    SEPARATOR,
    TEXT_MAX,
    Filter,
    any_of,
    on_element,
    regex_text,
    shortened,
    starting_with,
)
from fhir_server.search.string import fold

SYSTEMS = ":system"
TEXTS = ":text"
TYPED = ":of-type"
"""The suffixes of the fields that hold systems, texts, and identifiers with their types."""

_CONCEPTS = ("in", "not-in", "above", "below")
# FHIR type -> the modifiers that a value of it has beside :not.
_MODIFIERS: Mapping[str, tuple[str, ...]] = {
    "CodeableConcept": ("text", *_CONCEPTS),
    "Coding": ("text", *_CONCEPTS),
    "code": _CONCEPTS,
    "Identifier": ("text", "of-type"),
}
# Longer texts tell nothing more about a code, and every letter is one more in the index.
_TEXT_KEPT = 200

Implied = Callable[[str], Collection[str]]
"""system -> the codes of it that an element of type ``code`` can have (its system is implicit)."""


def token_key(code: str, system: str = "") -> str:
    """Return the key of ``code`` in ``system``."""
    if len(code) <= TEXT_MAX >= len(system):  # nearly all: the calls cost more than the key
        return f"{code}{SEPARATOR}{system}"
    return f"{shortened(code)}{SEPARATOR}{shortened(system)}"


def _coding(coding: Any) -> list[str]:
    code = coding.get("code")
    if type(code) is not str:
        return []
    system = coding.get("system", "")
    return [token_key(code, system if type(system) is str else "")]


def _concept(concept: Any) -> list[str]:
    codings = concept.get("coding")
    if type(codings) is not list:
        return []
    return [key for coding in codings if type(coding) is dict for key in _coding(coding)]


def _identifier(identifier: Any) -> list[str]:
    value = identifier.get("value")
    if type(value) is not str:
        return []
    system = identifier.get("system", "")
    return [token_key(value, system if type(system) is str else "")]


def _boolean(value: Any) -> list[str]:
    return [token_key("true" if value else "false")]


def _folded(text: Any) -> list[str]:
    return [token_key(text.casefold())]


def _plain(text: Any) -> list[str]:
    return [token_key(text)]


# "The implicit system for boolean values ... but this is never actually used" (search.html#token).
_SPECIAL_VALUES = "http://terminology.hl7.org/CodeSystem/special-values"
WITHOUT_SYSTEM = frozenset(("boolean", "string", "id", "uri", "url", "canonical", "oid", "uuid"))
"""The FHIR types that have no system, nor one that is implied."""

INDEXED: Mapping[str, Callable[[Any], list[Any]]] = {
    "CodeableConcept": _concept,
    "Coding": _coding,
    "Identifier": _identifier,
    "ContactPoint": _identifier,
    "boolean": _boolean,
    "string": _folded,
    **dict.fromkeys(("code", "id", "uri", "url", "canonical", "oid", "uuid"), _plain),
}
"""FHIR type -> what is written for a value of it."""


def _list(value: Any) -> list[Any]:
    return value if type(value) is list else []


def _system(coding: Any) -> list[str]:
    system = coding.get("system")
    return [shortened(system)] if type(system) is str else []


def _concept_systems(concept: Any) -> list[str]:
    codings = _list(concept.get("coding"))
    return [key for coding in codings if type(coding) is dict for key in _system(coding)]


INDEXED_SYSTEMS: Mapping[str, Callable[[Any], list[Any]]] = {
    "CodeableConcept": _concept_systems,
    "Coding": _system,
    "ContactPoint": _system,
    "Identifier": _system,
}
"""FHIR type -> what is written to the field :data:`SYSTEMS` for a value of it."""


def _texts(element: Any) -> list[str]:
    found = [element.get("text"), element.get("display")]
    found += [one.get("display") for one in _list(element.get("coding")) if type(one) is dict]
    texts: list[str] = []
    for text in found:
        if type(text) is str and (folded := fold(text[:TEXT_MAX])[:_TEXT_KEPT]):
            texts.append(folded)
    return texts


def _type_texts(identifier: Any) -> list[str]:
    kind = identifier.get("type")
    text = kind.get("text") if type(kind) is dict else None
    return _texts({"text": text})


def _typed(identifier: Any) -> list[str]:
    kind, value = identifier.get("type"), identifier.get("value")
    if type(kind) is not dict or type(value) is not str:
        return []
    return [f"{shortened(value)}{SEPARATOR}{key}" for key in _concept(kind)]


INDEXED_BESIDE: Mapping[str, Mapping[str, Callable[[Any], list[Any]]]] = {
    SYSTEMS: INDEXED_SYSTEMS,
    TEXTS: {"CodeableConcept": _texts, "Coding": _texts, "Identifier": _type_texts},
    TYPED: {"Identifier": _typed},
}
"""Suffix of the field -> FHIR type -> what is written there for a value of it."""


def modifiers(types: Iterable[str]) -> tuple[str, ...]:
    """Return the modifiers of a parameter whose elements are of ``types``."""
    found = (name for type in types for name in _MODIFIERS.get(type, ()))
    return tuple(dict.fromkeys(("not", *found)))


def compile_text(field: str, value: str) -> Filter:
    """Return the filter for texts that begin with ``value``, as a string search compares them."""
    folded = fold(unescape(value))
    if not folded or len(folded) > _TEXT_KEPT:
        raise invalid_value("A text", value, f"between one and {_TEXT_KEPT} characters")
    return on_element(f"{field}{TEXTS}", starting_with(folded), False)


def compile_in_text(field: str, value: str, *, at_end: bool) -> Filter:
    """Return the filter for texts that contain ``value``, or end with it; it looks at all keys."""
    folded = fold(unescape(value))
    if not folded or len(folded) > _TEXT_KEPT:
        raise invalid_value("A text", value, f"between one and {_TEXT_KEPT} characters")
    return {f"{field}{TEXTS}": {"$regex": regex_text(folded) + ("$" if at_end else "")}}


def compile_of_type(field: str, value: str) -> Filter:
    """Return the filter for an identifier, ``system|code|value``: all three must be there."""
    parts = [unescape(part) for part in split(value, "|")]
    if len(parts) != 3 or not all(parts):
        raise invalid_value("An identifier with its type", value, "system|code|value")
    system, code, identifier = parts
    return {f"{field}{TYPED}": f"{shortened(identifier)}{SEPARATOR}{token_key(code, system)}"}


def compile_token(
    field: str,
    value: str,
    *,
    single: bool = False,
    folds: bool = False,
    bare: bool = False,
    implied: Implied | None = None,
) -> Filter:
    """Return the filter for one token value against the keys at ``field``.

    ``value`` is one alternative (commas already split), its escapes still in place:

    ================  ==============================================
    ``code``          that code, whatever its system
    ``system|code``   that code in that system
    ``|code``         that code with no system
    ``system|``       any code of that system
    ================  ==============================================

    ``folds`` says that strings are among the elements, ``bare`` that none of them has a system,
    ``implied`` which system the codes have.

    Raises ``value`` for more than one bar, for no code and no system, and for the system of what
    has none.
    """
    parts = [unescape(part) for part in split(value, "|")]
    if bare and len(parts) == 2:
        parts = [part for part in parts if part not in ("", _SPECIAL_VALUES)]
        if len(parts) != 1 or not value.endswith(parts[0]):
            raise invalid_value("A token", value, "a code alone: what is searched has no system")
    match parts:
        case [code] if code:
            low = shortened(code) + SEPARATOR
            found = [on_element(field, {"$gte": low, "$lt": low[:-1] + AFTER}, single)]
        case ["", code] if code:
            found = [{field: token_key(code)}]
        case [system, ""] if system:
            return _in_system(field, system, implied(system) if implied else ())
        case [system, code] if system and code:
            found = [{field: token_key(code, system)}]
            if implied and code in implied(system):
                found.append({field: token_key(code)})
        case _:
            raise invalid_value("A token", value, "code, system|code, |code or system|")
    if folds and (len(parts) == 1 or not parts[0]):  # a string has no system
        found.append({field: token_key(code.casefold())})
    return any_of(found)


def _in_system(field: str, system: str, codes: Collection[str]) -> Filter:
    coded = {f"{field}{SYSTEMS}": shortened(system)}
    if not codes:
        return coded
    return {"$or": [coded, {field: {"$in": [token_key(code) for code in sorted(codes)]}}]}
