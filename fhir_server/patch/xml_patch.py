"""XML Patch: a list of operations on the XML of a resource.

https://hl7.org/fhir/R4/http.html#patch, https://www.rfc-editor.org/rfc/rfc5261 and, for the media
type, https://www.rfc-editor.org/rfc/rfc7351

All operations succeed, or nothing is changed: they work on a tree that is thrown away. What a
refusal says ends with the RFC's own name of the error (5261, section 5.1).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import re2 as re

from fhir_server.outcome import shown
from fhir_server.patch.bounds import Bounds, inapplicable, malformed, too_many
from fhir_server.patch.xml_selectors import (
    Attribute,
    Located,
    Namespace,
    Search,
    Selector,
    selector,
)
from fhir_server.patch.xml_tree import (
    XML,
    Comment,
    Element,
    Instruction,
    Node,
    Text,
    copied,
    tree,
)
from fhir_server.r4.xml_tables import FHIR, XHTML

RFC_7351 = "urn:ietf:rfc:7351"
_ROOTS = ("patch", "diff")
_NAMESPACES = ("", FHIR, RFC_7351)  # of the operations; what is in none of FHIR's is FHIR
# What a prefix means where the patch does not declare it.
_PREFIXES = {"xml": XML, "f": FHIR, "fhir": FHIR, "h": XHTML, "xhtml": XHTML}
_ATTRIBUTES = {
    "add": ("sel", "pos", "type"),
    "replace": ("sel",),
    "remove": ("sel", "ws"),
}
_VALUES = {
    "pos": ("prepend", "before", "after"),
    "ws": ("before", "after", "both"),
}
_NODES_MAX = 100_000
_DEPTH_MAX = 200  # of the patch; what is added is copied by a function that calls itself
_LOOKS_MAX = 1_000_000  # nodes that all selectors of one patch look at; a look costs under 1 µs
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*")
_BLANK = " \t\r\n"


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation; ``what`` names it for messages. ``type`` is the attribute (``namespace name``)
    or the prefix that an *add* adds, with ``@`` or ``:`` before it; ``where`` is its ``pos`` or
    ``ws``."""

    what: str
    op: str
    sel: Selector
    type: str = ""
    where: str = ""
    content: tuple[Node, ...] = ()

    @property
    def text(self) -> str:
        """The content where it is text."""
        return "".join(one.text for one in self.content if isinstance(one, Text))


def document(text: bytes, bounds: Bounds) -> Element:
    """Return the XML Patch ``text`` as a tree. Raises status 400 for what is none, 413 for too
    much."""
    if len(text) > bounds.bytes_max:
        raise too_many("bytes", len(text), bounds.bytes_max)
    root = tree(text, nodes_max=_NODES_MAX, depth_max=_DEPTH_MAX)
    if root.name not in _ROOTS or root.namespace not in _NAMESPACES:
        why = f"its element is {shown(root.name)}; expected patch or diff (invalid-diff-format)."
        raise malformed("The XML Patch", why)
    return root


def operations(root: Element, bounds: Bounds) -> tuple[Operation, ...]:
    """Return the operations of the XML Patch ``root``, with what they add copied.

    Raises status 400, naming the operation, for what is no XML Patch; 413 for too many operations.
    """
    found = []
    for one in root.children:
        if isinstance(one, Element):
            found.append(one)
        elif isinstance(one, Text) and one.text.strip(_BLANK):
            why = f"it has the text {shown(one.text.strip(_BLANK))} (invalid-diff-format)."
            raise malformed("The XML Patch", why)
    if not found:
        raise malformed("The XML Patch", "it has no operation (invalid-diff-format).")
    if len(found) > bounds.operations_max:
        raise too_many("operations", len(found), bounds.operations_max)
    return tuple(_operation(index, one, root) for index, one in enumerate(found))


def patched(root: Element, wanted: tuple[Operation, ...]) -> Element:
    """Return what ``wanted`` make of the document of ``root``, which is changed.

    Raises ``processing`` (422), naming the operation, where a selector locates nothing or several
    nodes, or what cannot be changed so.
    """
    work = _Work(root, Search(_LOOKS_MAX))
    for operation in wanted:
        try:
            _APPLY[operation.op](work, operation, work.target(operation))
        except ValueError as error:
            raise inapplicable(operation.what, f"{error}.") from error
    return work.root


