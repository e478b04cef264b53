"""XML text to the resource that its JSON would be. Only :mod:`fhir_server.r4.xml` uses this.

https://hl7.org/fhir/R4/xml.html

It reads with expat, which opens no file and no connection; a document type, without which there are
no entities, is refused before expat sees it. A refusal stops expat at once. Narrative is taken as
it is written, byte for byte, which a reader that makes a tree would lose.
"""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from xml.parsers import expat

import re2 as re

from fhir_server.outcome import FhirError, Issue, invalid_value, nearest, shown
from fhir_server.r4.json import number, too_deep
from fhir_server.r4.xml_tables import (
    BOOLEAN,
    FHIR,
    OBJECT,
    RESOURCE,
    TEXT,
    XHTML,
    XHTML_DIV,
    Child,
    Table,
    Tables,
    escaped,
)
from fhir_server.r4.xml_text import (
    check_bytes,
    check_declaration,
    element_end,
    expat_fault,
    malformed,
    refuse_doctype,
    tag_end,
    without_prefix,
)

Resource = dict[str, Any]

_XML = "http://www.w3.org/XML/1998/namespace"
_SCHEMA_LOCATION = "http://www.w3.org/2001/XMLSchema-instance schemaLocation"
_BOOLEANS = {"true": True, "false": False}
_NARRATIVE_DEPTH_MAX = 1000  # an open tag takes memory, many times its three bytes
_BLANK = " \t\r\n"
_OWN_NAMESPACE = re.compile(rb"\sxmlns\s*=")


def whole_div(div: str) -> str:
    """Return the one element that ``div`` is, without what may stand before and behind it."""
    text = div.encode()
    parser = expat.ParserCreate("utf-8")
    parser.StartDoctypeDeclHandler = refuse_doctype
    ends: list[int] = []
    if not (div.startswith("<div") and div.endswith(">")):
        parser.StartElementHandler = lambda *_: ends.append(parser.CurrentByteIndex)
        parser.EndElementHandler = lambda _: ends.append(parser.CurrentByteIndex)
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise ValueError(f"A narrative is not well-formed: {error}") from error
    return text[ends[0] : element_end(text, ends[0], ends[-1])].decode() if ends else div


@dataclass(slots=True)
class _Frame:
    """An element that is open.

    ``value`` is the JSON object that it becomes, for a primitive the one beside its value.
    ``depth`` is how many objects and arrays that object is in, itself included. ``lists`` are
    those of its members that need places held free in them. ``is_empty`` is for the end tag.
    """

    child: Child
    table: Table
    value: Resource
    depth: int
    is_empty: bool = True
    last: int = -1
    last_name: str = ""
    lists: set[str] | None = None

    def holds_free(self, name: str) -> None:
        """Note the list ``name`` as one of ``lists``."""
        self.lists = {name} if self.lists is None else {*self.lists, name}


_NOTHING = Table({}, {}, ())


