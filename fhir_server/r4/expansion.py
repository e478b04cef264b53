"""Value sets -> codes.

https://hl7.org/fhir/R4/valueset.html#compositions, https://hl7.org/fhir/R4/valueset-filter-operator.html

An expansion is whole or it is refused: :class:`Unexpandable` says what is missing. ``find`` gives
the value sets and code systems that are named, wherever they are kept. Of a system whose concepts
are not in the resource (:class:`Shelved`), a selection says what is taken without listing it
(``selections.py``).
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import re2

from fhir_server.r4.codes import Hierarchy
from fhir_server.r4.ecl import REFSET, NotEcl, ecl_codes
from fhir_server.r4.selections import (
    NONE,
    Above,
    Active,
    Below,
    Children,
    Codes,
    Every,
    Having,
    Shown,
    Untold,
    difference,
    intersection,
    union,
    untold,
)

Code = tuple[str, str]
"""``(system, code)``"""

Find = Callable[[str, str], Mapping[str, Any] | None]
"""``(type, canonical) -> ValueSet or CodeSystem``, or ``None`` where there is none such."""

# Properties that every code system has: https://hl7.org/fhir/R4/codesystem.html#defined-props.
_ITSELF = ("concept", "code")
_DEFINED = ("parent", "child", "inactive", "status", "notSelectable", "deprecated")
# Extensions that say that an expansion is not whole.
_CUT = ("valueset-toocostly", "valueset-unclosed")
_PATTERN_MAX = 500
_DEPTH_MAX = 100  # levels on which value sets take in each other
# How many times over the codes of a largest expansion may be looked at. To test what a code has for
# a property counts for many: all of it together takes some four seconds at most.
_LOOKS = 50
_LOOKS_OF_A_TEST = 30
_PATTERN_BYTES = 131_072  # what RE2 may make of one; a larger one is slow on long texts


Selection = Mapping[str, Codes]
"""What a value set takes of each system, by the system's url."""


class Shelved(dict[str, Any]):
    """A CodeSystem whose concepts are not listed in it, though every one of them can be told.

    ``shelf`` is where a database has them; where it is ``None`` they follow from ``grammar``, which
    returns the concept of a code, or ``None``.
    """

    shelf: Any = None
    grammar: Callable[[str], Mapping[str, Any] | None] | None = None


class Listed(dict[str, Any]):
    """A CodeSystem with its concepts, and its ``hierarchy``, made once."""

    def __init__(self, code_system: Mapping[str, Any], hierarchy: Hierarchy | None = None) -> None:
        super().__init__(code_system)
        self.hierarchy = hierarchy or _hierarchy(code_system)

    @cached_property
    def folded(self) -> Mapping[str, str]:
        """The codes by what they are where case says nothing; the first of several."""
        return {code.casefold(): code for code in reversed([*self.hierarchy.concepts])}


class Unexpandable(Exception):
    """A value set whose codes cannot all be known; the text is a sentence that says why."""


