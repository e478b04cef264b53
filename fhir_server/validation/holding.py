"""Whether the invariants of R4 hold for a resource, told quickly where they do.

https://hl7.org/fhir/R4/conformance-rules.html#constraints

A write asks this of every resource. Only elements that have an invariant in them are visited, and
of what may be broken nothing is said here but that it may: a judgement then explains. What is left
out is what stands inside of extensions of elements that have no invariant themselves.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from fhir_server.validation.compiling import inherited_constraints, keys_of
from fhir_server.validation.invariants import invariant_checks
from fhir_server.validation.running import Check, Item, Run, Scope
from fhir_server.validation.snapshot import Trees, referred
from fhir_server.validation.trees import Node

_EXTENSIONS = frozenset(("extension", "modifierExtension"))
# Where what is around a resource matters, the whole judgement is made.
_WHOLE = frozenset(("Bundle", "Parameters"))


def _says_no_value(value: Mapping[str, Any]) -> bool:
    return "dataAbsentReason" not in value


def _has_no_parts(value: Mapping[str, Any]) -> bool:
    return "component" not in value


def _has_no(*names: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda value: not any(name in value for name in names)


SURELY: Final[Mapping[str, Callable[[Mapping[str, Any]], bool]]] = {
    "obs-6": _says_no_value,
    "obs-7": _has_no_parts,
    "dom-3": _has_no("contained"),
    "dom-4": _has_no("contained"),
    "dom-5": _has_no("contained"),
    "qty-3": _has_no("code"),
    "cpt-2": _has_no("value"),
    "att-1": _has_no("data"),
    "per-1": _has_no("end"),
    "obs-3": lambda value: "low" in value or "high" in value or "text" in value,
    "pat-1": lambda value: "name" in value or "telecom" in value,
    "cpl-3": lambda value: "detail" not in value or "reference" not in value,
    "org-1": lambda value: "name" in value,
}
"""By key, that an invariant holds without further ado; a test holds them to the FHIRPath."""


class _Place:
    """What is to be judged of the values of an element: by ``members``, of those inside of it."""

    __slots__ = ("checks", "has_work", "members")

    def __init__(self, checks: tuple[Check, ...] = ()) -> None:
        self.checks = checks
        self.members: dict[str, tuple[str, _Place]] = {}
        self.has_work = bool(checks)


class Holding:
    """Says of resources whether the invariants of their types surely hold. For several threads."""

    def __init__(self, trees: Trees) -> None:
        self._trees = trees
        self._places: dict[str, _Place | None] = {}
        self._ready: dict[str, _Place | None] = {}
        self._lock = threading.Lock()

    def surely(self, run: Run, resource: dict[str, Any], container: Any = None) -> bool:
        """Return whether all invariants of a valid ``resource`` hold; ``False`` where it is not
        told."""
        type = str(resource.get("resourceType"))
        place = self._ready.get(type)
        if place is None:
            place = self._made(type)
        if place is None or type in _WHOLE:
            return False
        scope = Scope(resource, container)
        _walk(run, resource, type, place, scope)
        if run.issues or run.is_exhausted:
            return False
        contained = resource.get("contained")
        return not contained or all(self.surely(run, one, resource) for one in contained)

    def _made(self, type: str) -> _Place | None:
        with self._lock:
            place = self._type(type)
            if place is not None:
                _prune(place)
            self._ready[type] = place
            return place

    def _type(self, name: str) -> _Place | None:
        if name in self._places:
            return self._places[name]
        tree = self._trees.type(name)
        if tree is None:
            self._places[name] = None
            return None
        own = list(tree.element.get("constraint") or ())
        place = self._places[name] = _Place(
            (*_checks([*own, *inherited_constraints(self._trees, name)]), *_OF_TYPES.get(name, ()))
        )
        self._fill(place, tree, name, tree, {})
        return place

    def _fill(
        self, place: _Place, node: Node, path: str, root: Node, made: dict[int, _Place]
    ) -> None:
        made[id(node)] = place
        for name, one in node.children.items():
            if name == "contained":
                continue
            reference = str(one.element.get("contentReference", "")).rpartition("#")[2]
            below = reference or f"{path}.{name}"
            for key, type in keys_of(one, below).items():
                found = self._below(one, below, type, root, made)
                if found is not None:
                    place.members[key] = type, found

    def _below(
        self, node: Node, path: str, type: str, root: Node, made: dict[int, _Place]
    ) -> _Place | None:
        reference = node.element.get("contentReference")
        target = referred(reference, root) if reference else node
        if target.children:
            found = made.get(id(target))
            if found is None:
                found = _Place(tuple(_checks(target.element.get("constraint"))))
                self._fill(found, target, path, root, made)
            return found
        checks = tuple(_checks(node.element.get("constraint")))
        inner = self._type(type) if type[:1].isupper() else None
        if inner is None or not checks:
            return inner or (_Place(checks) if checks else None)
        both = _Place((*checks, *inner.checks))
        both.members = inner.members
        return both


def _checks(constraints: Any) -> Iterator[Check]:
    for one in constraints or ():
        if one.get("severity") != "error":
            continue
        surely = SURELY.get(one.get("key"))
        for check in invariant_checks([one], "R4", is_core=True):
            yield check if surely is None else _unless(surely, check)


def _unless(surely: Callable[[Mapping[str, Any]], bool], check: Check) -> Check:
    def judged(run: Run, item: Item) -> None:
        if not isinstance(item.value, dict) or not surely(item.value):
            check(run, item)

    return judged


def _is_led_to(run: Run, item: Item) -> None:
    """ref-1: a reference to a contained resource leads to one."""
    text = item.value.get("reference") if isinstance(item.value, dict) else None
    if isinstance(text, str) and text[:1] == "#" and text != "#":
        contained = item.scope.container.get("contained", ())
        if not any(one.get("id") == text[1:] for one in contained):
            run.add("invariant", "It leads to nothing.", item)


_OF_TYPES: Mapping[str, tuple[Check, ...]] = {"Reference": (_is_led_to,)}


def _prune(place: _Place) -> None:
    """Leave out what has nothing to judge below it, here and further down."""
    seen: dict[int, _Place] = {}
    rest = [place]
    while rest:
        one = rest.pop()
        if id(one) not in seen:
            seen[id(one)] = one
            rest.extend(inner for _, inner in one.members.values())
    is_changing = True
    while is_changing:
        is_changing = False
        for one in seen.values():
            if not one.has_work and any(
                inner.has_work
                for name, (_, inner) in one.members.items()
                if name not in _EXTENSIONS
            ):
                one.has_work = is_changing = True
    for one in seen.values():
        for name in [name for name, (_, inner) in one.members.items() if not inner.has_work]:
            del one.members[name]


def _walk(run: Run, value: Any, type: str, place: _Place, scope: Scope) -> None:
    if place.checks:
        run.steps += 1
        item = Item(value, type, scope, None, type)
        for check in place.checks:
            check(run, item)
    members = place.members
    if not members or not isinstance(value, dict):
        return
    for key, found in value.items():
        member = members.get(key)
        if member is not None:
            inner, below = member
            if isinstance(found, list):
                for one in found:
                    _walk(run, one, inner, below, scope)
            else:
                _walk(run, found, inner, below, scope)
