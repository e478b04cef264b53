"""What becomes of the narrative when a patch changes what it tells about.

https://hl7.org/fhir/R4/http.html#patch: "The server SHALL ensure that its narrative is not
clinically unsafe after the PATCH operation is performed."
"""

from typing import Any

from fhir_server.outcome import FhirError, Issue
from fhir_server.r4.json import canonical

# What a narrative does not tell about.
_ASIDE = ("id", "meta", "implicitRules", "language", "text")
# https://hl7.org/fhir/R4/valueset-narrative-status.html: both are made from the data alone.
_GENERATED = ("generated", "extensions")


def safe_narrative(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return ``after``, the patched ``before``, without a narrative that may tell what was before.

    A narrative that the patch itself changes is kept, and so is one that says nothing.

    Raises ``business-rule`` (422) where the narrative has more to say than the data: nobody but its
    author can tell what of it still holds.
    """
    text = after.get("text")
    if not isinstance(text, dict) or text != before.get("text") or _same(before, after):
        return after
    status = text.get("status")
    if status in _GENERATED:
        return {name: value for name, value in after.items() if name != "text"}
    if status == "additional":
        why = (
            "The narrative has more to say than the data, and may be wrong after this patch; "
            "change text in the same patch, or delete it."
        )
        root = after["resourceType"]
        raise FhirError(Issue("business-rule", why, f"{root}.text"))
    return after


def _same(before: dict[str, Any], after: dict[str, Any]) -> bool:
    told = [
        {name: value for name, value in one.items() if name not in _ASIDE}
        for one in (before, after)
    ]
    return canonical(told[0]) == canonical(told[1])
