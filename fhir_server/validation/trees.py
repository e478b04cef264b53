"""The elements of a StructureDefinition as a tree: children below elements, slices beside them.

https://hl7.org/fhir/R4/elementdefinition.html#id

A snapshot is a list in which a path, or an id, says where each element belongs. Both are read;
where an element has no id, it belongs to the last element before it that has the path of its
parent.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Element = Mapping[str, Any]
ELEMENTS_MAX = 20_000
"""Of one tree, with all that was unfolded into it: the largest published profile has some 900."""


class Unusable(Exception):
    """A StructureDefinition from which no rules can be made; the text is one sentence."""


class Node:
    """One element of a profile.

    ``name`` is the last step of its path (``value[x]``), ``slice`` its slice name or ``""``.
    ``children`` by name, ``slices`` by slice name, both in their order.
    """

    __slots__ = ("children", "element", "name", "slice", "slices")

    def __init__(self, name: str, element: Element, slice: str = "") -> None:
        self.name = name
        self.slice = slice
        self.element: dict[str, Any] = dict(element)
        self.children: dict[str, Node] = {}
        self.slices: dict[str, Node] = {}

    def copy(self, budget: "Budget") -> "Node":
        """Return a copy of the whole tree below; elements themselves are shared values."""
        budget.spend()
        copied = Node(self.name, self.element, self.slice)
        copied.children = {name: child.copy(budget) for name, child in self.children.items()}
        copied.slices = {name: one.copy(budget) for name, one in self.slices.items()}
        return copied

    def walk(self, path: str = "", id: str = "") -> Iterator[tuple[str, str, "Node"]]:
        """Yield ``(id, path, node)`` of all elements, in the order of a snapshot."""
        path = f"{path}.{self.name}" if path else self.name
        step = f"{self.name}:{self.slice}" if self.slice else self.name
        id = f"{id}.{step}" if id else step
        yield id, path, self
        for child in self.children.values():
            yield from child.walk(path, id)
        parent_path, _, _ = path.rpartition(".")
        parent_id = id[: len(id) - len(step)].removesuffix(".")
        for one in self.slices.values():
            yield from one.walk(parent_path, parent_id)


class Budget:
    """How many elements may still be made."""

    __slots__ = ("left",)

    def __init__(self, most: int = ELEMENTS_MAX) -> None:
        self.left = most

    def spend(self) -> None:
        """Count one element. Raises :class:`Unusable` when there are too many."""
        self.left -= 1
        if self.left < 0:
            raise Unusable(f"It has more than {ELEMENTS_MAX:,} elements, with those it takes in.")


Steps = tuple[tuple[str, str], ...]


def steps_of(elements: Sequence[Element]) -> Iterator[tuple[Steps, Element]]:
    """Yield each element with its place: ``(name, slice name)`` for each step below the root."""
    last: dict[str, Steps] = {}
    for element in elements:
        path = element.get("path")
        if not isinstance(path, str) or not path:
            raise Unusable("It has an element without a path.")
        names = path.split(".")
        if not all(names):
            raise Unusable(f"It has an element whose path, {path[:100]}, lacks a name.")
        steps = _from_id(element, names) or _from_order(element, names, last)
        last[path] = steps
        yield steps, element


def _from_id(element: Element, names: list[str]) -> Steps | None:
    id = element.get("id")
    parts = id.split(".") if isinstance(id, str) else []
    if len(parts) != len(names):
        return None
    found = tuple((name, slice) for name, _, slice in (part.partition(":") for part in parts[1:]))
    # An id that contradicts path or slice name is no guide.
    if found and found[-1][1] != element.get("sliceName", found[-1][1]):
        return None
    # Of a choice the id may have the general name, and its slice, where the path has the special.
    is_same = all(
        one == name or (one.endswith("[x]") and (slice or one[:-3]) in (name, name[: len(one) - 3]))
        for (one, slice), name in zip(found, names[1:], strict=True)
    )
    return found if is_same and parts[0] == names[0] else None


def _from_order(element: Element, names: list[str], last: Mapping[str, Steps]) -> Steps:
    if len(names) == 1:
        return ()
    for depth in range(len(names) - 1, 0, -1):
        before = last.get(".".join(names[:depth]))
        if before is not None or depth == 1:
            between = tuple((name, "") for name in names[depth:-1])
            slice = str(element.get("sliceName", ""))
            return (*(before or ()), *between, (names[-1], slice))
    return ()


def tree_of_snapshot(elements: Sequence[Element]) -> Node:
    """Return the tree of a snapshot. Raises :class:`Unusable` where it is none."""
    if not elements:
        raise Unusable("Its snapshot has no elements.")
    budget = Budget()
    root: Node | None = None
    for steps, element in steps_of(elements):
        budget.spend()
        if root is None:
            root = Node(str(element["path"]), element)
            continue
        _place(root, steps, element)
    assert root is not None
    return root


def _place(root: Node, steps: Steps, element: Element) -> None:
    """Put ``element`` where ``steps`` lead to, below elements that stood before it."""
    node = root
    for number, (name, slice) in enumerate(steps):
        is_last = number == len(steps) - 1
        child = node.children.get(name)
        if child is None:
            child = node.children[name] = Node(name, element if is_last and not slice else {})
        if slice:
            one = child.slices.get(slice)
            if one is None:
                one = child.slices[slice] = Node(name, element if is_last else {}, slice)
            child = one
        node = child
    if not node.element:
        node.element = dict(element)
