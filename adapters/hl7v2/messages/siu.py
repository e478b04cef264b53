"""SIU: Appointments, and the times that S23 blocks and S24 frees.

HL7 v2.5.1, chapter 10; design/hl7v2.md, section 12.
"""

from typing import Any

from adapters.hl7v2.changes import Change, Key, Mode
from adapters.hl7v2.codes import concept, cwe
from adapters.hl7v2.datatypes import date_time
from adapters.hl7v2.draft import Draft, Patient, reference, system_value
from adapters.hl7v2.groups import PatientGroup, ResourceGroup
from adapters.hl7v2.issues import MessageFault
from adapters.hl7v2.message import Segment
from adapters.hl7v2.messages.clinical import lists
from adapters.hl7v2.messages.patient import patient_change, visit_in_passing
from adapters.hl7v2.rows import Filled
from adapters.hl7v2.segments.nte import note_text
from adapters.hl7v2.segments.sch import (
    APPOINTMENT,
    absent,
    duration,
    participant,
    resource_time,
)
from adapters.hl7v2.times import later
from adapters.hl7v2.vocabulary import target

Json = dict[str, Any]

STATUS_OF_EVENT = {
    "S15": "cancelled", "S16": "cancelled", "S17": "entered-in-error", "S26": "noshow",
}  # fmt: skip
BLOCKS = {"S23": "busy-unavailable", "S24": "free"}


def appointment(draft: Draft, event: str) -> None:
    """Draft what an SIU asks."""
    if event in BLOCKS:
        _slots(draft, BLOCKS[event])
        return
    sch = draft.groups.schedule
    if sch is None:
        raise MessageFault(100, "SCH", "The message has no schedule activity (SCH).")
    patients = [
        (group, patient_change(draft, group)) for group in draft.groups.patients if group.pid
    ]
    for group, patient in patients:
        visit_in_passing(draft, group, patient)
        lists(draft, group, patient, "unknown")
    _appointment(draft, sch, patients, event)


def _appointment(
    draft: Draft, sch: Segment, patients: list[tuple[PatientGroup, Patient]], event: str
) -> None:
    filled = APPOINTMENT.apply(sch, draft.scene)
    numbers = filled.set.get("identifier[+]", [])
    if not numbers:
        raise MessageFault(101, "SCH^1^2", "The appointment has no number (SCH-1, SCH-2).")
    pairs = tuple(system_value(one) for one in numbers)
    resources = [one for group in draft.groups.patients for one in group.resources]
    status = _status(draft, sch, resources, event)
    filled.set["status"] = status
    reason = sch.value(6)
    if status == "cancelled" and reason:
        draft.scene.at(sch, 6)
        filled.set["cancelationReason"] = cwe(reason, draft.scene)
    _times(draft, sch, resources, filled)
    _participants(draft, resources, patients, filled, status)
    _services(draft, resources, filled)
    notes = [*draft.groups.schedule_notes, *(n for one in resources for n in one.notes)]
    if texts := list(filter(None, map(note_text, notes))):
        filled.set["comment"] = "\n".join(texts)
    system, number = pairs[-1]
    draft.add(
        "Appointment",
        Key(system, (number,), pairs),
        Mode.MERGE,
        filled,
        sch,
        defaults={"_start": absent(), "_end": absent()},
        after=(_bounded,),
        # The number of one patient's appointment is not that of another's; of a group it is.
        subject=patients[0][1].handle if len(patients) == 1 else "",
    )


def _bounded(resource: Json, change: Change, late: bool) -> None:
    """R4 wants start and end both or none: what is absent is said to be, what is known stays."""
    for name in ("start", "end"):
        if name in resource:
            resource.pop(f"_{name}", None)
        else:
            resource.setdefault(f"_{name}", absent())
    start, end = resource.get("start"), resource.get("end")
    if start and end and end[:10] < start[:10]:
        del resource["end"]
        resource["_end"] = absent()
    if not resource.get("participant"):
        resource["participant"] = [{"actor": {"display": "unknown"}, "status": "accepted"}]


