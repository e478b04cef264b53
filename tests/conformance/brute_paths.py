"""A small FHIRPath of the tests' own: expressions of search parameters, walked over plain JSON.

https://hl7.org/fhir/R4/fhirpath.html

It shares nothing with the server but the definitions under ``profiles/``, and is written the
other way round: no path is compiled, every expression is walked anew over one resource, with the
FHIR type of each value beside it. What the engines of the market offer is no help here: they know
no types of R4 elements without a model of their own, and are too slow for thousands of questions.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from tests.conftest import ROOT

CORE = ROOT / "profiles" / "hl7.fhir.r4.core"
_TOKEN = re.compile(r"'[^']*'|%?[A-Za-z_]\w*|\d+|!=|[().|\[\],=]")
_STRUCTURAL = ("BackboneElement", "Element")
_REFERENCE = re.compile(r"(?:.*/)?([A-Z]\w+)/[A-Za-z0-9\-.]{1,64}(?:/_history/[^/]+)?")


@dataclass(frozen=True, slots=True)
class Node:
    """A value with its FHIR type; ``at`` is where the definitions have its members."""

    type: str
    at: str
    value: Any


def lines(name: str) -> Iterator[Any]:
    """Yield the definitions of one file of the core package."""
    with (CORE / f"{name}.ndjson").open(encoding="utf-8") as text:
        yield from map(json.loads, text)


@cache
def elements() -> dict[str, Any]:
    """Return path -> definition of every element of every type."""
    return {
        element["path"]: element
        for definition in lines("StructureDefinition")
        for element in definition.get("snapshot", {}).get("element", ())
    }


@cache
def resource_types() -> frozenset[str]:
    """Return the names of all resource types that can be stored."""
    return frozenset(
        one["type"]
        for one in lines("StructureDefinition")
        if one["kind"] == "resource" and not one.get("abstract")
    )


@cache
def parameters(type: str) -> dict[str, Any]:
    """Return code -> definition of every search parameter with an expression, for ``type``."""
    bases = {type, "Resource", "DomainResource"}
    if type in ("Bundle", "Binary", "Parameters"):
        bases.remove("DomainResource")
    return {
        one["code"]: one
        for one in lines("SearchParameter")
        if one.get("expression") and bases & set(one["base"])
    }


@cache
def by_url() -> dict[str, Any]:
    """Return url -> definition of every search parameter."""
    return {one["url"]: one for one in lines("SearchParameter")}


def root(resource: Any) -> Node:
    """Return the node of a whole resource."""
    return Node(resource["resourceType"], resource["resourceType"], resource)


def shape(path: str) -> tuple[str, list[tuple[str, str, str]]]:
    """Return the element at ``path`` as (path, [(JSON name, type, where its members are)]).

    A choice has one form for each type. Nothing is returned for what is not defined.
    """
    name = path.rpartition(".")[2]
    if (element := elements().get(path)) is not None:
        if "contentReference" in element:
            return path, [(name, "BackboneElement", element["contentReference"][1:])]
        found = [one["code"] for one in element["type"]]
        return path, [(name, _type(one), path if one in _STRUCTURAL else one) for one in found[:1]]
    if (element := elements().get(f"{path}[x]")) is not None:
        codes = [one["code"] for one in element["type"]]
        return path, [(name + one[0].upper() + one[1:], one, one) for one in codes]
    return path, []


def _type(code: str) -> str:
    return "string" if code.startswith("http://hl7.org/fhirpath/") else code


def members(node: Node, name: str) -> Iterator[Node]:
    """Yield the members called ``name`` of ``node``, each with its type."""
    if not isinstance(node.value, dict):
        return
    for json_name, type, at in shape(f"{node.at}.{name}")[1]:
        value = node.value.get(json_name)
        for item in value if isinstance(value, list) else [value]:
            if item is None:
                continue
            if type == "Resource":
                yield root(item)
            else:
                yield Node(type, at, item)


# ------------------------------------------------------------------------------- reading

Tree = tuple[Any, ...]
"""("name", n) ("dot", a, b) ("call", n, args) ("item", a, n) ("|" "=" "!=" "and" "as" "is", a, b)
("text", s) ("bool", b) ("%", n)"""


class _Reader:
    def __init__(self, text: str) -> None:
        self.tokens = _TOKEN.findall(text)
        assert "".join(self.tokens) == re.sub(r"\s+(?=[^']*(?:'[^']*'[^']*)*$)", "", text), text
        self.at = 0

    @property
    def next(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, expected: str = "") -> str:
        token = self.next
        assert token, self.tokens
        assert expected in ("", token), (self.tokens, self.at)
        self.at += 1
        return str(token)

    def level(self, place: int = 0) -> Tree:
        """Operators from the loosest to the tightest."""
        if place == len(_LEVELS):
            return self.steps()
        left = self.level(place + 1)
        while self.next in _LEVELS[place]:
            sign = self.take()
            left = (sign, left, self.level(place + 1))
        return left

    def steps(self) -> Tree:
        found = self.step()
        while self.next in (".", "["):
            if self.take() == ".":
                found = ("dot", found, self.step())
            else:
                found = ("item", found, int(self.take()))
                self.take("]")
        return found

    def step(self) -> Tree:
        token = self.take()
        if token == "(":
            found = self.level()
            self.take(")")
            return found
        if token.startswith("'"):
            return ("text", token[1:-1])
        if token.startswith("%"):
            return ("%", token[1:])
        if token in ("true", "false"):
            return ("bool", token == "true")
        if self.next != "(":
            return ("name", token)
        self.take("(")
        arguments = []
        while self.next != ")":
            arguments.append(self.level())
        self.take(")")
        return ("call", token, tuple(arguments))


_LEVELS = (("and",), ("=", "!="), ("|",), ("as", "is"))


@cache
def read(text: str) -> Tree:
    """Return ``text`` as a tree."""
    reader = _Reader(text)
    found = reader.level()
    assert not reader.next, text
    return found


# ------------------------------------------------------------------------------- walking


def walk(tree: Tree, here: list[Node], whole: Node) -> list[Node]:
    """Return what ``tree`` leads to from the nodes ``here`` of the resource ``whole``."""
    match tree:
        case ("name", name) if name in ("Resource", "DomainResource") or name in resource_types():
            general = name in ("Resource", "DomainResource")
            return [one for one in here if general or one.type == name]
        case ("name", name):
            return [below for one in here for below in members(one, name)]
        case ("dot", left, right):
            return walk(right, walk(left, here, whole), whole)
        case ("item", left, place):
            return walk(left, here, whole)[place : place + 1]
        case ("%", _):
            return [whole]
        case ("text" | "bool", value):
            return [Node("string", "string", value)]
        case ("call", name, arguments):
            return _call(name, arguments, here, whole)
    return _operator(tree, here, whole)


def _operator(tree: Tree, here: list[Node], whole: Node) -> list[Node]:
    match tree:
        case ("|", left, right):
            return [*walk(left, here, whole), *walk(right, here, whole)]
        case ("as", left, ("name", type)):
            return typed(walk(left, here, whole), type)
        case ("is", left, ("name", type)):
            return [_bool(bool(typed([one], type))) for one in walk(left, here, whole)]
        case ("=" | "!=" as sign, left, right):
            one, other = (
                [node.value for node in walk(side, here, whole)] for side in (left, right)
            )
            return [_bool((one == other) == (sign == "="))] if one and other else []
        case ("and", left, right):
            both = [walk(side, here, whole) for side in (left, right)]
            return [_bool(all(side and side[0].value is True for side in both))]
    raise AssertionError(tree)


def typed(nodes: Iterable[Node], type: str) -> list[Node]:
    """Return those of ``nodes`` that are of ``type``; primitives may be written with a capital.

    A canonical is no uri here: ``source`` and ``source-uri`` of ConceptMap tell the two apart.
    """
    names = {type, type[0].lower() + type[1:]}
    return [one for one in nodes if one.type in names]


def _bool(value: bool) -> Node:
    return Node("boolean", "boolean", value)


def _call(name: str, arguments: Any, here: list[Node], whole: Node) -> list[Node]:
    match name:
        case "where":
            return [
                one
                for one in here
                if any(node.value is True for node in walk(arguments[0], [one], whole))
            ]
        case "exists":
            return [_bool(bool(here))]
        case "as" | "ofType":
            return typed(here, arguments[0][1])
        case "resolve":
            return [found for one in here if (found := _resolved(one, whole))]
        case "extension" | "hasExtension":
            url = arguments[0][1]
            inner = [below for one in here for below in members(one, "extension")]
            named = [one for one in inner if one.value.get("url") == url]
            return named if name == "extension" else [_bool(bool(named))]
    raise AssertionError(name)


def _resolved(node: Node, whole: Node) -> Node | None:
    """Return a node of the type that a reference leads to, as far as its text or a word says."""
    text = node.value.get("reference", "") if isinstance(node.value, dict) else node.value
    if text.startswith("#"):
        inner = [one for one in whole.value.get("contained", ()) if one.get("id") == text[1:]]
        return root(inner[0]) if inner else None
    found = _REFERENCE.fullmatch(text)
    type = found[1] if found else ""
    if not type and isinstance(node.value, dict):
        type = node.value.get("type", "")
    return Node(type, type, {}) if type else None


def values(resource: Any, definition: Any) -> list[Node]:
    """Return what the expression of a search parameter leads to; of extensions, their values."""
    whole = root(resource)
    return plain(walk(read(definition["expression"]), [whole], whole))


def plain(nodes: Iterable[Node]) -> list[Node]:
    """Return ``nodes`` with the values of extensions instead of the extensions."""
    found: list[Node] = []
    for one in nodes:
        found += members(one, "value") if one.type == "Extension" else [one]
    return found
