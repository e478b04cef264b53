"""Discriminators: by what a value is known to belong to a slice.

https://hl7.org/fhir/R4/profiling.html#discriminator
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import re2

from fhir_server.validation.coded import bindings_of, codes_of, membership
from fhir_server.validation.running import PENDING, Item, Run, inner_scope, resolved
from fhir_server.validation.slicing import Matches
from fhir_server.validation.snapshot import Trees, type_code
from fhir_server.validation.trees import Node
from fhir_server.validation.values import brief, has_pattern, is_equal

Step = tuple[str, str]
"""``("child", name)``, ``("extension", url)``, ``("resolve", "")`` or ``("ofType", type)``."""
_STEP = re2.compile(
    r"""\.?(?:(resolve)\(\)|(extension)\(\s*['"]([^'"]*)['"]\s*\)|(ofType|as)\(\s*([\w.]+)\s*\)"""
    r"""|(\$this)|([A-Za-z_]\w*(?:\[x\])?))"""
)
_DEPTH_MAX = 12


def steps_of_path(path: str) -> tuple[Step, ...] | None:
    """Return the steps of a discriminator's path, ``None`` where it is no such path."""
    steps: list[Step] = []
    at = 0
    while at < len(path):
        found = _STEP.match(path[at:])
        if found is None or found.end() == 0:
            return None
        resolve, _, url, of, type, _, name = found.groups()
        if resolve:
            steps.append(("resolve", ""))
        elif url is not None:
            steps.append(("extension", url))
        elif of:
            steps.append(("ofType", type))
        elif name:
            steps.append(("child", name.removesuffix("[x]")))
        at += found.end()
    return tuple(steps)


