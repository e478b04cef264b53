"""Value sets -> codes.

https://hl7.org/fhir/R4/valueset.html#compositions, https://hl7.org/fhir/R4/valueset-filter-operator.html

An expansion is whole or it is refused: :class:`Unexpandable` says what is missing. ``find`` gives
the value sets and code systems that are named, wherever they are kept.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import re2

from fhir_server.r4.codes import Hierarchy

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
# How many times over the codes of a largest expansion may be looked at.
_LOOKS = 50


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
        self._expansions: dict[str, frozenset[Code]] = {}
        self._hierarchies: dict[str, Hierarchy] = {}

    def codes(self, name: str) -> frozenset[Code]:
        """Return the codes of the value set ``name``: a canonical or ``ValueSet/id``.

        Raises :class:`Unexpandable` where they cannot all be known.
        """
        return self._codes(name, ())

    def hierarchy(self, system: str) -> Hierarchy:
        """Return the concepts of the code system ``system``, a canonical.

        Raises :class:`Unexpandable` where they are not all here.
        """
        if system not in self._hierarchies:
            found = self._whole(system)
            self._look_at(len(found.get("concept", ())))
            nested = found.get("hierarchyMeaning", "is-a") == "is-a"
            self._hierarchies[system] = Hierarchy(found.get("concept", ()), nested=nested)
        return self._hierarchies[system]

    def _look_at(self, codes: int) -> None:
        """Count the work: a value set of a megabyte can have ten thousand filters."""
        self._looked_at += codes
        if self._codes_max is not None and self._looked_at > self._codes_max * _LOOKS:
            raise Unexpandable("its filters and imports go through too many codes")

    def _whole(self, system: str) -> Mapping[str, Any]:
        found = self._find("CodeSystem", system)
        if found is None:
            raise Unexpandable(f"the code system {system} is not here")
        content = found.get("content")
        if content != "complete":
            raise Unexpandable(f"of the code system {system} not all is here (it is {content})")
        return found

    def _codes(self, name: str, inside: tuple[str, ...]) -> frozenset[Code]:
        if name in self._expansions:
            return self._expansions[name]
        if name in inside:
            raise Unexpandable(f"the value set {name} is defined by itself")
        found = self._find("ValueSet", name)
        if found is None:
            raise Unexpandable(f"the value set {name} is not here")
        codes = self._composed(found, (*inside, name))
        if self._codes_max is not None and len(codes) > self._codes_max:
            raise Unexpandable(
                f"the value set {name} has {len(codes):,} codes, more than {self._codes_max:,}"
            )
        self._expansions[name] = codes
        return codes

    def _composed(self, value_set: Mapping[str, Any], inside: tuple[str, ...]) -> frozenset[Code]:
        """Return what ``compose`` says or, where that cannot be told, what ``expansion`` has."""
        compose = value_set.get("compose")
        expansion = value_set.get("expansion")
        if not compose:
            if not expansion:
                raise Unexpandable(f"the value set {inside[-1]} says no codes")
            return _expanded(expansion, inside[-1])
        try:
            return self._parts(compose, inside)
        except Unexpandable:
            if not expansion:
                raise
            return _expanded(expansion, inside[-1])

    def _parts(self, compose: Mapping[str, Any], inside: tuple[str, ...]) -> frozenset[Code]:
        halves: dict[str, set[Code]] = {"include": set(), "exclude": set()}
        for half, codes in halves.items():
            for part in compose.get(half, ()):
                codes |= (more := self._part(part, inside))
                self._look_at(len(more))
        found = halves["include"] - halves["exclude"]
        if compose.get("inactive") is False:
            systems = {system: self.hierarchy(system) for system in {one for one, _ in found}}
            found = {(system, code) for system, code in found if systems[system].is_active(code)}
        return frozenset(found)

    def _part(self, part: Mapping[str, Any], inside: tuple[str, ...]) -> frozenset[Code]:
        """Return the codes of one include or exclude: what its system and its value sets share."""
        found: frozenset[Code] | None = None
        if system := part.get("system"):
            found = frozenset((system, code) for code in self._of_system(part, system))
        for canonical in part.get("valueSet", ()):
            other = self._codes(canonical, inside)
            self._look_at(len(other))
            found = other if found is None else found & other
        return found or frozenset()

    def _of_system(self, part: Mapping[str, Any], system: str) -> frozenset[str]:
        if "concept" in part:
            return frozenset(concept["code"] for concept in part["concept"])
        name = f"{system}|{part['version']}" if part.get("version") else system
        hierarchy = self.hierarchy(name)
        found = hierarchy.codes
        for one in part.get("filter", ()):
            self._look_at(len(hierarchy.codes))
            found &= _filtered(hierarchy, one, system)
        return found


def _expanded(expansion: Mapping[str, Any], name: str) -> frozenset[Code]:
    """Return the codes of an expansion that is there already, if it is whole."""
    found = frozenset(_contained(expansion.get("contains", ())))
    total = expansion.get("total", len(found))
    cut = any(one.get("url", "").endswith(_CUT) for one in expansion.get("extension", ()))
    if cut or total > len(found) or expansion.get("offset"):
        raise Unexpandable(f"the expansion in the value set {name} is not whole")
    return found


def _contained(entries: Any) -> Iterator[Code]:
    for entry in entries:
        if "code" in entry and not entry.get("abstract"):
            yield entry.get("system", ""), entry["code"]
        yield from _contained(entry.get("contains", ()))


def _filtered(hierarchy: Hierarchy, filter: Mapping[str, Any], system: str) -> frozenset[str]:
    """Return the codes of one ``filter`` on ``system``."""
    name, operator, value = (str(filter.get(key, "")) for key in ("property", "op", "value"))
    if operator in _KINDS:
        if name not in _ITSELF:
            raise Unexpandable(f"the filter {operator} is for concepts, not for {name} ({system})")
        kin = hierarchy.above(value) if operator == "generalizes" else hierarchy.below(value)
        if kin is None:
            raise Unexpandable(f"the filter {operator} names {value}, no code of {system}")
        return _KINDS[operator](hierarchy.codes, kin, value)
    if operator not in _TESTS:
        raise Unexpandable(f"the filter {operator} is not understood")
    if name not in (*_ITSELF, *_DEFINED, "display") and name not in hierarchy.properties:
        raise Unexpandable(f"no concept of {system} has the property {name} of a filter")
    passes = _TESTS[operator](value)
    return frozenset(code for code in hierarchy.codes if passes(_values_of(hierarchy, code, name)))


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
