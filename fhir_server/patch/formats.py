"""The kinds of patch, by media type: a body becomes a function from resource to resource.

https://hl7.org/fhir/R4/http.html#patch

A patch that is no resource itself travels as a Binary, in a bundle as the specification says and
from HTTP in the same form: there is one way to read it.
"""

import binascii
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

from fhir_server.outcome import FhirError, Issue, shown
from fhir_server.patch import fhirpath_patch, json_patch, merge_patch
from fhir_server.patch.bounds import Bounds, malformed
from fhir_server.patch.emptiness import pruned
from fhir_server.patch.xml_form import patched_resource, relinked, xml_patch
from fhir_server.r4.definitions import Definitions
from fhir_server.r4.json import decode_value, encode
from fhir_server.r4.xml import Xml

FHIRPATH_PATCH = "application/fhir+json"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
XML_PATCH = "application/xml-patch+xml"
FORMATS = (FHIRPATH_PATCH, JSON_PATCH, MERGE_PATCH, XML_PATCH)
"""Their names in the CapabilityStatement and in Accept-Patch."""

_IN_BINARY = (JSON_PATCH, MERGE_PATCH, XML_PATCH)
_AROUND = 3  # levels of a patch around a value: the list, the operation, the value
_PARAMETERS, _BINARY = "Parameters", "Binary"

Resource = dict[str, Any]
Patch = Callable[[Resource], Any]


def as_binary(format: str, text: bytes) -> Resource:
    """Return the Binary that carries the patch ``text`` of media type ``format``."""
    return {"resourceType": _BINARY, "contentType": format, "data": b64encode(text).decode()}


def patch_of(body: Resource | None, definitions: Definitions, xml: Xml, bounds: Bounds) -> Patch:
    """Return the function that the patch in ``body`` is, a Parameters or Binary resource.

    The function does not change its argument; it raises 422 where it does not fit, and what it
    returns need not be a resource.

    Raises status 400 for what is no patch, 415 for a Binary of another media type.
    """
    kind = (body or {}).get("resourceType")
    if body is not None and kind == _PARAMETERS:
        steps = fhirpath_patch.operations(body, definitions, bounds)
        return lambda resource: fhirpath_patch.patched(resource, steps, definitions, bounds)
    if body is None or kind != _BINARY:
        why = f"it is {shown(kind) if kind else 'nothing'}; expected Parameters with operations, "
        raise malformed("The patch", f"{why}or a Binary with a patch.", code="value")
    format, text = _read(body)
    if format == XML_PATCH:
        changes = xml_patch(text, bounds)
        return lambda resource: patched_resource(resource, changes, xml, bounds)
    document = decode_value(text, depth_max=bounds.depth_max + _AROUND)
    if format == MERGE_PATCH:
        if not isinstance(document, dict):
            raise malformed("The merge patch", "it must be a JSON object.")
        return lambda resource: _pruned(merge_patch.merged(resource, document))
    wanted = json_patch.operations(document, bounds)
    return lambda resource: _pruned(json_patch.patched(resource, wanted, bounds))


def with_references(binary: Resource, bounds: Bounds, reference: Callable[[str], str]) -> Resource:
    """Return ``binary`` with ``reference`` applied to the references that its patch writes.

    What has no type name tells a reference by the member ``reference``, or by a path that ends so;
    an XML Patch by the name of the element. Raises what :func:`patch_of` does.
    """
    format, text = _read(binary)
    if format == XML_PATCH:
        new = relinked(text, bounds, reference)
    else:
        document = decode_value(text, depth_max=bounds.depth_max + _AROUND)
        new = encode(_relinked(document, reference))
    return {**binary, "data": b64encode(new).decode()}


def _relinked(value: Any, reference: Callable[[str], str]) -> Any:
    if isinstance(value, list):
        return [_relinked(one, reference) for one in value]
    if not isinstance(value, dict):
        return value
    result = {name: _relinked(one, reference) for name, one in value.items()}
    whole = str(value.get("path", "")).endswith("/reference") and "op" in value
    for name in ("reference", *(("value",) if whole else ())):
        if isinstance(value.get(name), str):
            result[name] = reference(value[name])
    return result


def _read(binary: Resource) -> tuple[str, bytes]:
    """Return the media type and the text of the patch in ``binary``; see :func:`patch_of`."""
    said = binary.get("contentType")
    format = said.partition(";")[0].strip().lower() if isinstance(said, str) else ""
    if format not in _IN_BINARY:
        text = f"The Binary is {shown(said)}; a patch in it is {', '.join(_IN_BINARY)}."
        raise FhirError(
            Issue("not-supported", text, "Binary.contentType"),
            status=415,
            headers=(("Accept-Patch", ", ".join(FORMATS)),),
        )
    try:
        return format, b64decode("".join(str(binary.get("data", "")).split()), validate=True)
    except (binascii.Error, ValueError) as error:
        why = "its data is not base64."
        raise malformed("The patch", why, "Binary.data", "value") from error


def _pruned(result: Any) -> Any:
    return pruned(result) if isinstance(result, dict) else result
