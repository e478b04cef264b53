"""What the XML of each type may hold: its elements in their order, and what each one holds.

https://hl7.org/fhir/R4/xml.html

Made from the definitions, one type at a time, when it is first asked for. Reader and writer run by
the same tables.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fhir_server.r4.definitions import Definitions, Element, ElementType

FHIR = "http://hl7.org/fhir"
XHTML = "http://www.w3.org/1999/xhtml"

# What an element holds.
TEXT, NUMBER, BOOLEAN, OBJECT, RESOURCE, XHTML_DIV = range(6)
_NUMBERS = ("decimal", "integer", "positiveInt", "unsignedInt")
_BACKBONES = ("BackboneElement", "Element")

# A parser turns line breaks and tabs of an attribute into spaces unless they are written so.
_ESCAPES = {
    **{ord(one): f"&#{ord(one)};" for one in "\t\n\r"},
    ord("&"): "&amp;",
    ord("<"): "&lt;",
    ord(">"): "&gt;",
    ord('"'): "&quot;",
    # What no XML document can hold: https://www.w3.org/TR/xml/#charsets
    **{one: "\ufffd" for one in range(0x20) if chr(one) not in "\t\n\r"},
    **dict.fromkeys((*range(0xD800, 0xE000), 0xFFFE, 0xFFFF), "\ufffd"),
}


@dataclass(frozen=True, slots=True)
class Child:
    """An element that may stand in another. ``place`` is the place of its turn; the types of a
    choice share one. ``key`` is the table of what is inside, where there is one."""

    name: str
    place: int
    is_list: bool
    holds: int
    key: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """What an element holds: children by name (``birthDate``, also ``_birthDate``), children by
    expanded name (``http://hl7.org/fhir birthDate``), and its attributes."""

    members: Mapping[str, Child]
    tags: Mapping[str, Child]
    attributes: tuple[str, ...]


class Tables:
    """The tables of all types of ``definitions``."""

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions
        self._tables: dict[str, Table] = {}
        self._resource_tags = {f"{FHIR} {name}": name for name in definitions.resource_types}

    def resource_type(self, tag: str) -> str | None:
        """Return the resource type of an expanded name, if it is one."""
        return self._resource_tags.get(tag)

    def table(self, key: str) -> Table:
        """Return the table of a type, or of an element with children, such as ``Bundle.entry``."""
        made = self._tables.get(key)
        if made is None:
            made = self._tables[key] = self._made(key)
        return made

    def _made(self, key: str) -> Table:
        type = self._definitions.types[key.partition(".")[0]]
        is_resource = type.kind == "resource" and key == type.name
        attributes = () if is_resource else ("id", "url") if key == "Extension" else ("id",)
        members: dict[str, Child] = {}
        tags: dict[str, Child] = {}
        for place, element in enumerate(type.elements[key]):
            if element.max == 0 or element.name in attributes:
                continue
            for name, of in _members(element):
                child = self._child(element, name, of, place)
                members[name] = child
                if child.holds in (TEXT, NUMBER, BOOLEAN):
                    members[f"_{name}"] = child
                tags[f"{XHTML if child.holds == XHTML_DIV else FHIR} {name}"] = child
        return Table(members, tags, attributes)

    def _child(self, element: Element, name: str, of: ElementType | None, place: int) -> Child:
        if of is None or of.code in _BACKBONES:
            key = element.content_reference or element.path
            return Child(name, place, element.is_list, OBJECT, key)
        if of.code == "Resource":
            return Child(name, place, element.is_list, RESOURCE)
        if of.code == "xhtml":
            return Child(name, place, False, XHTML_DIV)
        if self._definitions.types[of.code].kind != "primitive-type":
            return Child(name, place, element.is_list, OBJECT, of.code)
        holds = BOOLEAN if of.code == "boolean" else NUMBER if of.code in _NUMBERS else TEXT
        return Child(name, place, element.is_list, holds, "Element")


def _members(element: Element) -> list[tuple[str, ElementType | None]]:
    if element.content_reference is not None:
        return [(element.name, None)]
    return list(element.members())


def escaped(text: str) -> str:
    """Return ``text`` as it stands in an attribute. Most has nothing to escape: that is quick."""
    if text.isprintable() and "&" not in text and "<" not in text and '"' not in text:
        return text
    return text.translate(_ESCAPES)
