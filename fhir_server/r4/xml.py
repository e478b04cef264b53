"""XML to resource and back: the same resource that :mod:`fhir_server.r4.json` reads and writes.

https://hl7.org/fhir/R4/xml.html

With its reader, the only module for XML documents. Both directions run by one table for each type,
made from the definitions when it is first needed.
"""

from itertools import zip_longest
from operator import attrgetter
from typing import Any

from fhir_server.outcome import shown
from fhir_server.r4.definitions import Definitions
from fhir_server.r4.json import WrittenDecimal
from fhir_server.r4.xml_reader import Reader, whole_div
from fhir_server.r4.xml_tables import FHIR, OBJECT, XHTML_DIV, Child, Table, Tables, escaped

Resource = dict[str, Any]

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>'
_place = attrgetter("place")


class Xml:
    """Reads and writes resources of all types of ``definitions``."""

    def __init__(self, definitions: Definitions) -> None:
        self._tables = Tables(definitions)

    def decode(self, text: bytes, *, depth_max: int = 100) -> Resource:
        """Return the resource ``text``, as :func:`fhir_server.r4.json.decode` returns its JSON.

        ``depth_max`` is how deeply the objects and arrays of that JSON may be nested.

        Raises ``structure`` for what is no FHIR document in UTF-8: malformed, with a document type,
        with elements, attributes or text that do not belong where they are or stand in another
        order, empty elements, or nested deeper; ``value`` for a number or boolean that is none.
        Each issue has the FHIRPath of its place.
        """
        return Reader(self._tables, text, depth_max).resource()

    def encode(self, resource: Resource, *, pretty: bool = False) -> bytes:
        """Return the valid ``resource`` as XML in UTF-8. Elements stand in their order, whatever
        that of the members is; decimals and narrative are written as they are.

        A character that XML cannot hold becomes U+FFFD. Raises ``ValueError`` for what is no
        element of the type, and for a narrative that is not well-formed.
        """
        out = [_HEAD]
        self._write_resource(out, resource, "\n" if pretty else "", f' xmlns="{FHIR}"')
        return "".join(out).encode()

    def _write_resource(
        self, out: list[str], resource: Resource, pad: str, namespace: str = ""
    ) -> None:
        name = resource["resourceType"]
        if self._tables.resource_type(f"{FHIR} {name}") is None:
            raise ValueError(f"{shown(name)} is no resource type")
        out.append(f"{pad}<{name}{namespace}")
        self._write_inside(out, resource, name, self._tables.table(name), pad)

    def _write_inside(
        self,
        out: list[str],
        value: Resource,
        name: str,
        table: Table,
        pad: str,
        last_attribute: str = "",
    ) -> None:
        """Write the rest of a start tag that has been begun, the children, and the end tag."""
        children = []
        last = -1
        in_order = True
        for member in value:
            child = table.members.get(member)
            if child is None:
                _check_attribute(member, name, table)
                continue
            if member[0] == "_" and child.name in value:
                continue
            in_order = in_order and child.place >= last
            last = child.place
            children.append(child)
        for attribute in table.attributes:
            if attribute in value:
                out.append(f' {attribute}="{escaped(value[attribute])}"')
        out.append(last_attribute)
        if not children:
            out.append("/>")
            return
        if not in_order:
            children.sort(key=_place)
        out.append(">")
        inner = f"{pad}  " if pad else ""
        for child in children:
            self._write_member(out, value, child, inner)
        out.append(f"{pad}</{name}>")

    def _write_member(self, out: list[str], value: Resource, child: Child, pad: str) -> None:
        name = child.name
        content: Any = value.get(name)
        holds = child.holds
        if holds < OBJECT:
            sibling = value.get(f"_{name}")
            if child.is_list:
                for one, beside in zip_longest(content or (), sibling or ()):
                    self._write_primitive(out, name, one, beside, pad)
            else:
                self._write_primitive(out, name, content, sibling, pad)
            return
        if holds == XHTML_DIV:
            out.append(f"{pad}{whole_div(content)}")
            return
        for one in content if child.is_list else (content,):
            out.append(f"{pad}<{name}")
            if holds == OBJECT:
                self._write_inside(out, one, name, self._tables.table(child.key), pad)
            else:
                out.append(">")
                self._write_resource(out, one, f"{pad}  " if pad else "")
                out.append(f"{pad}</{name}>")

    def _write_primitive(
        self, out: list[str], name: str, value: Any, beside: Resource | None, pad: str
    ) -> None:
        text = ""
        if value is not None:
            text = f' value="{escaped(value if type(value) is str else _written(value))}"'
        if beside is None:
            out.append(f"{pad}<{name}{text}/>")
            return
        out.append(f"{pad}<{name}")
        self._write_inside(out, beside, name, self._tables.table("Element"), pad, text)


def _check_attribute(member: str, name: str, table: Table) -> None:
    """Refuse what is neither element nor attribute; the type of a resource is its tag."""
    if member not in table.attributes and (member != "resourceType" or table.attributes):
        raise ValueError(f"{name} has no element {shown(member)}")


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.text if isinstance(value, WrittenDecimal) else str(value)
