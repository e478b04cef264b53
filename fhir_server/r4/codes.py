"""The hierarchy of a code system.

https://hl7.org/fhir/R4/codesystem.html#hierarchy
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# The properties by which a concept names a further parent.
_PARENTS = ("parent", "subsumedBy")


class Hierarchy:
    """The concepts of one code system, and which lie above and below which."""

    def __init__(self, concepts: Sequence[Mapping[str, Any]]) -> None:
        self._parents: dict[str, set[str]] = {}
        self._children: dict[str, set[str]] = {}
        for code, parents in _relations(concepts, ()):
            self._parents.setdefault(code, set()).update(parents)
            for parent in parents:
                self._children.setdefault(parent, set()).add(code)

    def above(self, code: str) -> frozenset[str] | None:
        """Return ``code`` and what it is a kind of; ``None`` for a code that is not there."""
        return _closure(code, self._parents) if code in self._parents else None

    def below(self, code: str) -> frozenset[str] | None:
        """Return ``code`` and its kinds; ``None`` for a code that is not there."""
        return _closure(code, self._children) if code in self._parents else None


def _relations(
    concepts: Sequence[Mapping[str, Any]], above: tuple[str, ...]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each code with its parents, depth first."""
    for concept in concepts:
        named = (
            str(one["valueCode"])
            for one in concept.get("property", ())
            if one.get("code") in _PARENTS and "valueCode" in one
        )
        yield concept["code"], (*above, *named)
        yield from _relations(concept.get("concept", ()), (concept["code"],))


def _closure(code: str, related: Mapping[str, set[str]]) -> frozenset[str]:
    found: set[str] = set()
    waiting = {code}
    while waiting:
        found |= waiting
        waiting = {other for one in waiting for other in related.get(one, ())} - found
    return frozenset(found)
