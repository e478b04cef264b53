"""Codes of one system, without listing them: all of a large system, or what a filter leaves.

https://hl7.org/fhir/R4/valueset-filter-operator.html

A set of codes is either listed (a ``frozenset``) or one of the classes below. Listed sets are
computed with at once; the others are kept as they were said until somebody asks about one concept
(:func:`holds`) or has a database find them (``store/concept_filters.py``).

A concept, for them, is a document as ``store/concepts.py`` keeps it:

==============  ==================================================================================
``code``        the code
``display``     the display
``ancestors``   all that it is a kind of, itself among them
``keys``        ``property US value`` for each property, its parents as ``parent`` (:func:`key`)
``inactive``    true for one that is not to be used any more
==============  ==================================================================================
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

SEPARATOR = "\x1f"  # sorts below every character that a property or a value may have

Concept = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Every:
    """All codes of the system."""


@dataclass(frozen=True, slots=True)
class Active:
    """All codes that are still to be used."""


@dataclass(frozen=True, slots=True)
class Below:
    """The code itself and its kinds."""

    code: str


@dataclass(frozen=True, slots=True)
class Above:
    """The code itself and what it is a kind of."""

    code: str


@dataclass(frozen=True, slots=True)
class Children:
    """What has ``code`` among its children: its parents."""

    code: str


@dataclass(frozen=True, slots=True)
class Having:
    """Concepts whose ``property`` has one of ``values``; any value where that is ``None``."""

    property: str
    values: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Shown:
    """Concepts with one of these displays."""

    displays: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Both:
    """What all ``parts`` share."""

    parts: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """What any of ``parts`` has."""

    parts: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Without:
    """What ``whole`` has and ``part`` has not."""

    whole: Any
    part: Any


@dataclass(frozen=True, slots=True)
class Untold:
    """Nobody here can tell. ``reason`` is a sentence without its end."""

    reason: str


Codes = (
    frozenset[str]
    | Every
    | Active
    | Below
    | Above
    | Children
    | Having
    | Shown
    | Both
    | Either
    | Without
    | Untold
)
NONE: frozenset[str] = frozenset()


def key(property: str, value: str) -> str:
    """Return what a concept with this property has among its ``keys``."""
    return f"{property}{SEPARATOR}{value}"


def is_listed(codes: Codes) -> bool:
    """Whether ``codes`` are listed one by one."""
    return isinstance(codes, frozenset)


def union(one: Codes, other: Codes) -> Codes:
    """Return what either has."""
    if isinstance(one, frozenset) and isinstance(other, frozenset):
        return one | other
    if one in (other, NONE):
        return other
    if other == NONE:
        return one
    if Every() in (one, other):
        return Every()
    return Either((one, other))


def intersection(one: Codes, other: Codes) -> Codes:
    """Return what both have."""
    if isinstance(one, frozenset) and isinstance(other, frozenset):
        return one & other
    if NONE in (one, other):
        return NONE
    if one == Every():
        return other
    return one if other in (Every(), one) else Both((one, other))


def difference(one: Codes, other: Codes) -> Codes:
    """Return what ``one`` has and ``other`` has not."""
    if isinstance(one, frozenset) and isinstance(other, frozenset):
        return one - other
    if one == NONE or other == Every():
        return NONE
    return one if other == NONE else Without(one, other)


def untold(codes: Codes) -> str:
    """Return why somebody may not be able to tell what is in ``codes``, or ``""``."""
    return next((one.reason for one in leaves(codes) if isinstance(one, Untold)), "")


def asked(codes: Codes) -> frozenset[str]:
    """Return the codes whose concepts must be known to compute with ``codes``."""
    return frozenset(one.code for one in leaves(codes) if isinstance(one, Above | Children))


def settled(codes: Codes, known: Mapping[str, Concept]) -> Codes:
    """Return ``codes`` without what :func:`asked` names; ``known`` are those that exist."""
    match codes:
        case Above(code):
            return frozenset(known[code]["ancestors"]) if code in known else NONE
        case Children(code):
            prefix = key("parent", "")
            found = known[code]["keys"] if code in known else ()
            return frozenset(one.removeprefix(prefix) for one in found if one.startswith(prefix))
        case Both(parts):
            return _folded(intersection, parts, known)
        case Either(parts):
            return _folded(union, parts, known)
        case Without(whole, part):
            return difference(settled(whole, known), settled(part, known))
    return codes


def _folded(
    join: Callable[[Codes, Codes], Codes], parts: tuple[Codes, ...], known: Mapping[str, Concept]
) -> Codes:
    first, *rest = (settled(one, known) for one in parts)
    for one in rest:
        first = join(first, one)
    return first


def holds(codes: Codes, concept: Concept) -> bool | None:
    """Whether ``concept`` is one of ``codes``, which are settled; ``None``: nobody can tell."""
    match codes:
        case frozenset():
            return concept["code"] in codes
        case Untold():
            return None
        case Both(parts):
            return _all(holds(one, concept) for one in parts)
        case Either(parts):
            return _not(_all(_not(holds(one, concept)) for one in parts))
        case Without(whole, part):
            return _all((holds(whole, concept), _not(holds(part, concept))))
    return _PLAIN[type(codes)](codes, concept)


def _all(answers: Iterable[bool | None]) -> bool | None:
    found: bool | None = True
    for one in answers:
        if one is False:
            return False
        found = None if one is None else found
    return found


def _not(answer: bool | None) -> bool | None:
    return None if answer is None else not answer


def _has(codes: Having, concept: Concept) -> bool:
    if codes.values is None:
        return any(one.startswith(key(codes.property, "")) for one in concept.get("keys", ()))
    wanted = {key(codes.property, value) for value in codes.values}
    return not wanted.isdisjoint(concept.get("keys", ()))


_PLAIN: Mapping[type, Callable[[Any, Concept], bool]] = {
    Every: lambda _, concept: True,
    Active: lambda _, concept: not concept.get("inactive"),
    Below: lambda codes, concept: codes.code in concept.get("ancestors", ()),
    Having: _has,
    Shown: lambda codes, concept: concept.get("display") in codes.displays,
}


def leaves(codes: Codes) -> Iterator[Codes]:
    """Yield what ``codes`` is put together of."""
    waiting = [codes]
    while waiting:
        match waiting.pop():
            case Both(parts) | Either(parts):
                waiting += parts
            case Without(whole, part):
                waiting += (whole, part)
            case leaf:
                yield leaf