class Expander:
    """Expands value sets, each once.

    ``codes_max`` bounds one expansion, and with it how many codes are looked at for all of them.
    ``find`` may raise what it likes: it comes through.
    """

    def __init__(self, find: Find, codes_max: int | None = None) -> None:
        self._find = find
        self._codes_max = codes_max
        self._looked_at = 0
        self._selections: dict[str, Selection] = {}
        self._systems: dict[str, Mapping[str, Any]] = {}
        self._hierarchies: dict[str, Hierarchy] = {}
        self.versions: dict[str, set[str]] = {}
        """The versions that value sets ask for, by system."""

    def codes(self, name: str) -> frozenset[Code]:
        """Return the codes of the value set ``name``: a canonical or ``ValueSet/id``.

        Raises :class:`Unexpandable` where they cannot all be known.
        """
        found: set[Code] = set()
        for system, codes in self.selection(name).items():
            if reason := untold(codes):
                raise Unexpandable(reason)
            if not isinstance(codes, frozenset):
                raise Unexpandable(f"the codes of {system} are too many to be listed here")
            found |= {(system, code) for code in codes}
        return frozenset(found)

    def selection(self, name: str) -> Selection:
        """Return what the value set ``name`` takes of each system.

        A system that is not here is taken as :class:`Untold`. Raises :class:`Unexpandable` where a
        value set is missing, or says what nobody understands.
        """
        return self._codes(name, ())

    def hierarchy(self, system: str) -> Hierarchy:
        """Return the concepts of the code system ``system``, a canonical.

        Raises :class:`Unexpandable` where they are not all here.
        """
        if system not in self._hierarchies:
            found = self._whole(system)
            if isinstance(found, Shelved):
                raise Unexpandable(f"the codes of {system} are too many to be listed here")
            self._look_at(len(found.get("concept", ())))
            self._hierarchies[system] = (
                found.hierarchy if isinstance(found, Listed) else _hierarchy(found)
            )
        return self._hierarchies[system]

    def _look_at(self, codes: int) -> None:
        """Count the work: a value set of a megabyte can have ten thousand filters."""
        self._looked_at += codes
        if self._codes_max is not None and self._looked_at > self._codes_max * _LOOKS:
            raise Unexpandable("its filters and imports go through too many codes")

    def _whole(self, system: str) -> Mapping[str, Any]:
        if system in self._systems:
            return self._systems[system]
        found = self._find("CodeSystem", system)
        if found is None:
            raise _Missing(f"the code system {system} is not here")
        content = found.get("content")
        if content != "complete":
            raise _Missing(f"of the code system {system} not all is here (it is {content})")
        self._systems[system] = found
        return found

    def _codes(self, name: str, inside: tuple[str, ...]) -> Selection:
        if name in self._selections:
            return self._selections[name]
        if name in inside:
            raise Unexpandable(f"the value set {name} is defined by itself")
        if len(inside) > _DEPTH_MAX:
            raise Unexpandable(f"value sets take in each other over {_DEPTH_MAX} levels")
        found = self._find("ValueSet", name)
        if found is None:
            raise Unexpandable(f"the value set {name} is not here")
        codes = self._composed(found, (*inside, name))
        count = _count(codes)
        if self._codes_max is not None and count > self._codes_max:
            raise Unexpandable(
                f"the value set {name} has {count:,} codes, more than {self._codes_max:,}"
            )
        self._selections[name] = codes
        return codes

    def _composed(self, value_set: Mapping[str, Any], inside: tuple[str, ...]) -> Selection:
        """Return what ``compose`` says or, where that cannot be told, what ``expansion`` has."""
        compose = value_set.get("compose")
        expansion = value_set.get("expansion")
        if not compose:
            if not expansion:
                raise Unexpandable(f"the value set {inside[-1]} says no codes")
            return _expanded(expansion, inside[-1])
        try:
            found = self._parts(compose, inside)
        except Unexpandable:
            if not expansion:
                raise
            return _expanded(expansion, inside[-1])
        if expansion and any(untold(codes) for codes in found.values()):
            return _expanded(expansion, inside[-1])
        return found

    def _parts(self, compose: Mapping[str, Any], inside: tuple[str, ...]) -> Selection:
        halves: dict[str, dict[str, Codes]] = {"include": {}, "exclude": {}}
        for half, taken in halves.items():
            for part in compose.get(half, ()):
                more = self._part(part, inside)
                for system, codes in more.items():
                    taken[system] = union(taken.get(system, NONE), codes)
                self._look_at(_count(more))
        found = {
            system: difference(codes, halves["exclude"].get(system, NONE))
            for system, codes in halves["include"].items()
        }
        if compose.get("inactive") is False:
            found = {system: self._active(system, codes) for system, codes in found.items()}
        return found

    def _active(self, system: str, codes: Codes) -> Codes:
        try:
            whole = self._whole(system)
            if isinstance(whole, Shelved):
                return intersection(codes, Active())
            hierarchy = self.hierarchy(system)
        except _Missing as missing:
            return Untold(str(missing))
        if isinstance(codes, frozenset):
            return frozenset(code for code in codes if hierarchy.is_active(code))
        return codes

    def _part(self, part: Mapping[str, Any], inside: tuple[str, ...]) -> Selection:
        """Return the codes of one include or exclude: what its system and its value sets share."""
        found: Selection | None = None
        if system := part.get("system"):
            found = {system: self._of_system(part, system)}
        for canonical in part.get("valueSet", ()):
            other = self._codes(canonical, inside)
            self._look_at(_count(other))
            if found is None:
                found = other
            else:
                found = {
                    system: intersection(codes, other[system])
                    for system, codes in found.items()
                    if system in other
                }
        return found or {}

    def _of_system(self, part: Mapping[str, Any], system: str) -> Codes:
        if version := part.get("version"):
            self.versions.setdefault(system, set()).add(version)
        if "concept" in part:
            return frozenset(concept["code"] for concept in part["concept"])
        name = f"{system}|{version}" if version else system
        try:
            whole = self._whole(name)
            if isinstance(whole, Shelved):
                return _left(part, whole, system)
            hierarchy = self.hierarchy(name)
        except _Missing as missing:
            return Untold(str(missing))
        found = hierarchy.codes
        for one in part.get("filter", ()):
            looks = 1 if one.get("op") in _KINDS else _LOOKS_OF_A_TEST
            self._look_at(looks * len(found))
            found = _filtered(hierarchy, found, one, system)
        return found


