"""DG1 and PRB to Condition, PR1 to Procedure.

HL7 v2.5.1, 6.5.2, 6.5.4 and 12.4.2; design/hl7v2.md, section 13.
"""

from typing import Any

from adapters.hl7v2.changes import Change
from adapters.hl7v2.codes import concept
from adapters.hl7v2.datatypes import date_time, ei, readable
from adapters.hl7v2.message import Value
from adapters.hl7v2.references import xcn
from adapters.hl7v2.rows import Row, Table
from adapters.hl7v2.scene import Scene

Json = dict[str, Any]

CLINICAL = "http://terminology.hl7.org/CodeSystem/condition-clinical"
VERIFICATION = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
CATEGORY = "http://terminology.hl7.org/CodeSystem/condition-category"
ASSERTED = "http://hl7.org/fhir/StructureDefinition/condition-assertedDate"

# Spellings of PRB-14 (life cycle) and PRB-13 (confirmation) seen in the field, in capitals.
_CLINICAL = {
    "ACTIVE": "active", "A": "active", "NEW": "active", "O": "active", "OPEN": "active",
    "RECURRENCE": "recurrence", "RELAPSE": "relapse", "INACTIVE": "inactive", "I": "inactive",
    "REMISSION": "remission", "RESOLVED": "resolved", "R": "resolved", "CLOSED": "resolved",
    "C": "resolved", "RESOLUTION": "resolved",
}  # fmt: skip
_VERIFICATION = {
    "CONFIRMED": "confirmed", "C": "confirmed", "DIFFERENTIAL": "differential",
    "D": "differential", "PROVISIONAL": "provisional", "P": "provisional",
    "RULE-OUT": "refuted", "REFUTED": "refuted", "UNCONFIRMED": "unconfirmed",
    "U": "unconfirmed", "CONFIRMED PRESENT": "confirmed",
}  # fmt: skip


def _status(table: dict[str, str], system: str, value: Value, scene: Scene) -> Json | None:
    """Return a status of a required binding; a code without an image is an issue."""
    for part in (value[1], value[2]):
        if known := table.get(part.upper()):
            return {"coding": [{"system": system, "code": known}]}
    scene.note("code-unknown", "This status has no image in FHIR.")
    return None


def _clinical(value: Value, scene: Scene) -> Json | None:
    return _status(_CLINICAL, CLINICAL, value, scene)


def _verification(value: Value, scene: Scene) -> Json | None:
    return _status(_VERIFICATION, VERIFICATION, value, scene)


def _text_only(value: Value, scene: Scene) -> Json | None:
    said = readable(value, scene)
    return {"text": said} if said else None


DIAGNOSIS = Table(
    "Condition",
    "DG1",
    [
        Row("DG1-3", "code", concept()),
        Row("DG1-4", "code", _text_only, unless="DG1-3"),
        Row("DG1-5", "onsetDateTime", date_time),
        Row("DG1-16", "asserter", xcn),
        Row("DG1-19", "recordedDate", date_time),
        Row("DG1-19", f"extension[{ASSERTED}]", date_time, "valueDateTime"),
        Row("DG1-20", "identifier[+]", ei()),
    ],
)
PROBLEM = Table(
    "Condition",
    "PRB",
    [
        Row("PRB-3", "code", concept()),
        Row("PRB-4", "identifier[+]", ei()),
        Row("PRB-7", "recordedDate", date_time),
        Row("PRB-9", "abatementDateTime", date_time),
        Row("PRB-13", "verificationStatus", _verification),
        Row("PRB-14", "clinicalStatus", _clinical),
        Row("PRB-16", "onsetDateTime", date_time),
        Row("PRB-17", "onsetString", readable, unless="PRB-16"),
    ],
)


def category(code: str, display: str) -> list[Json]:
    """Return Condition.category."""
    return [{"coding": [{"system": CATEGORY, "code": code, "display": display}]}]


def in_error(resource: Json, change: Change, late: bool) -> None:
    """DG1-21 D, PRB-1 DE: the statement was an error. R4 then wants no clinical status."""
    if not late:
        resource["verificationStatus"] = {
            "coding": [{"system": VERIFICATION, "code": "entered-in-error"}]
        }
        resource.pop("clinicalStatus", None)


def settled(resource: Json, change: Change, late: bool) -> None:
    """Make clinical status, verification and abatement agree, as R4 wants them."""
    codes = {c.get("code") for c in resource.get("verificationStatus", {}).get("coding", ())}
    if "entered-in-error" in codes:
        resource.pop("clinicalStatus", None)
        return
    abated = any(name.startswith("abatement") for name in resource)
    clinical = {c.get("code") for c in resource.get("clinicalStatus", {}).get("coding", ())}
    if abated and not clinical & {"inactive", "resolved", "remission"}:
        resource["clinicalStatus"] = {"coding": [{"system": CLINICAL, "code": "resolved"}]}
    elif "clinicalStatus" not in resource:
        resource["clinicalStatus"] = {"coding": [{"system": CLINICAL, "code": "active"}]}


PROCEDURE = Table(
    "Procedure",
    "PR1",
    [
        Row("PR1-3", "code", concept()),
        Row("PR1-4", "code", _text_only, unless="PR1-3"),
        Row("PR1-5", "performedDateTime", date_time),
        Row("PR1-15", "reasonCode*", concept()),
        Row("PR1-19", "identifier[+]", ei()),
    ],
)
