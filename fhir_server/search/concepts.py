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

Only value sets and code systems that are loaded whole can be asked: the codes are put in the
query. Everything else is refused, never taken for empty.
"""

from collections.abc import Iterable

from fhir_server.outcome import FhirError, Issue, invalid_value, shown
from fhir_server.r4.definitions import Code, Definitions
from fhir_server.search.escape import split, unescape
from fhir_server.search.keys import Filter
from fhir_server.search.token import Implied, token_key


def compile_concepts(
    field: str, value: str, modifier: str, *, definitions: Definitions, implied: Implied | None
) -> Filter:
    """Return the filter for one value of ``modifier``, which is in the table above.

    ``implied`` says which codes of a system an element of type ``code`` can have.

    Raises ``value`` for another form of value, ``not-supported`` for a value set or code system
    that is not known whole.
    """
    if modifier in ("in", "not-in"):
        codes: Iterable[Code] = _in_value_set(value, definitions)
    else:
        codes = _related(value, modifier, definitions)
    systems = {system: implied(system) for system, _ in codes} if implied else {}
    keys = [token_key(code, system) for system, code in codes]
    keys += [token_key(code) for system, code in codes if code in systems.get(system, ())]
    return {field: {"$in": sorted(set(keys))}}


def _in_value_set(value: str, definitions: Definitions) -> frozenset[Code]:
    name = unescape(value)
    url = definitions.value_set(name)
    codes = definitions.codes(url) if url else None
    if codes is None:
        what = "cannot be expanded here" if url else "is not known here"
        raise FhirError(Issue("not-supported", f"The value set {shown(name)} {what}."))
    return codes


def _related(value: str, modifier: str, definitions: Definitions) -> list[Code]:
    match [unescape(part) for part in split(value, "|")]:
        case [system, code] if system and code:
            hierarchy = definitions.hierarchy(system)
        case _:
            raise invalid_value(f"A token with :{modifier}", value, "system|code")
    if hierarchy is None:
        text = f"The code system {shown(system)} is not known whole here."
        raise FhirError(Issue("not-supported", text))
    found = hierarchy.below(code) if modifier == "below" else hierarchy.above(code)
    if found is None:
        raise invalid_value("A code", code, f"a code of {shown(system)}")
    return [(system, one) for one in found]
