"""Invariants: rules that are written in FHIRPath.

https://hl7.org/fhir/R4/conformance-rules.html#constraints

Those that hold for every resource, or for types that are everywhere, are written in Python as
well: they are judged for each value, and a test holds them to what the FHIRPath says.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fhir_server.outcome import FhirError
from fhir_server.r4.dates import date_range
from fhir_server.validation.members import list_of
from fhir_server.validation.running import Check, Item, Run

# The structural validator, texts.py and bundles.py say these, at a more exact place.
ELSEWHERE = frozenset(
    ("ele-1", "ext-1", "dom-2", "ref-1", "bdl-7", "bdl-11", "bdl-12", "txt-1", "txt-2")
)
_ADVICE = frozenset(("dom-6",))
_BEST_PRACTICE = "http://hl7.org/fhir/StructureDefinition/elementdefinition-bestpractice"


def invariant_checks(constraints: Any, where: str, *, is_core: bool = False) -> list[Check]:
    """Return the checks of an element's constraints; ``where`` names who demands them."""
    return [
        _check(one, where, is_core)
        for one in constraints or ()
        if isinstance(one, Mapping) and one.get("key") not in ELSEWHERE and one.get("expression")
    ]


def _check(constraint: Mapping[str, Any], where: str, is_core: bool) -> Check:
    key, expression = str(constraint.get("key")), str(constraint["expression"])
    severity = "error" if constraint.get("severity") == "error" else "warning"
    human = str(constraint.get("human", "")).rstrip(". ")
    is_advice = key in _ADVICE or any(
        one.get("url") == _BEST_PRACTICE and one.get("valueBoolean") is True
        for one in constraint.get("extension", ())
    )
    native = NATIVE.get(key) if is_core else None

    def check(run: Run, item: Item) -> None:
        if is_advice and run.options.best_practice == "ignore":
            return
        holds = native(item) if native else run.rules.invariant(run, expression, item)
        if holds is False:
            text = f"{human} ({key}, {where})."
            level = run.options.best_practice if is_advice else severity
            run.add("invariant", text, item, level)

    return check


def _meta_lacks(*names: str) -> Callable[[Item], bool]:
    """dom-4, dom-5: no contained resource has these in its meta."""

    def holds(item: Item) -> bool:
        return not any(
            name in one["meta"]
            for one in list_of(item.value, "contained")
            if isinstance(one, dict) and isinstance(one.get("meta"), dict)
            for name in names
        )

    return holds


def _is_narrated(item: Item) -> bool:
    """dom-6: a resource should have narrative."""
    text = item.value.get("text") if isinstance(item.value, dict) else None
    return isinstance(text, dict) and bool(text.get("div"))


def _is_referred(item: Item) -> bool:
    """dom-3: each contained resource is referred to, or refers to the resource that contains it."""
    contained = [one for one in list_of(item.value, "contained") if isinstance(one, dict)]
    if not contained:
        return True
    texts = set(_references(item.value))
    return all(f"#{one.get('id')}" in texts or "#" in set(_references(one)) for one in contained)


def _references(value: Any) -> Iterator[str]:
    """Yield the texts of references, canonicals, uris and urls in ``value`` that begin with #."""
    rest = [value]
    while rest:
        one = rest.pop()
        if isinstance(one, dict):
            rest.extend(one.values())
        elif isinstance(one, list):
            rest.extend(one)
        elif isinstance(one, str) and one.startswith("#"):
            yield one


def _is_forward(item: Item) -> bool:
    """per-1: a period does not end before it starts."""
    value = item.value
    start = value.get("start") if isinstance(value, dict) else None
    end = value.get("end") if isinstance(value, dict) else None
    if not isinstance(start, str) or not isinstance(end, str):
        return True
    try:
        first, last = date_range(start), date_range(end)
    except FhirError:
        return True
    if first[0] >= last[1] or last[0] >= first[1]:
        return first[0] < last[0]
    # They overlap. Of different precision, FHIRPath cannot tell, and what it cannot tell fails.
    return len(start[:19]) == len(end[:19]) and first[0] <= last[0]


def _has_system(item: Item) -> bool:
    """qty-3: a code of a unit has a system."""
    value = item.value
    return not isinstance(value, dict) or "code" not in value or "system" in value


def _is_named_or_known(item: Item) -> bool:
    value = item.value
    return not isinstance(value, dict) or "value" not in value or "system" in value


def _attached(item: Item) -> bool:
    """att-1: an attachment with data has a content type."""
    value = item.value
    return not isinstance(value, dict) or "data" not in value or "contentType" in value


NATIVE: Mapping[str, Callable[[Item], bool]] = {
    "dom-3": _is_referred,
    "dom-4": _meta_lacks("versionId", "lastUpdated"),
    "dom-5": _meta_lacks("security"),
    "dom-6": _is_narrated,
    "per-1": _is_forward,
    "qty-3": _has_system,
    "cpt-2": _is_named_or_known,
    "att-1": _attached,
}
"""By key, for the definitions of R4 only: a profile may have another rule of the same key."""
