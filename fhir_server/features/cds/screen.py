"""Everything that speaks against the orders of a question, by the shipped knowledge. Pure."""

from collections.abc import Collection, Iterable
from dataclasses import replace

from fhir_server.features.cds.chart import Question
from fhir_server.features.cds.dose import dose_screening
from fhir_server.features.cds.drug import KINDS, RANK, Finding, NotChecked, Screening, higher
from fhir_server.features.cds.drug_allergy import allergy_findings
from fhir_server.features.cds.drug_interaction import interaction_findings
from fhir_server.features.cds.duplicate_therapy import duplicate_findings
from fhir_server.features.cds.knowledge import Knowledge


def screen(
    asked: Question,
    knowledge: Knowledge,
    kinds: Collection[str] = KINDS,
    *,
    among_current: bool = False,
) -> Screening:
    """Return the findings of ``kinds``, most severe first, and what could not be judged.

    ``among_current`` looks at the active drugs among themselves as well. Nothing depends on the
    order of what is given.
    """
    ordered = sorted(asked.ordered, key=lambda drug: drug.id)
    current = sorted(asked.current, key=lambda drug: drug.id)
    findings: list[Finding] = []
    missing: tuple[NotChecked, ...] = ()
    if "interaction" in kinds:
        findings += interaction_findings(
            ordered, current, asked.patient, knowledge, among_current=among_current
        )
    if "allergy" in kinds:
        judged = [*ordered, *current] if among_current else ordered
        findings += allergy_findings(judged, asked.allergies, knowledge)
    if "duplicate" in kinds:
        findings += duplicate_findings(ordered, current, knowledge, among_current=among_current)
    if "dose" in kinds:
        doses = dose_screening(ordered, current, asked.patient, knowledge)
        findings += doses.findings
        missing = doses.not_checked
    return Screening(ranked(_without_twins(findings)), missing)


def ranked(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return ``findings`` most severe first, then by kind and title."""
    return tuple(
        sorted(
            findings,
            key=lambda one: (
                *(-RANK[one.severity], KINDS.index(one.kind), one.title, one.orders, one.others),
                one.rule,
            ),
        )
    )


def _without_twins(findings: Iterable[Finding]) -> list[Finding]:
    """An interaction and a duplicate of one pair are one: the interaction's text, the severer."""
    found = list(findings)
    pairs = {_pair(one): place for place, one in enumerate(found) if one.kind == "interaction"}
    kept: list[Finding | None] = list(found)
    for place, one in enumerate(found):
        twin = pairs.get(_pair(one)) if one.kind == "duplicate" else None
        if twin is not None:
            other = kept[twin]
            assert other is not None
            kept[twin] = replace(other, severity=higher(other.severity, one.severity))
            kept[place] = None
    return [one for one in kept if one is not None]


def _pair(finding: Finding) -> frozenset[str]:
    return frozenset((*finding.orders, *finding.others))
