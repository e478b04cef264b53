"""Elements of resources as FHIRPath sees them: JSON together with what the definitions say of it.

https://hl7.org/fhir/R4/fhirpath.html#types

A :class:`Node` is a value and its :class:`Shape`. A shape knows the JSON members of its elements,
so that a choice is found by its bare name, and a primitive together with what stands beside it.
"""

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from functools import cached_property
from typing import Any

from fhir_server.r4.definitions import Definitions, Element, ElementType
from fhir_server.r4.fhirpath.moments import Moment, date, date_time, time
from fhir_server.r4.fhirpath.quantities import Quantity
from fhir_server.r4.ucum import SYSTEM as UCUM

SYSTEM_TYPES = frozenset(
    ("Boolean", "String", "Integer", "Decimal", "Date", "DateTime", "Time", "Quantity")
)
_BACKBONES = ("BackboneElement", "Element")
_RESOURCE = "Resource"


class Node:
    """One element of a resource.

    ``value`` is its JSON; ``None`` for a primitive that has extensions only. ``sibling`` is what
    stands beside the value of a primitive: its id and extensions, or ``None``.
    """

    __slots__ = ("shape", "sibling", "value")

    def __init__(self, shape: "Shape", value: Any, sibling: Any = None) -> None:
        self.shape = shape
        self.value = value
        self.sibling = sibling

    @property
    def type(self) -> str:
        """The FHIR type of the element: ``HumanName``, ``BackboneElement``, ``Patient``."""
        return self.shape.type

    def member(self, name: str) -> "list[Node]":
        """Return the elements ``name`` below this one; a choice by its bare name."""
        return self.shape.below(self, name)

    def children(self) -> "list[Node]":
        """Return all elements right below this one, in the order of the JSON."""
        return self.shape.children(self)

    def __repr__(self) -> str:
        return f"<{self.type} {self.value!r}>"


Value = bool | int | Decimal | str | Moment | Quantity | Node
"""What an expression gives. Without a node around it, a value is of a System type."""


class Form:
    """One JSON member that an element may stand under."""

    __slots__ = ("_make", "_shape", "element", "is_list", "is_resource", "member", "name", "type")

    def __init__(
        self, element: Element, member: str, type: str, make: "Callable[[], Shape]"
    ) -> None:
        self.element = element
        self.name = element.name
        self.member = member
        self.type = type
        self.is_list = element.is_list
        self.is_resource = type == _RESOURCE
        self._make = make
        self._shape: Shape | None = None

    @property
    def shape(self) -> "Shape":
        """What is known of the element under this member; shapes are made when they are met."""
        if self._shape is None:
            self._shape = self._make()
        return self._shape