# ------------------------------------------------------------------------------ what is asked for


def _operation(index: int, element: Element, root: Element) -> Operation:
    what = f"Operation [{index}] of the patch"
    op = element.name
    if op not in _ATTRIBUTES or element.namespace != root.namespace:
        expected = ", ".join(_ATTRIBUTES)
        why = f"it is {shown(op)}; expected one of {expected}, in the namespace of the patch "
        raise malformed(what, f"{why}(invalid-patch-directive).", code="value")
    given = element.attributes
    if "sel" not in given:
        raise malformed(what, "it needs a sel (invalid-patch-directive).", code="required")
    what = f"{what} ({op} {shown(given['sel'])})"
    for name, value in given.items():
        if name not in _ATTRIBUTES[op]:
            why = f"it has the attribute {shown(name)} (invalid-patch-directive)."
            raise malformed(what, why)
        if name in _VALUES and value not in _VALUES[name]:
            expected = ", ".join(_VALUES[name])
            why = f"its {name} is {shown(value)}; expected one of {expected} "
            raise malformed(what, f"{why}(invalid-attribute-value).", code="value")
    namespaces = {**_PREFIXES, **root.namespaces, **element.namespaces}
    if namespaces.get("", "") in _NAMESPACES:
        namespaces[""] = FHIR
    try:
        sel = selector(given["sel"], namespaces)
        type = _type(given.get("type", ""), namespaces)
    except ValueError as error:
        raise malformed(what, f"{error}.", code="value") from error
    where = given.get("pos") or given.get("ws", "")
    content = tuple(_as_fhir(copied(one)) for one in element.children)
    _check_content(what, op, type, where, content)
    return Operation(what, op, sel, type, where, content)


def _type(text: str, namespaces: Mapping[str, str]) -> str:
    """Return what the ``type`` of an *add* says: ``@`` and an attribute, ``:`` and a prefix."""
    if not text:
        return ""
    prefix, _, name = text.removeprefix("@").rpartition(":")
    if text.startswith("@") and _NAME.fullmatch(name):
        if prefix and prefix not in namespaces:
            raise ValueError(
                f"the prefix {shown(prefix)} is not declared (invalid-namespace-prefix)"
            )
        return f"@{namespaces[prefix]} {name}" if prefix else f"@{name}"
    name = text.removeprefix("namespace::")
    if name != text and _NAME.fullmatch(name) and not name.lower().startswith("xml"):
        return f":{name}"
    raise ValueError(
        f"its type is {shown(text)}; expected @ and the name of an attribute, or namespace:: and a "
        "prefix (invalid-attribute-value)"
    )


def _as_fhir(node: Node) -> Node:
    """Return ``node`` with what is in no namespace of a vocabulary put into FHIR's: nothing in a
    resource is in none."""
    stack = [node]
    while stack:
        one = stack.pop()
        if isinstance(one, Element):
            if one.namespace in _NAMESPACES:
                one.namespace = FHIR
            if one.namespaces.get("") != one.namespace:
                one.namespaces.pop("", None)
            stack += one.children
    return node


def _check_content(what: str, op: str, type: str, where: str, content: tuple[Node, ...]) -> None:
    if op == "remove" and any(not _is_blank(one) for one in content):
        raise malformed(what, "it removes, and has a content (invalid-patch-directive).")
    if op == "add" and not type and not content:
        raise malformed(what, "it has nothing to add (invalid-patch-directive).", code="required")
    if type and (where or any(not isinstance(one, Text) for one in content)):
        why = "with a type it has text only, and no pos (invalid-patch-directive)."
        raise malformed(what, why)
    if type.startswith(":") and not content:
        raise malformed(what, "its namespace is empty (invalid-namespace-uri).", code="required")


def _is_blank(node: Node) -> bool:
    return isinstance(node, Comment) or (isinstance(node, Text) and not node.text.strip(_BLANK))


# ------------------------------------------------------------------------------ what becomes of it