class _Missing(Unexpandable):
    """A code system is not here, or not all of it."""


def _hierarchy(code_system: Mapping[str, Any]) -> Hierarchy:
    """Return the concepts that are in the resource ``code_system``."""
    nested = code_system.get("hierarchyMeaning", "is-a") == "is-a"
    return Hierarchy(code_system.get("concept", ()), nested=nested)


def _count(selection: Selection) -> int:
    return sum(len(codes) for codes in selection.values() if isinstance(codes, frozenset))


def _expanded(expansion: Mapping[str, Any], name: str) -> Selection:
    """Return the codes of an expansion that is there already, if it is whole."""
    found = frozenset(_contained(expansion.get("contains", ())))
    total = expansion.get("total", len(found))
    cut = any(one.get("url", "").endswith(_CUT) for one in expansion.get("extension", ()))
    if cut or total > len(found) or expansion.get("offset"):
        raise Unexpandable(f"the expansion in the value set {name} is not whole")
    systems: dict[str, set[str]] = {}
    for system, code in found:
        systems.setdefault(system, set()).add(code)
    return {system: frozenset(codes) for system, codes in systems.items()}


def _contained(entries: Any) -> Iterator[Code]:
    for entry in entries:
        if "code" in entry and not entry.get("abstract"):
            yield entry.get("system", ""), entry["code"]
        yield from _contained(entry.get("contains", ()))


def _filtered(
    hierarchy: Hierarchy, codes: frozenset[str], filter: Mapping[str, Any], system: str
) -> frozenset[str]:
    """Return those of ``codes`` that one ``filter`` on ``system`` takes."""
    name, operator, value = (str(filter.get(key, "")) for key in ("property", "op", "value"))
    if operator in _KINDS:
        if name not in _ITSELF:
            raise Unexpandable(f"the filter {operator} is for concepts, not for {name} ({system})")
        kin = hierarchy.above(value) if operator == "generalizes" else hierarchy.below(value)
        if kin is None:
            raise Unexpandable(f"the filter {operator} names {value}, no code of {system}")
        return _KINDS[operator](codes, kin, value)
    if operator not in _TESTS:
        raise Unexpandable(f"the filter {operator} is not understood")
    if name not in (*_ITSELF, *_DEFINED, "display") and name not in hierarchy.properties:
        raise Unexpandable(f"no concept of {system} has the property {name} of a filter")
    passes = _TESTS[operator](value)
    return frozenset(code for code in codes if passes(_values_of(hierarchy, code, name)))


def _values_of(hierarchy: Hierarchy, code: str, name: str) -> frozenset[str]:
    return frozenset((code,)) if name in _ITSELF else hierarchy.values(code, name)


# operator -> what of all codes it leaves, where ``kin`` are those below or above ``code``.
_KINDS: Mapping[str, Callable[[frozenset[str], frozenset[str], str], frozenset[str]]] = {
    "is-a": lambda codes, kin, code: codes & kin,
    "descendent-of": lambda codes, kin, code: codes & kin - {code},
    "is-not-a": lambda codes, kin, code: codes - kin,
    "generalizes": lambda codes, kin, code: codes & kin,
}

_Passes = Callable[[frozenset[str]], bool]


def _left(part: Mapping[str, Any], system: Mapping[str, Any], name: str) -> Codes:
    """Return what the filters of ``part`` leave of a system whose codes are not listed."""
    found: Codes = Every()
    for one in part.get("filter", ()):
        found = intersection(found, _said(one, system, name))
    return found


