"""Invariants of R4 that do not say what they mean, and what is evaluated instead.

https://hl7.org/fhir/R4/conformance-rules.html#constraints

An invariant must give true. Some of R4 give nothing where the element that they speak of is absent,
or where a date is less precise than another; some look for a pattern anywhere that the whole must
be; two name the wrong type and the wrong number. The sentence for people (``human``) decides.
"""

from collections.abc import Mapping

from fhir_server.r4.fhirpath.engine import Expression, compiled

_NAME = "[A-Z]([A-Za-z0-9_]){0,254}"
_STEP = "[^\\\\s\\\\.,:;\\\\\\'\"\\\\/|?!@#$%&*()\\\\[\\\\]{}]{1,64}"
_PATH = f"{_STEP}(\\\\.{_STEP}(\\\\[x\\\\])?(\\\\:[^\\\\s\\\\.]+)?)*"

CORRECTED: Mapping[str, str] = {
    # adf-0 and 30 more: "Name should be usable as an identifier"; a name may be absent.
    f"name.matches('{_NAME}')": f"name.empty() or name.matchesFull('{_NAME}')",
    # bdl-8: "fullUrl cannot be a version specific reference"; it may be absent.
    "fullUrl.contains('/_history/').not()": (
        "fullUrl.empty() or fullUrl.contains('/_history/').not()"
    ),
    # eld-19: "Element names cannot include some special characters", anywhere.
    f"path.matches('{_PATH}')": f"path.matchesFull('{_PATH}')",
    # ref-1: "SHALL have a contained resource if a local reference is provided"; a reference may be
    # logical, and "#" alone is what contains the resource (references.html#contained).
    "reference.startsWith('#').not() or (reference.substring(1).trace('url') in"
    " %rootResource.contained.id.trace('ids'))": (
        "reference.empty() or reference.startsWith('#').not() or reference = '#'"
        " or (reference.substring(1) in %rootResource.contained.id)"
    ),
    # que-7: "If the operator is 'exists', the value must be a boolean": FHIR's, which System's
    # Boolean is not.
    "operator = 'exists' implies (answer is Boolean)": (
        "operator = 'exists' implies (answer is boolean)"
    ),
    # que-12: "If there are more than one enableWhen, enableBehavior must be specified".
    "enableWhen.count() > 2 implies enableBehavior.exists()": (
        "enableWhen.count() > 1 implies enableBehavior.exists()"
    ),
    # ras-2: "Must be <= 100", where there is a probability.
    "probability is decimal implies (probability as decimal) <= 100": (
        "probability.ofType(decimal).all($this <= 100)"
    ),
    # per-1: "If present, start SHALL have a lower value than end"; an end "includes any matching
    # date/time" (datatypes.html#Period).
    "start.hasValue().not() or end.hasValue().not() or (start <= end)": (
        "start.hasValue().not() or end.hasValue().not()"
        " or (start.lowBoundary() <= end.highBoundary())"
    ),
    # mdd-1 and inv-1 of Task: of two dates, the less precise may be the same.
    "whenHandedOver.empty() or whenPrepared.empty() or whenHandedOver >= whenPrepared": (
        "whenHandedOver.hasValue().not() or whenPrepared.hasValue().not()"
        " or whenHandedOver.highBoundary() >= whenPrepared.lowBoundary()"
    ),
    "lastModified.exists().not() or authoredOn.exists().not() or lastModified >= authoredOn": (
        "lastModified.hasValue().not() or authoredOn.hasValue().not()"
        " or lastModified.highBoundary() >= authoredOn.lowBoundary()"
    ),
    # rng-2: "If present, low SHALL have a lower value than high"; what has no common unit or no
    # value has no lower one.
    "low.empty() or high.empty() or (low <= high)": "iif(low > high, false, true)",
}
"""What is published -> what is meant."""


def invariant(text: str) -> Expression:
    """Return the invariant ``text``, corrected where it is one of :data:`CORRECTED`.

    Raises :class:`FhirPathError` as :func:`compiled` does.
    """
    return compiled(CORRECTED.get(text, text))
