"""``htmlChecks()``: https://hl7.org/fhir/R4/fhirpath.html#functions"""

from collections.abc import Mapping

from fhir_server.r4.fhirpath.environment import State, string
from fhir_server.r4.fhirpath.functions.function import Function
from fhir_server.r4.fhirpath.model import Value
from fhir_server.r4.narrative import narrative_fault


def _html_checks(items: list[Value], given: list[list[Value]], state: State) -> bool | None:
    text = string(items, "htmlChecks()")
    if text is None:
        return None
    state.spend(1 + len(text) // 64)
    return not narrative_fault(text)


FUNCTIONS: Mapping[str, Function] = {
    **{name: Function(0, 0, test=_html_checks) for name in ("htmlChecks", "htmlchecks")},
}
