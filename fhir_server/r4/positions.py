"""Where in a text an element stands: FHIRPath of an issue -> line and column.

https://hl7.org/fhir/R4/extension-operationoutcome-issue-line.html

An expression is steps with indexes, such as ``Patient.name[0].family``. What is not there, such as
a missing element, has the place of the nearest element around it. The text is one that was read
before: JSON without duplicate members, or XML without a document type.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from xml.parsers import expat

TEXT_BYTES_MAX = 8_388_608
"""In a longer text nothing is looked for; a megabyte takes half a second."""

_STEP = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:\[(\d+)\])?")
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')
_HERE = ""  # in a tree of what is wanted: the expressions that mean this very element

Position = tuple[int, int]
"""Line and column, both from 1; columns are characters."""
_Wanted = dict[Any, Any]


def positions(
    text: bytes, expressions: Iterable[str], *, inside: str = "", is_xml: bool = False
) -> Mapping[str, Position]:
    """Return the place of each of ``expressions`` in ``text``.

    ``inside`` are steps that lead to the resource that they are about, such as
    ``parameter[0].resource``.
    """
    if len(text) > TEXT_BYTES_MAX:
        return {}
    wanted: _Wanted = {}
    for one in expressions:
        node = wanted
        for step in (*_steps(inside), *_steps(one.partition(".")[2])):
            node = node.setdefault(step, {})
        node.setdefault(_HERE, []).append(one)
    return _in_xml(text, wanted) if is_xml else _in_json(text, wanted)


def _steps(path: str) -> Iterator[tuple[str, int]]:
    """Yield name and index of each step; a function ends what can be followed."""
    at = 0
    while at < len(path):
        found = _STEP.match(path, at)
        if found is None or path[found.end() : found.end() + 1] == "(":
            return
        yield found.group(1), int(found.group(2) or 0)
        at = found.end() + 1


def _below(node: _Wanted, name: str, index: int) -> _Wanted:
    """Return what is wanted below the member ``name``; ``valueQuantity`` is the element value."""
    if not node:
        return node
    found: _Wanted = {}
    for key, deeper in node.items():
        if key == _HERE or key[1] != index:
            continue
        element = key[0]
        rest = name.removeprefix("_").removeprefix(element)
        if name.removeprefix("_").startswith(element) and (not rest or rest[0].isupper()):
            found |= deeper
    return found


def _all(node: _Wanted) -> Iterator[str]:
    for key, deeper in node.items():
        if key == _HERE:
            yield from deeper
        else:
            yield from _all(deeper)


def _in_json(text: bytes, wanted: _Wanted) -> dict[str, Position]:
    offsets: dict[str, int] = {}
    # Of each container that is open: what is wanted in it, its name, the next index or None.
    stack: list[tuple[_Wanted, str, int | None]] = []
    node, name, at = wanted, "", 0
    is_key = False
    for token in _TOKEN.finditer(text):
        word, start = token.group(), token.start()
        if word in b"{[":
            above = stack[-1] if stack else None
            if above is not None and above[2] is not None:
                node, at = _below(above[0], above[1], above[2]), start
            _note(offsets, node, at if word == b"{" else start)
            if word == b"{":
                stack.append((node, "", None))
                is_key = True
            else:  # the items are asked for below the object that has the array
                parent = stack[-1][0] if stack else {}
                stack.append((parent, name, 0))
        elif word in b"}]":
            stack.pop()
        elif word == b",":
            parent, name_of, index = stack[-1]
            if index is not None:
                stack[-1] = (parent, name_of, index + 1)
            is_key = index is None
        elif word == b":":
            is_key = False
        elif is_key:
            name, at = word[1:-1].decode(errors="replace"), start
            node = _below(stack[-1][0], name, 0)
        else:
            above = stack[-1]
            if above[2] is not None:
                node, at = _below(above[0], above[1], above[2]), start
            _note(offsets, node, at)
    return _lines(text, offsets)


def _note(offsets: dict[str, int], node: _Wanted, at: int) -> None:
    """Note that all that is wanted in or below ``node`` is here, or deeper as far as is known."""
    if node:
        for expression in _all(node):
            offsets[expression] = at


def _lines(text: bytes, offsets: Mapping[str, int]) -> dict[str, Position]:
    found: dict[str, Position] = {}
    line, begin, seen = 1, 0, 0
    for expression, at in sorted(offsets.items(), key=lambda item: item[1]):
        line += text.count(b"\n", seen, at)
        begin = text.rfind(b"\n", 0, at) + 1
        seen = at
        found[expression] = line, len(text[begin:at].decode(errors="replace")) + 1
    return found


def _in_xml(text: bytes, wanted: _Wanted) -> dict[str, Position]:
    found: dict[str, Position] = {}
    stack: list[tuple[_Wanted, dict[str, int]]] = []
    parser = expat.ParserCreate()

    def start(name: str, _: Mapping[str, str]) -> None:
        name = name.rpartition(":")[2]
        if not stack:
            node = wanted
        elif name[:1].isupper():  # the resource inside contained, resource and the like
            node = stack[-1][0]
        else:
            above, counts = stack[-1]
            index = counts[name] = counts.get(name, -1) + 1
            node = _below(above, name, index)
        if node:
            here = parser.CurrentLineNumber, parser.CurrentColumnNumber + 1
            found.update(dict.fromkeys(_all(node), here))
        stack.append((node, {}))

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: stack.pop()
    try:
        parser.Parse(text, True)
    except expat.ExpatError:
        return {}
    return found
