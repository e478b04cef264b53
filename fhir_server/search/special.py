"""Parameters of every type that no element answers: ``_text``, ``_content``,
``_list``, and ``_filter`` (see ``filter.py``).

https://hl7.org/fhir/R4/search.html#all
"""

import re
from collections.abc import Mapping, Sequence

from fhir_server.outcome import FhirError, Issue, invalid_value, shown, unsupported_modifier
from fhir_server.search.escape import unescape
from fhir_server.search.keys import Filter, any_of
from fhir_server.search.parameters import ParameterTable
from fhir_server.search.text import CONTENT, TEXT, compile_words

LIST = "_list"
_ID = re.compile(r"(?:List/)?([A-Za-z0-9\-.]{1,64})")

DOCUMENTATION: Mapping[str, str] = {
    CONTENT: "Words of the whole resource, with AND, OR, NOT and parentheses.",
    TEXT: "Words of the narrative, with AND, OR, NOT and parentheses.",
    "_filter": "All operators of search_filter.html; paths into other resources are not served.",
    LIST: "The members of a List, by its id. Functional lists are not served.",
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


def list_ids(values: Sequence[str]) -> tuple[str, ...]:
    """Return the ids that values of ``_list`` name: ``42`` or ``List/42``.

    Raises ``not-supported`` for functional lists, ``value`` for what is no id.
    """
    return tuple(dict.fromkeys(map(_list_id, values)))


def _list_id(value: str) -> str:
    text = unescape(value)
    if text.startswith("$"):
        why = f"The functional list {shown(text)} is not served; name a List by its id."
        raise FhirError(Issue("not-supported", why))
    found = _ID.fullmatch(text)
    if found is None:
        raise invalid_value(LIST, value, "the id of a List")
    return found[1]
