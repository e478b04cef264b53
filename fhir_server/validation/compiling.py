"""Definitions -> rules: what a type demands of its values, and what a profile demands beyond that.

A profile is compared with the type that it is for, element by element. What is the same has been
judged by the type's rule; only the rest becomes a check.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from fhir_server.r4.definitions import Definitions
from fhir_server.r4.structures import TYPE_URL, Structure
from fhir_server.validation.coded import Binding, binding_check, bindings_of
from fhir_server.validation.datatypes import OF_PRIMITIVES, OF_TYPES
from fhir_server.validation.discriminators import Discriminators
from fhir_server.validation.extensions import extension_check
from fhir_server.validation.invariants import invariant_checks
from fhir_server.validation.rules import Child, Rule
from fhir_server.validation.running import Check
from fhir_server.validation.slicing import DEFAULT, Slice, Slicing
from fhir_server.validation.snapshot import BY_TYPE, BY_URL, Trees, referred, suffixed, type_code
from fhir_server.validation.targets import profiles_check, targets_check, types_check
from fhir_server.validation.trees import Node
from fhir_server.validation.values import fixed_check, limit_checks

_BASES_MAX = 8
_INLINE = ("BackboneElement", "Element", "")
_EXTENSIONS = ("extension", "modifierExtension")


def keys_of(node: Node, path: str = "") -> dict[str, str]:
    """Return the JSON members that an element may appear as, each with its type."""
    types = node.element.get("type") or ()
    stem = node.name.removesuffix("[x]")
    if stem != node.name:
        return {suffixed(stem, type_code(one)): type_code(one) for one in types}
    code = type_code(types[0]) if types else ""
    return {stem: path if code in _INLINE else code}


def most(element: Mapping[str, Any]) -> int | None:
    """Return the maximum of an element, ``None`` for no limit."""
    text = str(element.get("max", "*"))
    return int(text) if text.isdigit() else None


def inherited_constraints(trees: Trees, name: str) -> list[Mapping[str, Any]]:
    """Return the constraints of what a type specializes (dom-3, qty-3): it names only its own."""
    found: list[Mapping[str, Any]] = []
    for _ in range(_BASES_MAX):
        base = str((trees.structure(name) or {}).get("baseDefinition", ""))
        name = base.removeprefix(TYPE_URL)
        tree = trees.type(name) if base else None
        if tree is None:
            break
        found += tree.element.get("constraint") or ()
    return found


class TypeCompiler:
    """Makes the rules of the types of R4, each from the type's own definition."""

    def __init__(self, trees: Trees, definitions: Definitions) -> None:
        self._trees = trees
        self._definitions = definitions

    def rule(self, name: str) -> Rule | None:
        """Return the rule of the type ``name``; ``None`` where it is no type of R4."""
        tree = self._trees.type(name)
        if tree is None:
            return None
        made: dict[int, Rule] = {}
        rule = self._rule(tree, name, tree, made)
        constraints = inherited_constraints(self._trees, name)
        inherited = invariant_checks(constraints, "R4", is_core=True)
        rule.checks = (*rule.checks, *inherited, *OF_TYPES.get(name, ()))
        return rule

    def _rule(self, node: Node, path: str, root: Node, made: dict[int, Rule]) -> Rule:
        found = made.get(id(node))
        if found is not None:
            return found
        rule = made[id(node)] = Rule()
        if node is root:
            rule.checks = tuple(self._checks(node))
        members: dict[str, Child] = {}
        for name, one in node.children.items():
            reference = str(one.element.get("contentReference", "")).rpartition("#")[2]
            keys = keys_of(one, reference or f"{path}.{name}")
            if name in ("id", "value") and keys.get(name) == "string" and path[:1].islower():
                continue  # of a primitive
            child = self._child(one, f"{path}.{name}", keys, root, made)
            members |= dict.fromkeys(keys, child)
        rule.members = members
        return rule

    def _child(
        self, node: Node, path: str, keys: dict[str, str], root: Node, made: dict[int, Rule]
    ) -> Child:
        reference = node.element.get("contentReference")
        if node.name in _EXTENSIONS:
            own = Rule((extension_check(node.name == "modifierExtension"),))
            own.checks = (*self._checks(node), *own.checks)
        elif reference:
            # Perhaps still being made: of an element that is inside of itself.
            own = self._rule(referred(reference, root), reference.rpartition("#")[2], root, made)
        elif node.children:
            own = self._rule(node, path, root, made)
            own.checks = tuple(self._checks(node))
        else:
            own = Rule(tuple(self._checks(node)))
        codes = set(keys.values())
        return Child(
            name=node.name.removesuffix("[x]"),
            keys=keys,
            where="R4",
            rule=own if reference or not own.is_empty else None,
            is_open=not reference and not node.children,
            is_resource="Resource" in codes,
        )

    def _checks(self, node: Node) -> Iterator[Check]:
        element = node.element
        for code in {type_code(one) for one in element.get("type") or ()}:
            if code in OF_PRIMITIVES and node.name not in ("id", "div"):
                yield from OF_PRIMITIVES[code]
        yield from invariant_checks(element.get("constraint"), "R4", is_core=True)
        for binding in bindings_of(element):
            url = binding.value_set.partition("|")[0]
            if binding.strength == "required" and self._definitions.codes(url) is not None:
                continue  # the structural validator enforces it
            check = binding_check(binding, "R4")
            if check is not None:
                yield check


