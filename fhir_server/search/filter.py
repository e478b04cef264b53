"""The syntax of ``_filter``: text -> a tree of tests.

https://hl7.org/fhir/R4/search_filter.html

=========================  =====================================================
``name co "pet"``          parameter, operator, value: JSON string or bare word
``subject.name sw "pet"``  the same of what a reference leads to; ``subject:Patient`` of a type
``a[b eq 1].c eq 2``       of one and the same target, or part of a composite: ``b`` and ``c``
``a eq 1 and b eq 2``      ``and``, ``or``: from left to right, none before the other
``not (a eq 1)``           what the parenthesis does not find
=========================  =====================================================
"""

import json
import re
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
_TYPE = re.compile(r":([A-Za-z]+)(?=[.\[])")
_NOT = re.compile(r"not\s*\(")
_JOINED = re.compile(r"(and|or)(?=[\s(]|$)")
_OPERATOR = re.compile(r"\s+([a-z]{2})\s+")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_WORD = re.compile(r'[^\s)\]"][^\s)\]]*')


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a path before the last: a parameter, the ``type`` that it is to lead to, and what
    else is true of what it leads to."""

    name: str
    type: str
    below: "Test | Not | Joined | None"


@dataclass(frozen=True, slots=True)
class Test:
    """A parameter compared with a value, at the end of ``path``. ``column`` is where it begins."""

    name: str
    operator: str
    value: str
    column: int
    path: tuple[Step, ...] = ()


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

    Raises ``value`` with the column for what is not in the grammar, is too deep or too long.
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
            return Not(self._in_parentheses(depth))
        if self._text[self._at : self._at + 1] == "(":
            self._at += 1
            return self._in_parentheses(depth)
        found = self._test(depth)
        self._take(_SPACE)
        return found

    def _closed(self, depth: int, end: str, what: str) -> Tree:
        found = self._filter(depth + 1)
        if self._text[self._at : self._at + 1] != end:
            raise self._expected(what)
        self._at += 1
        return found

    def _in_parentheses(self, depth: int) -> Tree:
        found = self._closed(depth, ")", "a closing parenthesis")
        self._take(_SPACE)
        return found

    def _test(self, depth: int) -> Test:
        column = self._at + 1
        path: list[Step] = []
        name = self._name()
        while self._text[self._at : self._at + 1] in (".", "[", ":"):
            path.append(self._step(name, depth))
            name = self._name()
        operator = self._take(_OPERATOR)
        if not operator or operator[1] not in OPERATORS:
            if operator:
                self._at = operator.start(1)
            raise self._expected(f"one of {', '.join(OPERATORS)}")
        self._tests += 1
        if self._tests > _TESTS_MAX:
            raise self._expected(f"at most {_TESTS_MAX} tests")
        return Test(name, operator[1], self._value(), column, tuple(path))

    def _name(self) -> str:
        name = self._take(_NAME)
        if not name:
            raise self._expected("the name of a search parameter")
        return name[0]

    def _step(self, name: str, depth: int) -> Step:
        """Return the step that ``name`` begins; what follows it is read up to the point."""
        type = self._take(_TYPE)
        below: Tree | None = None
        if self._text[self._at : self._at + 1] == "[":
            self._at += 1
            below = self._closed(depth, "]", "a closing bracket")
        if self._text[self._at : self._at + 1] != ".":
            raise self._expected("a point and the name of a search parameter")
        self._at += 1
        return Step(name, type[1] if type else "", below)

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
