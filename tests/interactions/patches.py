"""Bodies of patches of each kind, and the request that sends them."""

from typing import Any

from fhir_server.messages import Request, Resource
from fhir_server.patch.formats import JSON_PATCH, MERGE_PATCH, XML_PATCH, as_binary
from fhir_server.r4.json import encode


def json_patch(*operations: Any) -> Resource:
    """Return the body of a JSON Patch."""
    return as_binary(JSON_PATCH, encode(list(operations)))


def merge_patch(**members: Any) -> Resource:
    """Return the body of a merge patch."""
    return as_binary(MERGE_PATCH, encode(members))


def xml_patch(operations: str) -> Resource:
    """Return the body of an XML Patch."""
    return as_binary(XML_PATCH, f"<diff>{operations}</diff>".encode())


def fhirpath_patch(type: str, path: str, **parts: Any) -> Resource:
    """Return the body of a FHIRPath Patch of one operation; ``value`` is ``(key, value)``."""
    part = [{"name": "type", "valueCode": type}, {"name": "path", "valueString": path}]
    if "name" in parts:
        part.append({"name": "name", "valueString": parts["name"]})
    if "value" in parts:
        key, value = parts["value"]
        part.append({"name": "value", key: value})
    return {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": part}]}


def patch(body: Resource | None, id: str = "p", **members: Any) -> Request:
    """Return the request that patches ``Patient/[id]``."""
    return Request("patch", "Patient", id, body=body, **members)
