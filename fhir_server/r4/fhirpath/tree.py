"""The syntax tree of FHIRPath.

``at`` counts the characters of the text before a node; it is no part of what the node means.
"""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any


def _at() -> Any:
    return field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Name:
    """A name at the beginning of a path: an element, a type, ``$this``, ``$index``, ``$total``."""

    text: str
    at: int = _at()


@dataclass(frozen=True, slots=True)
class Variable:
    """``%resource``: its name without the sign."""

    text: str
    at: int = _at()


@dataclass(frozen=True, slots=True)
class Literal:
    """A string, a boolean, an integer or a decimal."""

    value: str | bool | int | Decimal
    at: int = _at()


@dataclass(frozen=True, slots=True)
class Moment:
    """``@2015-02-04T14:34``: a date, dateTime or time as written, without its sign."""

    text: str
    at: int = _at()


@dataclass(frozen=True, slots=True)
class Amount:
    """A quantity: ``4 days`` (a ``calendar`` unit) or ``4 'mg'``."""

    value: Decimal
    unit: str
    calendar: bool
    at: int = _at()


@dataclass(frozen=True, slots=True)
class Empty:
    """``{}``"""

    at: int = _at()


@dataclass(frozen=True, slots=True)
class Member:
    """``source.name``"""

    source: "Node"
    name: str
    at: int = _at()


@dataclass(frozen=True, slots=True)
class Index:
    """``source[position]``"""

    source: "Node"
    position: "Node"
    at: int = _at()


@dataclass(frozen=True, slots=True)
class Call:
    """``source.name(arguments)``; without ``source`` it is called on what the path is at."""

    source: "Node | None"
    name: str
    arguments: tuple["Node", ...]
    at: int = _at()


@dataclass(frozen=True, slots=True)
class Typed:
    """``source as type`` and ``source is type``, written either way; ``ofType()`` is ``as``.

    ``namespace`` is ``FHIR``, ``System``, or ``""`` where it is not written.
    """

    operator: str
    source: "Node | None"
    type: str
    namespace: str = field(default="", compare=False, repr=False)
    at: int = _at()


@dataclass(frozen=True, slots=True)
class Sign:
    """``-operand`` and ``+operand``."""

    operator: str
    operand: "Node"
    at: int = _at()


@dataclass(frozen=True, slots=True)
class Binary:
    """``left operator right``."""

    operator: str
    left: "Node"
    right: "Node"
    at: int = _at()


Step = Member | Index | Call | Typed
"""What is behind a point: its source, if any, is what it is applied to."""
Node = Name | Variable | Literal | Moment | Amount | Empty | Step | Sign | Binary


def steps(node: "Node | None") -> tuple["Node | None", list[Step]]:
    """Return what a path begins with, and its steps in order. ``None`` is what the path is at.

    Long paths are no deep ones: whoever walks a tree takes their steps one after the other.
    """
    found: list[Step] = []
    while isinstance(node, Member | Index | Call | Typed):
        found.append(node)
        node = node.source
    return node, found[::-1]


def operands(node: Binary) -> tuple["Node", list[tuple[Binary, "Node"]]]:
    """Return the first operand of a chain ``a + b - c``, and each operator with what is behind."""
    found: list[tuple[Binary, Node]] = []
    first: Node = node
    while isinstance(first, Binary):
        found.append((first, first.right))
        first = first.left
    return first, found[::-1]
