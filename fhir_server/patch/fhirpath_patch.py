"""FHIRPath Patch: a Parameters resource whose operations name elements by FHIRPath.

https://hl7.org/fhir/R4/fhirpatch.html

All operations succeed, or nothing is changed: they work on a copy that is thrown away.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fhir_server.outcome import nearest, shown
from fhir_server.patch.bounds import (
    Bounds,
    check_depth,
    copied,
    inapplicable,
    malformed,
    too_many,
)
from fhir_server.patch.emptiness import pruned
from fhir_server.patch.places import Pair, Place, Scope, Walk, pairs, root_of, write_pairs
from fhir_server.r4.definitions import Definitions, Element
from fhir_server.r4.fhirpath.grammar import expression
from fhir_server.r4.fhirpath.tree import Node

_PATH_CHARACTERS_MAX = 1000
_LOOKS_MAX = 250_000  # elements that all paths of one patch look at; a look costs 2 microseconds
# Type of operation -> the parts that it needs besides path.
_NEEDS = {
    "add": ("name", "value"),
    "insert": ("index", "value"),
    "delete": (),
    "replace": ("value",),
    "move": ("source", "destination"),
}
# Part -> the Python type of its value. The value of `value` may be of any type.
_PARTS = {"type": str, "path": str, "name": str, "index": int, "source": int, "destination": int}


@dataclass(frozen=True, slots=True)
class Value:
    """What is to be put somewhere: JSON of a FHIR type, with what stands beside it in a primitive.

    Without a type it is a resource, or ``parts``: the elements of something that has no type name.
    """

    type: str = ""
    json: Any = None
    sibling: Any = None
    parts: tuple[tuple[str, "Value"], ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. ``what`` names it for messages; ``at`` is where it stands in the patch."""

    what: str
    at: str
    type: str
    path: Node
    name: str = ""
    value: Value = Value()
    index: int = 0
    source: int = 0
    destination: int = 0


def operations(
    parameters: Mapping[str, Any], definitions: Definitions, bounds: Bounds
) -> tuple[Operation, ...]:
    """Return the operations of ``parameters``, a valid Parameters resource.

    Raises status 400, naming the operation, for what is no FHIRPath Patch; 413 for too many.
    """
    found = parameters.get("parameter", [])
    if len(found) > bounds.operations_max:
        raise too_many("operations", len(found), bounds.operations_max)
    return tuple(_operation(index, one, definitions) for index, one in enumerate(found))


def patched(
    resource: Mapping[str, Any],
    wanted: Sequence[Operation],
    definitions: Definitions,
    bounds: Bounds,
) -> dict[str, Any]:
    """Return what ``wanted`` make of ``resource``, which stays as it is.

    What a deletion leaves empty is left out. The result need not be valid. Raises ``processing``
    (422), naming the operation, for a path that does not name what the operation needs, and for a
    value of another type than the element has.
    """
    changed: dict[str, Any] = copied(resource)
    work = _Work(Walk(definitions, _LOOKS_MAX), root_of(changed))
    for operation in wanted:
        try:
            _APPLY[operation.type](work, operation)
        except (ValueError, RecursionError) as error:
            why = str(error) if isinstance(error, ValueError) else "its path is nested too deeply"
            why = why if why.endswith((".", "?")) else f"{why}."
            raise inapplicable(operation.what, why, operation.at) from error
    check_depth(changed, bounds)
    return pruned(changed)


# ------------------------------------------------------------------------------------- reading


def _operation(index: int, parameter: Mapping[str, Any], definitions: Definitions) -> Operation:
    at = f"Parameters.parameter[{index}]"
    what = f"Operation [{index}] of the patch"
    if parameter.get("name") != "operation":
        why = f"its name is {shown(parameter.get('name'))}; expected 'operation'."
        raise malformed(what, why, at, "value")
    parts: dict[str, Any] = {}
    for part in parameter.get("part", ()):
        name = part.get("name")
        if name in parts:
            raise malformed(what, f"it has the part {shown(name)} twice.", at)
        if name != "value" and name not in _PARTS:
            near = nearest(str(name), ("value", *_PARTS))
            raise malformed(what, f"it has no use for a part {shown(name)}.{near}", at, "value")
        parts[name] = part
    said = {name: _plain(what, at, name, parts[name]) for name in _PARTS if name in parts}
    type = said.get("type", "")
    if type not in _NEEDS:
        why = f"its type is {shown(type)}; expected one of {', '.join(_NEEDS)}."
        raise malformed(what, why, at, "value")
    what = f"Operation [{index}] of the patch ({type} {shown(said.get('path', ''))})"
    for name in ("path", *_NEEDS[type]):
        if name not in parts:
            raise malformed(what, f"it needs a part {shown(name)}.", at, "required")
    value = _value(what, at, parts["value"], definitions) if "value" in parts else Value()
    return Operation(
        what,
        at,
        type,
        _path(what, at, said["path"]),
        value=value,
        **{name: said[name] for name in _NEEDS[type] if name in said},
    )


