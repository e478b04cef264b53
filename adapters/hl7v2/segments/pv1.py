"""PV1, PV2 and DG1 to Encounter.

HL7 v2.5.1, 3.4.3; design/hl7v2.md, section 13.
"""

from typing import Any

from adapters.hl7v2.codes import coding, concept
from adapters.hl7v2.datatypes import Converter, cx, date_time, positive, text, typed_cx
from adapters.hl7v2.message import Segment, Value
from adapters.hl7v2.references import pl, xcn
from adapters.hl7v2.rows import Row, Table
from adapters.hl7v2.scene import Scene
from adapters.hl7v2.vocabulary import V2_SYSTEM, target

Json = dict[str, Any]

PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
NULL_FLAVOR = "http://terminology.hl7.org/CodeSystem/v3-NullFlavor"
R5 = "http://hl7.org/fhir/5.0/StructureDefinition/extension-Encounter."
LOCATION_CLASS = "http://hl7.org/fhir/StructureDefinition/subject-locationClassification"


def participant(type: str, display: str) -> Converter:
    """Return a converter of XCN to a member of Encounter.participant."""
    kind = {"coding": [{"system": PARTICIPATION, "code": type, "display": display}]}

    def convert(value: Value, scene: Scene) -> Json | None:
        individual = xcn(value, scene)
        return {"type": [kind], "individual": individual} if individual else None

    return convert


def location(status: str, *, temporary: bool = False) -> Converter:
    """Return a converter of PL to a member of Encounter.location."""

    def convert(value: Value, scene: Scene) -> Json | None:
        place = pl(value, scene)
        if not place:
            return None
        made: Json = {"location": place, "status": status}
        if temporary:
            made["extension"] = [
                {"url": LOCATION_CLASS, "valueCodeableConcept": {"text": "temporary"}}
            ]
        return made

    return convert


def encounter_class(value: Value, scene: Scene) -> Json | None:
    """Return PV1-2 as a Coding."""
    code = value[1]
    if not code:
        return None
    image = target("PatientClass[EncounterClass]", code)
    if image:
        return coding(image.code, image.display, image.system)
    return coding(code, value[2], V2_SYSTEM + "0004")


def _pre_admission(value: Value, scene: Scene) -> Json | None:
    return cx(value, scene)


def _destination(value: Value, scene: Scene) -> Json | None:
    said = value[1]
    return {"display": value.whole(1)} if said else None


def _priority(value: Value, scene: Scene) -> Json | None:
    return concept("EncounterPriority", "0217")(value, scene)


def _days(value: Value, scene: Scene) -> Json | None:
    days = positive(value, scene)
    if days is None:
        return None
    return {"value": days, "unit": "d", "system": "http://unitsofmeasure.org", "code": "d"}


def _label(system: str) -> Converter:
    def convert(value: Value, scene: Scene) -> list[Json]:
        return [coding(value[1], value[2], system)]

    return convert


def _protected(value: Value, scene: Scene) -> list[Json] | None:
    if value[1].upper() != "Y":
        return None
    return [coding("R", "restricted", CONFIDENTIALITY)]


def _episode(value: Value, scene: Scene) -> Json | None:
    number = cx(value, scene)
    return {"type": "EpisodeOfCare", "identifier": number} if number else None


def _arrival(value: Value, scene: Scene) -> Json | None:
    image = target("ModeOfArrivalCode", value[1])
    return coding(value[1], image.display if image else value[2], V2_SYSTEM + "0430")


_IN = "hospitalization."

VISIT = Table(
    "Encounter",
    "PV1",
    [
        Row("PV1-2", "class", encounter_class),
        Row("PV1-3", "location[]", location("active")),
        Row("PV1-6", "location[]", location("completed")),
        Row("PV1-11", "location[]", location("active", temporary=True)),
        Row("PV1-42", "location[]", location("planned")),
        Row("PV1-4", "type*", concept("AdmissionType", "0007")),
        Row("PV1-10", "serviceType", concept("HospitalService", "0069")),
        Row("PV1-5", f"{_IN}preAdmissionIdentifier", _pre_admission),
        Row("PV1-13", f"{_IN}reAdmission", concept("ReadmissionIndicator", "0092")),
        Row("PV1-14", f"{_IN}admitSource", concept("", "0023")),
        Row("PV1-15*", f"{_IN}specialArrangement*", concept("AmbulatoryStatus", "0009")),
        Row("PV1-16*", f"{_IN}specialCourtesy*", concept("VIPIndicator", "0099")),
        Row("PV1-16", f"meta.security[{V2_SYSTEM}0099]", _label(V2_SYSTEM + "0099")),
        Row("PV1-36", f"{_IN}dischargeDisposition", concept("DischargeDisposition", "0112")),
        Row("PV1-37", f"{_IN}destination", _destination),
        Row("PV1-38", f"{_IN}dietPreference*", concept("DietType", "0114")),
        Row("PV1-7*", "participant[]", participant("ATND", "attender")),
        Row("PV1-8*", "participant[]", participant("REF", "referrer")),
        Row("PV1-9*", "participant[]", participant("CON", "consultant")),
        Row("PV1-17*", "participant[]", participant("ADM", "admitter")),
        Row("PV1-52*", "participant[]", participant("PART", "Participation")),
        Row("PV1-19*", "identifier[+]", typed_cx("VN")),
        Row("PV1-50*", "identifier[+]", typed_cx("VN")),
        Row("PV1-44", "period.start", date_time),
        Row("PV1-45", "period.end", date_time),
        Row("PV1-54*", "episodeOfCare*", _episode),
    ],
)

VISIT_MORE = Table(
    "Encounter",
    "PV2",
    [
        Row("PV2-1", "location[]", location("planned")),
        Row("PV2-3", "reasonCode*", concept()),
        Row("PV2-8", f"extension[{R5}plannedStartDate]", date_time, "valueDateTime"),
        Row("PV2-9", f"extension[{R5}plannedEndDate]", date_time, "valueDateTime"),
        Row("PV2-11", "length", _days),
        Row("PV2-13*", "participant[]", participant("REF", "referrer")),
        Row("PV2-22", f"meta.security[{CONFIDENTIALITY}]", _protected),
        Row("PV2-25", "priority", _priority),
        Row("PV2-38", "extension[http://hl7.org/fhir/StructureDefinition/encounter-modeOfArrival]",
            _arrival, "valueCoding"),
    ],
)  # fmt: skip


def says_visit(pv1: Segment, *, admitting: bool) -> bool:
    """Return whether the PV1 is of a visit (section 13). ``admitting``: the message is an ADT."""
    if pv1.value(19):
        return True
    kind = pv1.text(2)
    if kind:
        return kind.upper() != "N"
    return admitting and any(pv1.value(field) for field in range(2, len(pv1.fields)))


def diagnosis_use(value: Value, scene: Scene) -> Json | None:
    """Return DG1-6 as Encounter.diagnosis.use."""
    return concept("DiagnosisType", "0052")(value, scene)


def number_text(value: Value, scene: Scene) -> str | None:
    """Return a visit number as text."""
    return text(value, scene)