def _said(filter: Mapping[str, Any], system: Mapping[str, Any], name: str) -> Codes:
    """Return what one ``filter`` leaves of ``system``, whose codes are not listed."""
    property, operator, value = (str(filter.get(key, "")) for key in ("property", "op", "value"))
    if isinstance(system, Shelved) and system.shelf is None:
        raise Unexpandable(f"{name} has no filters here")
    if operator in _KINDS:
        if property not in _ITSELF:
            raise Unexpandable(
                f"the filter {operator} is for concepts, not for {property} ({name})"
            )
        return _KINDS_SAID[operator](value)
    if (special := _SPECIAL.get((name, property, operator))) is not None:
        try:
            return special(value)
        except NotEcl as error:
            raise Unexpandable(str(error)) from error
    declared = [one.get("code") for one in system.get("property", ())]
    if property not in (*_ITSELF, *_DEFINED, "display", *declared):
        raise Unexpandable(f"no concept of {name} has the property {property} of a filter")
    if operator == "exists" and value not in ("true", "false"):
        raise Unexpandable(f"the filter exists has the value {value}, not true or false")
    if operator == "exists" and property not in ("display", "child", *_ITSELF):
        having: Codes = Having(property, None)
        return having if value == "true" else difference(Every(), having)
    if operator not in ("=", "in", "not-in"):
        raise Unexpandable(
            f"the filter {operator} on {property} cannot be run on all of {name}, a large system"
        )
    values = (value,) if operator == "=" else tuple(one.strip() for one in value.split(","))
    found = _with(property, values)
    return difference(Every(), found) if operator == "not-in" else found


def _with(property: str, values: tuple[str, ...]) -> Codes:
    """Return the concepts whose ``property`` has one of ``values``."""
    if property in _ITSELF:
        return frozenset(values)
    if property == "display":
        return Shown(values)
    if property == "child":
        found: Codes = NONE
        for one in values:
            found = union(found, Children(one))
        return found
    return Having(property, values)


# What a filter means in one system only: https://hl7.org/fhir/R4/snomedct.html#filters and
# https://hl7.org/fhir/R4/loinc.html#filters
_SPECIAL: Mapping[tuple[str, str, str], Callable[[str], Codes]] = {
    ("http://snomed.info/sct", "concept", "in"): lambda refset: Having(REFSET, (refset,)),
    ("http://snomed.info/sct", "constraint", "="): ecl_codes,
    ("http://loinc.org", "LIST", "="): lambda list: Having("LIST", (list,)),
    ("http://loinc.org", "ancestor", "="): lambda code: difference(Below(code), frozenset((code,))),
}

_KINDS_SAID: Mapping[str, Callable[[str], Codes]] = {
    "is-a": Below,
    "descendent-of": lambda code: difference(Below(code), frozenset((code,))),
    "is-not-a": lambda code: difference(Every(), Below(code)),
    "generalizes": Above,
}


def _is_in(value: str) -> _Passes:
    wanted = frozenset(one.strip() for one in value.split(","))
    return lambda values: not values.isdisjoint(wanted)


def _is_not_in(value: str) -> _Passes:
    wanted = frozenset(one.strip() for one in value.split(","))
    return lambda values: values.isdisjoint(wanted)


def _exists(value: str) -> _Passes:
    if value not in ("true", "false"):
        raise Unexpandable(f"the filter exists has the value {value}, not true or false")
    return lambda values: bool(values) is (value == "true")


def _matches(value: str) -> _Passes:
    """Return the test of a regular expression, which must match the whole; RE2 is linear."""
    if len(value) > _PATTERN_MAX:
        raise Unexpandable(f"a regular expression of a filter is over {_PATTERN_MAX} characters")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _PATTERN_BYTES
    try:
        pattern = re2.compile(value, options)
    except re2.error as error:
        raise Unexpandable("a regular expression of a filter cannot be run safely") from error
    return lambda values: any(pattern.fullmatch(one) for one in values)


_TESTS: Mapping[str, Callable[[str], _Passes]] = {
    "=": lambda value: lambda values: value in values,
    "in": _is_in,
    "not-in": _is_not_in,
    "exists": _exists,
    "regex": _matches,
}
