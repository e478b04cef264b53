"""The syntax of ``_filter``: text -> a tree of tests.

https://hl7.org/fhir/R4/search_filter.html

=========================  =====================================================
``name co "pet"``          parameter, operator, value: JSON string or bare word
``a eq 1 and b eq 2``      ``and``, ``or``: from left to right, none before the other
``not (a eq 1)``           what the parenthesis does not find
=========================  =====================================================

Paths into other resources (``subject.name``) and into elements (``related[type eq x].target``) are
read, and refused: nothing answers them yet.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from fhir_server.outcome import FhirError, Issue, shown

OPERATORS = (
    *("eq", "ne", "co", "sw", "ew", "gt", "lt", "ge", "le"),
    *("ap", "sa", "eb", "pr", "po", "ss", "sb", "in", "ni", "re"),
)
_TESTS_MAX = 100
_DEPTH_MAX = 10

_SPACE = re.compile(r"\s*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_\-]*")
_NOT = re.compile(r"not\s*\(")
_JOINED = re.compile(r"(and|or)(?=[\s(]|$)")
_OPERATOR = re.compile(r"\s+([a-z]{2})\s+")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_WORD = re.compile(r'[^\s)\]"][^\s)\]]*')


@dataclass(frozen=True, slots=True)
class Test:
    """A parameter compared with a value. ``column`` is where the parameter's name begins."""

    name: str
    operator: str
    value: str
    column: int


@dataclass(frozen=True, slots=True)
class Not:
    """What ``below`` does not find."""

    below: "Test | Not | Joined"


@dataclass(frozen=True, slots=True)
class Joined:
    """Several trees, with ``and`` or ``or`` between all of them."""

    word: str
    below: tuple["Test | Not | Joined", ...]


Tree = Test | Not | Joined


def refused(code: str, text: str, column: int) -> FhirError:
    """Return the refusal of what stands at ``column``, counted from 1."""
    return FhirError(Issue(code, f"_filter, column {column}: {text}"), status=400)


def filter_tree(text: str) -> Tree:
    """Return the tree that ``text`` writes.

    Raises ``value`` with the column for what is not in the grammar, is too deep or too long, and
    ``not-supported`` for paths.
    """
    return _Reader(text).whole()


class _Reader:
    """Reads one filter, by recursive descent."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._tests = 0

    def whole(self) -> Tree:
        """Return the tree of the whole text."""
        found = self._filter(0)
        if self._at < len(self._text):
            raise self._expected("and, or, or the end")
        return found

    def _expected(self, what: str, code: str = "value") -> FhirError:
        here = self._text[self._at :][:20] or "the end"
        return refused(code, f"expected {what}, found {shown(here)}.", self._at + 1)

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self._text, self._at)
        if found:
            self._at = found.end()
        return found

    def _filter(self, depth: int) -> Tree:
        if depth > _DEPTH_MAX:
            raise self._expected(f"at most {_DEPTH_MAX} parentheses inside each other")
        found = self._one(depth)
        while joined := self._take(_JOINED):
            self._take(_SPACE)
            other = self._one(depth)
            if isinstance(found, Joined) and found.word == joined[1]:
                found = Joined(joined[1], (*found.below, other))
            else:
                found = Joined(joined[1], (found, other))
        return found

    def _one(self, depth: int) -> Tree:
        self._take(_SPACE)
        if self._take(_NOT):
            return Not(self._closed(depth))
        if self._text[self._at : self._at + 1] == "(":
            self._at += 1
            return self._closed(depth)
        found = self._test()
        self._take(_SPACE)
        return found

    def _closed(self, depth: int) -> Tree:
        found = self._filter(depth + 1)
        if self._text[self._at : self._at + 1] != ")":
            raise self._expected("a closing parenthesis")
        self._at += 1
        self._take(_SPACE)
        return found

    def _test(self) -> Test:
        column = self._at + 1
        name = self._take(_NAME)
        if not name:
            raise self._expected("the name of a search parameter")
        if self._text[self._at : self._at + 1] in (".", "[", ":"):
            raise refused("not-supported", "a path in a filter is not served yet.", self._at + 1)
        operator = self._take(_OPERATOR)
        if not operator or operator[1] not in OPERATORS:
            if operator:
                self._at = operator.start(1)
            raise self._expected(f"one of {', '.join(OPERATORS)}")
        self._tests += 1
        if self._tests > _TESTS_MAX:
            raise self._expected(f"at most {_TESTS_MAX} tests")
        return Test(name[0], operator[1], self._value(), column)

    def _value(self) -> str:
        start = self._at
        if quoted := self._take(_STRING):
            try:
                value: str = json.loads(quoted[0])
                value.encode()
            except ValueError as error:  # an escape that JSON does not have, half a character
                self._at = start
                raise self._expected("a JSON string") from error
            if value:
                return value
        elif word := self._take(_WORD):
            return word[0]
        self._at = start
        raise self._expected("a value")


def walked(tree: Tree, leaf: Callable[[Test], dict[str, object]]) -> dict[str, object]:
    """Return the MongoDB filter of ``tree``; ``leaf`` makes those of its tests."""
    match tree:
        case Not(below):
            return {"$nor": [walked(below, leaf)]}
        case Joined(word, parts):
            return {f"${word}": [walked(part, leaf) for part in parts]}
        case Test():
            return leaf(tree)
