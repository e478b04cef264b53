"""One judgement under way: the values that are looked at, and what is known, asked and found."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from fhir_server.outcome import Issue
from fhir_server.r4.definitions import Definitions
from fhir_server.r4.questions import Answers, Canonical, Question, Target
from fhir_server.r4.structures import Structure
from fhir_server.validation.entries import Entries

ISSUES_MAX = 500
"""Errors, and as many of anything less: who gets so many begins with the first ones."""
_NESTED_MAX = 24


Severity = Literal["error", "warning", "information", "ignore"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one judgement may take: a step is a value looked at, or one of an invariant; about a
    microsecond, and 3 at the worst. A bundle of 500 entries takes some 400,000.

    ``steps`` are for any resource, ``a_value`` more for each JSON value that it has, where it needs
    them; ``of_invariant`` is what one invariant may take at one place. Without ``compiles``, a
    profile that was not used before is left out, and the judgement says so.
    """

    steps: int = 2_000_000
    a_value: int = 100
    of_invariant: int = 1_000_000
    compiles: bool = True


WHOLE = Limits()
"""For who has asked for a judgement, in a thread."""


@dataclass(frozen=True, slots=True)
class ProfileOptions:
    """How a judgement is made.

    ``meta_profiles`` says whether ``meta.profile`` counts; ``unknown_extensions`` what an extension
    without a definition is (an unknown modifier extension is an error always); ``best_practice``
    how a rule is told that is advice, such as dom-6; ``codes`` whether codes are looked up;
    ``targets`` whether the targets of references are asked for and held to their profiles;
    ``vital_signs`` whether an Observation is held to the profile that its code calls for;
    ``markup`` what HTML in a string is, ``displays`` what a wrong display is, ``examples`` what
    the url of an example is.
    """

    meta_profiles: bool = True
    unknown_extensions: Severity = "information"
    best_practice: Severity = "ignore"
    codes: bool = True
    targets: bool = False
    vital_signs: bool = True
    markup: Severity = "warning"
    displays: Severity = "warning"
    examples: Severity = "ignore"


class Pending:
    """The one answer that has not been given yet."""


PENDING: Final = Pending()


class Scope:
    """The resource that a value is in.

    ``container`` is the resource that ``#`` means, ``bundle`` finds the entries beside it, and
    ``full_url`` is that of its entry, ``""`` elsewhere.
    """

    __slots__ = ("bundle", "container", "entries", "full_url", "resource")

    def __init__(
        self,
        resource: dict[str, Any],
        container: dict[str, Any] | None = None,
        bundle: Entries | None = None,
        full_url: str = "",
    ) -> None:
        self.entries: Entries | None = None  # of a Bundle, once somebody looks for one
        self.resource = resource
        self.container = resource if container is None else container
        self.bundle = bundle
        self.full_url = full_url


def inner_scope(resource: dict[str, Any], parent: "Item", name: str) -> Scope:
    """Return the scope of a resource below ``parent``: contained, in an entry or parameter."""
    outer = parent.scope
    if name == "contained":
        return Scope(resource, outer.container, outer.bundle, outer.full_url)
    if parent.type == "Bundle.entry" and isinstance(parent.value, dict):
        full_url = parent.value.get("fullUrl")
        if outer.entries is None:
            outer.entries = Entries(outer.resource)
        return Scope(resource, None, outer.entries, full_url if isinstance(full_url, str) else "")
    return Scope(resource, None, outer.bundle, outer.full_url)


class Item:
    """One value: a JSON value and, for a primitive, what is said about it under ``_name``.

    ``type`` is the FHIR type as the element has it, ``Observation.component`` for a part of one.
    """

    __slots__ = ("index", "name", "parent", "scope", "sibling", "type", "value")

    def __init__(
        self,
        value: Any,
        type: str,
        scope: Scope,
        parent: "Item | None" = None,
        name: str = "",
        index: int | None = None,
        sibling: Any = None,
    ) -> None:
        self.value = value
        self.type = type
        self.scope = scope
        self.parent = parent
        self.name = name
        self.index = index
        self.sibling = sibling

    @property
    def path(self) -> str:
        """The FHIRPath of the place."""
        step = self.name if self.index is None else f"{self.name}[{self.index}]"
        return step if self.parent is None else f"{self.parent.path}.{step}"

    @property
    def object(self) -> dict[str, Any] | None:
        """The JSON object that has the children: of a primitive the one under ``_name``."""
        if isinstance(self.value, dict):
            return self.value
        return self.sibling if isinstance(self.sibling, dict) else None


Check = Callable[["Run", Item], None]


class Rulebook(Protocol):
    """Where a run finds the rules of types and profiles."""

    def type_rule(self, name: str) -> Any:
        """Return the rule of a type of R4, or ``None``."""

    def resource(self, run: "Run", item: Item) -> None:
        """Judge a resource: by its type, by the profiles it names, as a bundle if it is one."""

    def structure_fault(self, run: "Run", structure: Structure) -> str:
        """Return why a StructureDefinition cannot be used, as a sentence, or ``""``."""

    def system_displays(self, system: str) -> Mapping[str, str]:
        """Return the displays of the codes of such a system."""

    def system_codes(self, system: str) -> frozenset[str] | None:
        """Return all codes of a code system that is here whole, ``None`` of any other."""

    def invariant(self, run: "Run", expression: str, item: Item) -> bool | None:
        """Return whether the FHIRPath ``expression`` holds; ``None`` where it cannot be told."""

    def extension_parts(self, canonical: str) -> frozenset[str]:
        """Return the urls of the parts of an extension whose rule was asked for before."""

    def is_modifier(self, canonical: str) -> bool:
        """Return whether an extension whose rule was asked for before is a modifier extension."""

    def profile_rule(self, run: "Run", canonical: str) -> Any:
        """Return the compiled profile, or ``None`` where there is none or it is being asked for."""