class ProfileCompiler:
    """Makes the rule of one profile: what it demands beyond the type that it is for."""

    def __init__(self, trees: Trees, core: Trees, structure: Structure) -> None:
        url = str(structure.get("url", ""))
        self._trees = trees
        self._core = core
        self._url = url
        self._where = f"the profile {url}" if url else "the profile"
        self._root = trees.tree(url) or trees.of(structure)
        self._discriminators = Discriminators(trees, self._root)
        self._core_root = core.type(str(structure.get("type")))
        self.is_modifier = bool(self._root.element.get("isModifier"))
        self.parts = self._extension_parts()

    def _extension_parts(self) -> frozenset[str]:
        """Return the urls of the extensions inside, of the profile of an extension."""
        inside = self._root.children.get("extension")
        urls = (one.children.get("url") for one in (inside.slices.values() if inside else ()))
        return frozenset(str(one.element.get("fixedUri")) for one in urls if one is not None)

    def rule(self) -> Rule:
        """Return the rule. Raises :class:`Unusable` where the profile cannot be followed."""
        return self._rule(self._root, self._core_root, self._root.name)

    def _rule(self, node: Node, core: Node | None, at: str) -> Rule:
        """``at`` is where the children of the element are defined: ``Observation.component``."""
        checks = tuple(self._checks(node, core))
        members: dict[str, Child] = {}
        needed: list[Child] = []
        core_children = self._core_children(node, core)
        for name, one in node.children.items():
            if node is not self._root and name == "id" and not one.children:
                continue
            child = self._child(one, core_children.get(name), f"{at}.{name}")
            if child is None:
                continue
            members |= dict.fromkeys(child.keys, child)
            if child.min or (child.slicing is not None and child.slicing.needs_some):
                needed.append(child)
        return Rule(checks, members, tuple(needed))

    def _core_children(self, node: Node, core: Node | None) -> Mapping[str, Node]:
        if core is None or not node.children:
            return {}
        if core.children:
            return core.children
        if core.element.get("contentReference") and self._core_root is not None:
            return referred(core.element["contentReference"], self._core_root).children
        codes = {type_code(one) for one in node.element.get("type") or ()}
        tree = self._core.type(codes.pop()) if len(codes) == 1 else self._core.type("Element")
        return tree.children if tree is not None else {}

    def _child(self, node: Node, core: Node | None, path: str) -> Child | None:
        source = core or node
        path = str(source.element.get("contentReference", "")).rpartition("#")[2] or path
        keys = keys_of(source, path) or keys_of(node, path)
        element, base = node.element, core.element if core is not None else {}
        low, high = int(element.get("min") or 0), most(element)
        at = _at(node, path)
        rule = self._rule(node, core, at)
        child = Child(
            name=node.name.removesuffix("[x]"),
            keys=keys,
            where=self._where,
            min=low if low > int(base.get("min") or 0) else 0,
            max=high if high is not None and (core is None or high != most(base)) else None,
            rule=None if rule.is_empty else rule,
            slicing=self._slicing(node, core, at),
        )
        has_work = child.min or child.max is not None or child.rule or child.slicing
        return child if has_work else None

    def _slicing(self, node: Node, core: Node | None, at: str) -> Slicing | None:
        slicing = node.element.get("slicing") or self._implied(node)
        if not slicing or not (node.slices or slicing.get("rules") == "closed"):
            return None
        return self._slices(node, core, slicing, "", at)

    def _implied(self, node: Node) -> Any:
        if not node.slices:
            return None
        if node.name in _EXTENSIONS:
            return BY_URL
        return BY_TYPE if node.name.endswith("[x]") else None

    def _slices(
        self, node: Node, core: Node | None, slicing: Any, prefix: str, at: str
    ) -> Slicing | None:
        """Return the slicing of the slices right below the slice ``prefix``, with theirs."""
        by = slicing.get("discriminator") or ()
        found = []
        for name, one in node.slices.items():
            above, _, last = name.rpartition("/")
            if above != prefix or (not by and name != DEFAULT):
                continue
            rule = self._rule(one, core, _at(one, at))
            found.append(self._slice(node, one, name, last, by, rule))
            again = one.element.get("slicing")
            if again:
                found[-1].inner = self._slices(node, core, again, name, at)
        if not found:
            return None
        return Slicing(
            name=node.name.removesuffix("[x]"),
            where=self._where,
            rules=str(slicing.get("rules", "open")),
            is_ordered=bool(slicing.get("ordered")),
            slices=tuple(found),
        )

    def _slice(self, node: Node, one: Node, name: str, last: str, by: Any, rule: Rule) -> Slice:
        high = most(one.element)
        matches = self._discriminators.matches(one, by)
        stem = node.name.removesuffix("[x]")
        if matches is None and stem != node.name:
            matches = _of_types(frozenset(keys_of(one).values()))
        return Slice(
            name=last,
            matches=matches,
            min=int(one.element.get("min") or 0),
            max=high if high is not None and high != most(node.element) else None,
            rule=None if rule.is_empty else rule,
            expected=self._discriminators.expected(one, by),
        )

    def _checks(self, node: Node, core: Node | None) -> Iterator[Check]:
        element, base = node.element, core.element if core is not None else {}
        where = self._where
        fresh = {
            name: value
            for name, value in element.items()
            if not name.startswith("x-") and base.get(name) != value
        }
        yield from fixed_check(fresh, where)
        yield from limit_checks(fresh, where)
        if "type" in fresh and node is not self._root:
            if node.name.endswith("[x]"):
                yield from types_check(element, base, where)
            yield from profiles_check(element, where)
            yield from targets_check(element, base, where, self._trees)
        if "binding" in fresh:
            known = set(bindings_of(base))
            for binding in bindings_of(element):
                check = binding_check(binding, where) if not _has(known, binding) else None
                if check is not None:
                    yield check
        keys = self._core_keys(node, core)
        own = [one for one in element.get("constraint") or () if _key(one) not in keys]
        yield from invariant_checks(own, where)

    def _core_keys(self, node: Node, core: Node | None) -> set[tuple[str, str]]:
        """Return the constraints that the types of R4 have here."""
        keys = {("ele-1", ""), ("ext-1", "")}
        roots = [core] if core is not None else []
        names = [type_code(one) for one in node.element.get("type") or ()]
        if node is self._root and self._core_root is not None:
            names = [node.name]
        for name in names:
            seen = 0
            tree = self._core.type(name)
            while tree is not None and seen < _BASES_MAX:
                roots.append(tree)
                structure = self._core.structure(name)
                base = str((structure or {}).get("baseDefinition", ""))
                name, seen = base.removeprefix(TYPE_URL), seen + 1
                tree = self._core.type(name) if base else None
        for root in roots:
            keys |= {_key(one) for one in root.element.get("constraint") or ()}
        return keys


def _at(node: Node, path: str) -> str:
    """Return where the children of the element at ``path`` are defined: there, or in its type."""
    codes = {type_code(one) for one in node.element.get("type") or ()}
    code = codes.pop() if len(codes) == 1 else ""
    return path if code in _INLINE else code


def _key(constraint: Mapping[str, Any]) -> tuple[str, str]:
    """Return by what constraints are told apart: those of everything only by their key."""
    key = str(constraint.get("key"))
    return key, ""


def _has(known: set[Binding], binding: Binding) -> bool:
    """Return whether one of ``known`` demands as much of the same value set."""
    plain = binding.value_set.partition("|")[0]
    return any(
        one.strength in (binding.strength, "required") and one.value_set.partition("|")[0] == plain
        for one in known
    )


def _of_types(types: frozenset[str]) -> Any:
    return lambda run, item: item.type in types
