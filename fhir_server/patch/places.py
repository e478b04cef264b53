"""Which elements of a resource a FHIRPath means, each as a place that can be written to.

https://hl7.org/fhir/R4/fhirpatch.html and http://hl7.org/fhirpath/N1/

What is understood: members, indexes, ``$this``, ``%resource``, ``=``, ``!=``, ``and``, ``or``,
``as``, ``is``, and the functions of :data:`FUNCTIONS`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from fhir_server.outcome import nearest, shown
from fhir_server.patch.json_patch import equal
from fhir_server.r4.definitions import Definitions, Element
from fhir_server.r4.fhirpath.tree import (
    Binary,
    Call,
    Index,
    Literal,
    Member,
    Name,
    Node,
    Typed,
    Variable,
)

_BACKBONES = ("BackboneElement", "Element")


@dataclass(frozen=True, slots=True)
class Scope:
    """Where the definitions list the elements below an element: a type's name and a path in it."""

    owner: str
    at: str


@dataclass(frozen=True, slots=True)
class Place:
    """One element of a resource: ``holder[member]``, or its item ``index`` where that is a list.

    ``scope`` says which elements may be below, ``element`` what it is itself; the resource is in no
    holder and is no element. ``primitive`` says that its extensions stand beside its value, under
    the member with an underscore.
    """

    holder: dict[str, Any]
    member: str
    index: int | None
    type: str
    scope: Scope
    element: Element | None
    primitive: bool = False

    @property
    def value(self) -> Any:
        """The JSON of the element; ``None`` for a primitive that has extensions only."""
        return self._at(self.member)

    @property
    def sibling(self) -> Any:
        """What stands beside a primitive: its id and extensions, or ``None``."""
        return self._at("_" + self.member) if self.primitive else None

    @property
    def inside(self) -> dict[str, Any]:
        """The object with the members below the element; empty and of no effect if it has none."""
        found = self.sibling if self.primitive else self.value
        return found if isinstance(found, dict) else {}

    def _at(self, member: str) -> Any:
        found = self.holder.get(member)
        if self.index is None or not isinstance(found, list):
            return found
        return found[self.index] if self.index < len(found) else None


Pair = tuple[Any, Any]
"""An item of a list, and what stands beside it: ``None`` unless it is a primitive."""


def pairs(holder: Mapping[str, Any], member: str) -> list[Pair]:
    """Return the items of the list ``holder[member]`` with what stands beside each."""
    values, siblings = holder.get(member, ()), holder.get("_" + member, ())
    return list(zip_longest(values, siblings))


def write_pairs(holder: dict[str, Any], member: str, items: Sequence[Pair]) -> None:
    """Make ``items`` the list ``holder[member]``; what would say nothing goes."""
    for name, column in ((member, 0), ("_" + member, 1)):
        values = [item[column] for item in items]
        if any(value is not None for value in values):
            holder[name] = values
        else:
            holder.pop(name, None)


def root_of(resource: dict[str, Any]) -> Place:
    """Return the place of the whole ``resource``."""
    type = resource["resourceType"]
    return Place({"": resource}, "", None, type, Scope(type, type), None)


