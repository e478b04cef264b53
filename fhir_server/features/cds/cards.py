"""Findings -> cards. Pure. https://cds-hooks.hl7.org/2.0/#card-attributes

design/cds.md, section 6. Names from outside are escaped: they become Markdown on a clinician's
screen.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fhir_server.features.cds.detected_issue import rule_of
from fhir_server.features.cds.dose_change import Change
from fhir_server.features.cds.drug import KINDS, Finding, NotChecked, Patient
from fhir_server.features.cds.knowledge import Knowledge

SUMMARY_CHARACTERS = 139
"""What a summary may have: less than 140."""
INDICATORS = {
    "contraindicated": "critical",
    "serious": "warning",
    "moderate": "info",
    "minor": "info",
}
_ORDER = ("critical", "warning", "info")
TOPICS = "https://example.org/fhir/CodeSystem/drug-finding-kind"
_TOPIC_NAMES = {
    "interaction": "Drug-drug interaction",
    "allergy": "Drug allergy",
    "duplicate": "Duplicate therapy",
    "dose": "Dose",
    "not-checked": "Not checked",
}
_REASONS = {
    "unknown-drug": "the drug is not known",
    "unknown-allergen": "the allergen is not known",
    "unreadable": "it cannot be read",
    "code-text-conflict": "code and text name different drugs; both were checked",
    "not-covered": "no table of ours names it",
    "list-missing": "the list is missing",
    "list-incomplete": "the list is not complete",
    "dose-not-computable": "the dose cannot be computed",
    "value-missing": "a value is missing",
    "no-limit": "there is no dose limit for it",
    "no-child-limit": "there is no dose limit for children; that of adults was judged",
    "provider-failed": "the knowledge base did not answer",
    "out-of-time": "there was no time left",
}
_LISTED_MAX = 20
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+\-.!|~&$^=:@\"'])")


@dataclass(frozen=True, slots=True)
class Card:
    """A card, and what is kept of it: the finding's key and severity, its rules with their kind."""

    json: dict[str, Any]
    key: str
    severity: str
    kind: str
    suggestions: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Making:
    """What all cards of an answer share. ``names`` are ingredients and ``labels``
    what is written, by ``Type/id``; ``links`` a site's monographs by rule; ``changes`` a right dose
    by the key of its finding."""

    knowledge: Knowledge
    new_uuid: Callable[[], str]
    drafts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    patient: Patient = field(default_factory=Patient)
    links: Mapping[str, str] = field(default_factory=dict)
    changes: Mapping[str, Change] = field(default_factory=dict)
    with_evidence: bool = False
    topics: str = TOPICS


def cards(
    findings: Iterable[Finding],
    missing: Sequence[NotChecked],
    making: Making,
    *,
    cards_max: int,
    order_of: Sequence[str] = (),
) -> list[Card]:
    """Return one card for a finding, one for all infos of an order, and one for what was not
    checked; the most serious first, then by kind and the order of the drafts.
    """
    loud = [one for one in findings if INDICATORS[one.severity] != "info"]
    quiet: dict[tuple[str, ...], list[Finding]] = {}
    for one in findings:
        if INDICATORS[one.severity] == "info":
            quiet.setdefault(one.orders or one.others, []).append(one)
    place = {id: number for number, id in enumerate(order_of)}
    loud.sort(
        key=lambda one: (
            *(_ORDER.index(INDICATORS[one.severity]), KINDS.index(one.kind)),
            min((place.get(id, len(place)) for id in one.orders), default=len(place)),
        )
    )
    made = [_card(one, making) for one in loud]
    made += [_notes(of, making) if len(of) > 1 else _card(of[0], making) for of in quiet.values()]
    last = [_not_checked(missing, making)] if missing else []
    most = max(cards_max - len(last) - 1, 1)
    if len(made) > most + 1:
        made = [*made[:most], _further(len(made) - most, making)]
    return made + last


