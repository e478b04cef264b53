"""The sentences of structural validation: one function for each kind of fault.

Each names what was found, what was expected, and the way out.
"""

from collections.abc import Collection, Sequence
from decimal import Decimal
from typing import Any

import re2

from fhir_server.outcome import Issue, nearest, shown
from fhir_server.validation.primitives import Primitive
from fhir_server.validation.shapes import Member, Shape

_NAME = re2.compile("_?[A-Za-z][A-Za-z0-9_]{0,63}")
# What earlier versions of FHIR had, and what to do with it now.
_REMEDIES = {
    "fhir_comments": " It is from DSTU2; R4 has no comments in JSON, so leave it out.",
    "resourceType": " Only a resource has it, not an element; leave it out.",
}
_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "a boolean"),
    (str, "a string"),
    (int, "an integer"),
    ((Decimal, float), "a number with a fraction or exponent"),
    (dict, "an object"),
    (list, "an array"),
    (type(None), "null"),
)
_CHOICES_LISTED_MAX = 12


def kind(value: object) -> str:
    """Return the JSON kind of ``value`` with its article."""
    return next((name for type, name in _KINDS if isinstance(value, type)), "no JSON value")


def wrong_kind(what: str, value: object, expected: str, path: str) -> Issue:
    """``expected`` is the right kind, as :func:`kind` names it."""
    if value is None:
        return null(path)
    hint = ""
    if isinstance(value, list):
        hint = " It does not repeat here: write it without [ ]."
    elif isinstance(value, str) and expected in ("a boolean", "a number", "an integer"):
        hint = " Write it without quotes."
    elif expected == "a string" and not isinstance(value, dict):
        hint = " Write it in quotes."
    return Issue("structure", f"{what} is {kind(value)}; expected {expected}.{hint}", path)


def list_fault(member: Member, value: Any, path: str) -> Issue | None:
    """Return what is wrong with the array of an element that repeats, its items aside."""
    if value is None:
        return null(path)
    if not isinstance(value, list):
        return Issue(
            "structure",
            f"{member.name} is {kind(value)}; expected an array, as it may repeat. "
            "Write it in [ ].",
            path,
        )
    return empty(member.name, "array", path) if not value else None


def null(path: str) -> Issue:
    """A value or an array is null."""
    return Issue(
        "structure",
        "This is null; expected a value. Leave the element out, or, in an array of primitives, "
        "say something about it at the same place of its sibling, whose name begins with _.",
        path,
    )


def empty(what: str, kind: str, path: str) -> Issue:
    """``kind`` is ``text``, ``array`` or ``object``."""
    return Issue(
        "value" if kind == "text" else "structure",
        f"{what} is an empty {kind}; expected content. Leave it out where there is none.",
        path,
    )


def not_aligned(name: str, values: int, siblings: int, path: str) -> Issue:
    """``values`` and ``siblings`` are the lengths of the two arrays."""
    return Issue(
        "structure",
        f"{name} has {values} items and _{name} {siblings}; expected as many in both. Fill the "
        "shorter one with null.",
        path,
    )


def no_resource_type(path: str) -> Issue:
    """``path`` is ``""`` for the resource as a whole."""
    return Issue(
        "required",
        'resourceType is missing; expected the name of a resource type, such as "Patient".',
        path,
    )


def unknown_resource_type(type: object, known: Collection[str], path: str) -> Issue:
    """``known`` are the types that there are."""
    found, hint = kind(type), ""
    if isinstance(type, str):
        found, hint = shown(type), nearest(type, sorted(known))
    return Issue("value", f"resourceType is {found}; expected a resource type of R4.{hint}", path)


def unknown_element(name: str, shape: Shape, path: str) -> Issue:
    """``name`` is what the client wrote; ``path`` that of the object it is in."""
    place = f"{path}.{name}" if _NAME.fullmatch(ascii(name)[1:-1]) else path
    return Issue(
        "structure",
        f"{shown(name)} is no element of {shape.key} in R4.{_way_out(name, shape)}",
        place,
    )


def _way_out(name: str, shape: Shape) -> str:
    if name in _REMEDIES:
        return _REMEDIES[name]
    if name.startswith("_") and name[1:] in shape.members:
        return f" {name[1:]} is no primitive, so id and extension stand inside it."
    for element, names in shape.choices.items():
        if name == element or (name.startswith(element) and name[len(element)].isupper()):
            if len(names) <= _CHOICES_LISTED_MAX:
                return f" Expected one of {', '.join(names)}."
            return nearest(name, names) or f" {element} is followed by its type: {names[0]}."
    return nearest(name, shape.members)


def missing(element: str, names: Sequence[str], path: str) -> Issue:
    """``names`` are the members of which one must be there."""
    wanted = element if len(names) == 1 else f"{element}[x] ({' or '.join(names[:12])})"
    return Issue("required", f"{wanted} is missing; R4 requires it here. Add it.", path)


def several_choices(element: str, found: Sequence[str], path: str) -> Issue:
    """``found`` are the members of one choice that are there together."""
    return Issue(
        "structure",
        f"{' and '.join(found)} are both here; expected one of them, as {element} has one type. "
        "Keep one.",
        f"{path}.{element}",
    )


def wrong_value(name: str, value: Any, primitive: Primitive, path: str) -> Issue:
    """``value`` is of the right kind and outside of what its type allows."""
    most = primitive.length_max
    if most is not None and len(value) > most:
        return Issue(
            "value",
            f"{name} is {len(value):,} characters long; expected at most {most:,}. Shorten it.",
            path,
        )
    # Python writes no number of more than some thousand digits.
    is_huge = isinstance(value, int) and value.bit_length() > 64
    found = f"an integer of {value.bit_length()} bits" if is_huge else shown(value)
    return Issue("value", f"{name} is {found}; expected {primitive.expected}.", path)


def neither_value_nor_children(what: str, path: str) -> Issue:
    """``what`` is the member or the type of the element."""
    return Issue(
        "invariant",
        f"{what} has an id and nothing else; expected a value or other content (ele-1). "
        "Leave it out where there is none.",
        path,
    )


def extension_value(has_both: bool, path: str) -> Issue:
    """``has_both`` says which of the two faults it is."""
    found = "both a value and extensions" if has_both else "neither a value nor extensions"
    return Issue("invariant", f"The extension has {found}; expected one of the two (ext-1).", path)


def nested_contained(path: str) -> Issue:
    """``path`` is that of the contained resource."""
    return Issue(
        "invariant",
        "A contained resource has contained resources; expected all of them in the outermost "
        "resource (dom-2). Move them there.",
        f"{path}.contained",
    )


def contained_without_id(path: str) -> Issue:
    """``path`` is that of the contained resource."""
    return Issue(
        "required",
        "A contained resource has no id; expected one, by which # and the id refer to it.",
        path,
    )


def same_id(id: str, path: str) -> Issue:
    """``path`` is that of the second resource with the id."""
    return Issue(
        "invariant",
        f"Two contained resources have the id {shown(id)}; expected a different id for each.",
        path,
    )
