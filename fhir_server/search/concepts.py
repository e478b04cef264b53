"""Modifiers of tokens that ask a value set or a code system.

https://hl7.org/fhir/R4/search.html#modifiers

=============================  ==============================================================
modifier                       what it finds
=============================  ==============================================================
``:in=url``                    codes of the value set: its url, ``url|version``, ``ValueSet/id``
``:not-in=url``                what ``:in`` does not find
``:below=system|code``         that code and its kinds
``:above=system|code``         that code and what it is a kind of
=============================  ==============================================================

Value sets and code systems are those of the loaded packages and those stored on the server
(``wanted.py``). Only what is known whole can be asked: the codes are put in the query. Everything
else is refused, never taken for empty.
"""

from collections.abc import Collection

from fhir_server.outcome import FhirError, Issue, invalid_value, shown
from fhir_server.r4.expansion import Code, Unexpandable
from fhir_server.search.escape import split, unescape
from fhir_server.search.keys import NOTHING, Filter
from fhir_server.search.token import Implied, token_key
from fhir_server.search.wanted import NotKnown, Wants


def compile_concepts(
    field: str, value: str, modifier: str, *, wants: Wants, implied: Implied | None
) -> Filter:
    """Return the filter for one value of ``modifier``, which is in the table above.

    ``implied`` says which codes of a system an element of type ``code`` can have. Where something
    has to be looked up first, ``wants`` remembers it, and the filter finds nothing.

    Raises ``value`` for another form of value, ``not-supported`` for a value set or code system
    that is not known whole.
    """
    try:
        if modifier in ("in", "not-in"):
            codes: Collection[Code] = _in_value_set(value, wants)
        else:
            codes = _related(value, modifier, wants)
    except NotKnown:
        return NOTHING
    wants.count(len(codes))
    systems = {system: implied(system) for system, _ in codes} if implied else {}
    keys = [token_key(code, system) for system, code in codes]
    keys += [token_key(code) for system, code in codes if code in systems.get(system, ())]
    return {field: {"$in": sorted(set(keys))}}


def _in_value_set(value: str, wants: Wants) -> frozenset[Code]:
    name = unescape(value)
    try:
        return wants.codes(name)
    except Unexpandable as error:
        text = f"The value set {shown(name)} cannot be expanded here: {shown_reason(error)}."
        raise FhirError(Issue("not-supported", text)) from error


def shown_reason(error: Unexpandable) -> str:
    """Return the sentence of ``error`` for a message, on one line."""
    return shown(str(error), most=200)[1:].rstrip("'")


def _related(value: str, modifier: str, wants: Wants) -> list[Code]:
    match [unescape(part) for part in split(value, "|")]:
        case [system, code] if system and code:
            pass
        case _:
            raise invalid_value(f"A token with :{modifier}", value, "system|code")
    try:
        found = wants.kin(system, code, above=modifier == "above")
    except Unexpandable as error:
        text = f"The code system {shown(system)} is not known whole here: {shown_reason(error)}."
        raise FhirError(Issue("not-supported", text)) from error
    if found is None:
        raise invalid_value("A code", code, f"a code of {shown(system)}")
    return [(system, one) for one in found]
