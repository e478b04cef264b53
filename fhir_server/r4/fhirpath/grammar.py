"""The grammar of FHIRPath: text -> syntax tree. One parser for all that is written in FHIRPath.

http://hl7.org/fhirpath/N1/#grammar
"""

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

from fhir_server.outcome import shown
from fhir_server.r4.fhirpath.faults import FhirPathError
from fhir_server.r4.fhirpath.tree import (
    Amount,
    Binary,
    Call,
    Empty,
    Index,
    Literal,
    Member,
    Moment,
    Name,
    Node,
    Sign,
    Typed,
    Variable,
)

CHARACTERS_MAX = 20_000  # the longest of R4 has 900; a table of steps is made of each
NESTING_MAX = 50  # the deepest of R4 has 8; the parser must not run out of stack
_NUMBER_DIGITS_MAX = 40

# Something matches behind each blank and comment, so that nothing is ever tried again. (Possessive
# quantifiers would say so, but Python up to 3.11.3 loses its place in them.)
_TOKEN = re.compile(
    r"""(?:\s|//[^\n]*|/\*[\s\S]*?\*/)*(?:
    (?P<name>\$(?:this|index|total)\b|[A-Za-z_][A-Za-z0-9_]*)
    |`(?P<quoted>(?:[^`\\]|\\.)*)`
    |'(?P<string>(?:[^'\\]|\\[\s\S])*)'
    |@(?P<moment>T[0-9]{2}(?::[0-9]{2}){0,2}(?:\.[0-9]+)?
        |[0-9]{4}(?:-[0-9]{2}){0,2}
            (?:T(?:[0-9]{2}(?::[0-9]{2}){0,2}(?:\.[0-9]+)?(?:Z|[+-][0-9]{2}:[0-9]{2})?)?)?)
    |(?P<number>[0-9]+(?:\.[0-9]+)?)
    |(?P<open>/\*)
    |(?P<sign>!=|!~|<=|>=|[.()\[\]{},|=~<>+\-*/&%])
    |(?P<end>\Z)
    |(?P<other>\S)
    )""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|[\s\S])")
_ESCAPED = dict(zip("'\"`\\/fnrt", "'\"`\\/\f\n\r\t", strict=True))

# Operator -> how tightly it binds. A type is behind `is` and `as`.
_BINDS = {
    **dict.fromkeys(("*", "/", "div", "mod"), 10),
    **dict.fromkeys(("+", "-", "&"), 9),
    **dict.fromkeys(("is", "as"), 8),
    "|": 7,
    **dict.fromkeys(("<=", "<", ">", ">="), 6),
    **dict.fromkeys(("=", "~", "!=", "!~"), 5),
    **dict.fromkeys(("in", "contains"), 4),
    "and": 3,
    **dict.fromkeys(("xor", "or"), 2),
    "implies": 1,
}
_OPERATOR_WORDS = frozenset(word for word in _BINDS if word.isalpha())
_NAMES_TOO = frozenset(("as", "contains", "in", "is"))  # operators that may also be names
# Written as calls, read as operators: x.as(T), x.ofType(T), x.is(T).
_TYPE_CALLS = {"as": "as", "ofType": "as", "is": "is"}
_UNITS = {
    plural: unit
    for unit in ("year", "month", "week", "day", "hour", "minute", "second", "millisecond")
    for plural in (unit, unit + "s")
}


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


def expression(text: str) -> Node:
    """Return the tree of ``text``.

    Raises :class:`FhirPathError`, with the position, for what is outside the grammar or too large.
    """
    if len(text) > CHARACTERS_MAX:
        raise FhirPathError(f"An expression may have {CHARACTERS_MAX:,} characters at most.")
    parser = _Parser([*_tokens(text), _Token("end", "", len(text))])
    node = parser.expression()
    parser.end()
    return node


def calendar_unit(word: str) -> str:
    """Return ``day`` for ``day`` and ``days``; ``""`` for what is no unit of the calendar."""
    return _UNITS.get(word, "")


def _tokens(text: str) -> Iterator[_Token]:
    """Yield the tokens; blanks and comments are between them."""
    for found in _TOKEN.finditer(text):
        kind = found.lastgroup or ""
        at = found.start(kind)
        word = found.group(kind)
        if kind == "end":
            return
        if kind == "open":
            raise FhirPathError("a comment is not closed", at)
        if kind == "other":
            raise FhirPathError(_UNFINISHED.get(word, f"{shown(word)} is not expected"), at)
        if kind in ("string", "quoted"):
            word = _unescaped(word, at)
        yield _Token(kind, word, at)


_UNFINISHED = {
    "'": "a string is not closed",
    "`": "a name in backticks is not closed",
    "@": "behind @ is a date or a time, such as @2015-02-04 or @T14:30",
}


def _unescaped(text: str, at: int) -> str:
    def one(found: re.Match[str]) -> str:
        code = found[1]
        if code[0] == "u" and len(code) > 1:
            return chr(int(code[1:], 16))
        if code not in _ESCAPED:
            raise FhirPathError(f"{shown(found[0])} is no escape", at + found.start())
        return _ESCAPED[code]

    if "\\" not in text:
        return text
    # Two escapes of a surrogate pair are one character.
    read = _ESCAPE.sub(one, text)
    return read.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class _Parser:
    """Recursive descent for terms, a table of binding powers for operators."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def end(self) -> None:
        """Refuse what is behind the end of an expression."""
        if self._next.kind != "end":
            raise self._unexpected("the end")

    def expression(self, loosest: int = 1) -> Node:
        """Return an expression whose operators bind at least as tightly as ``loosest``."""
        self._depth += 1
        if self._depth > NESTING_MAX:
            raise FhirPathError(f"it is nested more than {NESTING_MAX} levels deep", self._next.at)
        node = self._signed()
        while (power := self._power()) >= loosest:
            operator = self._take()
            if operator.text in ("is", "as"):
                node = Typed(operator.text, node, *self._type(), operator.at)
            else:
                node = Binary(operator.text, node, self.expression(power + 1), operator.at)
        self._depth -= 1
        return node

    def _power(self) -> int:
        token = self._next
        return _BINDS.get(token.text, 0) if token.kind in ("sign", "name") else 0

    def _signed(self) -> Node:
        signs: list[_Token] = []
        while self._next.kind == "sign" and self._next.text in "+-":
            signs.append(self._take())
        if len(signs) > NESTING_MAX:
            raise FhirPathError(f"it has more than {NESTING_MAX} signs in a row", signs[0].at)
        node = self._path()
        for sign in reversed(signs):
            node = Sign(sign.text, node, sign.at)
        return node

    def _path(self) -> Node:
        node = self._term()
        while self._next.kind == "sign" and self._next.text in (".", "["):
            sign = self._take()
            if sign.text == ".":
                node = self._step(node)
            else:
                node = Index(node, self.expression(), sign.at)
                self._expect("]")
        return node

    def _term(self) -> Node:
        kind, text, at = self._next
        if kind == "string":
            self._take()
            return Literal(text, at)
        if kind == "number":
            return self._number()
        if kind == "moment":
            self._take()
            return Moment(text, at)
        if kind == "name" and text in ("true", "false"):
            self._take()
            return Literal(text == "true", at)
        if kind == "sign":
            return self._bracketed()
        if kind == "name" and text in _OPERATOR_WORDS - _NAMES_TOO:
            raise self._unexpected("a term")
        return self._step(None)

    def _bracketed(self) -> Node:
        at = self._next.at
        if self._taken("("):
            node = self.expression()
            self._expect(")")
            return node
        if self._taken("{"):
            self._expect("}")
            return Empty(at)
        if self._taken("%"):
            if self._next.kind not in ("name", "quoted", "string"):
                raise self._unexpected("a name")
            return Variable(self._take().text, at)
        raise self._unexpected("a term")

    def _number(self) -> Node:
        _, text, at = self._take()
        if len(text) > _NUMBER_DIGITS_MAX:
            raise FhirPathError(f"a number has {_NUMBER_DIGITS_MAX} digits at most", at)
        if self._next.kind == "string":
            return Amount(Decimal(text), self._take().text, False, at)
        if self._next.kind == "name" and self._next.text in _UNITS:
            return Amount(Decimal(text), _UNITS[self._take().text], True, at)
        return Literal(Decimal(text) if "." in text else int(text), at)

    def _step(self, source: Node | None) -> Node:
        kind, name, at = self._next
        if kind not in ("name", "quoted"):
            raise self._unexpected("a name")
        self._take()
        if not self._taken("("):
            return Name(name, at) if source is None else Member(source, name, at)
        if name in _TYPE_CALLS and kind == "name":
            node: Node = Typed(_TYPE_CALLS[name], source, *self._type(), at)
        else:
            node = Call(source, name, self._arguments(), at)
        self._expect(")")
        return node

    def _arguments(self) -> tuple[Node, ...]:
        if self._next.kind == "sign" and self._next.text == ")":
            return ()
        arguments = [self.expression()]
        while self._taken(","):
            arguments.append(self.expression())
        return tuple(arguments)

    def _type(self) -> tuple[str, str]:
        """Return the name of a type and its namespace."""
        name, namespace = self._type_word(), ""
        if name in ("FHIR", "System") and self._taken("."):
            namespace, name = name, self._type_word()
        return name, namespace

    def _type_word(self) -> str:
        if self._next.kind not in ("name", "quoted"):
            raise self._unexpected("the name of a type")
        return self._take().text

    def _taken(self, sign: str) -> bool:
        found = self._next.kind == "sign" and self._next.text == sign
        self._at += found
        return found

    def _expect(self, sign: str) -> None:
        if not self._taken(sign):
            raise self._unexpected(sign)

    def _take(self) -> _Token:
        token = self._next
        self._at += 1
        return token

    def _unexpected(self, expected: str) -> FhirPathError:
        kind, text, at = self._next
        found = "the end" if kind == "end" else shown(text)
        return FhirPathError(f"{expected} is expected instead of {found}", at)
