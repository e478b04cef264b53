"""All paths of a type's search parameters as one tree, so that a resource is walked once.

Each member that a resource has is looked up once, however many parameters go through it, and each
value is converted once for all parameters that write it in the same way. What it costs depends on
the size of the resource, not on the number of parameters: Observation has some seventy.
"""

from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any

from fhir_server.r4.json import WrittenDecimal
from fhir_server.r4.paths import Path, Step

Convert = Callable[[Any], list[Any]]
ConvertWhole = Callable[[Any, Any], list[Any]]
Found = dict[str, list[Any]]
"""Field -> its keys. A field without keys is an element that is there, with nothing to search."""
BESIDE = ":"
"""Stands in the names of fields that are kept beside the keys of a parameter; such a field without
keys says nothing, and is not there."""

# FHIR type -> the Python types that a value of it has in JSON; of all others, a dict. Whatever
# else stands there is not valid, and has no key.
_TEXT: frozenset[type] = frozenset({str})
_NUMBER: frozenset[type] = frozenset({int, Decimal, WrittenDecimal})
_OBJECT: frozenset[type] = frozenset({dict})
_JSON_TYPES: dict[str, frozenset[type]] = {
    **dict.fromkeys(("code", "string", "markdown", "id"), _TEXT),
    **dict.fromkeys(("uri", "url", "canonical", "oid", "uuid"), _TEXT),
    **dict.fromkeys(("date", "dateTime", "instant", "time"), _TEXT),
    **dict.fromkeys(("decimal", "integer", "positiveInt", "unsignedInt"), _NUMBER),
    "boolean": frozenset({bool}),
}
_NO_KEYS: list[Any] = []


class Tree:
    """A place in a resource, and what is done with an element found there."""

    __slots__ = (
        *("_elsewhere", "_leaves", "_members", "_others", "_positions", "_tests", "_wholes"),
    )

    def __init__(self) -> None:
        self._members: dict[str, Tree] = {}
        self._positions: dict[int, Tree] = {}
        self._tests: dict[Step, Tree] = {}
        # Whether it is kept beside the keys of a parameter is the last of each.
        self._leaves: list[tuple[frozenset[type], Convert, tuple[str, ...], bool]] = []
        self._wholes: dict[ConvertWhole, list[str]] = {}
        self._elsewhere: dict[Path, Tree] = {}
        self._others = False  # whether there are wholes, tests, or paths that lead elsewhere

    def add(self, path: Path, convert: Convert, field: str) -> None:
        """Have ``convert`` write to ``field`` what lies at the end of ``path``."""
        self._end(path)._add_leaf(_JSON_TYPES.get(path.type, _OBJECT), convert, field)

    def add_whole(self, path: Path, convert: ConvertWhole, field: str) -> None:
        """The same for a ``convert`` that also looks at the whole resource."""
        end = self._end(path)
        end._wholes.setdefault(convert, []).append(field)
        end._others = True

    def _end(self, path: Path) -> "Tree":
        """Return the tree of what lies at the end of ``path``."""
        if _is_walkable(path.steps):
            return self._at(path.steps)
        self._others = True
        return self._elsewhere.setdefault(path, Tree())

    def _add_leaf(self, kinds: frozenset[type], convert: Convert, field: str) -> None:
        is_beside = BESIDE in field
        for at, (other_kinds, other, fields, others_are) in enumerate(self._leaves):
            if other is convert and other_kinds == kinds and others_are == is_beside:
                self._leaves[at] = (kinds, convert, (*fields, field), is_beside)
                return
        self._leaves.append((kinds, convert, (field,), is_beside))

    def _at(self, steps: Sequence[Step]) -> "Tree":
        tree = self
        for step in steps:
            if step.position is not None:
                tree = tree._positions.setdefault(step.position, Tree())
            elif step.test is not None:
                tree._others = True
                tree = tree._tests.setdefault(step, Tree())
            else:
                tree = tree._members.setdefault(step.name, Tree())
        return tree

    def walk(self, element: Any, resource: Any, found: Found) -> None:
        """Add to ``found`` the keys of ``element``, which lies in ``resource``."""
        kind = type(element)
        for kinds, convert, fields, is_beside in self._leaves:
            keys = convert(element) if kind in kinds else _NO_KEYS
            if is_beside and not keys:
                continue
            for field in fields:
                if field in found:
                    found[field] += keys
                else:
                    found[field] = keys[:]  # a list of its own: several fields get these keys
        if self._others:
            self._walk_others(element, resource, found)
        if kind is dict and self._members:
            self._walk_members(element, resource, found)

    def _walk_others(self, element: Any, resource: Any, found: Found) -> None:
        for convert_whole, fields in self._wholes.items():
            if keys := convert_whole(element, resource):
                for field in fields:
                    found.setdefault(field, []).extend(keys)
        for step, below in self._tests.items():
            assert step.test is not None
            passed = step.test(element, resource)
            if step.computes:
                below.walk(passed, resource, found)
            elif passed:
                below.walk(element, resource, found)
        if self._elsewhere:
            self._walk_elsewhere(element, resource, found)

    def _walk_elsewhere(self, element: Any, resource: Any, found: Found) -> None:
        for path, end in self._elsewhere.items():
            for value in path.values(element, resource):
                end.walk(value, resource, found)

    def _walk_members(self, element: dict[str, Any], resource: Any, found: Found) -> None:
        members = self._members
        for name, value in element.items():
            below = members.get(name)
            if below is None or value is None:
                continue
            if type(value) is not list:
                below.walk(value, resource, found)
            else:
                for item in value:
                    if item is not None:
                        below.walk(item, resource, found)
            if below._positions:
                below._walk_positions(value, resource, found)

    def _walk_positions(self, value: Any, resource: Any, found: Found) -> None:
        items = value if type(value) is list else [value]
        for position, tree in self._positions.items():
            for item in items[position : position + 1]:
                tree.walk(item, resource, found)


def _is_walkable(steps: Sequence[Step]) -> bool:
    """Whether a walk from element to element meets what ``steps`` mean.

    ``name.given[0]`` is the first of all given names, not of each name: a position that stands
    behind a list, or behind a test, is picked from everything before it.
    """
    many = False
    for before, step in pairwise((Step(""), *steps)):
        if step.position is None:
            many = many or (before.many and before.position is None)
        elif many or not before.name:
            return False
    return True
