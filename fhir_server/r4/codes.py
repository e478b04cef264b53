"""The hierarchy of a code system.

https://hl7.org/fhir/R4/codesystem.html#hierarchy
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

# The properties by which a concept names a further parent, or a further child.
_PARENTS = ("parent", "subsumedBy")
_CHILDREN = ("child",)
# Codes of the property status that make a concept inactive (codesystem.html#defined-props).
_RETIRED = ("retired", "inactive")


class Hierarchy:
    """The concepts of one code system: which lie above and below which, and what they are like."""

    def __init__(self, concepts: Sequence[Mapping[str, Any]], *, nested: bool = True) -> None:
        """Read ``concepts``; ``nested`` says that one inside another is a kind of it."""
        self._parents: dict[str, set[str]] = {}
        self._children: dict[str, set[str]] = {}
        self._concepts: dict[str, Mapping[str, Any]] = {}
        for concept, above in _walked(concepts):
            code = concept["code"]
            self._concepts[code] = concept
            self._relate(code, (*(above if nested else ()), *_named(concept, _PARENTS)))
            for child in _named(concept, _CHILDREN):
                self._relate(child, (code,))

    def _relate(self, code: str, parents: tuple[str, ...]) -> None:
        self._parents.setdefault(code, set()).update(parents)
        for parent in parents:
            self._children.setdefault(parent, set()).add(code)

    @property
    def concepts(self) -> Mapping[str, Mapping[str, Any]]:
        """The concepts by code, in the order of the code system."""
        return self._concepts

    def parents(self, code: str) -> frozenset[str]:
        """Return what ``code`` is directly a kind of."""
        return frozenset(self._parents.get(code, ()))

    @cached_property
    def codes(self) -> frozenset[str]:
        """All codes of the system."""
        return frozenset(self._concepts)

    @cached_property
    def properties(self) -> frozenset[str]:
        """The names of the properties that some concept has."""
        return frozenset(
            one["code"] for concept in self._concepts.values() for one in _properties(concept)
        )

    def above(self, code: str) -> frozenset[str] | None:
        """Return ``code`` and what it is a kind of; ``None`` for a code that is not there."""
        return _closure(code, self._parents) if code in self._concepts else None

    def below(self, code: str) -> frozenset[str] | None:
        """Return ``code`` and its kinds; ``None`` for a code that is not there."""
        return _closure(code, self._children) if code in self._concepts else None

    def values(self, code: str, property: str) -> frozenset[str]:
        """Return what the concept ``code`` has for ``property``, as text; a boolean is ``true``."""
        if property == "parent":
            return frozenset(self._parents.get(code, ()))
        if property == "child":
            return frozenset(self._children.get(code, ()))
        concept = self._concepts[code]
        if property == "display":
            return frozenset((concept["display"],)) if "display" in concept else frozenset()
        found = (one for one in _properties(concept) if one["code"] == property)
        return frozenset(text for one in found if (text := property_text(one)) is not None)

    def is_active(self, code: str) -> bool:
        """Return whether nothing says that ``code`` is inactive; one that is not there is not."""
        return (
            code in self._concepts
            and "true" not in self.values(code, "inactive")
            and self.values(code, "status").isdisjoint(_RETIRED)
        )


def _walked(
    concepts: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[Mapping[str, Any], tuple[str, ...]]]:
    """Yield each concept, in their order, with the code that it is nested in, if any."""
    waiting: list[tuple[Mapping[str, Any], tuple[str, ...]]] = [
        (one, ()) for one in reversed(concepts)
    ]
    while waiting:
        concept, above = waiting.pop()
        yield concept, above
        inside: Sequence[Mapping[str, Any]] = concept.get("concept", ())
        waiting += [(one, (concept["code"],)) for one in reversed(inside)]


def _properties(concept: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = concept.get("property", ())
    return found


def _named(concept: Mapping[str, Any], properties: tuple[str, ...]) -> Iterator[str]:
    for one in _properties(concept):
        if one.get("code") in properties and "valueCode" in one:
            yield str(one["valueCode"])


def property_text(property: Mapping[str, Any]) -> str | None:
    """Return the value of ``property`` as filters name it; of a Coding its code."""
    for member, value in property.items():
        if member.startswith("value"):
            if type(value) is bool:
                return "true" if value else "false"
            return str(value.get("code")) if isinstance(value, dict) else str(value)
    return None


def _closure(code: str, related: Mapping[str, set[str]]) -> frozenset[str]:
    found: set[str] = set()
    waiting = {code}
    while waiting:
        found |= waiting
        waiting = {other for one in waiting for other in related.get(one, ())} - found
    return frozenset(found)
