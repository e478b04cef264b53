"""Drug with drug: what is known of two medications that are taken together. Pure.

design/cds.md, section 5.1.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import combinations, product
from typing import Any

from fhir_server.features.cds.drug import RANK, Drug, Finding, Patient, higher
from fhir_server.features.cds.knowledge import Cap, Knowledge, Rule


def interaction_findings(
    ordered: Sequence[Drug],
    current: Sequence[Drug],
    patient: Patient,
    knowledge: Knowledge,
    *,
    among_current: bool = False,
) -> list[Finding]:
    """Return a finding for each pair of medications that should not go together.

    Pairs inside ``ordered`` and pairs of ``ordered`` with ``current`` are looked at; pairs inside
    ``current`` only where asked: an order does not change them. One finding for two medications,
    however many ingredients interact.
    """
    everything = [*ordered, *current]
    pairs = [*combinations(ordered, 2), *product(ordered, current)]
    if among_current:
        pairs += combinations(current, 2)
    drafts = {drug.id for drug in ordered}
    found = []
    for one, other in pairs:
        if one.id in other.replaces or other.id in one.replaces:
            continue
        worst = _worst(one, other, everything, patient, knowledge)
        if worst is not None:
            found.append(_finding(one, other, worst, drafts, knowledge))
    return found


def _worst(
    one: Drug, other: Drug, everything: Sequence[Drug], patient: Patient, knowledge: Knowledge
) -> tuple[Rule, str, str, str] | None:
    """Return the rule that counts, its severity, and the two ingredients it is about."""
    best: tuple[Rule, str, str, str] | None = None
    for x, y in product(one.ingredients, other.ingredients):
        first_is_x = x < y
        for rule, a_is_first in knowledge.pairs.get((x, y) if first_is_x else (y, x), ()):
            a_is_one = a_is_first == first_is_x
            a, b = (one, other) if a_is_one else (other, one)
            if not (rule.a.fits(a.route) and rule.b.fits(b.route)):
                continue
            if rule.c is not None and not _third(rule, (one, other), everything):
                continue
            sides = (a, b), (x, y) if a_is_one else (y, x)
            severity = _severity(rule, *sides, everything, patient, knowledge)
            severity = _capped(rule, x, y, severity, knowledge.caps)
            if best is None or _order(rule, severity) > _order(best[0], best[1]):
                best = (rule, severity, x, y)
    return best


def _order(rule: Rule, severity: str) -> tuple[int, int, tuple[int, ...]]:
    """The more severe first; among equals the narrower rule, then the smaller id."""
    return RANK[severity], -rule.width, tuple(-ord(letter) for letter in rule.id)


def _third(rule: Rule, pair: tuple[Drug, Drug], everything: Iterable[Drug]) -> bool:
    assert rule.c is not None
    return any(
        drug.id not in (pair[0].id, pair[1].id)
        and rule.c.fits(drug.route)
        and not rule.c.members.isdisjoint(drug.ingredients)
        for drug in everything
    )


def _severity(
    rule: Rule,
    sides: tuple[Drug, Drug],
    ingredients: tuple[str, str],
    everything: Sequence[Drug],
    patient: Patient,
    knowledge: Knowledge,
) -> str:
    """Return the severity for this patient; what is not known leaves the rule as it is written."""
    found = ""
    for when, severity in rule.modifiers:
        if _holds(when, sides, ingredients, everything, patient, knowledge):
            found = higher(found, severity)
    return found or rule.severity


def _holds(
    when: Mapping[str, Any],
    sides: tuple[Drug, Drug],
    ingredients: tuple[str, str],
    everything: Sequence[Drug],
    patient: Patient,
    knowledge: Knowledge,
) -> bool:
    (a, b), (x, y) = sides, ingredients
    daily_a, daily_b = _daily(a, x), _daily(b, y)
    renal = patient.egfr if patient.egfr is not None else patient.clearance
    checks: dict[str, Callable[[Any], bool]] = {
        "age_years_min": lambda most: _at_least(patient.age_years, most),
        "age_days_max": lambda most: _at_most(patient.age_days, most),
        "egfr_max": lambda most: renal is not None and renal < most + 1,
        "potassium_mmol_l_min": lambda least: _at_least(patient.potassium, least),
        "potassium_mmol_l_max": lambda most: _at_most(patient.potassium, most),
        "route_a": lambda routes: a.route in routes,
        "route_b": lambda routes: b.route in routes,
        "daily_mg_a_min": lambda least: _at_least(daily_a, least),
        "daily_mg_a_max": lambda most: _at_most(daily_a, most),
        "daily_mg_b_min": lambda least: _at_least(daily_b, least),
        "daily_mg_b_max": lambda most: _at_most(daily_b, most),
        "weekly_mg_a_max": lambda most: _at_most(None if daily_a is None else daily_a * 7, most),
        "with_class": lambda name: (
            _count(everything, knowledge.classes[name]) >= int(when.get("count_min", 1))
        ),
        "count_min": lambda _: True,
    }
    return all(checks[name](value) for name, value in when.items())


def _count(everything: Iterable[Drug], members: frozenset[str]) -> int:
    taken = {code for drug in everything if drug.is_systemic for code in drug.ingredients}
    return len(taken & members)


def _daily(drug: Drug, ingredient: str) -> Fraction | None:
    intake = drug.intakes.get(ingredient)
    return None if intake is None else intake.daily


def _at_least(value: Fraction | int | None, least: Fraction) -> bool:
    return value is not None and value >= least


def _at_most(value: Fraction | int | None, most: Fraction) -> bool:
    return value is not None and value <= most


def _capped(rule: Rule, x: str, y: str, severity: str, caps: Iterable[Cap]) -> str:
    for cap in caps:
        if rule.id in cap.except_rules or RANK[severity] <= RANK[cap.severity]:
            continue
        if (x in cap.a and y in cap.b) or (y in cap.a and x in cap.b):
            severity = cap.severity
    return severity


def _finding(
    one: Drug,
    other: Drug,
    worst: tuple[Rule, str, str, str],
    drafts: set[str],
    knowledge: Knowledge,
) -> Finding:
    rule, severity, x, y = worst
    first, second = sorted(
        ((one, x), (other, y)),
        key=lambda side: (side[0].id not in drafts, knowledge.display(side[1]), side[0].id),
    )
    names = [knowledge.display(code) for _, code in (first, second)]
    return Finding(
        kind="interaction",
        severity=severity,
        orders=tuple(drug.id for drug, _ in (first, second) if drug.id in drafts),
        others=tuple(drug.id for drug, _ in (first, second) if drug.id not in drafts),
        title=f"{names[0]} with {names[1]}",
        effect=rule.effect,
        mechanism=rule.mechanism,
        management=rule.management,
        rule=rule.id,
        code="DRG",
        version=rule.version,
        evidence=rule.evidence,
        source=knowledge.label,
        reviewed=rule.reviewed,
    )
