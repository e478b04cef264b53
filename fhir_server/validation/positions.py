"""Where in the text of a resource an expression is: line and column, for JSON and XML.

https://hl7.org/fhir/R4/extension-operationoutcome-issue-line.html

It reads the text again, so it is for resources that have issues, not for all.
"""

import json
import re
from collections.abc import Mapping
from typing import Any
from xml.parsers import expat

from fhir_server.validation.ordering import member_of, steps_of_expression

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BLANK = re.compile(r"[ \t\r\n]*")
_SCALAR = re.compile(r"[^ \t\r\n,\]}]+")
_DEPTH_MAX = 400
_Spans = Mapping[tuple[Any, ...], int]


def position(text: bytes, expression: str) -> tuple[int, int] | None:
    """Return line and column, from 1, of what ``expression`` names, or of what is nearest above.

    ``text`` is a resource in JSON or XML; ``None`` where it is neither.

    >>> position(b'{"resourceType": "Patient",\\n "active": true}', "Patient.active")
    (2, 2)
    """
    return positions(text, [expression])[0]


def positions(text: bytes, expressions: list[str]) -> list[tuple[int, int] | None]:
    """Return the positions of several expressions; the text is read once."""
    is_xml = text.lstrip()[:1] == b"<"
    try:
        return _in_xml(text, expressions) if is_xml else _in_json(text, expressions)
    except (ValueError, RecursionError, expat.ExpatError):
        return [None] * len(expressions)


def _in_json(text: bytes, expressions: list[str]) -> list[tuple[int, int] | None]:
    decoded = text.decode()
    value = json.loads(decoded, parse_int=str, parse_float=str)
    spans = _Scanner(decoded).spans()
    return [_line_and_column(decoded, _nearest(spans, value, one)) for one in expressions]


def _nearest(spans: _Spans, value: Any, expression: str) -> int:
    """Return the offset of the deepest member on the way that the text has."""
    path: tuple[Any, ...] = ()
    for name, index in steps_of_expression(expression):
        key = member_of(value, name) if isinstance(value, dict) else None
        if key is None:
            break
        path, value = (*path, key), value[key]
        if index is not None:
            if not isinstance(value, list) or index >= len(value):
                break
            path, value = (*path, index), value[index]
    return spans.get(path, 0)


def _line_and_column(text: str, offset: int) -> tuple[int, int]:
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


class _Scanner:
    """Notes where each member and each item of a JSON text begins; the text is valid JSON."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._spans: dict[tuple[Any, ...], int] = {}

    def spans(self) -> _Spans:
        self._value(self._blank(0), (), 0)
        return self._spans

    def _blank(self, at: int) -> int:
        found = _BLANK.match(self._text, at)
        return found.end() if found is not None else at

    def _value(self, at: int, path: tuple[Any, ...], depth: int) -> int:
        """Note the value at ``at`` and return where it ends."""
        if depth > _DEPTH_MAX:
            raise ValueError("nested too deeply")
        self._spans.setdefault(path, at)
        first = self._text[at : at + 1]
        if first == "{":
            return self._members(at, path, depth)
        if first == "[":
            return self._items(at, path, depth)
        found = (_STRING if first == '"' else _SCALAR).match(self._text, at)
        if found is None:
            raise ValueError("no JSON")
        return found.end()

    def _members(self, at: int, path: tuple[Any, ...], depth: int) -> int:
        at = self._blank(at + 1)
        while self._text[at : at + 1] == '"':
            found = _STRING.match(self._text, at)
            if found is None:
                raise ValueError("no JSON")
            below = (*path, json.loads(found.group()))
            self._spans[below] = at
            at = self._value(self._blank(self._blank(found.end()) + 1), below, depth + 1)
            at = self._blank(at)
            if self._text[at : at + 1] == ",":
                at = self._blank(at + 1)
        return at + 1

    def _items(self, at: int, path: tuple[Any, ...], depth: int) -> int:
        at, index = self._blank(at + 1), 0
        while at < len(self._text) and self._text[at] != "]":
            at = self._blank(self._value(at, (*path, index), depth + 1))
            index += 1
            if self._text[at : at + 1] == ",":
                at = self._blank(at + 1)
        return at + 1


def _in_xml(text: bytes, expressions: list[str]) -> list[tuple[int, int] | None]:
    """Find elements by name and number; a resource inside an element is no step of its own."""
    if b"<!DOCTYPE" in text:
        return [None] * len(expressions)
    wanted = [_xml_steps(one) for one in expressions]
    found = _XmlPlaces(text).places
    return [_deepest(found, steps) for steps in wanted]


def _xml_steps(expression: str) -> list[tuple[str, int]]:
    return [(name, index or 0) for name, index in steps_of_expression(expression)]


class _XmlPlaces:
    """Where each element begins, by the names above it and its number among those of its name."""

    def __init__(self, text: bytes) -> None:
        self.places: dict[tuple[tuple[str, int], ...], tuple[int, int]] = {}
        self._path: list[tuple[str, int]] = []
        self._kinds: list[bool] = []
        self._counts: list[dict[str, int]] = [{}]
        self._parser = expat.ParserCreate()
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.Parse(text, True)

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        name = tag.rpartition(":")[2]
        is_step = bool(self._kinds) and not name[:1].isupper()
        self._kinds.append(is_step)
        if len(self._kinds) > _DEPTH_MAX:
            raise ValueError("nested too deeply")
        if is_step:
            counts = self._counts[-1]
            number = counts.get(name, 0)
            counts[name] = number + 1
            self._path.append((name, number))
            self._counts.append({})
        place = (self._parser.CurrentLineNumber, self._parser.CurrentColumnNumber + 1)
        self.places.setdefault(tuple(self._path), place)

    def _end(self, tag: str) -> None:
        if self._kinds.pop():
            self._path.pop()
            self._counts.pop()


def _deepest(
    places: Mapping[tuple[tuple[str, int], ...], tuple[int, int]], steps: list[tuple[str, int]]
) -> tuple[int, int] | None:
    path: tuple[tuple[str, int], ...] = ()
    for name, number in steps:
        below = (*path, (name, number))
        if below not in places:
            choices = _choices(places, path, name)
            if not choices:
                break
            below = (*path, (choices[0], 0))
        path = below
    return places.get(path)


def _choices(places: Mapping[Any, Any], path: tuple[Any, ...], name: str) -> list[str]:
    """Return the names of a choice right below ``path`` that begin with ``name``."""
    depth = len(path)
    return [
        one[depth][0]
        for one in places
        if len(one) == depth + 1
        and one[:depth] == path
        and one[depth][0].startswith(name)
        and one[depth][0][len(name) : len(name) + 1].isupper()
    ]
