"""An XML document as the tree that XPath sees: elements, text, comments, processing instructions.

https://www.w3.org/TR/1999/REC-xpath-19991116/#data-model

Read by expat, which opens nothing; a document type is refused before. Nothing here calls itself
for what is inside, so depth costs no more than length.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

from fhir_server.outcome import FhirError, Issue, shown
from fhir_server.r4.xml_tables import XHTML, escaped
from fhir_server.r4.xml_text import (
    check_bytes,
    check_declaration,
    element_end,
    expat_fault,
    malformed,
    refuse_doctype,
)

XML = "http://www.w3.org/XML/1998/namespace"
_TOO_MUCH = 413
_TEXT_BYTES = 262_144  # of text that is told at once: what is longer is put together


@dataclass(slots=True, eq=False)
class Text:
    """Characters between tags; never empty, and never two beside each other."""

    text: str
    parent: "Element | None" = None


@dataclass(slots=True, eq=False)
class Comment:
    """A comment."""

    text: str
    parent: "Element | None" = None


@dataclass(slots=True, eq=False)
class Instruction:
    """A processing instruction."""

    target: str
    text: str
    parent: "Element | None" = None


@dataclass(slots=True, eq=False)
class Element:
    """An element. ``attributes`` are by name, or ``namespace name``; ``namespaces`` are those that
    it declares, by prefix. ``source`` is a narrative as it is written, until it is changed."""

    namespace: str
    name: str
    attributes: dict[str, str] = field(default_factory=dict)
    namespaces: dict[str, str] = field(default_factory=dict)
    children: "list[Node]" = field(default_factory=list)
    parent: "Element | None" = None
    source: str | None = None

    def changed(self) -> None:
        """Note that what is here is no longer as it was written."""
        above: Element | None = self
        while above is not None:
            above.source = None
            above = above.parent

    def insert(self, place: int, nodes: "list[Node]") -> int:
        """Put ``nodes`` at ``place`` among the children; texts that meet become one.

        Returns how many characters were copied for that.
        """
        for node in nodes:
            node.parent = self
        self.children[place:place] = nodes
        self.changed()
        return self._joined(place + len(nodes)) + self._joined(place)

    def remove(self, node: "Node") -> int:
        """Take ``node`` out; returns what :meth:`insert` does."""
        place = self.children.index(node)
        del self.children[place]
        node.parent = None
        self.changed()
        return self._joined(place)

    def _joined(self, place: int) -> int:
        """Make one text of those before and at ``place``."""
        if not 0 < place < len(self.children):
            return 0
        before, after = self.children[place - 1 : place + 1]
        if not (isinstance(before, Text) and isinstance(after, Text)):
            return 0
        before.text += after.text
        del self.children[place]
        return len(before.text)


Node = Element | Text | Comment | Instruction


def tree(text: bytes, *, nodes_max: int, depth_max: int | None = None) -> Element:
    """Return the one element of the document ``text``, with all that is in it.

    Raises ``structure`` for what is no well-formed XML 1.0 in UTF-8 without a document type, and
    where elements are nested more than ``depth_max`` deep; 413 for more than ``nodes_max`` nodes.
    """
    check_bytes(text)
    reader = _Reader(text, nodes_max, depth_max)
    try:
        reader.parser.Parse(text, True)
    except expat.ExpatError as error:
        raise expat_fault(error) from error
    finally:
        reader.release()
    return reader.root


class _Reader:
    """Builds the tree; each method whose name begins with ``on`` is called by expat."""

    def __init__(self, text: bytes, nodes_max: int, depth_max: int | None) -> None:
        self._text = text
        self._nodes_max = self._nodes_left = nodes_max
        self._depth_max = depth_max
        self._document = Element("", "")
        self._at = self._document
        self._depth = 0
        self._declared: dict[str, str] = {}
        self._kept: list[tuple[Element, int]] = []  # the narrative that is open, and its place
        self.parser = parser = expat.ParserCreate("utf-8", " ")
        parser.namespace_prefixes = True
        parser.buffer_text = True
        parser.buffer_size = _TEXT_BYTES
        parser.XmlDeclHandler = check_declaration
        parser.StartDoctypeDeclHandler = refuse_doctype
        parser.StartNamespaceDeclHandler = self.on_namespace
        parser.StartElementHandler = self.on_start
        parser.EndElementHandler = self.on_end
        parser.CharacterDataHandler = self.on_text
        parser.CommentHandler = self.on_comment
        parser.ProcessingInstructionHandler = self.on_instruction

    @property
    def root(self) -> Element:
        """The element of the document; expat has seen to it that there is one."""
        [root] = [one for one in self._document.children if isinstance(one, Element)]
        root.parent = None
        return root

    def release(self) -> None:
        """Let go of the handlers, which hold the reader, which holds the parser."""
        parser = self.parser
        parser.StartNamespaceDeclHandler = parser.StartElementHandler = None
        parser.EndElementHandler = parser.CharacterDataHandler = None
        parser.CommentHandler = parser.ProcessingInstructionHandler = None

    def on_namespace(self, prefix: str | None, uri: str | None) -> None:
        """Note what the element that follows declares."""
        if " " in (uri or ""):
            raise malformed(f"it has the namespace {shown(uri)}, which has a blank")
        self._declared[prefix or ""] = uri or ""

    def on_start(self, tag: str, attributes: dict[str, str]) -> None:
        """Open an element."""
        namespace, name, prefix = _split(tag)
        element = Element(namespace, name, {}, self._declared)
        prefixed = bool(prefix)
        for one, value in attributes.items():
            space, local, prefix = _split(one)
            prefixed = prefixed or prefix not in ("", "xml")
            element.attributes[f"{space} {local}" if space else local] = value
        self._declared = {}
        self._put(element)
        self._at = element
        self._depth += 1
        if self._depth_max is not None and self._depth > self._depth_max:
            raise malformed(f"its elements are nested more than {self._depth_max} levels deep")
        if prefixed:
            self._kept = []  # what stands above it says what the prefix means
        elif not self._kept and element.namespaces == {"": XHTML} and name == "div":
            self._kept = [(element, self.parser.CurrentByteIndex)]

    def on_end(self, _: str) -> None:
        """Close the element that was opened last."""
        if self._kept and self._kept[0][0] is self._at:
            [(div, start)] = self._kept
            end = element_end(self._text, start, self.parser.CurrentByteIndex)
            div.source = self._text[start:end].decode()
            self._kept = []
        assert self._at.parent is not None
        self._at = self._at.parent
        self._depth -= 1

    def on_text(self, text: str) -> None:
        """Keep text; expat tells it in one piece, but for what is longer than its buffer."""
        last = self._at.children[-1] if self._at.children else None
        if isinstance(last, Text):
            last.text += text
        else:
            self._put(Text(text))

    def on_comment(self, text: str) -> None:
        """Keep a comment."""
        self._put(Comment(text))

    def on_instruction(self, target: str, text: str) -> None:
        """Keep a processing instruction."""
        self._put(Instruction(target, text))

    def _put(self, node: Node) -> None:
        self._nodes_left -= 1
        if self._nodes_left < 0:
            text = f"The XML has over {self._nodes_max:,} nodes, which is the limit."
            raise FhirError(Issue("too-costly", text), status=_TOO_MUCH)
        node.parent = self._at
        self._at.children.append(node)


def _split(tag: str) -> tuple[str, str, str]:
    """Return namespace, name and prefix of what expat calls an element or attribute."""
    parts = tag.split(" ")
    if len(parts) == 1:
        return "", tag, ""
    return parts[0], parts[1], parts[2] if len(parts) > 2 else ""


def below(element: Element) -> Iterator[Element]:
    """Yield ``element`` and all elements in it, in the order of the document."""
    stack = [element]
    while stack:
        one = stack.pop()
        yield one
        stack += [child for child in reversed(one.children) if isinstance(child, Element)]


def copied(node: Node) -> Node:
    """Return ``node`` and what is in it, anew; its nesting is known to be bounded."""
    match node:
        case Text(text):
            return Text(text)
        case Comment(text):
            return Comment(text)
        case Instruction(target, text):
            return Instruction(target, text)
    made = Element(node.namespace, node.name, dict(node.attributes), dict(node.namespaces))
    made.source = node.source
    made.children = [copied(child) for child in node.children]
    for child in made.children:
        child.parent = made
    return made


def written(root: Element) -> bytes:
    """Return the document of ``root`` in UTF-8. What has a ``source`` is written as it was."""
    out: list[str] = []
    stack: list[str | tuple[Node, str]] = [(root, "")]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            out.append(item)
            continue
        node, default = item
        match node:
            case Text(text):
                out.append(_escaped_text(text))
            case Comment(text):
                out.append(f"<!--{text}-->")
            case Instruction(target, text):
                out.append(f"<?{target} {text}?>")
            case Element(source=str(source)):
                out.append(source)
            case Element():
                # What stands in no default namespace makes its own the default.
                declared = {} if default else {"": node.namespace}
                declared |= node.namespaces
                inner = declared.get("", default)
                name, tag = _start_tag(node, declared, inner)
                out.append(tag)
                if not node.children:
                    out.append("/>")
                    continue
                out.append(">")
                stack.append(f"</{name}>")
                stack += [(child, inner) for child in reversed(node.children)]
    return "".join(out).encode()


def _start_tag(node: Element, declared: dict[str, str], default: str) -> tuple[str, str]:
    """Return the name of ``node`` as it is written, and its start tag without the end of it.

    ``declared`` is what it declares, to which prefixes are added; ``default`` is the namespace of
    names without a prefix there.
    """
    taken = {uri: prefix for prefix, uri in declared.items() if prefix}

    def prefixed(namespace: str, name: str) -> str:
        if namespace == XML:
            return f"xml:{name}"
        if namespace not in taken:
            number = 0
            while f"n{number}" in declared:
                number += 1
            taken[namespace] = f"n{number}"
            declared[f"n{number}"] = namespace
        return f"{taken[namespace]}:{name}"

    name = node.name
    if node.namespace != default and node.namespace:
        name = prefixed(node.namespace, name)
    attributes = []
    for key, value in node.attributes.items():
        namespace, _, local = key.rpartition(" ")
        attributes.append((prefixed(namespace, local) if namespace else local, value))
    spaces = [
        (f"xmlns:{prefix}" if prefix else "xmlns", uri)
        for prefix, uri in declared.items()
        if prefix or uri
    ]
    return name, f"<{name}" + "".join(
        f' {key}="{escaped(value)}"' for key, value in (*spaces, *attributes)
    )


def _escaped_text(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("\r", "&#13;")
