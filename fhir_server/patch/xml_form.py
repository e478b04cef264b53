"""A resource in its XML form, patched and read back.

https://hl7.org/fhir/R4/http.html#patch and https://hl7.org/fhir/R4/xml.html
"""

from collections.abc import Callable
from typing import Any

import re2 as re

from fhir_server.outcome import FhirError
from fhir_server.patch.bounds import Bounds, inapplicable
from fhir_server.patch.xml_patch import Operation, document, operations, patched
from fhir_server.patch.xml_tree import Element, Text, below, tree, written
from fhir_server.r4.json import encode
from fhir_server.r4.xml import Xml
from fhir_server.r4.xml_tables import FHIR

Resource = dict[str, Any]

_NODES_MAX = 50_000  # 0.4 s on the event loop
_UNWRITABLE = "\ufffd".encode()  # what the XML form has in place of what XML cannot hold
_REFERENCE = re.compile(r"(?:.*[/:])?reference(?:/@value)?\s*")


def xml_patch(text: bytes, bounds: Bounds) -> tuple[Operation, ...]:
    """Return the operations of the XML Patch ``text``; see :func:`operations`."""
    return operations(document(text, bounds), bounds)


def patched_resource(
    resource: Resource, wanted: tuple[Operation, ...], xml: Xml, bounds: Bounds
) -> Resource:
    """Return what ``wanted`` make of ``resource``, which stays as it is.

    Elements that are left empty go with what they were emptied of. Raises status 422 where the
    operations do not fit, and where what they make is not the XML of a resource: elements out of
    their order, text, names that are none; 413 for a resource whose XML has too many
    nodes.
    """
    what = "The XML Patch"
    try:
        before = xml.encode(resource)
    except ValueError as error:
        raise inapplicable(what, f"the resource has no XML form: {error}.") from error
    if before.count(_UNWRITABLE) != encode(resource).count(_UNWRITABLE):
        why = "the resource has a character that XML cannot hold; use another kind of patch."
        raise inapplicable(what, why)
    root = patched(tree(before, nodes_max=_NODES_MAX), wanted)
    _remove_emptied(root)
    try:
        return xml.decode(written(root), depth_max=bounds.depth_max)
    except FhirError as error:
        # The patch is well formed; what it makes of this resource is not.
        raise FhirError(*error.issues, status=422) from error


def relinked(text: bytes, bounds: Bounds, reference: Callable[[str], str]) -> bytes:
    """Return the XML Patch ``text`` with ``reference`` applied to the references that it writes:
    elements of that name, and the value of one. Raises what :func:`xml_patch` does."""
    root = document(text, bounds)
    for operation in root.children:
        if not isinstance(operation, Element):
            continue
        for one in below(operation):
            if one.name == "reference" and "value" in one.attributes:
                one.attributes["value"] = reference(one.attributes["value"])
        match operation.children:
            case [Text() as value] if _is_of_reference(operation):
                value.text = reference(value.text)
    return written(root)


def _is_of_reference(operation: Element) -> bool:
    """Whether ``operation`` writes the attribute ``value`` of an element ``reference``."""
    sel, type = operation.attributes.get("sel", ""), operation.attributes.get("type", "")
    found = bool(_REFERENCE.fullmatch(sel))
    return found and (type == "@value" or sel.rstrip().endswith("/@value"))


def _remove_emptied(root: Element) -> None:
    """Take out what says nothing, as in JSON: https://hl7.org/fhir/R4/xml.html, "cannot be empty".

    The element of a resource, which begins with a capital, says what it is.
    """
    for one in reversed(list(below(root))):
        if one.parent is None or one.namespace != FHIR or one.attributes or one.name[0].isupper():
            continue
        if not any(
            isinstance(child, Element) or (isinstance(child, Text) and child.text.strip())
            for child in one.children
        ):
            one.parent.remove(one)
