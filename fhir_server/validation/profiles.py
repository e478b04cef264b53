"""Whether a resource is what its type and its profiles demand: the front of this part.

https://hl7.org/fhir/R4/profiling.html, https://hl7.org/fhir/R4/validation.html

Definitions are compiled once into rules. What cannot be known here (a profile that the packages do
not have, a code's membership, the target of a reference) is asked; the shell calls again with the
answers, until nothing is asked.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from fhir_server.outcome import Issue, shown
from fhir_server.r4.definitions import Definitions
from fhir_server.r4.expansion import Unexpandable
from fhir_server.r4.questions import Answers, Canonical, Question
from fhir_server.r4.structures import Structure, Structures
from fhir_server.validation.bundles import bundle_check
from fhir_server.validation.cards import cds_hooks_issues, is_cds_hooks, resources_of
from fhir_server.validation.compiling import ProfileCompiler, TypeCompiler
from fhir_server.validation.content import CONTENT
from fhir_server.validation.fhirpath import FhirPathEngine
from fhir_server.validation.holding import Holding
from fhir_server.validation.ordering import in_order
from fhir_server.validation.rules import Rule
from fhir_server.validation.running import (
    ISSUES_MAX,
    PENDING,
    WHOLE,
    Item,
    Limits,
    ProfileOptions,
    Run,
    Scope,
)
from fhir_server.validation.snapshot import Trees
from fhir_server.validation.structure import StructureValidator
from fhir_server.validation.trees import Unusable
from fhir_server.validation.vitals import VITAL_SIGNS, vital_profiles

_COMPILED_MAX = 2_000
_BASES_MAX = 30
_DEFAULTS = ProfileOptions()
# What a StructureDefinition that is not valid may lead to while it is being read.
_MALFORMED = (KeyError, TypeError, AttributeError, ValueError, IndexError, RecursionError)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is wrong with a resource, in document order, and what must be known to say more.

    It is final when nothing is ``asked``, and no profile is ``uncompiled`` because it was not to
    be compiled. ``is_cut`` where it took too many steps.
    """

    issues: tuple[Issue, ...]
    asked: frozenset[Question] = frozenset()
    uncompiled: frozenset[str] = frozenset()
    is_cut: bool = False

    @property
    def is_valid(self) -> bool:
        """Whether there is no error, as far as it is known."""
        return not any(issue.severity == "error" for issue in self.issues)


class Engine(Protocol):
    """FHIRPath, as far as invariants need it."""

    def holds(self, run: Run, expression: str, item: Item) -> bool | None:
        """Return whether ``expression`` holds at ``item``; ``None`` where it cannot be told."""


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A profile's rule, or why it has none; ``used`` are the profiles it is made of."""

    type: str
    rule: Rule | None
    fault: str
    used: Mapping[str, Structure]
    parts: frozenset[str] = frozenset()
    is_modifier: bool = False


@dataclass(slots=True)
class _Finder:
    """Finds profiles for a compilation, and notes which were used and which are not here."""

    run: Run
    used: dict[str, Structure] = field(default_factory=dict)
    is_waiting: bool = False

    def __call__(self, canonical: str) -> Structure | None:
        packaged = self.run.packaged(canonical)
        if packaged is not None:
            return packaged
        found = self.run.structure(canonical)
        if found is PENDING:
            self.is_waiting = True
            return None
        if found is not None:
            self.used[canonical] = found
        return found  # type: ignore[no-any-return]