def _plain(what: str, at: str, name: str, part: Mapping[str, Any]) -> Any:
    """Return the one primitive value of ``part``."""
    [value, *more] = [value for key, value in part.items() if key.startswith("value")] or [None]
    if more or type(value) is not _PARTS[name]:
        kind = "a string" if _PARTS[name] is str else "an integer"
        raise malformed(what, f"its {name} must be {kind}.", at, "value")
    return value


def _path(what: str, at: str, text: str) -> Node:
    if len(text) > _PATH_CHARACTERS_MAX:
        why = f"its path has more than {_PATH_CHARACTERS_MAX} characters, which is the limit."
        raise malformed(what, why, at, "value")
    try:
        return expression(text)
    except (ValueError, RecursionError) as error:
        why = f"its path is no FHIRPath that is understood here: {error}."
        raise malformed(what, why, at, "value") from error


def _value(what: str, at: str, part: Mapping[str, Any], definitions: Definitions) -> Value:
    """Return the value that ``part`` carries: of a type, in parts, or a resource."""
    names = {key.removeprefix("_") for key in part if key.removeprefix("_").startswith("value")}
    kinds = len(names) + ("part" in part) + ("resource" in part)
    if kinds != 1:
        why = "a value needs one value[x], or parts, or a resource."
        raise malformed(what, why, at, "required")
    if "part" in part:
        inner = [(str(one.get("name")), one) for one in part["part"]]
        return Value(parts=tuple((name, _value(what, at, one, definitions)) for name, one in inner))
    if "resource" in part:
        return Value("Resource", part["resource"])
    [key] = names
    type = key.removeprefix("value")
    primitive = type[:1].lower() + type[1:]
    known = primitive if primitive in definitions.types else type
    return Value(known, part.get(key), part.get("_" + key))


# ------------------------------------------------------------------------------------ applying


@dataclass(frozen=True, slots=True)
class _Made:
    """A value as it stands in a resource: the member, and what stands beside it."""

    member: str
    json: Any
    sibling: Any


@dataclass(frozen=True, slots=True)
class _Work:
    """The resource while it is changed."""

    walk: Walk
    root: Place

    def one(self, operation: Operation) -> Place:
        """Return the only place of the path. https://hl7.org/fhir/R4/fhirpatch.html: "must return
        a single element"."""
        found = self.walk.places(operation.path, self.root)
        if len(found) != 1:
            count = f"{len(found)} elements" if found else "nothing"
            raise ValueError(f"its path finds {count}; it must find exactly one element")
        return found[0]

    def collection(self, operation: Operation) -> tuple[Place, list[Pair]]:
        """Return the first place of the list that the path names, and the items of all of it."""
        found = self.walk.places(operation.path, self.root)
        if not found:
            raise ValueError("its path finds nothing; a list is begun with add")
        first = found[0]
        if first.index is None:
            raise ValueError("its path finds something that is no list")
        items = pairs(first.holder, first.member)
        together = all(one.holder is first.holder and one.member == first.member for one in found)
        if not together or len(found) != len(items):
            raise ValueError("its path must find a whole list, and only that")
        return first, items

    def made(self, scope: Scope, element: Element, value: Value) -> _Made:
        """Return ``value`` as ``element``, of which ``scope`` is the parent's, has it."""
        if element.content_reference:
            return self._built(scope, element, element.name, "BackboneElement", value)
        members = list(element.members())
        for member, type in members:
            exact = value.type == type.code
            if exact or (len(members) == 1 and self._fits(value, type.code)):
                return self._built(scope, element, member, type.code, value)
        allowed = ", ".join(sorted(type.code for _, type in members[:12]))
        given = shown(value.type) if value.type else "in parts"
        raise ValueError(f"{element.path} is {allowed}; the value is {given}")

    def _fits(self, value: Value, type: str) -> bool:
        """Whether ``value`` may stand for the only ``type`` of an element.

        Its JSON is the same where one type specializes the other, and XHTML comes as a string.
        """
        if not value.type:
            return not self.walk.is_primitive(type) and type != "Resource"
        if type in ("BackboneElement", "Element"):
            return False
        related = self.walk.is_type(value.type, type) or self.walk.is_type(type, value.type)
        return related or (value.type, type) == ("string", "xhtml")

    def _built(self, scope: Scope, element: Element, member: str, type: str, value: Value) -> _Made:
        if not value.parts:
            # A copy: a later operation may change it, and the patch may be applied again.
            return _Made(member, copied(value.json), copied(value.sibling))
        below = self.walk.scope_below(scope, element, type)
        inside: dict[str, Any] = {}
        for name, part in value.parts:
            self.put(inside, below, name, part)
        return _Made(member, inside, None)

    def put(self, inside: dict[str, Any], scope: Scope, name: str, value: Value) -> None:
        """Put ``value`` into ``inside`` as element ``name``: at a list's end, or where none is."""
        element = self.walk.element(scope, name.removesuffix("[x]"))
        if element is None:
            near = nearest(name, self.walk.element_names(scope))
            raise ValueError(f"{scope.at} has no element {shown(name)}.{near}")
        made = self.made(scope, element, value)
        if element.is_list:
            self._append(inside, made)
            return
        members = [member for member, _ in element.members()] or [element.name]
        if any(member in inside or "_" + member in inside for member in members):
            raise ValueError(f"{element.path} is there already; it is changed with replace")
        _set(inside, made)

    def _append(self, inside: dict[str, Any], made: _Made) -> None:
        if made.sibling is None and "_" + made.member not in inside:
            inside.setdefault(made.member, []).append(made.json)
            return
        items = [*pairs(inside, made.member), (made.json, made.sibling)]
        self.walk.look(len(items))
        write_pairs(inside, made.member, items)