class Reader:
    """Reads one document. Each method whose name begins with ``on`` is called by expat."""

    def __init__(self, tables: Tables, text: bytes, depth_max: int) -> None:
        self._tables = tables
        self._text = text
        self._depth_max = depth_max
        self._element = tables.table("Element")
        self._open: list[_Frame] = []
        self._root: Resource = {}
        self._div = _Div()
        self._parser = parser = expat.ParserCreate("utf-8", " ")
        parser.namespace_prefixes = True
        parser.buffer_text = True
        parser.XmlDeclHandler = check_declaration
        parser.StartDoctypeDeclHandler = refuse_doctype
        self._outside_div()

    def resource(self) -> Resource:
        """Return what the document says; see :meth:`fhir_server.r4.xml.Xml.decode`."""
        check_bytes(self._text)
        try:
            self._parser.Parse(self._text, True)
        except expat.ExpatError as error:
            raise expat_fault(error) from error
        finally:
            self._release()
        return self._root

    def _outside_div(self) -> None:
        self._parser.StartElementHandler = self.on_start
        self._parser.EndElementHandler = self.on_end
        self._parser.CharacterDataHandler = self.on_text

    def _release(self) -> None:
        """Let go of the handlers, which hold the reader, which holds the parser and the text."""
        self._parser.StartElementHandler = None
        self._parser.EndElementHandler = None
        self._parser.CharacterDataHandler = None
        self._parser.XmlDeclHandler = None

    def on_text(self, text: str) -> None:
        """Refuse text: values are attributes."""
        if text.strip(_BLANK):
            raise self._refusal("has the text {}; values stand in the attribute value", text)

    def on_start(self, tag: str, attributes: dict[str, str]) -> None:
        """Open an element."""
        if not self._open:
            self._start_root(tag, attributes)
            return
        frame = self._open[-1]
        child = frame.table.tags.get(tag)
        if child is None:
            tag = without_prefix(tag)
            child = frame.table.tags.get(tag)
            if child is None:
                if frame.child.holds == RESOURCE and frame.table is _NOTHING:
                    self._start_inner(frame, tag, attributes)
                    return
                raise self._unknown(frame, tag)
        if child.place <= frame.last:
            self._check_turn(frame, child)
        frame.last = child.place
        frame.last_name = child.name
        frame.is_empty = False
        holds = child.holds
        if holds < OBJECT:
            self._start_primitive(frame, child, attributes)
        elif holds == XHTML_DIV:
            self._start_div(frame, attributes)
        else:
            self._start_object(frame, child, attributes)

    def _start_root(self, tag: str, attributes: dict[str, str]) -> None:
        tag = without_prefix(tag)
        type = self._tables.resource_type(tag)
        if type is None:
            raise _no_resource(tag, "The body")
        self._root = {"resourceType": type}
        child = Child(type, 0, False, RESOURCE)
        self._push(_Frame(child, self._tables.table(type), self._root, 1, is_empty=False))
        self._check_resource_attributes(attributes)

    def _start_inner(self, frame: _Frame, tag: str, attributes: dict[str, str]) -> None:
        """Open the resource inside a ``contained``, ``resource`` or ``outcome``."""
        type = self._tables.resource_type(tag)
        if type is None:
            raise _no_resource(tag, self._where(), self._where())
        if frame.value:
            raise self._refusal("holds two resources; it holds one")
        frame.is_empty = False
        frame.value["resourceType"] = type
        child = Child("", 0, False, RESOURCE)
        self._push(
            _Frame(child, self._tables.table(type), frame.value, frame.depth, is_empty=False)
        )
        self._check_resource_attributes(attributes)

    def _check_resource_attributes(self, attributes: dict[str, str]) -> None:
        for name in attributes:
            if without_prefix(name) != _SCHEMA_LOCATION:
                raise self._attribute(name, "the element of a resource has none")

    def _start_object(self, frame: _Frame, child: Child, attributes: dict[str, str]) -> None:
        value: Resource = {}
        if child.is_list:
            frame.value.setdefault(child.name, []).append(value)
        else:
            frame.value[child.name] = value
        table = self._tables.table(child.key) if child.key else _NOTHING
        inner = _Frame(child, table, value, frame.depth + 1 + child.is_list)
        self._push(inner)
        if attributes:
            self._take_attributes(inner, attributes)

    def _start_primitive(self, frame: _Frame, child: Child, attributes: dict[str, str]) -> None:
        text = attributes.pop("value", None)
        inner = _Frame(child, self._element, {}, frame.depth + 1 + child.is_list, text is None)
        self._open.append(inner)
        if child.is_list:
            frame.value.setdefault(child.name, []).append(text)
            if text is None:
                frame.holds_free(child.name)
        if text is not None:
            if not text:
                raise self._refusal("has an empty value; leave the element out")
            value = text if child.holds == TEXT else self._converted(child, text)
            if child.is_list:
                frame.value[child.name][-1] = value
            else:
                frame.value[child.name] = value
        if attributes:
            self._take_attributes(inner, attributes)

    def _converted(self, child: Child, text: str) -> bool | int | Decimal:
        if child.holds == BOOLEAN:
            if text not in _BOOLEANS:
                raise invalid_value(self._where(), text, "true or false", self._where())
            return _BOOLEANS[text]
        try:
            return number(text)
        except FhirError as error:
            where = self._where()
            said = error.issues[0].diagnostics
            raise FhirError(Issue("value", f"{where}: {said}", where)) from error

    def _take_attributes(self, frame: _Frame, attributes: dict[str, str]) -> None:
        for name, text in attributes.items():
            if name not in frame.table.attributes:
                known = [
                    *frame.table.attributes,
                    *(["value"] if frame.child.holds < OBJECT else []),
                ]
                raise self._attribute(name, f"it may have {' and '.join(known) or 'none'}")
            if not text:
                raise self._refusal("has an empty attribute {}; leave it out", name)
            frame.value[name] = text
        frame.is_empty = False

    def _push(self, frame: _Frame) -> None:
        self._open.append(frame)
        if frame.depth > self._depth_max:
            raise too_deep(self._depth_max)

    def on_end(self, _: str) -> None:
        """Close the element that was opened last."""
        frame = self._open[-1]
        if frame.is_empty:
            raise self._refusal("is empty; leave it out")
        if frame.lists:
            _fill_up(frame.value, frame.lists)
        self._open.pop()
        child = frame.child
        if child.holds < OBJECT:
            if frame.depth - (not frame.value) > self._depth_max:
                raise too_deep(self._depth_max)
            if frame.value:
                self._put_beside(self._open[-1], child, frame.value)

    def _put_beside(self, parent: _Frame, child: Child, beside: Resource) -> None:
        """Put what stands beside a primitive's value under the name with an underscore."""
        if not child.is_list:
            parent.value[f"_{child.name}"] = beside
            return
        parent.holds_free(child.name)
        places = parent.value.setdefault(f"_{child.name}", [])
        places += [None] * (len(parent.value[child.name]) - 1 - len(places))
        places.append(beside)

    # ---------------------------------------------------------------------------- narrative

    def _start_div(self, frame: _Frame, attributes: dict[str, str]) -> None:
        self._div = _Div(start=self._parser.CurrentByteIndex)
        self._div.is_prefixed = not self._text.startswith(b"<div", self._div.start)
        self._div.frame = frame
        self._parser.StartElementHandler = self.on_div_start
        self._parser.EndElementHandler = self.on_div_end
        self._parser.CharacterDataHandler = None
        if self._div.is_prefixed:
            self._parser.CharacterDataHandler = self.on_div_text
        self.on_div_start(f"{XHTML} div", attributes)

    def on_div_start(self, tag: str, attributes: dict[str, str]) -> None:
        """Count a start tag of the narrative; one with prefixes is written again without."""
        div = self._div
        div.depth += 1
        if div.depth > _NARRATIVE_DEPTH_MAX:
            raise self._refusal(f"has a narrative of over {_NARRATIVE_DEPTH_MAX} levels")
        if not div.is_prefixed:
            return
        namespace, _, name = without_prefix(tag).rpartition(" ")
        if namespace != XHTML:
            raise self._refusal("has {} in its narrative, which is not XHTML", name)
        own = f' xmlns="{XHTML}"' if div.depth == 1 else ""
        div.parts.append(f"<{name}{own}")
        for attribute, value in attributes.items():
            space, _, local = without_prefix(attribute).rpartition(" ")
            if space not in ("", _XML):
                raise self._attribute(attribute, "narrative has those of XHTML")
            div.parts.append(f' {"xml:" if space else ""}{local}="{escaped(value)}"')
        div.parts.append(">")

    def on_div_text(self, text: str) -> None:
        """Keep text of a narrative that is written again."""
        self._div.parts.append(text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))

    def on_div_end(self, tag: str) -> None:
        """Count an end tag; behind the last one, the narrative is as it was written."""
        div = self._div
        div.depth -= 1
        if div.is_prefixed:
            div.parts.append(f"</{without_prefix(tag).rpartition(' ')[2]}>")
        if div.depth:
            return
        assert div.frame is not None
        div.frame.value["div"] = "".join(div.parts) if div.is_prefixed else self._as_written()
        self._outside_div()

    def _as_written(self) -> str:
        text, start = self._text, self._div.start
        written = text[start : element_end(text, start, self._parser.CurrentByteIndex)]
        if not _OWN_NAMESPACE.search(text[start : tag_end(text, start)]):
            written = b'<div xmlns="%s"%s' % (XHTML.encode(), written[4:])
        return written.decode()

    # ----------------------------------------------------------------------------- refusals

    def _where(self) -> str:
        """Return the FHIRPath of the element that was opened last."""
        steps = [self._open[0].child.name]
        for outer, frame in zip(self._open, self._open[1:], strict=False):
            child = frame.child
            if child.name:
                at = len(outer.value.get(child.name, ())) - 1 if child.is_list else 0
                steps.append(f"{child.name}[{at}]" if child.is_list else child.name)
        return ".".join(steps)

    def _refusal(self, fault: str, *values: str) -> FhirError:
        if not self._open:
            return malformed("it has text outside of its element")
        where = self._where()
        return FhirError(Issue("structure", f"{where} {fault.format(*map(shown, values))}.", where))

    def _attribute(self, name: str, known: str) -> FhirError:
        return self._refusal(
            f"has the attribute {{}}; {known}", without_prefix(name).rpartition(" ")[2]
        )

    def _check_turn(self, frame: _Frame, child: Child) -> None:
        """Refuse an element out of its turn. Two types of one choice are left to validation."""
        if child.place < frame.last:
            raise self._refusal(
                "has {} behind {}; the order is that of the specification, "
                "and what repeats stands together",
                *(child.name, frame.last_name),
            )
        if not child.is_list and child.name == frame.last_name:
            raise self._refusal("has {} twice; it may stand once", child.name)

    def _unknown(self, frame: _Frame, tag: str) -> FhirError:
        namespace, _, name = tag.rpartition(" ")
        right = next((one for one in frame.table.tags if one.rpartition(" ")[2] == name), "")
        if namespace == FHIR and not right:
            known = [one for one in frame.table.members if not one.startswith("_")]
            where = self._where()
            text = f"{where} has no element {shown(name)}.{nearest(name, known)}"
            return FhirError(Issue("structure", text, where))
        return self._refusal(
            f"has {{}} in {'the namespace {}' if namespace else 'no namespace{}'}; "
            f"its elements are of {right.rpartition(' ')[0] or FHIR}",
            *(name, namespace),
        )


@dataclass(slots=True)
class _Div:
    """The narrative that is being read: where it begins, how many of its elements are open."""

    start: int = 0
    depth: int = 0
    is_prefixed: bool = False
    parts: list[str] = field(default_factory=list)
    frame: _Frame | None = None


def _no_resource(tag: str, what: str, where: str = "") -> FhirError:
    namespace, _, name = tag.rpartition(" ")
    if namespace != FHIR:
        text = f'{what} begins with {shown(name)}; a resource begins with <Patient xmlns="{FHIR}">.'
    else:
        text = f"{what} begins with {shown(name)}, which is not a resource type of R4."
    return FhirError(Issue("structure", text, where))


def _fill_up(value: Resource, names: set[str]) -> None:
    """Give both arrays of each name one length; one that would hold nothing is left out.

    https://hl7.org/fhir/R4/json.html#primitive
    """
    for name in names:
        values = value[name]
        if f"_{name}" in value:
            beside = value[f"_{name}"]
            beside += [None] * (len(values) - len(beside))
        if all(one is None for one in values):
            del value[name]