class Discriminators:
    """Makes the tests of slices; ``trees`` finds what their elements demand further down."""

    def __init__(self, trees: Trees, root: Node) -> None:
        self._trees = trees
        self._root = root

    def matches(self, slice: Node, discriminators: Sequence[Mapping[str, Any]]) -> Matches | None:
        """Return the test of ``slice``; ``None`` where its discriminators say nothing."""
        tests = [self._test(slice, one) for one in discriminators]
        found = [test for test in tests if test is not None]
        return _all_of(found) if found else None

    def expected(self, slice: Node, discriminators: Sequence[Mapping[str, Any]]) -> str:
        """Return by what a slice is known, in a few words, or ``""``."""
        words = []
        for one in discriminators:
            steps = steps_of_path(str(one.get("path")))
            for node in self._located(slice, steps or ()):
                for name, value in node.element.items():
                    if name.startswith(("fixed", "pattern")):
                        words.append(f"{one.get('path')} {brief(value)}".replace("$this ", ""))
        return ", ".join(words[:3])

    def _test(self, slice: Node, discriminator: Mapping[str, Any]) -> Matches | None:
        steps = steps_of_path(str(discriminator.get("path", "$this")))
        make = _KINDS.get(str(discriminator.get("type")))
        if steps is None or make is None:
            return None
        nodes = list(self._located(slice, steps))
        return make(self, nodes, steps) if nodes else None

    def _located(self, node: Node, steps: Sequence[Step]) -> Iterator[Node]:
        """Yield what the profile says at ``steps`` below ``node``: elements and their slices."""
        if not steps:
            yield node
            return
        (kind, name), *rest = steps
        if kind == "ofType":
            yield from self._located(node, rest)
        elif kind == "resolve":
            for type in node.element.get("type") or ():
                for url in type.get("targetProfile", ()):
                    tree = self._trees.tree(url)
                    if tree is not None:
                        yield from self._located(_named(tree, url), rest)
        else:
            wanted = "extension" if kind == "extension" else name
            children = self._trees.children(node, self._root)
            child = children.get(wanted) or children.get(f"{wanted}[x]")
            if child is None:
                return
            for one in (child, *child.slices.values()):
                if kind == "child" or self._is_of_url(one, name):
                    yield from self._located(one, rest)

    def _is_of_url(self, node: Node, url: str) -> bool:
        return any(url in type.get("profile", ()) for type in node.element.get("type") or ())

    def valued(self, nodes: list[Node], steps: Sequence[Step]) -> Matches | None:
        """Some value at ``steps`` is what one of ``nodes`` says, fixed, by pattern or bound."""
        tests = [test for node in nodes if (test := self._criterion(node, 0)) is not None]
        if not tests:
            return None

        def matches(run: Run, item: Item) -> bool | None:
            verdict: bool | None = False
            for one in selected(run, item, steps):
                if one is PENDING:
                    verdict = None
                    continue
                for test in tests:
                    found = test(run, one)
                    if found:
                        return True
                    if found is None:
                        verdict = None
            return verdict

        return matches

    def _criterion(self, node: Node, depth: int) -> Matches | None:
        """Return the test of what is fixed at ``node``, or of what is fixed below it."""
        for name, wanted in node.element.items():
            if name.startswith("fixed"):
                return _comparison(wanted, is_equal)
            if name.startswith("pattern"):
                return _comparison(wanted, has_pattern)
        if depth < _DEPTH_MAX and (parts := list(self._parts(node, depth))):
            return _all_of(parts)
        for binding in bindings_of(node.element):
            if binding.strength == "required":
                return _bound(binding.value_set)
        return None

    def _parts(self, node: Node, depth: int) -> Iterator[Matches]:
        children: Mapping[str, Node] = node.children
        if not children and any(type.get("profile") for type in node.element.get("type") or ()):
            children = self._trees.children(node, self._root)
        for child in children.values():
            required = [one for one in child.slices.values() if one.element.get("min")]
            for one in (child, *required):
                if one.element.get("max") == "0" or one.name in ("extension", "id"):
                    continue
                test = self._criterion(one, depth + 1) if _says_value(one, depth) else None
                if test is not None:
                    yield _below(child.name.removesuffix("[x]"), test)

    def existing(self, nodes: list[Node], steps: Sequence[Step]) -> Matches | None:
        """Something is at ``steps``, or nothing, as the first of ``nodes`` says."""
        element = nodes[0].element
        if element.get("max") != "0" and not element.get("min"):
            return None
        wanted = element.get("max") != "0"

        def matches(run: Run, item: Item) -> bool | None:
            found = list(selected(run, item, steps))
            return None if PENDING in found else bool(found) is wanted

        return matches

    def typed(self, nodes: list[Node], steps: Sequence[Step]) -> Matches | None:
        """What is at ``steps`` is of one of the types of ``nodes``."""
        types = {type_code(one) for node in nodes for one in node.element.get("type") or ()}
        types |= {
            node.name for node in nodes if "." not in node.name and not node.element.get("type")
        }
        if not types:
            return None

        def matches(run: Run, item: Item) -> bool | None:
            found = list(selected(run, item, steps))
            if PENDING in found:
                return None
            if "Resource" in types or "DomainResource" in types:
                return bool(found)
            return any(one.type in types for one in found)

        return matches

    def profiled(self, nodes: list[Node], steps: Sequence[Step]) -> Matches | None:
        """What is at ``steps`` conforms to one of the profiles of ``nodes``."""
        key = "targetProfile" if steps and steps[-1][0] == "resolve" else "profile"
        profiles = [
            url
            for node in nodes
            for one in node.element.get("type") or ()
            for url in one.get(key, ())
        ] or [node.element["x-profile"] for node in nodes if "x-profile" in node.element]
        if not profiles:
            return None

        def matches(run: Run, item: Item) -> bool | None:
            verdict: bool | None = False
            for one in selected(run, item, steps):
                found = [None] if one is PENDING else [run.conforms(one, url) for url in profiles]
                if any(found):
                    return True
                if None in found:
                    verdict = None
            return verdict

        return matches


