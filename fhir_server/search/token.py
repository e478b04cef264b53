"""Token parameters: codes, identifiers, booleans.

https://hl7.org/fhir/R4/search.html#token

A key is ``code SEPARATOR system``; a missing system is ``""``. The code comes first: one index then
answers ``code`` as a range and ``system|code`` as an equality. ``system|`` is answered from the
systems alone, which are kept beside the keys in ``[code]:system``. Codes are compared with case,
except where the element is a ``string`` (it is folded on both sides).

=================  ================================================
modifier           what it does
=================  ================================================
``:not``           everything that the same value does not find
=================  ================================================
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from fhir_server.outcome import invalid_value
from fhir_server.search.escape import split, unescape
from fhir_server.search.keys import AFTER, SEPARATOR, Filter, any_of, on_element, shortened

MODIFIERS = ("not",)
SYSTEMS = ":system"
"""The suffix of the field that holds the systems."""

Implied = Callable[[str], Collection[str]]
"""system -> the codes of it that an element of type ``code`` can have (its system is implicit)."""


def token_key(code: str, system: str = "") -> str:
    """Return the key of ``code`` in ``system``."""
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


def _contact(contact: Any) -> list[str]:
    value = contact.get("value")  # its system is "phone", which is no namespace
    return [token_key(value)] if type(value) is str else []


def _boolean(value: Any) -> list[str]:
    return [token_key("true" if value else "false")]


def _folded(text: Any) -> list[str]:
    return [token_key(text.casefold())]


def _plain(text: Any) -> list[str]:
    return [token_key(text)]


INDEXED: Mapping[str, Callable[[Any], list[Any]]] = {
    "CodeableConcept": _concept,
    "Coding": _coding,
    "Identifier": _identifier,
    "ContactPoint": _contact,
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
    "Identifier": _system,
}
"""FHIR type -> what is written to the field :data:`SYSTEMS` for a value of it."""


def compile_token(
    field: str,
    value: str,
    *,
    single: bool = False,
    folds: bool = False,
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

    ``folds`` says that strings are among the elements, ``implied`` which system the codes have.

    Raises ``value`` for more than one bar, and for no code and no system.
    """
    match [unescape(part) for part in split(value, "|")]:
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
    if folds and "|" not in value:
        found.append({field: token_key(unescape(value).casefold())})
    return any_of(found)


def _in_system(field: str, system: str, codes: Collection[str]) -> Filter:
    coded = {f"{field}{SYSTEMS}": shortened(system)}
    if not codes:
        return coded
    return {"$or": [coded, {field: {"$in": [token_key(code) for code in sorted(codes)]}}]}