class Walk:
    """Finds places in resources, within a number of elements to look at, in all.

    Its methods raise :class:`ValueError`, with a sentence, for what is not understood.
    """

    def __init__(self, definitions: Definitions, looks_max: int) -> None:
        self._definitions = definitions
        self._left = looks_max
        self._known: dict[tuple[Scope, str], tuple[_Kind, ...]] = {}

    def places(self, node: Node, root: Place) -> list[Place]:
        """Return what ``node`` means in the resource at ``root``, in its order."""
        found = self._items(node, root, root)
        if not all(isinstance(one, Place) for one in found):
            raise ValueError("the path computes something instead of naming an element")
        return found

    def element(self, scope: Scope, name: str) -> Element | None:
        """Return the definition of the element ``name``, or ``None``; a choice by its bare name."""
        definition = self._definitions.types.get(scope.owner)
        children = definition.elements.get(scope.at, ()) if definition else ()
        return next((one for one in children if one.name == name), None)

    def element_names(self, scope: Scope) -> list[str]:
        """Return the names of the elements that may be at ``scope``."""
        definition = self._definitions.types.get(scope.owner)
        return [one.name for one in definition.elements.get(scope.at, ())] if definition else []

    def scope_below(self, scope: Scope, element: Element, type: str) -> Scope:
        """Return the scope of ``element``, a child at ``scope``, where it is of ``type``."""
        if element.content_reference:
            return Scope(scope.owner, element.content_reference)
        if type in _BACKBONES:
            return Scope(scope.owner, element.path)
        return Scope(type, type)

    def is_primitive(self, type: str) -> bool:
        """Whether ``type`` is a primitive: its JSON is no object."""
        definition = self._definitions.types.get(type)
        return definition is not None and definition.kind == "primitive-type"

    def is_type(self, type: str, wanted: str) -> bool:
        """Whether ``type`` is ``wanted`` or a specialization of it."""
        name: str | None = type
        while name is not None and name != wanted:
            definition = self._definitions.types.get(name)
            name = definition.base if definition else None
        return name == wanted

    # ------------------------------------------------------------------------- the expression

    def _items(self, node: Node, this: Any, root: Place) -> list[Any]:
        """Return places and values: what ``node`` means at ``this``."""
        steps: list[Member | Index | Typed | Call] = []
        first: Node | None = node
        while isinstance(first, Member | Index | Typed | Call):  # long paths are no deep ones
            steps.append(first)
            first = first.source
        self.look(1)
        current = [this] if first is None else self._first(first, this, root)
        for step in reversed(steps):
            current = self._step(step, current, root)
            self.look(len(current))
        return current

    def look(self, count: int) -> None:
        """Count ``count`` elements as looked at; raises :class:`ValueError` over the limit."""
        self._left -= count
        if self._left < 0:
            raise ValueError("the paths of the patch look at too many elements; name them by index")

    def _first(self, node: Node, this: Any, root: Place) -> list[Any]:
        match node:
            case Literal(value):
                return [value]
            case Variable("resource" | "context"):
                return [root]
            case Name("$this"):
                return [this]
            case Name(name) if name[0].isupper():
                if isinstance(this, Place) and self.is_type(this.type, name):
                    return [this]
                raise ValueError(f"{shown(name)} is not the type of what the path begins at")
            case Name(name):
                return list(self._children(this, name))
            case Binary(operator, left, right) if operator in _OPERATORS:
                both = [self._items(side, this, root) for side in (left, right)]
                return _OPERATORS[operator](*both)
        raise ValueError(f"{_words(node)} is not supported in the path of a patch")

    def _step(
        self, step: Member | Index | Typed | Call, current: list[Any], root: Place
    ) -> list[Any]:
        match step:
            case Member(_, name):
                return [below for one in current for below in self._children(one, name)]
            case Index(_, Literal(int(position))) if not isinstance(position, bool):
                return current[position : position + 1]
            case Typed("as", _, type):
                return [one for one in current if self._is(one, type)]
            case Typed(_, _, type):
                return [self._is(one, type) for one in current[:1]]
            case Call(_, "where", (criteria,)):
                return [one for one in current if _truth(self._items(criteria, one, root))]
            case Call(_, "exists", (criteria,)):
                return [any(_truth(self._items(criteria, one, root)) for one in current)]
            case Call(_, "extension" | "hasExtension", (Literal(str(url)),)):
                found = [
                    below
                    for one in current
                    for below in self._children(one, "extension")
                    if below.inside.get("url") == url
                ]
                return found if step.name == "extension" else [bool(found)]
            case Call(_, name, ()) if name in FUNCTIONS:
                return FUNCTIONS[name](current)
        raise ValueError(f"{_words(step)} is not supported in the path of a patch")

    def _is(self, item: Any, type: str) -> bool:
        return isinstance(item, Place) and self.is_type(item.type, type)

    def _children(self, parent: Any, name: str) -> Iterator[Place]:
        if not isinstance(parent, Place):
            return
        element = self.element(parent.scope, name)
        if element is None:
            of = parent.element
            if of is not None and (
                of.is_choice or any(type.code == "Resource" for type in of.types)
            ):
                return  # another type might have it
            near = nearest(name, self.element_names(parent.scope))
            raise ValueError(f"{parent.scope.at} has no element {shown(name)}.{near}")
        for kind in self._kinds(parent.scope, element):
            if kind.member in parent.inside or "_" + kind.member in parent.inside:
                yield from self._at(parent, element, kind)

    def _kinds(self, scope: Scope, element: Element) -> tuple["_Kind", ...]:
        """Return the members that ``element`` may stand under; a patch asks for few, and often."""
        found = self._known.get((scope, element.path))
        if found is None:
            members = [(member, type.code) for member, type in element.members()]
            found = tuple(
                _Kind(member, type, self.scope_below(scope, element, type), self.is_primitive(type))
                for member, type in members or [(element.name, "BackboneElement")]
            )
            self._known[scope, element.path] = found
        return found

    def _at(self, parent: Place, element: Element, kind: "_Kind") -> Iterator[Place]:
        inside, member, type, scope = parent.inside, kind.member, kind.type, kind.scope
        count = len(pairs(inside, member)) if element.is_list else 1
        for place in range(count):
            index = place if element.is_list else None
            if kind.type == "Resource":
                found = inside[member] if index is None else inside[member][index]
                type = (
                    found.get("resourceType", kind.type) if isinstance(found, dict) else kind.type
                )
                scope = Scope(type, type)
            yield Place(inside, member, index, type, scope, element, kind.primitive)