_KINDS: Mapping[str, Callable[[Discriminators, list[Node], Sequence[Step]], Matches | None]] = {
    "value": Discriminators.valued,
    "pattern": Discriminators.valued,
    "exists": Discriminators.existing,
    "type": Discriminators.typed,
    "profile": Discriminators.profiled,
}


def _named(tree: Node, url: str) -> Node:
    """Return the root of ``tree`` with the name of the profile that a reference leads to."""
    root = Node(tree.name, {**tree.element, "x-profile": url}, tree.slice)
    root.children, root.slices = tree.children, tree.slices
    return root


def _says_value(node: Node, depth: int) -> bool:
    return depth < _DEPTH_MAX and bool(
        node.children or any(name.startswith(("fixed", "pattern")) for name in node.element)
    )


def _comparison(wanted: Any, is_right: Callable[[Any, Any], bool]) -> Matches:
    return lambda run, item: is_right(item.value, wanted)


def _bound(value_set: str) -> Matches:
    def matches(run: Run, item: Item) -> bool | None:
        verdict: bool | None = False
        for code in codes_of(item):
            found = membership(run, value_set, *code)
            if found is PENDING or found.result is None:
                verdict = None
            elif found.result:
                return True
        return verdict

    return matches


def _all_of(parts: Sequence[Matches]) -> Matches:
    def matches(run: Run, item: Item) -> bool | None:
        verdict: bool | None = True
        for part in parts:
            found = part(run, item)
            if found is False:
                return False
            if found is None:
                verdict = None
        return verdict

    return matches


def _below(name: str, test: Matches) -> Matches:
    def matches(run: Run, item: Item) -> bool | None:
        verdict: bool | None = False
        for one in children_of(run, item, name):
            found = test(run, one)
            if found:
                return True
            if found is None:
                verdict = None
        return verdict

    return matches


def selected(run: Run, item: Item, steps: Sequence[Step]) -> Iterator[Any]:
    """Yield what is at ``steps`` below ``item``: items, or :data:`PENDING`."""
    if not steps:
        yield item
        return
    (kind, name), *rest = steps
    if kind == "resolve":
        value = item.value
        reference = value.get("reference") if isinstance(value, dict) else value
        found = resolved(run, reference, item)
        if found is PENDING:
            yield PENDING
        elif found is not None:
            yield from selected(run, found, rest)
    elif kind == "ofType":
        if item.type == name:
            yield from selected(run, item, rest)
    else:
        for child in children_of(run, item, "extension" if kind == "extension" else name):
            if kind == "child" or (
                isinstance(child.value, dict) and child.value.get("url") == name
            ):
                yield from selected(run, child, rest)


def children_of(run: Run, item: Item, name: str) -> Iterator[Item]:
    """Yield the children ``name`` of a value, whatever type a choice has there."""
    value = item.object
    if value is None:
        return
    for key, found in value.items():
        if key[:1] == "_":
            if key[1:] in value:
                continue
            key, found = key[1:], None
        if key == name:
            type = ""
        elif key.startswith(name) and key[len(name) : len(name) + 1].isupper():
            type = _choice_type(run, key[len(name) :])
            if not type:
                continue
        else:
            continue
        sibling = value.get(f"_{key}")
        if isinstance(found, list):
            for index, one in enumerate(found):
                beside = (
                    sibling[index] if isinstance(sibling, list) and index < len(sibling) else None
                )
                yield _child(one, type, item, name, index, beside)
        else:
            yield _child(found, type, item, name, None, sibling)


def _choice_type(run: Run, suffix: str) -> str:
    types = run.definitions.types
    small = suffix[:1].lower() + suffix[1:]
    return suffix if suffix in types else small if small in types else ""


def _child(value: Any, type: str, item: Item, name: str, index: int | None, sibling: Any) -> Item:
    scope = item.scope
    if isinstance(value, dict) and isinstance(value.get("resourceType"), str):
        type = value["resourceType"]
        scope = inner_scope(value, item, name)
    return Item(value, type, scope, item, name, index, sibling)