class ProfileValidator:
    """Judges resources by their types and by profiles. It may be used by several threads."""

    def __init__(
        self,
        definitions: Definitions,
        structures: Structures,
        *,
        structural: StructureValidator | None = None,
        engine: Engine | None = None,
    ) -> None:
        self._definitions = definitions
        self._structures = structures
        self._structural = structural or StructureValidator(definitions)
        self._engine: Engine = engine or FhirPathEngine(definitions)
        self._core = Trees(structures.get)
        self._holding = Holding(self._core)
        self._types: dict[str, Rule | None] = {}
        self._compiled: OrderedDict[str, _Compiled] = OrderedDict()
        self._systems: dict[str, frozenset[str] | None] = {}
        self._displays: dict[str, Mapping[str, str]] = {}
        self._lock = threading.RLock()
        self._types_lock = threading.RLock()

    def judge(
        self,
        resource: Any,
        profiles: Sequence[str] = (),
        known: Answers | None = None,
        *,
        options: ProfileOptions = _DEFAULTS,
        limits: Limits = WHOLE,
    ) -> Judgement:
        """Return what is wrong with ``resource``, by its own and the given ``profiles``."""
        if is_cds_hooks(resource):
            return self._cds_hooks(resource, known or {}, options)
        structural = self._structural.issues(resource)
        type = resource.get("resourceType") if isinstance(resource, dict) else None
        if not isinstance(type, str) or type not in self._definitions.types:
            return Judgement(structural)
        run = Run(
            self._definitions, self, known or {}, options, self._structures.get, limits=limits
        )
        run.root = resource
        run.issues.extend(structural)
        item = Item(resource, type, Scope(resource), None, type)
        self.resource(run, item)
        for canonical in profiles:
            self._profile(run, item, canonical, "error")
        for is_error, count in run.counts.items():
            if count > ISSUES_MAX:
                what = "errors" if is_error else "warnings and hints"
                text = f"There are {count:,} {what}; the first {ISSUES_MAX} are here."
                run.issues.append(Issue("too-costly", text, type, "information"))
        issues = in_order(run.issues, resource)
        uncompiled = frozenset(run.uncompiled)
        return Judgement(issues, frozenset(run.asked), uncompiled, run.is_exhausted)

    def holds(self, resource: dict[str, Any], limits: Limits) -> bool:
        """Return whether the invariants of R4 surely hold for ``resource``, whose structure is
        valid; where they may not, :meth:`judge` says what is wrong."""
        run = Run(self._definitions, self, {}, _DEFAULTS, self._structures.get, limits=limits)
        run.root = resource
        return self._holding.surely(run, resource)

    def prepare(self, profiles: Iterable[str], known: Answers) -> frozenset[Question]:
        """Compile ``profiles``; return what must be known first."""
        run = Run(self._definitions, self, known, _DEFAULTS, self._structures.get)
        for canonical in sorted(profiles):
            self._found(run, canonical)
        return frozenset(run.asked)

    def _cds_hooks(
        self, value: dict[str, Any], known: Answers, options: ProfileOptions
    ) -> Judgement:
        """Judge a request or a response of CDS Hooks, and the resources in it."""
        issues = list(cds_hooks_issues(value))
        asked: frozenset[Question] = frozenset()
        for path, resource in resources_of(value):
            if isinstance(resource, dict) and "resourceType" in resource:
                found = self.judge(resource, (), known, options=options)
                issues += [replace(one, expression=path) for one in found.issues]
                asked |= found.asked
        return Judgement(tuple(issues), asked)

    def structure_fault(self, run: Run, structure: Structure) -> str:
        """Return why a StructureDefinition cannot be used, as a sentence, or ``""``."""
        base = structure.get("baseDefinition")
        if structure.get("derivation") != "constraint" or not isinstance(base, str):
            return ""
        if run.structure(base) is None or not structure.get("differential"):
            return ""
        finder = _Finder(run)
        try:
            Trees(finder, self._core).generated(structure)
        except Unusable as error:
            return "" if finder.is_waiting else str(error)
        except _MALFORMED:
            return ""  # the structural validator says what is wrong
        return ""

    def resource(self, run: Run, item: Item) -> None:
        """Judge a resource: by its type, by the profiles it names, as a bundle if it is one."""
        value = item.value
        if not isinstance(value, dict):
            return
        rule = self.type_rule(item.type)
        if rule is not None:
            rule.apply(run, item)
        for check in CONTENT.get(item.type, ()):
            check(run, item)
        if item.type == "Bundle":
            bundle_check(run, item)
        elif item.type == "Observation" and run.options.vital_signs:
            self._vital_signs(run, item)
        if run.options.meta_profiles:
            for canonical in _named(value):
                self._profile(run, item, canonical, "warning")

    def _vital_signs(self, run: Run, item: Item) -> None:
        """Hold an Observation to what its code calls for, unless a profile that it names does."""
        called_for = tuple(dict.fromkeys(vital_profiles(item.value)))
        if called_for and not any(self._is_vital(run, url) for url in _named(item.value)):
            for canonical in called_for:
                self._profile(run, item, canonical, "warning")

    def _is_vital(self, run: Run, canonical: str) -> bool:
        """Return whether a profile is one of vital signs, or built on one."""
        for _ in range(_BASES_MAX):
            structure = run.structure(canonical)
            if canonical == VITAL_SIGNS or structure is None or structure is PENDING:
                break
            canonical = str(structure.get("baseDefinition", ""))
        return canonical == VITAL_SIGNS

    def _profile(self, run: Run, item: Item, canonical: str, severity: str) -> None:
        found = self._found(run, canonical)
        if found is None:
            if Canonical("StructureDefinition", canonical) not in run.asked:
                text = f"The profile {_url(canonical)} is not known here, so it was not checked."
                run.add("not-found", text, item, severity)
        elif found.rule is None:
            self._tell(run, item, canonical, found)
        elif found.type not in (item.type, "Resource", "DomainResource"):
            text = f"The profile {_url(canonical)} is for {found.type}, not for {item.type}."
            run.add("structure", text, item)
        else:
            key = (id(item.value), canonical)
            run.judging.add(key)
            found.rule.apply(run, item)
            run.judging.discard(key)

    def type_rule(self, name: str) -> Rule | None:
        """Return the rule of a type of R4, made when it is first needed."""
        if name not in self._types:
            if name not in self._definitions.types:
                return None
            with self._types_lock:
                self._types[name] = TypeCompiler(self._core, self._definitions).rule(name)
        return self._types[name]

    def profile_rule(self, run: Run, canonical: str) -> Rule | None:
        """Return the compiled profile, or ``None`` where there is none or it is being asked for."""
        found = self._found(run, canonical)
        return found.rule if found is not None else None

    def extension_parts(self, canonical: str) -> frozenset[str]:
        """Return the urls of the parts of an extension whose rule was asked for before."""
        found = self._compiled.get(canonical)
        return found.parts if found is not None else frozenset()

    def is_modifier(self, canonical: str) -> bool:
        """Return whether an extension whose rule was asked for before is a modifier extension."""
        found = self._compiled.get(canonical)
        return found is not None and found.is_modifier

    def invariant(self, run: Run, expression: str, item: Item) -> bool | None:
        """Return whether the FHIRPath ``expression`` holds; ``None`` where it cannot be told."""
        return self._engine.holds(run, expression, item)

    def system_codes(self, system: str) -> frozenset[str] | None:
        """Return all codes of a code system that is here whole, ``None`` of any other."""
        found = self._definitions.artifact("CodeSystem", system)
        if found is None or found.get("content") != "complete":
            return None
        if system not in self._systems:
            try:
                self._systems[system] = self._definitions.hierarchy(system).codes
            except Unexpandable:
                self._systems[system] = None
        return self._systems[system]

    def system_displays(self, system: str) -> Mapping[str, str]:
        """Return the displays of the codes of such a system."""
        if system not in self._displays:
            found = self._definitions.artifact("CodeSystem", system) or {}
            self._displays[system] = dict(_displays(found))
        return self._displays[system]

    def _tell(self, run: Run, item: Item, canonical: str, found: _Compiled) -> None:
        text = f"The profile {_url(canonical)} cannot be used. {found.fault}"
        run.once(f"unusable {canonical}", "processing", text, item, "error")

    def _found(self, run: Run, canonical: str) -> _Compiled | None:
        """Return the compiled profile; ``None`` where it is not known, or asked for."""
        structure = run.structure(canonical)
        if structure is None or structure is PENDING:
            return None
        found = self._compiled.get(canonical)
        if found is not None and self._is_current(run, found, canonical, structure):
            return found
        if not run.limits.compiles:
            run.uncompiled.add(canonical)
            return None
        with self._lock:
            return self._compile(run, canonical, structure)

    def _is_current(self, run: Run, found: _Compiled, canonical: str, structure: Structure) -> bool:
        """Whether all that the rule was made of is what is known now; the rest is asked."""
        for url, used in found.used.items():
            now = structure if url == canonical else run.structure(url)
            if now is PENDING or not _is_same(now, used):
                return False
        return True

    def _compile(self, run: Run, canonical: str, structure: Structure) -> _Compiled | None:
        finder = _Finder(run)
        rule, fault, parts, is_modifier = None, "", frozenset[str](), False
        try:
            compiler = ProfileCompiler(Trees(finder, self._core), self._core, structure)
            rule, parts = compiler.rule(), compiler.parts
            is_modifier = compiler.is_modifier
        except Unusable as error:
            fault = str(error)
        except _MALFORMED:
            fault = "It is no valid StructureDefinition; validate it by itself to see why."
        if finder.is_waiting:
            return None
        if run.packaged(canonical) is None:
            finder.used[canonical] = structure
        type = str(structure.get("type", ""))
        found = _Compiled(type, rule, fault, finder.used, parts, is_modifier)
        self._compiled[canonical] = found
        while len(self._compiled) > _COMPILED_MAX:
            self._compiled.popitem(last=False)
        return found


def _displays(system: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield code and display of all concepts of a code system."""
    rest = list(system.get("concept", ()))
    while rest:
        concept = rest.pop()
        if "display" in concept:
            yield concept["code"], concept["display"]
        rest += concept.get("concept", ())


def _named(resource: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the profiles that a resource says it conforms to."""
    meta = resource.get("meta")
    named = meta.get("profile") if isinstance(meta, dict) else None
    texts = (one for one in named if isinstance(one, str)) if isinstance(named, list) else ()
    return tuple(dict.fromkeys(texts))


def _url(canonical: str) -> str:
    return shown(canonical, most=300)


def _is_same(one: Any, other: Any) -> bool:
    """Return whether two resources are the same: one object, or one version of one resource."""
    if one is other:
        return True
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        return False
    meta = one.get("meta")
    return (
        isinstance(meta, Mapping)
        and "versionId" in meta
        and meta == other.get("meta")
        and one.get("url") == other.get("url")
        and one.get("id") == other.get("id")
    )
