"""The grammar of FHIRPath, as far as search parameters and patches use it: text -> syntax tree.

http://hl7.org/fhirpath/N1/#grammar
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Name:
    """A name at the beginning of a path: an element, a type, or ``$this``."""

    text: str


@dataclass(frozen=True, slots=True)
class Variable:
    """``%resource``: its name without the sign."""

    text: str


@dataclass(frozen=True, slots=True)
class Literal:
    """A string, a boolean or a number."""

    value: str | bool | Decimal


@dataclass(frozen=True, slots=True)
class Member:
    """``source.name``"""

    source: "Node"
    name: str


@dataclass(frozen=True, slots=True)
class Index:
    """``source[position]``"""

    source: "Node"
    position: int


@dataclass(frozen=True, slots=True)
class Call:
    """``source.name(arguments)``; without ``source`` it is called on what the path is at."""

    source: "Node | None"
    name: str
    arguments: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Typed:
    """``source as type`` and ``source is type``, written either way."""

    operator: str
    source: "Node | None"
    type: str


@dataclass(frozen=True, slots=True)
class Binary:
    """``left operator right``: ``|``, ``=``, ``!=``, ``and`` or ``or``."""

    operator: str
    left: "Node"
    right: "Node"


Node = Name | Variable | Literal | Member | Index | Call | Typed | Binary

_TOKEN = re.compile(
    r"\s*(?:(?P<name>\$this|[A-Za-z_][A-Za-z0-9_]*|`[^`]+`)|(?P<string>'(?:[^'\\]|\\.)*')"
    r"|(?P<number>[0-9]+(?:\.[0-9]+)?)|(?P<sign>!=|[.()\[\],|=%])|(?P<other>\S))"
)
# Written as calls, read as operators: x.as(T), x.ofType(T), x.is(T).
_TYPE_CALLS = {"as": "as", "ofType": "as", "is": "is"}
_NESTING_MAX = 50  # the deepest of R4 has 4; a profile cannot make the parser run out of stack


def expression(text: str) -> Node:
    """Return the tree of ``text``. Raises :class:`ValueError` for what is outside the grammar."""
    parser = _Parser([_token(found) for found in _TOKEN.finditer(text.strip())])
    node = parser.disjunction()
    if parser.next:
        raise ValueError(f"{parser.next!r} is not expected")
    return node


def _token(found: re.Match[str]) -> tuple[str, str]:
    kind = found.lastgroup or ""
    text = found.group(kind)
    if kind == "other":
        raise ValueError(f"{text!r} is not supported")
    return ("name", text[1:-1]) if text[0] == "`" else (kind, text)


class _Parser:
    """One method for each level of precedence, the loosest first."""

    def __init__(self, tokens: Sequence[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    @property
    def next(self) -> str:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else ""

    @property
    def _kind(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def disjunction(self) -> Node:
        self._depth += 1
        if self._depth > _NESTING_MAX:
            raise ValueError(f"it is nested more than {_NESTING_MAX} levels deep")
        node = self._conjunction()
        while self._taken("or"):
            node = Binary("or", node, self._conjunction())
        self._depth -= 1
        return node

    def _conjunction(self) -> Node:
        node = self._equality()
        while self._taken("and"):
            node = Binary("and", node, self._equality())
        return node

    def _equality(self) -> Node:
        node = self._union()
        while self.next in ("=", "!=") and self._kind == "sign":
            node = Binary(self._take(), node, self._union())
        return node

    def _union(self) -> Node:
        node = self._typed()
        while self._taken("|"):
            node = Binary("|", node, self._typed())
        return node

    def _typed(self) -> Node:
        node = self._path()
        while self.next in ("as", "is") and self._kind == "name":
            node = Typed(self._take(), node, self._type_name())
        return node

    def _path(self) -> Node:
        node = self._term()
        while self._kind == "sign" and self.next in (".", "["):
            if self._take() == ".":
                node = self._step(node)
            else:
                node = Index(node, int(self._take("number")))
                self._take(expected="]")
        return node

    def _term(self) -> Node:
        if self._taken("("):
            node = self.disjunction()
            self._take(expected=")")
            return node
        if self._kind == "string":
            return Literal(re.sub(r"\\(.)", r"\1", self._take()[1:-1]))
        if self._kind == "number":
            return Literal(Decimal(self._take()))
        if self._taken("%"):
            return Variable(self._take("name"))
        if self.next in ("true", "false"):
            return Literal(self._take() == "true")
        return self._step(None)

    def _step(self, source: Node | None) -> Node:
        name = self._take("name")
        if not self._taken("("):
            return Name(name) if source is None else Member(source, name)
        if name in _TYPE_CALLS:
            node: Node = Typed(_TYPE_CALLS[name], source, self._type_name())
        else:
            node = Call(source, name, tuple(self._arguments()))
        self._take(expected=")")
        return node

    def _arguments(self) -> list[Node]:
        if self.next == ")":
            return []
        arguments = [self.disjunction()]
        while self._taken(","):
            arguments.append(self.disjunction())
        return arguments

    def _type_name(self) -> str:
        name = self._take("name")
        if name in ("FHIR", "System") and self._taken("."):
            name = self._take("name")
        return name

    def _taken(self, text: str) -> bool:
        found = self.next == text and self._kind != "string"
        self._at += found
        return found

    def _take(self, kind: str = "", expected: str = "") -> str:
        text = self.next
        if not text or (kind and self._kind != kind) or (expected and text != expected):
            raise ValueError(f"{expected or kind} is missing at {text!r}")
        self._at += 1
        return text
