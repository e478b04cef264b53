"""What a removal leaves behind: FHIR has no empty objects and no empty arrays.

https://hl7.org/fhir/R4/json.html: "Properties can never be empty"
"""

from typing import Any


def pruned(resource: dict[str, Any]) -> dict[str, Any]:
    """Return ``resource`` without objects and arrays that say nothing.

    In arrays of primitives, whose members stand beside those of the array with an underscore, what
    says nothing is ``null`` in its place, and an array of nothing else goes.

    >>> pruned({"name": [{}, {"given": ["A", "B"], "_given": [{}, {"id": "x"}]}], "contact": []})
    {'name': [{'given': ['A', 'B'], '_given': [None, {'id': 'x'}]}]}
    """
    found = {
        name: _pruned(value, in_place=_in_place(name, resource)) for name, value in resource.items()
    }
    return {name: value for name, value in found.items() if not _is_empty(value)}


def _in_place(name: str, siblings: dict[str, Any]) -> bool:
    """Whether the places in the array ``name`` mean something to another array."""
    return name.startswith("_") or f"_{name}" in siblings


def _pruned(value: Any, *, in_place: bool) -> Any:
    if isinstance(value, dict):
        return pruned(value)
    if not isinstance(value, list):
        return value
    items = [pruned(one) if isinstance(one, dict) else one for one in value]
    if not in_place:
        return [one for one in items if not _is_empty(one)]
    items = [None if _is_empty(one) else one for one in items]
    return [] if all(one is None for one in items) else items


def _is_empty(value: Any) -> bool:
    return isinstance(value, dict | list) and not value