@dataclass(slots=True)
class _Work:
    """The document while it is changed."""

    root: Element
    search: Search

    def target(self, operation: Operation) -> Located:
        """Return the one node that ``operation`` names."""
        found = self.search.located(operation.sel, self.root)
        if not found:
            raise ValueError("it locates nothing (unlocated-node)")
        if len(found) > 1:
            raise ValueError(f"it locates {len(found):,} nodes; name one of them (unlocated-node)")
        return found[0]

    def insert(self, parent: Element, place: int, content: tuple[Node, ...]) -> None:
        """Put copies of ``content`` there: the patch may be applied again."""
        self.search.copying(parent.insert(place, [copied(one) for one in content]))

    def remove(self, node: Node) -> None:
        """Take ``node`` out of its parent."""
        assert node.parent is not None
        self.search.copying(node.parent.remove(node))

    def replace(self, node: Node, content: tuple[Node, ...]) -> None:
        """Put copies of ``content`` in the place of ``node``."""
        parent = node.parent
        if parent is None:
            [one] = content
            new = copied(one)
            assert isinstance(new, Element)
            self.root = new
            return
        place = parent.children.index(node)
        parent.children[place : place + 1] = []
        self.insert(parent, place, content)


def _add(work: _Work, operation: Operation, target: Located) -> None:
    if operation.where in ("before", "after"):
        if isinstance(target, Attribute | Namespace):
            raise ValueError("nothing stands beside an attribute (invalid-node-types)")
        if target.parent is None:
            raise ValueError("a document has one element (invalid-root-element-operation)")
        place = target.parent.children.index(target) + (operation.where == "after")
        work.insert(target.parent, place, operation.content)
        return
    if not isinstance(target, Element):
        raise ValueError("only an element can hold what is added (invalid-node-types)")
    sign, name = operation.type[:1], operation.type[1:]
    if not sign:
        place = 0 if operation.where == "prepend" else len(target.children)
        work.insert(target, place, operation.content)
        return
    if name in (target.attributes if sign == "@" else target.namespaces):
        raise ValueError(f"{shown(name)} is there already; replace it (invalid-patch-directive)")
    if sign == "@":
        target.attributes[name] = operation.text
    else:
        target.namespaces[name] = operation.text
    target.changed()


def _replace(work: _Work, operation: Operation, target: Located) -> None:
    if isinstance(target, Attribute | Namespace | Text):
        if any(not isinstance(one, Text) for one in operation.content):
            raise ValueError("it is replaced by text only (invalid-node-types)")
        match target:
            case Attribute(owner, key):
                owner.attributes[key] = operation.text
                owner.changed()
            case Namespace(owner, prefix):
                if not operation.text:
                    raise ValueError("its namespace would be empty (invalid-namespace-uri)")
                owner.namespaces[prefix] = operation.text
                owner.changed()
            case Text():
                work.replace(target, operation.content)
        return
    kind = type(target)
    content = tuple(one for one in operation.content if isinstance(one, kind))
    rest = [one for one in operation.content if not isinstance(one, kind)]
    if len(content) != 1 or not all(_is_blank(one) for one in rest):
        name = {Element: "element", Comment: "comment"}.get(kind, "processing instruction")
        raise ValueError(f"it is replaced by one {name} (invalid-node-types)")
    work.replace(target, content)


def _remove(work: _Work, operation: Operation, target: Located) -> None:
    if isinstance(target, Attribute | Namespace | Text) and operation.where:
        raise ValueError("ws is for elements and comments (invalid-whitespace-directive)")
    match target:
        case Attribute(owner, key):
            del owner.attributes[key]
            owner.changed()
        case Namespace(owner, prefix):
            del owner.namespaces[prefix]
            owner.changed()
        case Element(parent=None):
            raise ValueError("a document has one element (invalid-root-element-operation)")
        case Element() | Text() | Comment() | Instruction():
            for blank in _blanks(operation, target):
                assert target.parent is not None
                target.parent.children.remove(blank)
            work.remove(target)


def _blanks(operation: Operation, target: Node) -> list[Node]:
    """Return the text before and behind ``target`` that goes with it; it must be blank."""
    assert target.parent is not None
    siblings = target.parent.children
    place = siblings.index(target)
    sides = {"before": place - 1, "after": place + 1}
    found = []
    for side, at in sides.items():
        if operation.where in (side, "both"):
            blank = siblings[at] if 0 <= at < len(siblings) else None
            if not isinstance(blank, Text) or blank.text.strip(_BLANK):
                raise ValueError(f"there is no blank text {side} it (invalid-whitespace-directive)")
            found.append(blank)
    return list(found)


_APPLY: Mapping[str, Callable[[_Work, Operation, Located], None]] = {
    "add": _add,
    "replace": _replace,
    "remove": _remove,
}
