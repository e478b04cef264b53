"""A resource and what it names to a v2 message: ADT of a Patient or an Encounter, ORU of results.

HL7 v2.5.1, 3.3 and 7.3.1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from adapters.hl7v2.message import Delimiters
from adapters.hl7v2.outbound.fields import Marks, joined
from adapters.hl7v2.outbound.pid import patient_segments, relatives
from adapters.hl7v2.outbound.results import (
    form_segments,
    order_segments,
    result_segments,
    specimen_segment,
)
from adapters.hl7v2.outbound.values import dtm
from adapters.hl7v2.outbound.visit import visit_segments

Json = Mapping[str, Any]

VERSION = "2.5.1"
TYPES = ("Patient", "Encounter", "DiagnosticReport", "Observation")
# Encounter.status -> the event that brings it.
EVENTS = {
    "planned": "A05", "arrived": "A04", "triaged": "A04", "in-progress": "A01", "onleave": "A21",
    "finished": "A03", "cancelled": "A11", "entered-in-error": "A23", "unknown": "A08",
}  # fmt: skip
_STRUCTURES = {
    "A04": "A01", "A08": "A01", "A05": "A05", "A28": "A05", "A31": "A05", "A29": "A21",
    "A11": "A09", "A23": "A21",
}  # fmt: skip
PATIENT_EVENTS = ("A08", "A28", "A31", "A29")
_OUTPATIENT = ("AMB", "EMER", "FLD", "HH", "VR", "SS", "OBSENC")


@dataclass(frozen=True, slots=True)
class Envelope:
    """What the header says besides: our names, the receiver's, when (DTM), and the charset by
    table 0211."""

    control_id: str
    at: str
    sender: tuple[str, str] = ("FHIR", "")
    receiver: tuple[str, str] = ("", "")
    charset: str = "UNICODE UTF-8"
    processing: str = "P"


@dataclass(frozen=True, slots=True)
class Subject:
    """What a message is made of: the resource itself, and what it names."""

    resource: Json
    patient: Json
    encounter: Json | None = None
    results: Sequence[Json] = ()
    specimens: Sequence[Json] = field(default=())


def event_of(resource: Json, wanted: str = "") -> str:
    """Return the event of the ADT that a Patient or an Encounter becomes.

    A Patient in its first version is added (A28), later updated (A31); one that is not active is
    deleted (A29). ``wanted`` goes before.
    """
    if wanted:
        return wanted
    if resource["resourceType"] == "Patient":
        if resource.get("active") is False:
            return "A29"
        return "A28" if str(resource.get("meta", {}).get("versionId", "")) == "1" else "A31"
    status = str(resource.get("status", ""))
    if status == "in-progress" and resource.get("class", {}).get("code") in _OUTPATIENT:
        return "A04"
    return EVENTS.get(status, "A08")


def message_of(subject: Subject, envelope: Envelope, base: str, event: str = "") -> str:
    """Return the message of ``subject``, each segment ended by CR.

    ``base`` is our own ``[base]``, by which numbers of resources without one are told apart.
    """
    marks = Marks.of(Delimiters("|"), base)
    kind = subject.resource["resourceType"]
    if kind in ("Patient", "Encounter"):
        chosen = event_of(subject.resource, event)
        segments = _adt(subject, chosen, envelope, marks)
        type = ("ADT", chosen, f"ADT_{_STRUCTURES.get(chosen, chosen)}")
    else:
        segments = _oru(subject, marks)
        type = ("ORU", "R01", "ORU_R01")
    header = _header(envelope, type, marks)
    return "".join(f"{line}\r" for line in (header, *segments))


def _header(envelope: Envelope, type: tuple[str, ...], marks: Marks) -> str:
    names = (*envelope.sender, *envelope.receiver)
    fields = [*map(marks.text, names), envelope.at, "", marks.leaves(*type)]
    fields += [marks.text(envelope.control_id), envelope.processing, VERSION]
    return "|".join(("MSH", "^~\\&", *fields, *[""] * 5, marks.text(envelope.charset)))


def _adt(subject: Subject, event: str, envelope: Envelope, marks: Marks) -> list[str]:
    resource = subject.resource
    said = dtm(resource.get("meta", {}).get("lastUpdated", "")) or envelope.at
    evn = {1: event, 2: said, 6: _occurred(resource, event)}
    segments = [joined("EVN", evn, marks), *patient_segments(subject.patient, marks)]
    segments += relatives(subject.patient, marks)
    if resource["resourceType"] == "Encounter":
        return segments + visit_segments(resource, marks)
    return [*segments, "PV1|1|N"]


def _occurred(resource: Json, event: str) -> str:
    period = resource.get("period", {})
    return dtm(period.get("end" if event == "A03" else "start", ""))


def _oru(subject: Subject, marks: Marks) -> list[str]:
    segments = patient_segments(subject.patient, marks)
    if subject.encounter is not None:
        segments += visit_segments(subject.encounter, marks)
    results = result_segments(subject.results, marks)
    segments += [*order_segments(subject.resource, marks), *results]
    if subject.resource["resourceType"] == "DiagnosticReport":
        begin = 1 + sum(one.startswith("OBX") for one in results)
        segments += form_segments(subject.resource, subject.results, begin, marks)
    for number, one in enumerate(subject.specimens, 1):
        segments.append(specimen_segment(one, number, marks))
    return segments