@dataclass(frozen=True, slots=True)
class _Kind:
    """One member that an element may stand under, and what it then is."""

    member: str
    type: str
    scope: Scope
    primitive: bool


def _words(node: Node) -> str:
    """Return what ``node`` is called in a message."""
    match node:
        case Call(_, "resolve"):
            return "resolve(), which leads to other resources,"
        case Call(_, name):
            return f"{shown(name + '()')} with these arguments"
        case Binary(operator):
            return shown(operator)
        case Variable(name):
            return shown("%" + name)
    return "That"


def _value(item: Any) -> Any:
    return item.value if isinstance(item, Place) else item


def _truth(items: list[Any]) -> bool:
    """Whether a condition holds: nothing is no, and one thing that is no boolean is yes."""
    if len(items) > 1:
        raise ValueError("a condition has several values")
    return bool(items) and _value(items[0]) is not False


def _equals(left: list[Any], right: list[Any]) -> list[Any]:
    """Nothing equals nothing, and does not differ from anything either (FHIRPath, 6.1.1)."""
    if not left or not right:
        return []
    if any(isinstance(_value(item), dict | list) for item in (*left, *right)):
        raise ValueError("only primitive values are compared in the path of a patch")
    same = len(left) == len(right) and all(
        equal(_value(one), _value(other)) for one, other in zip(left, right, strict=True)
    )
    return [same]


_OPERATORS: Mapping[str, Callable[[list[Any], list[Any]], list[Any]]] = {
    "=": _equals,
    "!=": lambda left, right: [not one for one in _equals(left, right)],
    "and": lambda left, right: [_truth(left) and _truth(right)],
    "or": lambda left, right: [_truth(left) or _truth(right)],
}


def _single(items: list[Any]) -> list[Any]:
    if len(items) > 1:
        raise ValueError("single() finds several elements")
    return items


FUNCTIONS: Mapping[str, Callable[[list[Any]], list[Any]]] = {
    "first": lambda items: items[:1],
    "last": lambda items: items[-1:],
    "tail": lambda items: items[1:],
    "single": _single,
    "exists": lambda items: [bool(items)],
    "empty": lambda items: [not items],
    "not": lambda items: [not _truth(items)] if items else [],
}
"""The functions without arguments; ``where``, ``exists``, ``extension``, ``hasExtension`` and
``ofType`` have one."""
