"""JSON Patch: a list of operations on the JSON of a resource.

https://www.rfc-editor.org/rfc/rfc6902 and https://www.rfc-editor.org/rfc/rfc6901 (JSON Pointer)

All operations succeed, or nothing is changed: they work on a copy that is thrown away.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import re2 as re

from fhir_server.outcome import shown
from fhir_server.patch.bounds import (
    Bounds,
    Copies,
    check_depth,
    copied,
    inapplicable,
    malformed,
    too_many,
)

Pointer = tuple[str, ...]

_INDEX = re.compile(r"0|[1-9][0-9]{0,9}")  # RFC 6901, 4: no sign, no zeros in front
_BAD_ESCAPE = re.compile(r"~(?:[^01]|$)")
_END = "-"
# Operation -> the members that it needs besides its path.
_NEEDS = {
    "add": "value",
    "remove": None,
    "replace": "value",
    "move": "from",
    "copy": "from",
    "test": "value",
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation; ``what`` names it for messages, ``source`` is its ``from``."""

    what: str
    op: str
    path: Pointer
    source: Pointer = ()
    value: Any = None


def operations(document: Any, bounds: Bounds) -> tuple[Operation, ...]:
    """Return the operations of a JSON Patch ``document``.

    Raises status 400, naming the operation, for what is no JSON Patch; 413 for too many operations.
    """
    if not isinstance(document, list):
        raise malformed("The JSON Patch", "it must be an array of operations.")
    if len(document) > bounds.operations_max:
        raise too_many("operations", len(document), bounds.operations_max)
    return tuple(_operation(index, one) for index, one in enumerate(document))


def patched(resource: Any, wanted: tuple[Operation, ...], bounds: Bounds) -> Any:
    """Return what ``wanted`` make of ``resource``, which stays as it is.

    The result need not be a resource, nor an object. Raises ``processing`` (422), naming the
    operation, for a path that is not there and a ``test`` that fails; 413 for too much copying.
    """
    work = _Work(copied(resource), Copies(bounds))
    for operation in wanted:
        _APPLY[operation.op](work, operation)
    if isinstance(work.root, dict | list):
        check_depth(work.root, bounds)
    return work.root


def _operation(index: int, raw: Any) -> Operation:
    what = f"Operation [{index}] of the patch"
    if not isinstance(raw, dict):
        raise malformed(what, "it must be a JSON object.")
    op, path = raw.get("op"), raw.get("path")
    if not isinstance(op, str) or op not in _NEEDS:
        expected = ", ".join(_NEEDS)
        raise malformed(what, f"its op is {shown(op)}; expected one of {expected}.", code="value")
    if not isinstance(path, str):
        raise malformed(what, "it needs a path, which is a string.", code="required")
    what = f"Operation [{index}] of the patch ({op} {shown(path)})"
    needed = _NEEDS[op]
    if needed and needed not in raw:
        raise malformed(what, f"it needs a {needed}.", code="required")
    if needed == "from" and not isinstance(raw["from"], str):
        raise malformed(what, "its from must be a string.", code="value")
    source = _pointer(what, raw["from"]) if needed == "from" else ()
    return Operation(what, op, _pointer(what, path), source, raw.get("value"))


def _pointer(what: str, text: str) -> Pointer:
    """Return the steps of a JSON Pointer; ``""`` is the whole document."""
    if text and text[0] != "/":
        raise malformed(what, f"{shown(text)} is no JSON Pointer: it begins with /.", code="value")
    if _BAD_ESCAPE.search(text):
        why = f"{shown(text)} is no JSON Pointer: ~ is written ~0 and / is written ~1."
        raise malformed(what, why, code="value")
    # ~1 first: ~01 is then ~1 and not a slash.
    return tuple(one.replace("~1", "/").replace("~0", "~") for one in text.split("/")[1:])


