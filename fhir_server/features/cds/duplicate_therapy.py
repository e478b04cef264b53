"""The same drug twice, or more members of a class than a patient needs. Pure.

design/cds.md, section 5.3.
"""

from collections.abc import Sequence

from fhir_server.features.cds.drug import SYSTEMIC, Drug, Finding
from fhir_server.features.cds.knowledge import Group, Knowledge


def duplicate_findings(
    ordered: Sequence[Drug],
    current: Sequence[Drug],
    knowledge: Knowledge,
    *,
    among_current: bool = False,
) -> list[Finding]:
    """Return what is there twice because of ``ordered``; a draft and what it replaces are one."""
    replaced = {id for drug in ordered for id in drug.replaces}
    kept = [drug for drug in current if drug.id not in replaced]
    subjects = [*ordered, *kept] if among_current else list(ordered)
    found: dict[tuple[str, ...], Finding] = {}
    drafts = {drug.id for drug in ordered}
    for place, one in enumerate(subjects):
        for other in [*subjects[place + 1 :], *(() if among_current else kept)]:
            if one.id == other.id or one.id in other.replaces or other.id in one.replaces:
                continue
            finding = _same(one, other, drafts, knowledge)
            if finding is not None:
                found[tuple(sorted((one.id, other.id)))] = finding
    systemic = [drug for drug in (*ordered, *kept) if drug.is_systemic]
    asked = systemic if among_current else [drug for drug in systemic if drug.id in drafts]
    meant = {code for drug in asked for code in drug.ingredients}
    for group in knowledge.groups:
        if not group.members.isdisjoint(meant):
            members = [drug for drug in systemic if not group.members.isdisjoint(drug.ingredients)]
            finding = _too_many(group, members, drafts, knowledge)
            if finding is not None:
                found.setdefault(tuple(sorted((*finding.orders, *finding.others))), finding)
    return list(found.values())


def _same(one: Drug, other: Drug, drafts: set[str], knowledge: Knowledge) -> Finding | None:
    shared = sorted(set(one.ingredients) & set(other.ingredients))
    if not shared or not _same_kind(one, other):
        return None
    severity = "serious"
    if {one.id, other.id} <= drafts and all(
        _within(code, one, other, knowledge) for code in shared
    ):
        severity = "moderate"
    name = knowledge.display(shared[0])
    return _finding((one, other), drafts, knowledge, severity, f"{name} twice", "same-ingredient")


def _same_kind(one: Drug, other: Drug) -> bool:
    return (one.is_systemic and other.is_systemic) or one.route == other.route


def _within(code: str, one: Drug, other: Drug, knowledge: Knowledge) -> bool:
    """Whether both, taken together, stay within the limit: two strengths of one product may."""
    amounts = [drug.intakes[code].daily for drug in (one, other) if code in drug.intakes]
    limits = [
        row["max_daily"]
        for row in knowledge.limits.get(code, ())
        if "max_daily" in row and row["route"] in SYSTEMIC
    ]
    known = [amount for amount in amounts if amount is not None]
    return len(known) == 2 and bool(limits) and sum(known) <= min(limits)


def _too_many(
    group: Group, members: list[Drug], drafts: set[str], knowledge: Knowledge
) -> Finding | None:
    distinct = {code for drug in members for code in drug.ingredients if code in group.members}
    if len(distinct) <= group.max or len(members) <= group.max:
        return None
    names = sorted(knowledge.display(code) for code in distinct)
    title = f"{group.text}: {' and '.join(names)}"
    return _finding(members, drafts, knowledge, group.severity, title, group.id)


def _finding(
    drugs: Sequence[Drug],
    drafts: set[str],
    knowledge: Knowledge,
    severity: str,
    title: str,
    rule: str,
) -> Finding:
    is_same = rule == "same-ingredient"
    return Finding(
        kind="duplicate",
        severity=severity,
        orders=tuple(sorted(drug.id for drug in drugs if drug.id in drafts)),
        others=tuple(sorted(drug.id for drug in drugs if drug.id not in drafts)),
        title=title,
        effect="the same ingredient is ordered twice" if is_same else "duplicate therapy",
        mechanism="Doses add up." if is_same else "Drugs of one class add effects and harm.",
        management="Keep one, or say that both are meant.",
        rule=rule,
        code="DUPTHPGEN" if is_same else "DUPTHPCLS",
        source=knowledge.label,
    )
