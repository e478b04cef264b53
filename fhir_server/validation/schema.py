"""The JSON Schema of a resource type: what the hot path asks of a resource.

https://json-schema.org/draft/2020-12

It passes only what is valid, but not all of it: rare forms that are costly to express (a primitive
without a value, arrays of primitives with extensions, extensions with an id) fail here, and the
walker that explains then finds nothing. The other way round would be a bug; a test looks for it.

What a schema cannot express leaves it by a callback into Python:

=====================  ==============================================================
``format``             xhtml; a reference whose text is not of the usual form
keyword ``whole``      an integer that was written as one: 1, not 1.0
keyword ``one``        of each choice one type at most, and one if it is required
keyword ``resource``   a resource inside: it is checked by the schema of its own type
=====================  ==============================================================
"""

from collections.abc import Iterator
from typing import Any

from fhir_server.validation.bindings import plain_codes
from fhir_server.validation.primitives import PRIMITIVES
from fhir_server.validation.shapes import NARRATIVE_DIV, RESOURCE, Member, Shape, Shapes

Schema = dict[str, Any]

REFERENCE_FORMAT = "reference "  # followed by the targets, separated by commas
_ID = r"[A-Za-z0-9\-.]{1,64}"
_BASE = r"(?:https?://[^\x00-\x20?#]+/)?"
_UUID = "urn:uuid:[0-9a-f-]+"
# The types of an extension's value that are in every schema. The rest of the fifty would double
# its size; a resource that has them goes to the walker.
_EXTENSION_TYPES = frozenset(
    (*PRIMITIVES, "Address", "CodeableConcept", "Coding", "Identifier", "Period", "Quantity")
) | {"Reference"}


class _Writer:
    """Collects the definitions that one resource type needs."""

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes
        self.definitions: dict[str, Schema] = {}

    def object(self, key: str, name: str = "", **more: Any) -> Schema:
        """Return a link to the schema of the shape ``key``, which is written once."""
        name = name or key
        if name not in self.definitions:
            self.definitions[name] = {}  # its own children may link to it
            self.definitions[name] = self._object(self._shapes.shape(key)) | more
        return {"$ref": f"#/$defs/{name}"}

    def _object(self, shape: Shape) -> Schema:
        is_extension = shape.key == "Extension"
        members = [
            member
            for member in shape.members.values()
            if not (is_extension and member.element == "value") or member.type in _EXTENSION_TYPES
        ]
        schema: Schema = {
            "type": "object",
            "properties": {name: one for member in members for name, one in self._members(member)},
            "additionalProperties": False,
            "minProperties": 1,
        }
        single = [name for name in shape.required if name not in shape.choices]
        if single:
            schema["required"] = single
        if shape.is_resource:
            schema["properties"]["resourceType"] = {"const": shape.key}
            schema["required"] = ["resourceType", *single]
        elif is_extension:
            # The url, and either a value or extensions: so never two values.
            schema |= {"minProperties": 2, "maxProperties": 2}
            del schema["properties"]["id"]
        else:
            schema["dependentSchemas"] = {"id": {"minProperties": 2}}  # ele-1
        choices = [] if is_extension else list(shape.choices.items())
        if choices:
            schema["one"] = [
                [name in shape.required, *names, *(f"_{one}" for one in names)]
                for name, names in choices
            ]
        return schema

    def _members(self, member: Member) -> Iterator[tuple[str, Schema]]:
        """Yield the member's schema, and that of its sibling if it is a primitive that has one."""
        value = self._value(member)
        if member.is_list:
            value = {"type": "array", "items": value, "minItems": 1}
        yield member.name, value
        if member.has_sibling and not member.is_list:
            yield f"_{member.name}", self.object("Element", "sibling", required=["extension"])

    def _value(self, member: Member) -> Schema:
        if member.is_primitive:
            return _primitive(member)
        if member.type == RESOURCE:
            return {"type": "object", "resource": member.name == "contained"}
        if member.type == "Reference":
            return self._reference(member.targets)
        link = self.object(member.type)
        if member.codes is None or member.type != "CodeableConcept":
            return link
        some = [
            {
                "required": ["system", "code"],
                "properties": {
                    "system": {"const": system},
                    "code": {"enum": sorted(code for of, code in member.codes if of == system)},
                },
            }
            for system in sorted({system for system, _ in member.codes})
        ]
        codings = {"contains": some[0] if len(some) == 1 else {"anyOf": some}}
        return link | {"required": ["coding"], "properties": {"coding": codings}}

    def _reference(self, targets: tuple[str, ...]) -> Schema:
        name = f"Reference.{'.'.join(targets)}"
        if name not in self.definitions:
            self.definitions[name] = {}
            schema = self._object(self._shapes.shape("Reference"))
            schema["properties"]["reference"] = _reference_text(targets)
            # What it says must agree with the reference, if there is one.
            schema["properties"]["type"] = {"enum": sorted(targets or self._shapes.resource_types)}
            schema["dependentSchemas"]["type"] = {"anyOf": _agreeing(targets)}
            self.definitions[name] = schema
        return {"$ref": f"#/$defs/{name}"}


def schema_of(type: str, shapes: Shapes) -> Schema:
    """Return the schema of the resource type ``type``."""
    writer = _Writer(shapes)
    return {**writer.object(type), "$defs": writer.definitions}


def _primitive(member: Member) -> Schema:
    if member.codes is not None:
        return {"enum": sorted(plain_codes(member.codes))}
    if member.type == NARRATIVE_DIV:
        return {"type": "string", "format": NARRATIVE_DIV}
    primitive = PRIMITIVES[member.type]
    schema: Schema = {"type": primitive.kind}
    if primitive.pattern:
        schema["pattern"] = f"^{primitive.pattern}$"
    if primitive.length_max is not None:
        schema["maxLength"] = primitive.length_max
    if primitive.kind == "integer":
        schema |= {"minimum": primitive.low, "maximum": primitive.high, "whole": True}
    return schema


def _agreeing(targets: tuple[str, ...]) -> list[Schema]:
    """Return the usual forms of references with a type; the walker sees to the rest."""
    alone: Schema = {"properties": {"reference": False}}
    both = [
        {
            "properties": {
                "type": {"const": one},
                "reference": {"pattern": f"^{_BASE}{one}/{_ID}(?:/_history/{_ID})?$"},
            }
        }
        for one in targets
    ]
    return [alone, *both]


def _reference_text(targets: tuple[str, ...]) -> Schema:
    """Return the schema of a reference's text: the usual forms first, the rest by a callback."""
    callback = {"format": REFERENCE_FORMAT + ",".join(targets)}
    if not targets:
        return {"type": "string", "anyOf": [{"pattern": f"^{_UUID}$"}, callback]}
    usual = f"^(?:{_BASE}(?:{'|'.join(targets)})/{_ID}(?:/_history/{_ID})?|{_UUID})$"
    return {"type": "string", "anyOf": [{"pattern": usual}, callback]}
