"""What the JSON of each type may hold: its members, which of them must be there, which exclude.

https://hl7.org/fhir/R4/json.html

Made from the definitions, one type at a time, when it is first asked for. Both readers, the schema
of the hot path and the walker that explains, see the same shapes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fhir_server.r4.definitions import Definitions, Element, ElementType
from fhir_server.r4.expansion import Code

_BACKBONES = ("BackboneElement", "Element")
# Types without a definition of elements that could be walked.
RESOURCE = "Resource"
NARRATIVE_DIV = "xhtml"
# Two elements whose rule is stricter than the type that the snapshot gives them.
RESOURCE_ID = "id"  # https://hl7.org/fhir/R4/resource.html#id
ELEMENT_ID = "element id"  # https://hl7.org/fhir/R4/element.html#id: no spaces


@dataclass(frozen=True, slots=True)
class Member:
    """One member that a JSON object may have.

    ``element`` is the FHIR name, ``value`` for ``valueQuantity``. ``type`` is a primitive's name,
    ``Resource``, or the key of the :class:`Shape` of its value: ``Quantity``, ``Patient.contact``.
    ``codes`` are those of a required binding, ``None`` where any will do. ``has_sibling`` says that
    extensions may stand under the name with an underscore: not for ids, for the url of an extension
    and for XHTML, which are attributes or have no place for them.
    """

    name: str
    element: str
    type: str
    is_primitive: bool
    is_list: bool
    codes: frozenset[Code] | None
    targets: tuple[str, ...]
    has_sibling: bool


@dataclass(frozen=True, slots=True)
class Shape:
    """What a JSON object may hold.

    ``key`` is the path of the element or the name of the type. ``required`` are the elements of
    which one of the members must be present, ``choices`` those of which only one may be.
    """

    key: str
    is_resource: bool
    members: Mapping[str, Member]
    required: Mapping[str, tuple[str, ...]]
    choices: Mapping[str, tuple[str, ...]]


class Shapes:
    """The shapes of all types of ``definitions``, each made once."""

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions
        self._made: dict[str, Shape] = {}
        self.resource_types = frozenset(definitions.resource_types)

    def shape(self, key: str) -> Shape:
        """Return the shape of a type or of an element with children, such as ``Bundle.entry``."""
        if key not in self._made:
            self._made[key] = self._shape(key)
        return self._made[key]

    def _shape(self, key: str) -> Shape:
        type = self._definitions.types[key.partition(".")[0]]
        elements = [element for element in type.elements[key] if element.max != 0]
        named = {
            element.name: [self._member(element, *member) for member in _members(element)]
            for element in elements
        }
        names = {name: tuple(member.name for member in of) for name, of in named.items()}
        return Shape(
            key=key,
            is_resource=type.kind == "resource" and key == type.name,
            members={member.name: member for of in named.values() for member in of},
            required={one.name: names[one.name] for one in elements if one.min > 0},
            choices={name: of for name, of in names.items() if len(of) > 1},
        )

    def _member(self, element: Element, name: str, type: ElementType | None) -> Member:
        key, is_primitive = self._type(element, type)
        strength, value_set = element.binding or ("", "")
        return Member(
            name=name,
            element=element.name,
            type=key,
            is_primitive=is_primitive,
            is_list=element.is_list,
            codes=self._definitions.codes(value_set) if strength == "required" else None,
            targets=type.targets if type is not None else (),
            has_sibling=is_primitive
            and key not in (RESOURCE_ID, ELEMENT_ID, NARRATIVE_DIV, "xhtml")
            and element.path != "Extension.url",
        )

    def _type(self, element: Element, type: ElementType | None) -> tuple[str, bool]:
        """Return what the value of ``element`` is, and whether that is a primitive."""
        if type is None:
            assert element.content_reference is not None
            return element.content_reference, False
        if type.code in _BACKBONES:
            return element.path, False
        if element.name == "id" and type.code == "string":
            owner = self._definitions.types[element.path.partition(".")[0]]
            is_of_resource = owner.kind == "resource" and element.path.count(".") == 1
            return (RESOURCE_ID if is_of_resource else ELEMENT_ID), True
        return type.code, self._definitions.types[type.code].kind == "primitive-type"


def _members(element: Element) -> list[tuple[str, ElementType | None]]:
    if element.content_reference is not None:
        return [(element.name, None)]
    return list(element.members())
