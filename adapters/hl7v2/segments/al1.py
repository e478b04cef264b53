"""AL1 and IAM to AllergyIntolerance.

HL7 v2.5.1, 3.4.6 and 3.4.7; design/hl7v2.md, section 13.
"""

from typing import Any

from adapters.hl7v2.changes import Change, Merging
from adapters.hl7v2.codes import Primitive, alternate, concept, cwe
from adapters.hl7v2.datatypes import date_time, ei, readable
from adapters.hl7v2.message import Value
from adapters.hl7v2.rows import Filled, Row, Table
from adapters.hl7v2.scene import Scene
from adapters.hl7v2.vocabulary import target

Json = dict[str, Any]

ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
CLINICAL = "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical"
VERIFICATION = "http://terminology.hl7.org/CodeSystem/allergyintolerance-verification"


def _category(value: Value, scene: Scene) -> Primitive | None:
    image = target("AllergenType[AllergyIntoleranceCategory]", value[1])
    return Primitive(image.code, (alternate(value, scene, "0127"),)) if image else None


def _type(value: Value, scene: Scene) -> str | None:
    image = target("AllergyType", value[1])
    return image.code if image else None


def _criticality(value: Value, scene: Scene) -> str | None:
    image = target("AllergySeverity[AllergyIntolerance.criticality]", value[1])
    return image.code if image else None


def _severity(value: Value, scene: Scene) -> str | None:
    image = target("AllergySeverity[AllergyIntolerance.reaction.severity]", value[1])
    return image.code if image else None


def _manifestation(value: Value, scene: Scene) -> Json | None:
    if len(value.parts) > 1:
        return cwe(value, scene)
    said = readable(value, scene)
    return {"text": said} if said else None


def _clinical(value: Value, scene: Scene) -> Json | None:
    said = value[1].lower()
    known = said if said in ("active", "inactive", "resolved") else _STATUS.get(value[1].upper())
    return {"coding": [{"system": CLINICAL, "code": known}]} if known else None


_STATUS = {"A": "active", "I": "inactive", "R": "resolved", "C": "active", "D": "active"}

AL1 = Table(
    "AllergyIntolerance",
    "AL1",
    [
        Row("AL1-2", "category*", _category),
        Row("AL1-2", "type", _type),
        Row("AL1-3", "code", concept()),
        Row("AL1-4", "criticality", _criticality),
        Row("AL1-4", "_severity", _severity),
        Row("AL1-5*", "_manifestation*", _manifestation),
        Row("AL1-6", "onsetDateTime", date_time),
    ],
)
IAM = Table(
    "AllergyIntolerance",
    "IAM",
    [
        Row("IAM-2", "category*", _category),
        Row("IAM-2", "type", _type),
        Row("IAM-3", "code", concept()),
        Row("IAM-4", "criticality", _criticality),
        Row("IAM-4", "_severity", _severity),
        Row("IAM-5*", "_manifestation*", _manifestation),
        Row("IAM-7", "identifier[+]", ei()),
        Row("IAM-11", "onsetDateTime", date_time),
        Row("IAM-12", "onsetString", readable, unless="IAM-11"),
        Row("IAM-13", "recordedDate", date_time),
        Row("IAM-17", "clinicalStatus", _clinical),
    ],
)
REQUIRED = {"clinicalStatus": {"coding": [{"system": CLINICAL, "code": "active"}]}}


_UNKNOWN = [{"coding": [{"system": ABSENT, "code": "unknown"}]}]


def reacted(filled: Filled) -> Merging:
    """Return what puts severity (field 4) and manifestations (field 5) into the one reaction that
    they are of: each keeps, replaces or removes its own part. R4 wants a manifestation of each."""
    said = {"severity": filled.set.pop("_severity", None)}
    said["manifestation"] = filled.set.pop("_manifestation", None)
    gone = {name for name in said if f"_{name}" in filled.remove}

    def finish(resource: Json, change: Change, late: bool) -> None:
        reactions = resource.get("reaction", [])
        stored: Json = next((one for one in reactions if one.get("id") == "al1.1"), {})
        if stored.get("manifestation") == _UNKNOWN:
            stored = {name: value for name, value in stored.items() if name != "manifestation"}
        own = {name: value for name, value in said.items() if value}
        made = {**own, **stored} if late else {**stored, **own}
        for name in set() if late else gone:
            made.pop(name, None)
        others = [one for one in reactions if one.get("id") != "al1.1"]
        if made.keys() - {"id"}:
            others.insert(0, {"id": "al1.1", "manifestation": _UNKNOWN, **made})
        if others:
            resource["reaction"] = others
        else:
            resource.pop("reaction", None)

    return finish


def in_error(resource: Json, change: Change, late: bool) -> None:
    """IAM-6 D: the statement was an error. R4 then wants no clinical status."""
    if not late:
        resource["verificationStatus"] = {
            "coding": [{"system": VERIFICATION, "code": "entered-in-error"}]
        }
        resource.pop("clinicalStatus", None)


def confirmed(resource: Json, change: Change, late: bool) -> None:
    """Keep the status that says *error* without a clinical status beside it."""
    for coding in resource.get("verificationStatus", {}).get("coding", ()):
        if coding.get("code") == "entered-in-error":
            resource.pop("clinicalStatus", None)
