"""Code systems whose codes follow from a grammar, so that nobody has a list of them.

https://hl7.org/fhir/R4/terminologies-systems.html

=============================  =================================================================
system                         its codes
=============================  =================================================================
``http://unitsofmeasure.org``  UCUM expressions
``urn:ietf:bcp:47``            language tags, by the syntax of RFC 5646
``urn:ietf:bcp:13``            media types, by the syntax of RFC 6838
=============================  =================================================================

Whether the subtags of a language and the names of media types are registered is not looked at.
Nobody lists what such codes are called: they are shown as R4's value sets have it, and no display
is wrong.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import re2

from fhir_server.r4.expansion import Shelved
from fhir_server.r4.ucum import Units
from fhir_server.terminology.judging import OPEN

UCUM = "http://unitsofmeasure.org"
LANGUAGES = "urn:ietf:bcp:47"
MEDIA_TYPES = "urn:ietf:bcp:13"

_CODE_MAX = 200
_LANGUAGE = re2.compile(
    r"(?i)(?:[a-z]{2,3}(?:-[a-z]{3}){0,3}|[a-z]{4}|[a-z]{5,8})(?:-[a-z]{4})?(?:-(?:[a-z]{2}|[0-9]{3}))?"
    r"(?:-(?:[a-z0-9]{5,8}|[0-9][a-z0-9]{3}))*(?:-[a-wy-z0-9](?:-[a-z0-9]{2,8})+)*"
    r"(?:-x(?:-[a-z0-9]{1,8})+)?|x(?:-[a-z0-9]{1,8})+|i-[a-z0-9]{2,8}|art-lojban|zh-min(?:-nan)?"
)
_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+\-]{0,126}"
_MEDIA_TYPE = re2.compile(rf'{_NAME}/{_NAME}(?:\s*;\s*{_NAME}=(?:{_NAME}|"[^"\\]*"))*')

Grammar = Callable[[str], Mapping[str, Any] | None]


def grammar_system(
    url: str, units: Units, displays: Callable[[str, str], Sequence[str]]
) -> Shelved | None:
    """Return the code system ``url`` as a CodeSystem without a list, or ``None``.

    ``displays`` gives what a code of a system is called, as far as that is known.
    """
    made = _SYSTEMS.get(url)
    if made is None:
        return None
    name, has = made
    found = Shelved(
        resourceType="CodeSystem",
        url=url,
        name=name,
        title=name,
        status="active",
        content="complete",
    )

    def grammar(code: str) -> Mapping[str, Any] | None:
        if not has(code, units):
            return None
        first, *more = displays(url, code) or (code,)
        found: dict[str, Any] = {"code": code, "display": first, OPEN: True}
        return {**found, "designation": [{"value": one} for one in more]} if more else found

    found.grammar = grammar
    return found


def _is_language(code: str, _: Units) -> bool:
    return len(code) <= _CODE_MAX and _LANGUAGE.fullmatch(code) is not None


def _is_media_type(code: str, _: Units) -> bool:
    return len(code) <= _CODE_MAX and _MEDIA_TYPE.fullmatch(code) is not None


_SYSTEMS: Mapping[str, tuple[str, Callable[[str, Units], bool]]] = {
    UCUM: ("UCUM", lambda code, units: units.has(code)),
    LANGUAGES: ("Language tags (BCP 47)", _is_language),
    MEDIA_TYPES: ("Media types (BCP 13)", _is_media_type),
}
GRAMMAR_SYSTEMS = tuple(_SYSTEMS)
