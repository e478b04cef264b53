"""``htmlChecks()``: https://hl7.org/fhir/R4/fhirpath.html#functions"""

import re
from collections.abc import Mapping

from fhir_server.r4.fhirpath.environment import State, string
from fhir_server.r4.fhirpath.functions.function import Function
from fhir_server.r4.fhirpath.model import Value
from fhir_server.r4.narrative import narrative_fault

_TAG = re.compile(r"<[^>]*>")
_IMAGE = re.compile(r"<img[\s/>]")


def _html_checks(items: list[Value], given: list[list[Value]], state: State) -> bool | None:
    text = string(items, "htmlChecks()")
    if text is None:
        return None
    state.spend(1 + len(text) // 64)
    return not narrative_fault(text) and _says_something(text)


def _says_something(div: str) -> bool:
    """txt-2: "The narrative SHALL have some non-whitespace content"; an image is some."""
    return bool(_TAG.sub("", div).strip(" \t\r\n")) or _IMAGE.search(div) is not None


FUNCTIONS: Mapping[str, Function] = {
    **{name: Function(0, 0, test=_html_checks) for name in ("htmlChecks", "htmlchecks")},
}