class Shape:
    """What the definitions say of an element of one type at one place.

    ``names`` are the type and what it specializes. ``owner`` and ``at`` are where its elements are
    defined (``Observation`` and ``Observation.component``).
    """

    def __init__(self, model: "Model", type: str, owner: str, at: str) -> None:
        self.model = model
        self.type = type
        self.owner = owner
        self.at = at
        self.names = model.ancestry(type)
        definition = model.definitions.types.get(type)
        self.is_primitive = definition is not None and definition.kind == "primitive-type"
        self.is_resource = definition is not None and definition.kind == "resource"
        self.read: Callable[[Any], Any] | None = _READERS.get(type, _text)
        if not self.is_primitive:
            self.read = None
        self.is_quantity = "Quantity" in self.names

    @cached_property
    def elements(self) -> tuple[Element, ...]:
        """The elements right below; the value of a primitive is none of them."""
        definition = self.model.definitions.types.get(self.owner)
        found = definition.elements.get(self.at, ()) if definition else ()
        return tuple(one for one in found if not (self.is_primitive and one.name == "value"))

    @cached_property
    def named(self) -> Mapping[str, tuple[Form, ...]]:
        """The forms of each element by its name, ``value`` for ``value[x]``."""
        return {one.name: tuple(self._forms(one)) for one in self.elements}

    @cached_property
    def members(self) -> Mapping[str, Form]:
        """The form of each JSON member; also of those with an underscore, beside primitives."""
        found = {form.member: form for forms in self.named.values() for form in forms}
        return found | {
            "_" + member: form for member, form in found.items() if self.model.is_primitive(form)
        }

    def _forms(self, element: Element) -> Iterator[Form]:
        if element.content_reference:
            at = element.content_reference
            yield Form(
                element,
                element.name,
                "BackboneElement",
                lambda: self.model.shape("BackboneElement", self.owner, at),
            )
        for member, type in element.members():
            code = "id" if element.path == self.owner + ".id" and self.is_resource else type.code
            yield Form(element, member, code, self._maker(element, code))

    def _maker(self, element: Element, type: str) -> "Callable[[], Shape]":
        if type in _BACKBONES:
            return lambda: self.model.shape(type, self.owner, element.path)
        return lambda: self.model.shape(type)

    # ------------------------------------------------------------------------------- the walk

    def below(self, node: Node, name: str) -> list[Node]:
        """Return the elements ``name`` below ``node``, which has this shape."""
        holder = node.sibling if self.is_primitive else node.value
        forms = self.named.get(name)
        if forms is None or type(holder) is not dict:
            return []
        if len(forms) == 1:
            return self._at(forms[0], holder)
        members = self.members
        for key in holder:
            form = members.get(key)
            if form is not None and form.name == name:
                return self._at(form, holder)
        return []

    def children(self, node: Node) -> list[Node]:
        """Return all elements right below ``node``, which has this shape."""
        holder = node.sibling if self.is_primitive else node.value
        if type(holder) is not dict:
            return []
        found: list[Node] = []
        members = self.members
        for key in holder:
            form = members.get(key)
            # A primitive with a value and extensions has two members, and is one element.
            if form is not None and (key == form.member or form.member not in holder):
                found += self._at(form, holder)
        return found

    def _at(self, form: Form, holder: dict[str, Any]) -> list[Node]:
        value = holder.get(form.member)
        shape = form.shape
        if shape.is_primitive:
            return _primitives(shape, value, holder.get("_" + form.member))
        if value is None:
            return []
        if form.is_resource:
            items = value if type(value) is list else [value]
            return [self.model.resource(one) for one in items if type(one) is dict]
        if type(value) is list:
            return [Node(shape, one) for one in value if one is not None]
        return [Node(shape, value)]


def _primitives(shape: Shape, value: Any, sibling: Any) -> list[Node]:
    if type(value) is not list and type(sibling) is not list:
        return [] if value is None and sibling is None else [Node(shape, value, sibling)]
    values = value if type(value) is list else []
    if type(sibling) is not list:
        return [Node(shape, one) for one in values if one is not None]
    length = max(len(values), len(sibling))
    values = values + [None] * (length - len(values))
    siblings = sibling + [None] * (length - len(sibling))
    return [
        Node(shape, one, beside)
        for one, beside in zip(values, siblings, strict=True)
        if one is not None or beside is not None
    ]


