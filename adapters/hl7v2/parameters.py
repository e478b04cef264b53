"""What the operations are given and give: Parameters in and out, query parameters."""

import base64
import binascii
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from fhir_server.messages import Request, Response
from fhir_server.outcome import FhirError, Issue, invalid_value, nearest, shown
from fhir_server.r4.json import encode

_VALUES = {
    "boolean": ("valueBoolean",),
    "string": ("valueString", "valueCode", "valueId", "valueUri"),
    "bytes": ("valueBase64Binary", "valueString"),
    "instant": ("valueInstant", "valueDateTime", "valueDate", "valueString"),
    "integer": ("valueInteger", "valuePositiveInt", "valueUnsignedInt"),
}

Kinds = Mapping[str, str]
"""Name -> boolean, string, bytes, instant or integer; with ``*`` at its end, any number of them."""


def given(request: Request, kinds: Kinds) -> dict[str, Any]:
    """Return the parameters of the body, or of the query, by name; those with ``*`` as lists.

    Raises ``structure`` for what is no Parameters, ``value`` for one that is not known, is given
    twice, or has no such value.
    """
    found: dict[str, Any] = {}
    for name, one in _in_body(request) if request.body is not None else _in_query(request):
        kind = kinds.get(name)
        if kind is None:
            text = f"{request.interaction} has no parameter {shown(name)}.{nearest(name, kinds)}"
            raise FhirError(Issue("value", text))
        value = _value(name, kind.rstrip("*"), one)
        if kind.endswith("*"):
            found.setdefault(name, []).append(value)
        elif name in found:
            raise FhirError(Issue("value", f"{name} is to be given once."))
        else:
            found[name] = value
    return found


def _in_body(request: Request) -> Iterable[tuple[str, Any]]:
    body = request.body or {}
    if body.get("resourceType") != "Parameters":
        raise invalid_value("The body", body.get("resourceType"), "Parameters", "resourceType")
    members = body.get("parameter", [])
    if not isinstance(members, list) or not all(isinstance(one, dict) for one in members):
        raise FhirError(Issue("structure", "Parameters.parameter is a list of objects."))
    for one in members:
        yield str(one.get("name")), one


def _in_query(request: Request) -> Iterable[tuple[str, Any]]:
    for name, value in request.parameters:
        yield name, {"valueString": value}


def _value(name: str, kind: str, one: Mapping[str, Any]) -> Any:
    members = _VALUES[kind]
    member = next((member for member in (*members, "valueString") if member in one), None)
    if member is None:
        raise invalid_value(name, None, f"a {members[0]}")
    value = one[member]
    try:
        match kind:
            case "boolean":
                return value if isinstance(value, bool) else {"true": True, "false": False}[value]
            case "integer":
                return int(value)
            case "instant":
                moment = datetime.fromisoformat(str(value))
                return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            case "bytes" if member == "valueBase64Binary":
                return base64.b64decode(str(value), validate=True)
            case "bytes":
                return str(value).encode()
            case _:
                return str(value)
    except (ValueError, KeyError, binascii.Error) as error:
        raise invalid_value(name, value, f"a {kind}") from error


def answer(parameters: Iterable[Mapping[str, Any]], status: int = 200) -> Response:
    """Return Parameters as a response."""
    members = list(parameters)
    body: dict[str, Any] = {"resourceType": "Parameters"}
    return Response(status, encode({**body, "parameter": members} if members else body))
