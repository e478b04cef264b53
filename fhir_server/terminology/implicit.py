"""Value sets that follow from the form of their url.

https://hl7.org/fhir/R4/snomedct.html#implicit, https://hl7.org/fhir/R4/loinc.html#implicit
"""

from collections.abc import Mapping
from typing import Any


def implicit_value_set(name: str) -> Mapping[str, Any] | None:
    """Return the value set that the url ``name`` stands for, or ``None``."""
    return None
