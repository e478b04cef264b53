"""Drug against allergy, with what cross-reacts and what does not. Pure.

design/cds.md, section 5.2.
"""

from collections.abc import Iterable, Sequence

from fhir_server.features.cds.drug import Allergy, Drug, Finding, higher, lowered
from fhir_server.features.cds.knowledge import LEVELS, Knowledge, Relation

# level -> severity after a severe reaction, and otherwise
_SEVERITIES = {
    "same-substance": ("contraindicated", "contraindicated"),
    "class": ("contraindicated", "serious"),
    "shared-structure": ("contraindicated", "serious"),
    "related": ("serious", "minor"),
    "theoretical": ("", ""),
}
_EFFECTS = {
    "same-substance": "Allergic reaction to the same substance",
    "class": "Cross-reaction within the class",
    "shared-structure": "Cross-reaction through a shared structure",
    "related": "Cross-reaction is possible, though uncommon",
}


def allergy_findings(
    ordered: Sequence[Drug], allergies: Iterable[Allergy], knowledge: Knowledge
) -> list[Finding]:
    """Return a finding for each drug of ``ordered`` and entry of ``allergies`` that do not go.

    Entries are current ones: who reads them leaves out what is refuted, resolved or an error.
    """
    found = []
    for allergy in allergies:
        for drug in ordered:
            nearest = _nearest(drug, allergy, knowledge)
            if nearest is None:
                continue
            severity = _severity(nearest[0], drug, allergy, knowledge)
            if severity:
                found.append(_finding(drug, allergy, nearest, severity, knowledge))
    return found


def _nearest(
    drug: Drug, allergy: Allergy, knowledge: Knowledge
) -> tuple[str, str, str, str] | None:
    """Return the strongest level, the rule, its text and the ingredient, if there is any."""
    best: tuple[str, str, str, str] | None = None
    for code in sorted(drug.ingredients):
        for level, rule, text in _levels(code, allergy, knowledge):
            if best is None or LEVELS.index(level) > LEVELS.index(best[0]):
                best = (level, rule, text, code)
    return best


def _levels(code: str, allergy: Allergy, knowledge: Knowledge) -> Iterable[tuple[str, str, str]]:
    """Yield level, rule and text of each relation of the entry to the ingredient ``code``."""
    for allergen in sorted(allergy.ingredients):
        if allergen == code:
            yield "same-substance", "same-ingredient", "The recorded allergen itself."
        elif frozenset((allergen, code)) in knowledge.same:
            yield (
                "same-substance",
                "same-substance",
                "A salt, prodrug, metabolite or isomer of the recorded allergen.",
            )
    members = set(allergy.ingredients)
    for name in sorted(allergy.classes):
        members |= knowledge.classes[name]
        if code in knowledge.classes[name]:
            yield "class", f"class-{name}", "The entry names a class, and the drug belongs to it."
    for relation in knowledge.relations.get(code, ()):
        if _applies(relation, members, allergy, knowledge):
            yield relation.level, relation.id, relation.text


def _applies(relation: Relation, members: set[str], allergy: Allergy, knowledge: Knowledge) -> bool:
    if all(members.isdisjoint(knowledge.classes[name]) for name in relation.allergen):
        return False
    return not relation.only_reactions or _mentions(allergy, relation.only_reactions)


def _mentions(allergy: Allergy, words: Iterable[str]) -> bool:
    return any(word in reaction for reaction in allergy.reactions for word in words)


def _severity(level: str, drug: Drug, allergy: Allergy, knowledge: Knowledge) -> str:
    is_severe = allergy.is_high or _mentions(allergy, knowledge.severe_reactions)
    severity = _SEVERITIES[level][0 if is_severe else 1]
    steps = 0
    if not is_severe and (allergy.is_intolerance or _only_side_effects(allergy, knowledge)):
        steps += 2
    if allergy.is_unconfirmed:
        steps += 1
    if _given_since(drug, allergy):
        steps += 1
    return lowered(severity, steps)


def _only_side_effects(allergy: Allergy, knowledge: Knowledge) -> bool:
    return bool(allergy.reactions) and all(
        any(word in reaction for word in knowledge.side_effects) for reaction in allergy.reactions
    )


def _given_since(drug: Drug, allergy: Allergy) -> bool:
    """Whether the ordered ingredient was given after the entry was made."""
    return any(code in allergy.given_since for code in drug.ingredients)


def with_history(allergy: Allergy, current: Iterable[Drug]) -> frozenset[str]:
    """Return the ingredients of ``allergy`` that an order brought after the entry was made."""
    if not allergy.recorded:
        return frozenset()
    return frozenset(
        code
        for drug in current
        if drug.authored[:10] > allergy.recorded[:10]
        for code in drug.ingredients
        if code in allergy.ingredients
    )


def _finding(
    drug: Drug,
    allergy: Allergy,
    nearest: tuple[str, str, str, str],
    severity: str,
    knowledge: Knowledge,
) -> Finding:
    level, rule, text, code = nearest
    name = knowledge.display(code)
    reaction = f" Recorded reaction: {', '.join(allergy.reactions)}." if allergy.reactions else ""
    since = " It was given after the entry was made." if _given_since(drug, allergy) else ""
    return Finding(
        kind="allergy",
        severity=severity,
        orders=(drug.id,),
        others=(allergy.id,),
        title=f"{name}: recorded allergy to {allergy.display}",
        effect=_EFFECTS[level],
        mechanism=text + reaction + since,
        management="Choose another drug, or check the entry."
        if higher(severity, "serious") == severity
        else "Check the entry before giving it.",
        rule=rule,
        code=_code(level, allergy),
        source=knowledge.label,
    )


def _code(level: str, allergy: Allergy) -> str:
    """v3-ActCode: intolerance, the same substance, or something related."""
    if allergy.is_intolerance:
        return "INT"
    return "ALGY" if level == "same-substance" else "RALG"
