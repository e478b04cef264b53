"""Whether a Reference may point where it points, as far as its text says that.

https://hl7.org/fhir/R4/references.html#Reference
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from fhir_server.outcome import nearest, shown

_ID = r"[A-Za-z0-9\-.]{1,64}"
_RELATIVE = re.compile(rf"([A-Za-z]+)/{_ID}(?:/_history/{_ID})?(?:#.*)?")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")
_DEFINITION = "http://hl7.org/fhir/StructureDefinition/"


@dataclass(frozen=True, slots=True)
class Container:
    """The resource that ``#`` means for the references in it: its type and what it contains.

    ``contained`` maps the id of each contained resource to its type, ``""`` if it has none.
    """

    type: str
    contained: Mapping[str, str]


def pointed_type(reference: str, resource_types: Collection[str]) -> str:
    """Return the resource type that the text of ``reference`` names, or ``""``.

    ``Patient/1``, ``https://example.org/fhir/Patient/1/_history/2`` and the conditional
    ``Patient?identifier=x`` name one; ``urn:uuid:…`` and other URLs do not.
    """
    if reference.startswith(("urn:", "#")):
        return ""
    path, question, _ = reference.partition("?")
    steps = path.partition("#")[0].split("/")
    if len(steps) > 3 and steps[-2] == "_history":
        steps = steps[:-2]
    place = -1 if question else -2
    found = steps[place] if len(steps) >= -place else ""
    return found if found in resource_types and steps[-1] else ""


def reference_fault(
    reference: str,
    container: Container,
    targets: Collection[str],
    resource_types: Collection[str],
) -> str:
    """Return what is wrong with the text of a reference as one sentence, or ``""``.

    ``targets`` are the types that it may point at; empty means any.
    """
    if reference.startswith("#"):
        id = reference[1:]
        if id and id not in container.contained:
            return (
                f"The reference {shown(reference)} is to no contained resource of this "
                f"{container.type}; expected # and the id of one (ref-1)."
            )
        found = container.contained[id] if id else container.type
    else:
        if fault := _relative_fault(reference, resource_types):
            return fault
        found = pointed_type(reference, resource_types)
    if targets and found and found not in targets:
        return (
            f"The reference {shown(reference)} is to a {found}; expected is a reference to "
            f"{_either(targets)}."
        )
    return ""


def type_fault(
    type: str, reference: object, targets: Collection[str], resource_types: Collection[str]
) -> str:
    """Return what is wrong with the ``type`` of a Reference as one sentence, or ``""``.

    ``reference`` is the text beside it, if there is one.
    """
    named = type.removeprefix(_DEFINITION)
    if named not in resource_types:
        if "/" in named or ":" in named:
            return ""  # a logical model, of which nothing is known
        return f"{shown(type)} is not a resource type of R4.{nearest(named, resource_types)}"
    if targets and named not in targets:
        return f"The type of the reference is {named}; expected is {_either(targets)}."
    pointed = pointed_type(reference, resource_types) if isinstance(reference, str) else ""
    if pointed and pointed != named:
        return f"The type of the reference is {named}, but the reference is to a {pointed}."
    return ""


def _relative_fault(reference: str, resource_types: Collection[str]) -> str:
    """Return what is wrong with a relative reference, which nobody could resolve, or ``""``.

    https://hl7.org/fhir/R4/references.html#literal: ``[type]/[id]``, perhaps with a version.
    """
    if _SCHEME.match(reference) or "?" in reference:
        return ""
    found = _RELATIVE.fullmatch(reference)
    if found is None:
        return (
            f"The reference {shown(reference)} is neither relative, as Patient/1 is, nor a URL, "
            "a URN or # and the id of a contained resource."
        )
    type = found.group(1)
    if type not in resource_types:
        return (
            f"The reference {shown(reference)} is relative, and {shown(type)} is not a "
            f"resource type of R4.{nearest(type, resource_types)}"
        )
    return ""


def _either(names: Collection[str]) -> str:
    return " or ".join(names)