def _set(holder: dict[str, Any], made: _Made) -> None:
    for member, json in ((made.member, made.json), ("_" + made.member, made.sibling)):
        if json is not None:
            holder[member] = json
        else:
            holder.pop(member, None)


def _element_of(place: Place) -> Element:
    if place.element is None:
        raise ValueError("a resource is not replaced or deleted by a patch")
    return place.element


def _parent_scope(place: Place) -> Scope:
    """Return the scope that ``place`` itself is listed in."""
    path = _element_of(place).path.rpartition(".")[0]
    return Scope(path.partition(".")[0], path)


def _add(work: _Work, operation: Operation) -> None:
    place = work.one(operation)
    inside = place.inside
    work.put(inside, place.scope, operation.name, operation.value)
    if not place.primitive:
        return
    # The object beside a primitive may not have been there.
    if place.index is None:
        place.holder["_" + place.member] = inside
    else:
        items = pairs(place.holder, place.member)
        items[place.index] = (place.value, inside)
        write_pairs(place.holder, place.member, items)


def _insert(work: _Work, operation: Operation) -> None:
    place, items = work.collection(operation)
    if not 0 <= operation.index <= len(items):
        raise ValueError(f"the index is {operation.index}; the list has {len(items)} elements")
    made = work.made(_parent_scope(place), _element_of(place), operation.value)
    items.insert(operation.index, (made.json, made.sibling))
    write_pairs(place.holder, place.member, items)


def _delete(work: _Work, operation: Operation) -> None:
    found = work.walk.places(operation.path, work.root)
    if not found:  # "Path of the element to delete (if found)"
        return
    place = work.one(operation)
    _element_of(place)
    if place.index is None:
        _set(place.holder, _Made(place.member, None, None))
        return
    items = pairs(place.holder, place.member)
    del items[place.index]
    write_pairs(place.holder, place.member, items)


def _replace(work: _Work, operation: Operation) -> None:
    place = work.one(operation)
    made = work.made(_parent_scope(place), _element_of(place), operation.value)
    if place.index is None:
        if made.member != place.member:
            _set(place.holder, _Made(place.member, None, None))
        _set(place.holder, made)
        return
    items = pairs(place.holder, place.member)
    items[place.index] = (made.json, made.sibling)
    write_pairs(place.holder, place.member, items)


def _move(work: _Work, operation: Operation) -> None:
    place, items = work.collection(operation)
    for name, index in (("source", operation.source), ("destination", operation.destination)):
        if not 0 <= index < len(items):
            raise ValueError(f"the {name} is {index}; the list has {len(items)} elements")
    items.insert(operation.destination, items.pop(operation.source))
    write_pairs(place.holder, place.member, items)


_APPLY: Mapping[str, Callable[[_Work, Operation], None]] = {
    "add": _add,
    "insert": _insert,
    "delete": _delete,
    "replace": _replace,
    "move": _move,
}
