"""What a profile demands as a whole: its differential laid over what its base demands.

https://hl7.org/fhir/R4/profiling.html#snapshot

A StructureDefinition that brings a snapshot is taken at its word. For one that does not, the tree
of its base is copied, and each element of the differential is put in its place there. On the way
to it types, other profiles and content references are unfolded, and slices are made.
"""

from collections.abc import Callable, Mapping
from typing import Any

from fhir_server.r4.structures import TYPE_URL, Structure
from fhir_server.validation.trees import Budget, Element, Node, Unusable, steps_of, tree_of_snapshot

_BASES_MAX = 30
# What a differential adds to, rather than replaces.
_ADDED = ("constraint", "condition", "alias", "mapping", "example", "code")
_KEPT = ("id", "path", "sliceName")
BY_URL: Element = {
    "discriminator": [{"type": "value", "path": "url"}],
    "ordered": False,
    "rules": "open",
}
BY_TYPE: Element = {
    "discriminator": [{"type": "type", "path": "$this"}],
    "ordered": False,
    "rules": "open",
}

Find = Callable[[str], Structure | None]
"""Returns the StructureDefinition of a canonical; ``None`` where there is none."""


class Trees:
    """The trees of StructureDefinitions, each made once in the life of this object."""

    def __init__(self, find: Find, core: "Trees | None" = None) -> None:
        """``core`` has the trees that need not be made again: those of the packages."""
        self._find = find
        self._core = core
        self._made: dict[str, Node] = {}
        self._making: list[str] = []

    def tree(self, canonical: str) -> Node | None:
        """Return the tree of ``canonical``, not to be changed; ``None`` where it is not known.

        Raises :class:`Unusable`, with a sentence, where it says nothing that can be followed.
        """
        made = self._made.get(canonical)
        if made is not None:
            return made
        if self._core is not None and (shared := self._core.tree(canonical)) is not None:
            return shared
        structure = self._find(canonical)
        if structure is None:
            return None
        if canonical in self._making:
            circle = " -> ".join([*self._making[self._making.index(canonical) :], canonical])
            raise Unusable(f"It is built upon itself: {circle[:400]}.")
        if len(self._making) >= _BASES_MAX:
            raise Unusable(f"It is more than {_BASES_MAX} profiles away from a type of R4.")
        self._making.append(canonical)
        try:
            made = self._made[canonical] = self.of(structure)
        finally:
            self._making.pop()
        return made

    def type(self, name: str) -> Node | None:
        """Return the tree of a type of R4."""
        return self.tree(TYPE_URL + name)

    def structure(self, name: str) -> Structure | None:
        """Return the definition of a type of R4."""
        return self._find(TYPE_URL + name)

    def suffixes(self, stem: str, name: str) -> list[str]:
        """Return the types that make a choice ``stem`` appear as ``name``."""
        suffix = name.removeprefix(stem)
        codes = (suffix, suffix[:1].lower() + suffix[1:])
        return [code for code in codes if self._find(TYPE_URL + code) is not None][:1]

    def type_of(self, canonical: str) -> str:
        """Return the type that a profile is for, ``""`` where it is not known."""
        structure = self._find(canonical)
        return str(structure.get("type", "")) if structure is not None else ""

    def of(self, structure: Structure) -> Node:
        """Return the tree of ``structure``: its snapshot, or what its differential comes to."""
        snapshot = (structure.get("snapshot") or {}).get("element")
        if snapshot:
            tree = tree_of_snapshot(snapshot)
            if structure.get("kind") == "complex-type":
                for _, _, node in tree.walk():
                    if node.name == "extension":
                        node.element.setdefault("slicing", BY_URL)
            return tree
        return self.generated(structure)

    def generated(self, structure: Structure) -> Node:
        """Return the tree of ``structure`` by its differential, even if it has a snapshot."""
        base = structure.get("baseDefinition")
        if not isinstance(base, str):
            raise Unusable("It has neither a snapshot nor a base definition.")
        tree = self.tree(base)
        if tree is None:
            raise Unusable(f"Its base definition, {base}, is not known here.")
        merging = Merging(self, tree.copy(Budget()))
        for steps, element in steps_of((structure.get("differential") or {}).get("element") or ()):
            node = merging.node(steps, bool(element.get("min")))
            node.element = merged(node.element, element)
        merging.finish()
        return merging.root

    def children(self, node: Node, root: Node) -> Mapping[str, Node]:
        """Return the children of ``node``: its own, else those of what it refers to, or its type.

        ``root`` is the tree that it is in.
        """
        if node.children:
            return node.children
        reference = node.element.get("contentReference")
        if reference:
            return referred(reference, root).children
        tree = self._type_tree(node.element.get("type") or ())
        return tree.children if tree is not None else {}

    def _type_tree(self, types: Any) -> Node | None:
        codes = {type_code(one) for one in types}
        if len(codes) != 1:
            return self.type("Element") if codes else None
        profiles = [url for one in types for url in one.get("profile", ())]
        if len(profiles) == 1:
            tree = self.tree(profiles[0])
            if tree is not None:
                return tree
        return self.type(codes.pop())


def type_code(type: Element) -> str:
    """Return the FHIR type that an element's type names; ids and urls of extensions are strings."""
    code = str(type.get("code", ""))
    if not code.startswith("http://hl7.org/fhirpath/System."):
        return code
    for one in type.get("extension", ()):
        if one.get("url") == TYPE_URL + "structuredefinition-fhir-type":
            return str(one.get("valueUrl") or one.get("valueUri") or "string")
    return "string"


