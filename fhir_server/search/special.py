"""Parameters of every type that no element answers: ``_text`` and ``_content``; of ``_list`` and
``_filter``, which have modules of their own, what is said of them.

https://hl7.org/fhir/R4/search.html#all
"""

from collections.abc import Mapping, Sequence

from fhir_server.outcome import FhirError, Issue, unsupported_modifier
from fhir_server.search import queries
from fhir_server.search.keys import Filter, any_of
from fhir_server.search.lists import FUNCTIONAL, LIST
from fhir_server.search.parameters import ParameterTable
from fhir_server.search.text import CONTENT, TEXT, compile_words

DOCUMENTATION: Mapping[str, str] = {
    CONTENT: "Words of the whole resource, with AND, OR, NOT and parentheses.",
    TEXT: "Words of the narrative, with AND, OR, NOT and parentheses.",
    "_contained": "false, true or both: also what lies in other resources; without chains, _sort, "
    "_include, _list, _text and _content.",
    "_containedType": "container or contained: what comes of those, and under which address.",
    queries.QUERY: queries.DOCUMENTATION + ".",
    "_filter": "The whole grammar of search_filter.html; brackets stand behind references and "
    "composites.",
    LIST: f"The members of a List, by its id; by a rule {', '.join(FUNCTIONAL)}.",
}
"""What is served, with a sentence for the CapabilityStatement."""


def compile_special(name: str, values: Sequence[str], table: ParameterTable) -> Filter:
    """Return the filter that is met where one of ``values`` is.

    ``name`` is one of :data:`DOCUMENTATION` but ``_list``, perhaps with a modifier.

    Raises ``not-supported`` for a modifier and for what is switched off, ``value`` for values that
    cannot be read.
    """
    code, _, modifier = name.partition(":")
    if modifier:
        raise unsupported_modifier(code, modifier, ())
    if not table.text_search:
        text = f"{code} is switched off here (the setting FHIR_TEXT_SEARCH)."
        raise FhirError(Issue("not-supported", text))
    return any_of([compile_words(code, value) for value in values])