@dataclass(slots=True)
class Run:
    """What one judgement knows and has found so far."""

    definitions: Definitions
    rules: Rulebook
    known: Answers
    options: ProfileOptions
    packaged: Callable[[str], Structure | None]
    issues: list[Issue] = field(default_factory=list)
    asked: set[Question] = field(default_factory=set)
    root: Any = None
    limits: Limits = WHOLE
    steps: int = 0
    steps_max: int = 0
    uncompiled: set[str] = field(default_factory=set)
    judging: set[tuple[int, str]] = field(default_factory=set)
    told: set[str] = field(default_factory=set)
    counts: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    verdicts: dict[tuple[int, str], bool] = field(default_factory=dict)
    environments: dict[int, Any] = field(default_factory=dict)
    depth: int = 0

    def __post_init__(self) -> None:
        self.steps_max = self.limits.steps

    def answer(self, question: Question) -> Any:
        """Return what is known of ``question``; else ask it and return :data:`PENDING`."""
        found = self.known.get(question, PENDING)
        if found is PENDING:
            self.asked.add(question)
        return found

    def structure(self, canonical: str) -> Any:
        """Return a StructureDefinition, ``None`` where there is none, or :data:`PENDING`."""
        found = self.packaged(canonical)
        if found is not None:
            return found
        found = self.answer(Canonical("StructureDefinition", canonical))
        return found if found is PENDING or isinstance(found, Mapping) else None

    def add(
        self, code: str, text: str, item: Item, severity: str = "error", below: str = ""
    ) -> None:
        """Note an issue at ``item``, or at its child ``below``."""
        is_error = severity == "error"
        self.counts[is_error] += 1
        if self.counts[is_error] <= ISSUES_MAX:
            path = item.path
            self.issues.append(Issue(code, text, f"{path}.{below}" if below else path, severity))

    def once(self, key: str, code: str, text: str, item: Item, severity: str) -> None:
        """Note what is told once in a judgement, however often it is met."""
        if key not in self.told:
            self.told.add(key)
            self.add(code, text, item, severity)

    @property
    def is_exhausted(self) -> bool:
        """Whether there were too many steps."""
        return self.steps > self.steps_max

    def spent(self, item: Item, count: int = 1) -> bool:
        """Count ``count`` steps; return ``True``, and say so once, when there were too many."""
        self.steps += count
        if self.steps <= self.steps_max:
            return False
        limits = self.limits
        if limits.a_value and self.steps_max == limits.steps:
            self.steps_max = limits.steps + limits.a_value * _size(self.root)
            return self.spent(item, 0)
        most = f"{self.steps_max:,}"
        text = f"Judging this takes more than {most} steps, so the rest was not looked at."
        self.once("steps", "too-costly", text, item, "error")
        return True

    def conforms(self, item: Item, canonical: str) -> bool | None:
        """Return whether ``item`` has no error by a profile; ``None`` where it cannot be told.

        A resource that is being held to the same profile further up is taken to conform.
        """
        key = (id(item.value), canonical)
        if key in self.judging:
            return True
        if key in self.verdicts:
            return self.verdicts[key]
        if self.depth >= _NESTED_MAX:
            return None
        outer, told, counts = self.issues, self.told, self.counts
        self.issues, self.told, self.counts = [], set(), {True: 0, False: 0}
        self.judging.add(key)
        self.depth += 1
        before = len(self.asked)
        try:
            rule = self.rules.profile_rule(self, canonical)
            if rule is None:
                return None
            rule.apply(self, item)
            verdict = not self.counts[True]
            if len(self.asked) > before:
                return None if verdict else False
            if self.depth == 1:  # further down, something may have been taken to conform
                self.verdicts[key] = verdict
            return verdict
        finally:
            self.issues, self.told, self.counts = outer, told, counts
            self.judging.discard(key)
            self.depth -= 1


def _size(value: Any) -> int:
    """Return how many JSON values there are in ``value``; one at least."""
    count, rest = 1, [value]
    while rest:
        one = rest.pop()
        inner = list(one.values()) if isinstance(one, dict) else one
        if isinstance(inner, list):
            count += len(inner)
            rest.extend(inner)
    return count


def resolved(run: Run, reference: Any, item: Item) -> Any:
    """Return the item of what a Reference leads to, ``None``, or :data:`PENDING`.

    It is looked for in the resource itself, in the bundle around it, then asked for.
    """
    if not isinstance(reference, str) or not reference:
        return None
    scope = item.scope
    if reference.startswith("#"):
        container = scope.container
        contained = container.get("contained")
        for index, one in enumerate(contained if isinstance(contained, list) else ()):
            if isinstance(one, dict) and one.get("id") == reference[1:]:
                inner = Scope(one, container, scope.bundle, scope.full_url)
                return _resource(one, inner, _owner(item), "contained", index)
        return _resource(container, scope, None, "", None) if reference == "#" else None
    if scope.bundle is not None:
        found = scope.bundle.find(reference, scope.full_url)
        if found is not None:
            resource, full_url, _ = found
            return _resource(
                resource, Scope(resource, None, scope.bundle, full_url), None, "", None
            )
    answer = run.answer(Target(reference))
    if answer is PENDING or not isinstance(answer, dict):
        return answer if answer is PENDING else None
    return _resource(answer, Scope(answer), None, "", None)


def _owner(item: Item) -> Item:
    while item.parent is not None:
        item = item.parent
    return item


def _resource(
    resource: dict[str, Any], scope: Scope, parent: Item | None, name: str, index: int | None
) -> Item:
    type = str(resource.get("resourceType", ""))
    return Item(resource, type, scope, parent, name or type, index)