def _card(finding: Finding, making: Making) -> Card:
    suggestions = _suggestions(finding, making)
    json = _frame(
        summary=_cut(f"{finding.title}: {_lower_first(finding.effect)}"),
        indicator=INDICATORS[finding.severity],
        detail=_detail(finding, making),
        label=finding.source or making.knowledge.label,
        kind=finding.kind,
        making=making,
    )
    if suggestions:
        json["selectionBehavior"] = "any" if len(suggestions) == 1 else "at-most-one"
        json["suggestions"] = suggestions
    json["overrideReasons"] = [dict(one) for one in making.knowledge.reasons[finding.kind]]
    if finding.rule in making.links:
        url = making.links[finding.rule]
        json["links"] = [{"label": "Monograph", "url": url, "type": "absolute"}]
    return Card(
        json,
        finding.key,
        finding.severity,
        finding.kind,
        tuple(one["uuid"] for one in suggestions),
        (rule_of(finding),),
    )


def _notes(findings: Sequence[Finding], making: Making) -> Card:
    """Return one card with all infos of one order in a list."""
    name = making.names.get((findings[0].orders or ("",))[0], "this order")
    lines = [
        f"- **{escaped(one.title)}**: {escaped(_lower_first(one.effect))}. "
        f"{escaped(one.management)} (rule {escaped(one.rule)})"
        for one in findings
    ]
    kinds = {one.kind for one in findings}
    kind = findings[0].kind
    json = _frame(
        summary=_cut(f"{name}: {len(findings)} notes"),
        indicator="info",
        detail="\n".join([*lines, "", _draft_line(findings[0])]),
        label=findings[0].source or making.knowledge.label,
        kind=kind,
        making=making,
    )
    json["overrideReasons"] = [dict(one) for one in making.knowledge.reasons[kind]]
    rules = tuple(map(rule_of, findings))
    key = ";".join(sorted(one.key for one in findings))
    return Card(json, key, "moderate", kind if len(kinds) == 1 else "notes", (), rules)


def overview(
    findings: Sequence[Finding], missing: Sequence[NotChecked], making: Making
) -> list[Card]:
    """Return one card for all findings among the active drugs, and one for what was not checked."""
    made = []
    if findings:
        lines = [
            f"- **{escaped(one.title)}** ({one.severity}): {escaped(_lower_first(one.effect))}. "
            f"{escaped(one.management)}"
            for one in findings[:_LISTED_MAX]
        ]
        if len(findings) > _LISTED_MAX:
            lines.append(f"- and {len(findings) - _LISTED_MAX} more")
        first = findings[0]
        others = f", and {len(findings) - 1} more" if len(findings) > 1 else ""
        json = _frame(
            summary=_cut(f"{first.title}: {_lower_first(first.effect)}", 120) + others,
            indicator=INDICATORS[first.severity],
            detail="\n".join([*lines, "", _draft_line(first)]),
            label=first.source or making.knowledge.label,
            kind=first.kind,
            making=making,
        )
        json["overrideReasons"] = [dict(one) for one in making.knowledge.reasons[first.kind]]
        key = ";".join(sorted(one.key for one in findings))
        rules = tuple(map(rule_of, findings))
        made.append(Card(json, key, first.severity, first.kind, (), rules))
    return made + ([_not_checked(missing, making)] if missing else [])


def _not_checked(missing: Sequence[NotChecked], making: Making) -> Card:
    """Return the one card that says what could not be checked."""
    is_loud = any(one.reason in ("provider-failed", "out-of-time") for one in missing)
    lines = []
    for one in missing[:_LISTED_MAX]:
        more = f" ({escaped(one.text)})" if one.text else ""
        lines.append(f"- {escaped(one.subject)}: {_REASONS[one.reason]}{more}")
    if len(missing) > _LISTED_MAX:
        lines.append(f"- and {len(missing) - _LISTED_MAX} more")
    subjects = ", ".join(dict.fromkeys(one.subject for one in missing))
    json = _frame(
        summary=_cut(f"Not everything could be checked: {subjects}"),
        indicator="warning" if is_loud else "info",
        detail="\n".join(lines),
        label=making.knowledge.label,
        kind="not-checked",
        making=making,
    )
    key = "not-checked|" + ";".join(sorted(f"{one.reason}:{one.subject}" for one in missing))[:500]
    return Card(json, key, "", "not-checked")


