"""The walker that explains: a resource that is not valid -> every issue it has, in document order.

https://hl7.org/fhir/R4/validation.html

It is slower than the schema of the hot path and decides alone: what the schema does not pass comes
here, and only what is an issue here is refused. Of one object the members are looked at in their
order, then what they exclude, then what is missing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from fhir_server.outcome import Issue
from fhir_server.r4.narrative import narrative_fault
from fhir_server.validation import words
from fhir_server.validation.bindings import binding_fault
from fhir_server.validation.primitives import PRIMITIVES, is_kind, is_value
from fhir_server.validation.references import Container, reference_fault, type_fault
from fhir_server.validation.shapes import NARRATIVE_DIV, RESOURCE, Member, Shape, Shapes

# The limit of the decoder, r4/json.py, counts arrays too, so it is reached first.
_DEPTH_MAX = 100
_ABSENT: Any = object()
# The type of what stands under _birthDate: the id and the extensions of a primitive.
_SIBLING = "Element"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the resource something stands: its FHIRPath, and the resource that ``#`` means."""

    path: str
    container: Container
    is_contained: bool = False
    depth: int = 0

    def below(self, step: str) -> "_Place":
        return replace(self, path=f"{self.path}.{step}", depth=self.depth + 1)

    def item(self, index: int) -> "_Place":
        return replace(self, path=f"{self.path}[{index}]")


class Explainer:
    """Explains what is wrong with resources, by the ``shapes`` of their types."""

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes

    def issues(self, resource: Any) -> Iterator[Issue]:
        """Yield the issues of ``resource``, the first of the document first. It may be anything."""
        yield from self._resource(resource, _Place("", Container("", {})))

    def _resource(self, resource: Any, place: _Place) -> Iterator[Issue]:
        """Yield the issues of a resource: the whole, one of an entry, or a contained one."""
        if not isinstance(resource, dict):
            yield words.wrong_kind("A resource", resource, "an object", place.path)
            return
        type = resource.get("resourceType", _ABSENT)
        if type is _ABSENT:
            yield words.no_resource_type(place.path)
            return
        if not isinstance(type, str) or type not in self._shapes.resource_types:
            yield words.unknown_resource_type(type, self._shapes.resource_types, place.path)
            return
        place = replace(place, path=place.path or type)
        if place.is_contained:
            if "contained" in resource:
                yield words.nested_contained(place.path)
            if "id" not in resource:
                yield words.contained_without_id(place.path)
        else:
            place = replace(place, container=container_of(resource))
        yield from self._object(resource, self._shapes.shape(type), place)

    def _object(self, value: dict[str, Any], shape: Shape, place: _Place) -> Iterator[Issue]:
        if place.depth > _DEPTH_MAX:
            yield Issue("structure", f"This is nested more than {_DEPTH_MAX} deep.", place.path)
            return
        for name, item in value.items():
            member = shape.members.get(name)
            if member is not None:
                yield from self._member(member, item, value.get(f"_{name}", _ABSENT), place)
            elif name.startswith("_") and (member := _primitive(shape, name[1:])):
                if name[1:] not in value:
                    yield from self._member(member, _ABSENT, item, place)
            elif name != "resourceType" or not shape.is_resource:
                yield words.unknown_element(name, shape, place.path)
        yield from _rules(value, shape, place)

    def _member(self, member: Member, value: Any, sibling: Any, place: _Place) -> Iterator[Issue]:
        place = place.below(member.element)
        if not member.is_list:
            yield from self._item(member, value, sibling, place)
        elif member.is_primitive:
            yield from self._primitive_list(member, value, sibling, place)
        else:
            fault = words.list_fault(member, value, place.path)
            if fault is not None:
                yield fault
                return
            for index, item in enumerate(value):
                yield from self._item(member, item, _ABSENT, place.item(index))
            if member.name == "contained":
                yield from _same_ids(value, place)

    def _primitive_list(
        self, member: Member, values: Any, siblings: Any, place: _Place
    ) -> Iterator[Issue]:
        """Yield the issues of an array of primitives and the array of what is said about them."""
        given = [one for one in (values, siblings) if one is not _ABSENT]
        for one in given:
            fault = words.list_fault(member, one, place.path)
            if fault is not None:
                yield fault
                return
        if len(given) == 2 and len(values) != len(siblings):
            yield words.not_aligned(member.name, len(values), len(siblings), place.path)
            return
        for index in range(len(given[0])):
            value, sibling = (
                _ABSENT if one is _ABSENT or one[index] is None else one[index]
                for one in (values, siblings)
            )
            if value is _ABSENT and sibling is _ABSENT:
                yield words.null(place.item(index).path)
            else:
                yield from self._item(member, value, sibling, place.item(index))

    def _item(self, member: Member, value: Any, sibling: Any, place: _Place) -> Iterator[Issue]:
        """Yield the issues of one value, and for a primitive of what is said about it."""
        if member.is_primitive:
            if value is not _ABSENT:
                yield from self._primitive(member, value, place)
            if sibling is not _ABSENT:
                yield from self._sibling(member, value is not _ABSENT, sibling, place)
        elif not isinstance(value, dict):
            yield words.wrong_kind(member.name, value, "an object", place.path)
        elif member.type == RESOURCE:
            is_contained = member.name == "contained"
            yield from self._resource(value, replace(place, is_contained=is_contained))
        else:
            yield from self._object(value, self._shapes.shape(member.type), place)
            if member.type == "Reference":
                yield from self._reference(member, value, place)
            if member.codes is not None:
                yield from binding_fault(member, value, place.path)

    def _primitive(self, member: Member, value: Any, place: _Place) -> Iterator[Issue]:
        primitive = PRIMITIVES[member.type]
        if not is_kind(value, primitive):
            expected = f"a {primitive.kind}" if primitive.kind != "integer" else "an integer"
            yield words.wrong_kind(member.name, value, expected, place.path)
        elif value == "":
            yield words.empty(member.name, "text", place.path)
        elif not is_value(value, primitive):
            yield words.wrong_value(member.name, value, primitive, place.path)
        elif member.codes is not None:
            yield from binding_fault(member, value, place.path)
        elif member.type == NARRATIVE_DIV and (fault := narrative_fault(value)):
            yield Issue("invariant", f"The narrative {fault}.", place.path)

    def _sibling(
        self, member: Member, has_value: bool, sibling: Any, place: _Place
    ) -> Iterator[Issue]:
        name = f"_{member.name}"
        if not isinstance(sibling, dict):
            yield words.wrong_kind(name, sibling, "an object with id or extension", place.path)
            return
        yield from self._object(sibling, self._shapes.shape(_SIBLING), place)
        if not has_value and sibling and "extension" not in sibling:
            yield words.neither_value_nor_children(name, place.path)

    def _reference(self, member: Member, value: dict[str, Any], place: _Place) -> Iterator[Issue]:
        """Yield the issues of what a Reference points at, by the targets of its element."""
        types = self._shapes.resource_types
        reference, type = value.get("reference"), value.get("type")
        if isinstance(reference, str) and reference:
            fault = reference_fault(reference, place.container, member.targets, types)
            if fault:
                yield Issue("value", fault, f"{place.path}.reference")
        if isinstance(type, str) and type:
            fault = type_fault(type, reference, member.targets, types)
            if fault:
                yield Issue("value", fault, f"{place.path}.type")


