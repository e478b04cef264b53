"""What the checks read: a drug, an allergy, a patient, and what is found. Plain values.

Numbers are exact fractions in mg, so that no unit that a client writes can change a verdict.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

SEVERITIES = ("minor", "moderate", "serious", "contraindicated")
"""From the least to the most severe."""
RANK = {severity: rank for rank, severity in enumerate(SEVERITIES)}
KINDS = ("interaction", "allergy", "duplicate", "dose")

SYSTEMIC = frozenset(
    ("", "oral", "sublingual", "buccal", "rectal", "parenteral", "transdermal", "implant")
)
"""Routes by which a drug reaches the whole body; one that is not known counts as such."""


@dataclass(frozen=True, slots=True)
class Strength:
    """``mg`` of an ingredient in one ``per``: ``""`` a tablet or puff, ``mL``, ``mg``, ``h``.

    ``unit`` is ``mg``, or ``[iU]`` or ``meq`` where the amount is given so.
    """

    amount: Fraction
    per: str = ""
    unit: str = "mg"


@dataclass(frozen=True, slots=True)
class Intake:
    """How much of one ingredient an order has its patient take, in mg; ``None`` is not known.

    ``daily`` is the largest amount of a day, ``weekly`` of a week where doses are farther apart
    than a day. ``interval_h`` is the time between doses, ``days`` how long; ``is_once`` one dose.
    """

    single: Fraction | None = None
    daily: Fraction | None = None
    interval_h: Fraction | None = None
    days: Fraction | None = None
    is_once: bool = False


@dataclass(frozen=True, slots=True)
class Drug:
    """An order or a current medication, reduced to what the checks read.

    ``id`` is ``Type/id``; ``display`` the text that the clinician knows; ``ingredients`` RxNorm
    ingredient codes with their strength, where known. ``unresolved`` are texts that name nothing
    known; ``conflict`` says that code and text name different drugs. ``replaces`` are orders that
    this one takes the place of. ``uncomputed`` is why the dose is not known.
    """

    id: str
    display: str
    ingredients: Mapping[str, Strength | None] = field(default_factory=dict)
    route: str = ""
    release: str = ""
    unresolved: tuple[str, ...] = ()
    conflict: str = ""
    read_as: str = ""
    replaces: frozenset[str] = frozenset()
    intakes: Mapping[str, Intake] = field(default_factory=dict)
    uncomputed: str = ""
    authored: str = ""
    on_hold: bool = False

    @property
    def is_systemic(self) -> bool:
        """Whether it reaches the whole body."""
        return self.route in SYSTEMIC


@dataclass(frozen=True, slots=True)
class Allergy:
    """An entry of the allergy list: what it names, and how the patient reacted."""

    id: str
    display: str
    ingredients: frozenset[str] = frozenset()
    classes: frozenset[str] = frozenset()
    reactions: tuple[str, ...] = ()
    is_high: bool = False
    is_intolerance: bool = False
    is_unconfirmed: bool = False
    recorded: str = ""
    given_since: frozenset[str] = frozenset()
    unresolved: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Patient:
    """What doses hang on. ``None`` is not known.

    ``clearance`` is Cockcroft-Gault in mL/min, ``egfr`` in mL/min/1.73 m2, ``potassium`` mmol/L.
    """

    age_days: int | None = None
    sex: str = ""
    weight_kg: Fraction | None = None
    height_cm: Fraction | None = None
    clearance: Fraction | None = None
    egfr: Fraction | None = None
    potassium: Fraction | None = None

    @property
    def age_years(self) -> Fraction | None:
        """The age in years, with its fraction."""
        return None if self.age_days is None else Fraction(self.age_days * 4, 1461)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that speaks against an order, before policy and wording.

    ``orders`` are ``Type/id`` of the drafts it touches, ``others`` of active drugs and allergies.
    ``rule`` and ``version`` name the row; ``source`` is who says so. ``code`` is of v3-ActCode.
    ``scale`` is by what its dose is to be multiplied, where that alone would solve it.
    """

    kind: str
    severity: str
    orders: tuple[str, ...]
    others: tuple[str, ...]
    title: str
    effect: str
    mechanism: str
    management: str
    rule: str
    code: str
    version: int = 1
    evidence: tuple[str, ...] = ()
    source: str = ""
    reviewed: bool = False
    judged: str = ""
    scale: Fraction | None = None

    @property
    def key(self) -> str:
        """What makes it the same finding another time: kind, rule and resources."""
        ids = ",".join(sorted((*self.orders, *self.others)))
        return f"{self.kind}|{self.rule}|{ids}"


@dataclass(frozen=True, slots=True)
class NotChecked:
    """Something that could not be checked, and why, by one of the reasons of the design page."""

    subject: str
    reason: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Screening:
    """What was found, and what could not be checked."""

    findings: tuple[Finding, ...] = ()
    not_checked: tuple[NotChecked, ...] = ()


def higher(one: str, other: str) -> str:
    """Return the more severe of two severities; ``""`` is none."""
    return one if RANK.get(one, -1) >= RANK.get(other, -1) else other


def lowered(severity: str, steps: int) -> str:
    """Return ``severity`` so many steps lower; ``""`` below the lowest."""
    rank = RANK.get(severity, -1) - steps
    return SEVERITIES[rank] if rank >= 0 else ""