def referred(reference: str, root: Node) -> Node:
    """Return the node of a content reference, ``#Observation.referenceRange``."""
    node = root
    for step in reference.rpartition("#")[2].split(".")[1:]:
        name, _, slice = step.partition(":")
        child = node.children.get(name)
        found = child.slices.get(slice) if child and slice else child
        if found is None:
            raise Unusable(f"Its content reference {reference[:100]} leads to no element.")
        node = found
    return node


def merged(base: Element, differential: Element) -> dict[str, Any]:
    """Return the element ``base`` with what ``differential`` says of it."""
    result = dict(base)
    for name, value in differential.items():
        if name in _KEPT:
            continue
        if name in _ADDED and isinstance(value, list):
            before = result.get(name, [])
            result[name] = [*before, *(one for one in value if one not in before)]
        elif name in ("slicing", "binding") and isinstance(value, dict):
            result[name] = {**result.get(name, {}), **value}
        else:
            result[name] = value
    return result


class Merging:
    """A tree that a differential is being laid over."""

    def __init__(self, trees: Trees, root: Node) -> None:
        self.root = root
        self._trees = trees
        self._budget = Budget()
        self._short: list[tuple[Node, str]] = []

    def finish(self) -> None:
        """Give what was named by its type alone the least number that this type must be there."""
        for node, name in self._short:
            types, slice = node.element.get("type") or (), node.slices.get(name)
            if slice is not None and len(types) == 1 and slice.element.get("min"):
                node.element["min"] = slice.element["min"]

    def node(self, steps: tuple[tuple[str, str], ...], is_required: bool) -> Node:
        """Return the node at ``steps``, unfolding what is above it."""
        node, is_inside = self.root, False
        for name, slice in steps:
            self._unfold(node)
            child = node.children.get(name)
            if child is None:
                child, slice = self._choice(node, name, slice, is_inside, is_required)
            node = self._slice(child, slice) if slice else child
            is_inside = is_inside or bool(slice)
        return node

    def _unfold(self, node: Node) -> None:
        if node.children:
            return
        for name, child in self._trees.children(node, self.root).items():
            copied = node.children[name] = child.copy(self._budget)
            if name == "extension" and not copied.element.get("slicing"):
                copied.element["slicing"] = BY_URL
        reference = node.element.pop("contentReference", None)
        if reference:
            node.element["type"] = referred(reference, self.root).element.get("type", [])

    def _choice(
        self, node: Node, name: str, slice: str, is_inside: bool, is_required: bool
    ) -> tuple[Node, str]:
        """Return the choice element that ``name`` (``valueQuantity``) is one of, and its slice.

        Whoever requires an element by such a name allows no other type: inside of a slice that is
        said of the element itself, elsewhere by a slice, and the slices are closed.
        """
        for child in node.children.values():
            stem = child.name.removesuffix("[x]")
            if stem == child.name or not name.startswith(stem):
                continue
            is_short = any(one is child for one, _ in self._short)
            types = child.element.get("type") or []
            chosen = [one for one in types if suffixed(stem, type_code(one)) == name]
            if not chosen and is_short:  # a second name, after the first has narrowed it down
                chosen = [{"code": code} for code in self._trees.suffixes(stem, name)]
                child.element["type"] = [*types, *chosen]
            if not chosen:
                continue
            is_free = not is_inside and not is_required
            if slice or (not is_short and (is_free or "slicing" in child.element)):
                return child, slice or name
            if not is_short:
                child.element["type"] = chosen
                if not is_inside:
                    child.element["slicing"] = {**BY_TYPE, "rules": "closed"}
            if (child, name) not in self._short:
                self._short.append((child, name))
            return child, "" if is_inside else name
        raise Unusable(f"Its differential has {name}, which is no element of {node.name}.")

    def _slice(self, node: Node, name: str) -> Node:
        found = node.slices.get(name)
        if found is not None:
            return found
        # A slice of a slice begins as that slice.
        above = node.slices.get(name.rpartition("/")[0])
        made = (above or node).copy(self._budget)
        made.slices, made.slice = {}, name
        if above is None and not _is_inline(node):
            made.children = {}  # of a data type: what holds for all values is judged for all
        made.element = {
            key: value for key, value in made.element.items() if key not in ("slicing", "sliceName")
        }
        made.element["min"] = 0
        stem = node.name.removesuffix("[x]")
        if stem != node.name:
            if "slicing" not in node.element:
                node.element["slicing"] = BY_TYPE
            types = [
                one
                for one in node.element.get("type") or ()
                if suffixed(stem, type_code(one)) == name
            ]
            if types:
                made.element["type"] = types
        elif node.name in ("extension", "modifierExtension") and "slicing" not in node.element:
            node.element["slicing"] = BY_URL
        node.slices[name] = made
        return made


def _is_inline(node: Node) -> bool:
    """Return whether the children of an element are defined with it, not by its type."""
    codes = {type_code(one) for one in node.element.get("type") or ()}
    return not codes or bool(codes & {"BackboneElement", "Element"})


def suffixed(stem: str, type: str) -> str:
    """Return the member's name of a choice: ``valueQuantity``."""
    return stem + type[:1].upper() + type[1:]
