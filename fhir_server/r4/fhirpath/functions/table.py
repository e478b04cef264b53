"""All functions by name."""

from collections.abc import Mapping

from fhir_server.r4.fhirpath.functions import (
    boundaries,
    collections,
    conversion,
    elements,
    narrative,
    numbers,
    strings,
)
from fhir_server.r4.fhirpath.functions.function import Function

FUNCTIONS: Mapping[str, Function] = {
    **collections.FUNCTIONS,
    **strings.FUNCTIONS,
    **numbers.FUNCTIONS,
    **conversion.FUNCTIONS,
    **elements.FUNCTIONS,
    **boundaries.FUNCTIONS,
    **narrative.FUNCTIONS,
}