class Model:
    """The shapes of all types, made when they are met."""

    def __init__(self, definitions: Definitions) -> None:
        self.definitions = definitions
        self._shapes: dict[tuple[str, str, str], Shape] = {}
        self._ancestries: dict[str, frozenset[str]] = {}

    @cached_property
    def type_info(self) -> Shape:
        """The shape of what ``type()`` gives, which no package defines."""
        string = (ElementType("string"),)
        names = [f"TypeInfo.{name}" for name in ("namespace", "name")]
        elements = tuple(
            Element(name, 1, 1, string, None, None, (), None, False, False) for name in names
        )
        shape = Shape(self, "TypeInfo", "TypeInfo", "TypeInfo")
        shape.elements = elements
        return shape

    def resource(self, json: Mapping[str, Any]) -> Node:
        """Return the node of a whole resource."""
        type = json.get("resourceType")
        return Node(self.shape(type if isinstance(type, str) else ""), json)

    def node(self, type: str, value: Any, sibling: Any = None) -> Node:
        """Return the node of an element of a data type."""
        return Node(self.shape(type), value, sibling)

    def shape(self, type: str, owner: str = "", at: str = "") -> Shape:
        """Return the shape of ``type``; of a backbone element, of that at ``at`` of ``owner``."""
        if type not in self.definitions.types:
            type = ""  # any client can name a type that is none
        key = (type, owner or type, at or type)
        found = self._shapes.get(key)
        if found is None:
            found = self._shapes[key] = Shape(self, *key)
        return found

    def ancestry(self, type: str) -> frozenset[str]:
        """Return ``type`` and what it specializes."""
        found = self._ancestries.get(type)
        if found is None:
            names = []
            name: str | None = type
            while name:
                names.append(name)
                definition = self.definitions.types.get(name)
                name = definition.base if definition else None
            found = self._ancestries[type] = frozenset(names)
        return found

    def is_primitive(self, form: Form) -> bool:
        """Whether the element is a primitive, whose extensions stand beside it."""
        definition = self.definitions.types.get(form.type)
        return definition is not None and definition.kind == "primitive-type"

    def knows(self, type: str, namespace: str) -> bool:
        """Whether there may be such a type; nobody asks for one of System that is none."""
        return (
            namespace == "System"
            or type in self.definitions.types
            or (not namespace and type in SYSTEM_TYPES)
        )


# -------------------------------------------------------------------------------- system values


def _text(value: Any) -> Any:
    return value


def _reader(parse: Callable[[str], Moment | None]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        found = parse(value) if type(value) is str else None
        return value if found is None else found  # what is no date stays a text

    return read


def _decimal(value: Any) -> Any:
    return Decimal(value) if type(value) is int else value


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "decimal": _decimal,
    "date": _reader(date),
    "dateTime": _reader(date_time),
    "instant": _reader(date_time),
    "time": _reader(time),
}


def system(item: Value) -> Any:
    """Return what ``item`` is to operators: the value of a primitive, a Quantity, or ``item``.

    A primitive without a value, and an element of any other type, is returned as it is.
    """
    if type(item) is not Node:
        return item
    shape = item.shape
    if shape.read is not None:
        return item if item.value is None else shape.read(item.value)
    return (_quantity(item.value) or item) if shape.is_quantity else item


def _quantity(json: Any) -> Quantity | None:
    """Return the quantity that a FHIR Quantity is, if it has a value and no comparator."""
    value = json.get("value") if type(json) is dict else None
    if type(value) is int:
        value = Decimal(value)
    if not isinstance(value, Decimal) or "comparator" in json:
        return None
    system, code, unit = json.get("system"), json.get("code"), json.get("unit")
    if system == UCUM and type(code) is str:
        return Quantity(value, code)
    if code is None and unit is None and system is None:
        return Quantity(value, "1")
    named = f"{system}" if system is not None else "?"
    return Quantity(value, f"{code if code is not None else unit}", system=named)


def type_name(item: Value) -> tuple[str, str]:
    """Return the namespace and the name of the type of ``item``."""
    kind = type(item)
    if kind is Node:
        return "FHIR", item.type  # type: ignore[union-attr]
    if kind is Moment:
        return "System", item.type  # type: ignore[union-attr]
    return "System", _SYSTEM_NAMES.get(kind, "Decimal")  # a Decimal may be of a subclass


_SYSTEM_NAMES: Mapping[type, str] = {
    bool: "Boolean",
    int: "Integer",
    str: "String",
    Quantity: "Quantity",
}


def is_type(item: Value, name: str, space: str) -> bool:
    """Whether ``item`` is of the type ``name`` or of one that specializes it."""
    if type(item) is Node:
        return space != "System" and name in item.shape.names
    return space != "FHIR" and type_name(item)[1] == name


def is_as(item: Value, name: str, space: str) -> bool:
    """Whether ``item`` passes ``as`` and ``ofType``: a primitive is of its very type only."""
    if type(item) is Node and item.shape.is_primitive:
        return space != "System" and item.shape.type == name
    return is_type(item, name, space)