def _further(count: int, making: Making) -> Card:
    json = _frame(
        summary=f"{count} more findings are not shown",
        indicator="warning",
        detail="There are more findings than cards that are shown. Use $check-interactions.",
        label=making.knowledge.label,
        kind="not-checked",
        making=making,
    )
    return Card(json, "further", "", "not-checked")


def _frame(
    *, summary: str, indicator: str, detail: str, label: str, kind: str, making: Making
) -> dict[str, Any]:
    topic = {"system": making.topics, "code": kind, "display": _TOPIC_NAMES[kind]}
    return {
        "uuid": making.new_uuid(),
        "summary": summary,
        "indicator": indicator,
        "detail": detail,
        "source": {"label": label, "topic": topic},
    }


def _detail(finding: Finding, making: Making) -> str:
    lines = [
        f"**Why** {escaped(finding.mechanism)}",
        f"**What to do** {escaped(finding.management)}",
    ]
    said = [making.labels[id] for id in (*finding.orders, *finding.others) if id in making.labels]
    if said:
        lines.append(f"**As written** {escaped('; '.join(said))}")
    if judged := ". ".join(one for one in (finding.judged, _person(making.patient)) if one):
        lines.append(f"**For whom** {escaped(judged)}")
    if making.with_evidence and finding.evidence:
        lines.append(f"**Evidence** {escaped('; '.join(finding.evidence))}")
    return "\n\n".join([*lines, _draft_line(finding)])


def _draft_line(finding: Finding) -> str:
    review = "Reviewed." if finding.reviewed else "Draft, not reviewed by a pharmacist."
    return f"Rule {escaped(finding.rule)}, version {finding.version}. {review}"


def _person(patient: Patient) -> str:
    said = []
    if patient.age_years is not None:
        said.append(f"{int(patient.age_years)} years")
    if patient.weight_kg is not None:
        said.append(f"{float(patient.weight_kg):.1f} kg")
    renal = patient.clearance if patient.clearance is not None else patient.egfr
    if renal is not None:
        is_known = patient.sex in ("male", "female")
        unsure = "" if is_known else ", the smaller result, as the sex is not known"
        said.append(f"renal function {float(renal):.0f} mL/min{unsure}")
    return ", ".join(said)


def _suggestions(finding: Finding, making: Making) -> list[dict[str, Any]]:
    """Return the ways out: to change the dose, where that is one, and to remove each draft."""
    found = []
    if change := making.changes.get(finding.key):
        name = _cut(making.names.get(finding.orders[0], finding.orders[0]), 60)
        said = f"Change the dose of {name} to {change.amount}, and nothing else"
        action = {"type": "update", "description": said, "resource": dict(change.order)}
        found.append(_suggestion(f"Change to {_cut(change.amount, 60)}", action, making))
    for id in finding.orders:
        if id not in making.drafts:
            continue
        name = _cut(making.names.get(id, id), 60)
        action = {
            "type": "delete",
            "description": f"Remove the order of {name}",
            "resourceId": id,
        }
        found.append(_suggestion(f"Remove {name}", action, making))
    return found


def _suggestion(label: str, action: dict[str, Any], making: Making) -> dict[str, Any]:
    return {
        "label": label,
        "uuid": making.new_uuid(),
        "isRecommended": False,
        "actions": [action],
    }


def escaped(words: str) -> str:
    """Return a text as Markdown that shows it as it is, on one line."""
    plain = _MARKDOWN.sub(_backslashed, " ".join(words.split()))
    return plain.replace("://", ":\\//").replace("www.", "www\\.")  # no link by itself


def _backslashed(match: "re.Match[str]") -> str:
    # Plain prose stays readable: a point, a hyphen or a bracket in a line does nothing.
    return match[1] if match[1] in ".-()+:='\"^@$" else f"\\{match[1]}"


def _cut(words: str, most: int = SUMMARY_CHARACTERS) -> str:
    """Return at most ``most`` characters, cut at a word."""
    plain = " ".join(words.split())
    if len(plain) <= most:
        return plain
    kept = plain[: most - 1]
    head, space, _ = kept.rpartition(" ")
    return (head if space and len(head) > most // 2 else kept) + "…"


def _lower_first(words: str) -> str:
    is_acronym = len(words) > 1 and words[1].isupper()
    return words if is_acronym or not words else words[0].lower() + words[1:]
