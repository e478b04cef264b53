"""Findings as DetectedIssue resources. Pure. https://hl7.org/fhir/R4/detectedissue.html"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from fhir_server.features.cds.drug import Finding
from fhir_server.features.cds.elements import part, parts, reference, text
from fhir_server.features.cds.prefetch import is_plain_id

_ACT_CODE = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
SEVERITY = "https://example.org/fhir/StructureDefinition/drug-finding-severity"
RULE = "https://example.org/fhir/StructureDefinition/drug-finding-rule"
_VOID = frozenset(("cancelled", "entered-in-error"))
_LEVELS = {
    "contraindicated": "high",
    "serious": "high",
    "moderate": "moderate",
    "minor": "low",
}


def detected_issue(
    finding: Finding, patient: str, now: datetime, *, status: str = "preliminary"
) -> dict[str, Any]:
    """Return ``finding`` about ``patient``, an id or ``""``; ``final`` where it is stored."""
    review = "Reviewed." if finding.reviewed else "Draft, not reviewed by a pharmacist."
    said = f"{finding.title}: {finding.effect}. {finding.mechanism} {finding.management} {review}"
    implicated = [
        one for one in (*finding.orders, *finding.others) if is_plain_id(one.partition("/")[2])
    ]
    found: dict[str, Any] = {
        "resourceType": "DetectedIssue",
        "extension": [
            {"url": SEVERITY, "valueCode": finding.severity},
            {"url": RULE, "valueString": rule_of(finding)},
        ],
        "status": status,
        "code": {"coding": [{"system": _ACT_CODE, "code": finding.code}], "text": finding.title},
        "severity": _LEVELS[finding.severity],
        "identifiedDateTime": now.isoformat(timespec="seconds"),
        "author": {"display": finding.source},
        "implicated": [{"reference": one} for one in implicated],
        "detail": " ".join(said.split()),
    }
    if patient:
        found["patient"] = {"reference": f"Patient/{patient}"}
    return found


def rule_of(finding: Finding) -> str:
    """Return the rule and its version."""
    return f"{finding.kind}/{finding.rule}"


def override_of(
    finding: Finding,
    order: Mapping[str, Any],
    issues: Sequence[Mapping[str, Any]],
    patient: str,
) -> Mapping[str, Any] | None:
    """Return the DetectedIssue by which ``order`` overrides ``finding``, with a reason, if it does.

    ``issues`` are those that the order refers to. It is about the same rule and the same resources,
    and its mitigation says what was decided, and by whom. One that is stored by itself is about the
    same ``patient``; where there is nothing but the order to be about, it names that.
    """
    own = f"MedicationRequest/{text(order, 'id')}"
    for issue in issues:
        is_inside = any(issue is one for one in parts(order, "contained"))
        about = {*finding.orders, *finding.others}
        rules = {text(one, "valueString") for one in parts(issue, "extension")}
        named = {reference({"of": one}, "of") for one in parts(issue, "implicated")}
        needed = about - {own} if is_inside or about != {own} else about
        if text(issue, "status") in _VOID or rule_of(finding) not in rules or not needed <= named:
            continue
        if not is_inside and reference(issue, "patient") != f"Patient/{patient}":
            continue
        if any(decides(one) for one in parts(issue, "mitigation")):
            return issue
    return None


def decides(mitigation: Mapping[str, Any]) -> bool:
    """Whether a mitigation says what was decided, and by whom."""
    action, author = part(mitigation, "action"), part(mitigation, "author")
    says_why = text(action, "text") or any(text(one, "code") for one in parts(action, "coding"))
    return bool(says_why and (text(author, "reference") or text(author, "display")))