def container_of(resource: dict[str, Any]) -> Container:
    """Return what ``#`` means for the references in ``resource``, whose type is a string."""
    contained = resource.get("contained")
    found = contained if isinstance(contained, list) else []
    pairs = [(one.get("id"), one.get("resourceType")) for one in found if isinstance(one, dict)]
    return Container(
        resource["resourceType"],
        {id: type if isinstance(type, str) else "" for id, type in pairs if isinstance(id, str)},
    )


def _primitive(shape: Shape, name: str) -> Member | None:
    member = shape.members.get(name)
    return member if member is not None and member.has_sibling else None


def _rules(value: dict[str, Any], shape: Shape, place: _Place) -> Iterator[Issue]:
    """Yield the issues about an object as a whole: ext-1, ele-1, and what must be there."""
    present = {name.removeprefix("_") for name in value}
    for element, names in shape.choices.items():
        found = [name for name in names if name in present]
        if len(found) > 1:
            yield words.several_choices(element, found, place.path)
    for element, names in shape.required.items():
        if present.isdisjoint(names):
            yield words.missing(element, names, place.path)
    if not present:
        yield words.empty("This object", "object", place.path)
    elif present == {"id"} and not shape.is_resource and shape.key != _SIBLING:
        yield words.neither_value_nor_children(shape.key, place.path)
    if shape.key == "Extension":
        has_value = any(name.startswith("value") for name in present)
        if has_value == ("extension" in present):
            yield words.extension_value(has_value, place.path)


def _same_ids(contained: list[Any], place: _Place) -> Iterator[Issue]:
    seen: set[str] = set()
    for index, one in enumerate(contained):
        id = one.get("id") if isinstance(one, dict) else None
        if isinstance(id, str):
            if id in seen:
                yield words.same_id(id, place.item(index).path)
            seen.add(id)