def _status(draft: Draft, sch: Segment, resources: list[ResourceGroup], event: str) -> str:
    if event in STATUS_OF_EVENT:
        sch.raw(25)
        return STATUS_OF_EVENT[event]
    value = sch.value(25)
    draft.scene.at(sch, 25)
    if value is None:
        return "booked"
    for said in (value[1], value[2]):
        if image := target("FillerStatusCodes[Appointment]", said):
            return image.code
    draft.scene.note("code-unknown", "This status is not of table 0278.")
    return "booked"


def _times(draft: Draft, sch: Segment, resources: list[ResourceGroup], filled: Filled) -> None:
    scene = draft.scene
    timing = sch.value(11)
    scene.at(sch, 11)
    start = date_time(timing.subs(4), scene) if timing else None
    end = date_time(timing.subs(5), scene) if timing else None
    for tq1 in draft.groups.schedule_timings:
        begin, until = tq1.value(7), tq1.value(8)
        scene.at(tq1, 7)
        start = start or (date_time(begin, scene) if begin else None)
        end = end or (date_time(until, scene) if until else None)
    found = [resource_time(one.segment, scene) for one in resources]
    known = sorted((one for one in found if one[0]), key=lambda one: str(one[0]))
    if start is None and known:
        start = known[0][0]
    length = duration(sch) or next((one[1] for one in found if one[1]), None)
    if length and length % 60 == 0:
        filled.set["minutesDuration"] = length // 60
    if start and "T" in start:
        filled.set["start"] = start
        if end is None and length:
            end = later(start, length)
    if end and "T" in end and "start" in filled.set:
        filled.set["end"] = end


def _participants(
    draft: Draft,
    resources: list[ResourceGroup],
    patients: list[tuple[PatientGroup, Patient]],
    filled: Filled,
    status: str,
) -> None:
    pending = status in ("pending", "waitlist", "proposed")
    accepted = "needs-action" if pending else "accepted"
    members = [
        {"id": f"pid.{n}", "actor": reference(patient.handle), "status": accepted}
        for n, (_, patient) in enumerate(patients, 1)
    ]
    if members:
        filled.set["participant[pid]"] = members
    for name in ("AIG", "AIL", "AIP"):
        found = [
            made
            for one in resources
            if one.segment.name == name and (made := participant(one.segment, draft.scene, pending))
        ]
        if found:
            filled.set[f"participant[{name.lower()}]"] = [
                {"id": f"{name.lower()}.{n}", **made} for n, made in enumerate(found, 1)
            ]


def _services(draft: Draft, resources: list[ResourceGroup], filled: Filled) -> None:
    services = []
    for one in resources:
        value = one.segment.value(3) if one.segment.name == "AIS" else None
        if value:
            draft.scene.at(one.segment, 3)
            if made := concept()(value, draft.scene):
                services.append(made)
    if services:
        filled.set["serviceType"] = services


def _slots(draft: Draft, status: str) -> None:
    """Draft the Slots of S23 and S24: one for each resource and time."""
    sch = draft.groups.schedule
    resources = [one for group in draft.groups.patients for one in group.resources]
    for one in resources:
        start, length = resource_time(one.segment, draft.scene)
        length = length or (duration(sch) if sch else None)
        named = participant(one.segment, draft.scene, pending=False)
        actor = (named or {}).get("actor")
        if not (start and "T" in start and length and actor):
            draft.scene.at(one.segment, 3)
            draft.scene.note("slot-incomplete", "A time without start, length or resource.")
            continue
        what = str(actor.get("identifier", {}).get("value") or actor.get("display"))
        places = {
            "schedule": {"type": "Schedule", "display": actor.get("display", what),
                         "identifier": {"system": draft.scene.facility, "value": what}},
            "status": status,
            "start": start,
            "end": later(start, length),
        }  # fmt: skip
        key = Key(draft.scene.facility, (what, start))
        draft.add("Slot", key, Mode.MERGE, Filled(places, set()), one.segment)
