"""The parameters of an operation, from the URL or from a Parameters, by a table of what it takes.

https://hl7.org/fhir/R4/operations.html#executing

A table says for each name what it is: a FHIR type, or several as ``Coding|string``, ``Resource``
and a type for a resource, or ``parts``. In a URL a Coding is written ``system|code`` and a
Reference is its text; there are no resources. Whoever calls with the one resource itself as the
body sends its other parameters in the URL.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fhir_server.context import Context
from fhir_server.messages import Request, Resource
from fhir_server.outcome import FhirError, Issue, invalid_value, nearest, shown

Table = Mapping[str, str]

# What texts of one kind are sent as by clients who take the types not so seriously.
_TEXTS = tuple(
    f"value{type}"
    for type in ("String", "Code", "Uri", "Canonical", "Url", "Id", "DateTime", "Date")
)
_IS_TEXT = frozenset(("string", "code", "uri", "canonical", "dateTime"))
_INTEGERS = ("valueInteger", "valueUnsignedInt", "valuePositiveInt")
_DIGITS_MAX = 9
_VALUES_MAX = 1000
RESOURCES = "tx-resource"
"""Definitions that a request brings along, to be taken before those that are here."""


@dataclass(frozen=True, slots=True)
class Given:
    """The values of each parameter that was given."""

    name: str
    values: Mapping[str, list[Any]]

    def many(self, name: str) -> list[Any]:
        """Return all values of ``name``."""
        return self.values.get(name, [])

    def one(self, name: str, default: Any = None) -> Any:
        """Return the value of ``name``. Raises ``value`` where there are several."""
        values = self.values.get(name, ())
        if len(values) > 1:
            text = f"{name} is given {len(values)} times; once is possible."
            raise FhirError(Issue("value", text))
        return values[0] if values else default

    def text(self, name: str) -> str:
        """Return the text ``name``, or ``""``."""
        return str(self.one(name, ""))


def given(
    request: Request, context: Context, table: Table, unserved: Mapping[str, str] | None = None
) -> Given:
    """Return what ``request`` gives of the parameters in ``table``.

    ``unserved`` are those that the operation has and this server does not do: name -> why. Raises
    ``not-supported`` for them and for unknown ones, ``value`` for a wrong value.
    """
    found: dict[str, list[Any]] = {}
    values = [*_of_url(request, table), *_of_body(request, context, table)]
    if len(values) > _VALUES_MAX:
        text = f"{request.interaction} takes at most {_VALUES_MAX} parameters."
        raise FhirError(Issue("too-costly", text), status=400)
    for name, value in values:
        if unserved and name in unserved:
            raise FhirError(Issue("not-supported", f"{name} is not served: {unserved[name]}."))
        if name not in table:
            text = f"{request.interaction} has no parameter {shown(name)}.{nearest(name, table)}"
            raise FhirError(Issue("not-supported", text))
        found.setdefault(name, []).append(value(table[name]) if callable(value) else value)
    return Given(request.interaction, found)


def _of_url(request: Request, table: Table) -> Iterator[tuple[str, Any]]:
    for name, text in request.parameters:
        yield name, lambda type, name=name, text=text: _parsed(name, text, type)


def _parsed(name: str, text: str, type: str) -> Any:
    if not _IS_TEXT.isdisjoint(type.split("|")):
        return text
    if type == "boolean":
        if text not in ("true", "false"):
            raise invalid_value(name, text, "true or false")
        return text == "true"
    if type == "integer":
        if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX):
            raise invalid_value(name, text, f"a whole number of at most {_DIGITS_MAX} digits")
        return int(text)
    if type == "Reference":
        return {"reference": text}
    if type == "Coding":
        system, bar, code = text.rpartition("|")
        if not bar or not code:
            raise invalid_value(name, text, "system|code")
        return {"system": system, "code": code}
    raise FhirError(Issue("value", f"{name} cannot stand in a URL; send Parameters as the body."))


def _of_body(request: Request, context: Context, table: Table) -> Iterator[tuple[str, Any]]:
    body = request.body
    if body is None:
        return
    type = body.get("resourceType")
    if issues := context.validate(body):
        raise FhirError(*issues)
    if type != "Parameters":
        alone = [name for name, one in table.items() if one == f"Resource {type}"]
        if not alone:
            raise invalid_value("The body", type, "Parameters", "resourceType")
        yield alone[0], body
        return
    for one in body.get("parameter", ()):
        name = one.get("name", "")
        yield name, lambda type, one=one: _value(one, type)


def _value(parameter: Resource, type: str) -> Any:
    name = parameter["name"]
    if type == "parts":
        if "part" not in parameter:
            raise FhirError(Issue("value", f"{name} is given in parts."))
        return parameter["part"]
    if type.startswith("Resource"):
        found = parameter.get("resource")
        wanted = type.removeprefix("Resource").strip()
        if found is None or wanted not in ("", found.get("resourceType")):
            raise FhirError(Issue("value", f"{name} is a resource{wanted and ', a '}{wanted}."))
        return found
    members = _members(type)
    for member in members:
        if member in parameter:
            value = parameter[member]
            if type == "integer" and value < 0:
                raise invalid_value(name, value, "no negative number")
            if type == "Reference" and isinstance(value, str):
                return {"reference": value}
            return value
    raise FhirError(Issue("value", f"{name} is to be given with a {members[0]}."))


def _members(type: str) -> tuple[str, ...]:
    if "|" in type:
        return tuple(member for one in type.split("|") for member in _members(one))
    own = f"value{type[0].upper()}{type[1:]}"
    if type in _IS_TEXT:
        return own, *_TEXTS
    if type == "Reference":
        return own, *_TEXTS
    return _INTEGERS if type == "integer" else (own,)