@dataclass(slots=True)
class _Work:
    """The document while it is changed."""

    root: Any
    copies: Copies

    def parent(self, operation: Operation, pointer: Pointer) -> Any:
        """Return the container of what ``pointer``, which is not empty, means."""
        found = self.root
        for step in pointer[:-1]:
            found = _child(operation, found, step)
        return found

    def value(self, operation: Operation, pointer: Pointer) -> Any:
        """Return what is at ``pointer``."""
        if not pointer:
            return self.root
        return _child(operation, self.parent(operation, pointer), pointer[-1])

    def put(self, operation: Operation, pointer: Pointer, value: Any) -> None:
        """Add ``value`` at ``pointer``: before what is there in an array, over it in an object."""
        if not pointer:
            self.root = value
            return
        parent, step = self.parent(operation, pointer), pointer[-1]
        if isinstance(parent, list):
            index = len(parent) if step == _END else _index(operation, parent, step, more=1)
            parent.insert(index, value)
        elif isinstance(parent, dict):
            parent[step] = value
        else:
            raise _absent(operation, step)

    def take(self, operation: Operation, pointer: Pointer) -> Any:
        """Remove what is at ``pointer`` and return it."""
        if not pointer:
            raise inapplicable(operation.what, "the whole resource cannot be removed.")
        parent, step = self.parent(operation, pointer), pointer[-1]
        value = _child(operation, parent, step)
        del parent[int(step) if isinstance(parent, list) else step]
        return value


def _child(operation: Operation, parent: Any, step: str) -> Any:
    if isinstance(parent, list):
        return parent[_index(operation, parent, step)]
    if isinstance(parent, dict) and step in parent:
        return parent[step]
    raise _absent(operation, step)


def _index(operation: Operation, parent: list[Any], step: str, *, more: int = 0) -> int:
    """Return the place in ``parent`` that ``step`` says; ``more`` is 1 where its end is one."""
    if _INDEX.fullmatch(step) and int(step) < len(parent) + more:
        return int(step)
    why = f"{shown(step)} is no place in an array of {len(parent)}."
    raise inapplicable(operation.what, why)


def _absent(operation: Operation, step: str) -> Exception:
    return inapplicable(operation.what, f"there is no {shown(step)} at that place.")


def _add(work: _Work, operation: Operation) -> None:
    # A copy: a later operation may change what was added, and the patch may be applied again.
    work.put(operation, operation.path, copied(operation.value))


def _remove(work: _Work, operation: Operation) -> None:
    work.take(operation, operation.path)


def _replace(work: _Work, operation: Operation) -> None:
    if not operation.path:
        work.root = copied(operation.value)
        return
    parent, step = work.parent(operation, operation.path), operation.path[-1]
    _child(operation, parent, step)
    parent[int(step) if isinstance(parent, list) else step] = copied(operation.value)


def _move(work: _Work, operation: Operation) -> None:
    source, target = operation.source, operation.path
    if source == target:
        work.value(operation, source)  # it must be there
        return
    if target[: len(source)] == source:
        raise inapplicable(operation.what, "nothing can be moved into itself.")
    work.put(operation, target, work.take(operation, source))


def _copy(work: _Work, operation: Operation) -> None:
    value = work.value(operation, operation.source)
    work.put(operation, operation.path, work.copies.copy(value))


def _test(work: _Work, operation: Operation) -> None:
    if not equal(work.value(operation, operation.path), operation.value):
        raise inapplicable(operation.what, "the test fails: another value is there.")


_APPLY: Mapping[str, Callable[[_Work, Operation], None]] = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "move": _move,
    "copy": _copy,
    "test": _test,
}


def equal(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal (RFC 6902, 4.6): numbers by value, objects in any order."""
    if isinstance(one, bool) or isinstance(other, bool):  # to Python, True is 1
        return one is other
    if isinstance(one, int | Decimal) and isinstance(other, int | Decimal):
        return one == other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return type(one) is type(other) and bool(one == other)
