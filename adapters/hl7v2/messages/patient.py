"""The patient and the visit of a group of segments: what every type of message may bring.

design/hl7v2.md, sections 9, 10 and 12.
"""

from typing import Any

from adapters.hl7v2.changes import Change, Instruction, Key, Merging, Mode
from adapters.hl7v2.datatypes import cx, typed_cx
from adapters.hl7v2.draft import Draft, Patient, reference, system_value
from adapters.hl7v2.groups import PatientGroup, VisitGroup
from adapters.hl7v2.issues import MessageFault
from adapters.hl7v2.message import Segment
from adapters.hl7v2.rows import Filled
from adapters.hl7v2.segments.nk1 import RELATIVE
from adapters.hl7v2.segments.pid import PATIENT, PRIMARY_CARE, contact, finish_patient, numbers
from adapters.hl7v2.segments.pv1 import VISIT, VISIT_MORE, says_visit

Json = dict[str, Any]


def patient_change(
    draft: Draft,
    group: PatientGroup,
    *,
    places: Json | None = None,
    after: tuple[Merging, ...] = (),
    first: tuple[tuple[str, str], ...] = (),
) -> Patient:
    """Draft the Patient of ``group``.

    ``places`` are set besides, ``after`` finishes it; the identifiers ``first`` find it first.

    Raises :class:`MessageFault` 100 without a PID, 101 without a usable identifier (unless the
    sender's profile says that such a message makes a Patient of its own).
    """
    scene = draft.scene
    pid = group.pid
    if pid is None:
        raise MessageFault(100, "PID", "The message has no patient (PID).")
    identifiers = numbers(pid, scene)
    if not identifiers and not first and scene.profile.identity.anonymous != "create":
        raise MessageFault(101, "PID^1^3", "The patient has no usable identifier (PID-3).")
    filled = PATIENT.apply(pid, scene)
    finish_patient(pid, filled, scene)
    _keep_numbers(filled, identifiers)
    if group.pd1:
        PRIMARY_CARE.apply(group.pd1, scene, filled)
    apart = scene.profile.next_of_kin == "RelatedPerson"
    if group.relatives and not apart:
        made = [contact(nk1, scene) for nk1 in group.relatives]
        contacts = [{"id": f"nk1.{n}", **one} for n, one in enumerate(filter(None, made), 1)]
        if contacts:
            filled.set["contact[nk1]"] = contacts
    for place, value in (places or {}).items():
        if isinstance(value, list):
            value = [*filled.set.get(place, []), *value]
        if value != []:
            filled.set[place] = value
    draft.partitions |= {f"{system}|{value}": None for system, value in identifiers}
    control = draft.message.control_id
    handle = draft.add(
        "Patient",
        Key(scene.sender, (control, pid.where), (*first, *identifiers)),
        Mode.MERGE,
        filled,
        pid,
        defaults={"active": True},
        after=after,
    )
    for nk1 in group.relatives if apart else ():
        _relative(draft, nk1, handle)
    return Patient(handle)


def _relative(draft: Draft, nk1: Segment, patient: str) -> None:
    """Draft the RelatedPerson of an NK1: known by NK1-33, else by relationship and name."""
    filled = RELATIVE.apply(nk1, draft.scene)
    names = filled.set.get("name[nk1-2]", [])
    numbers = tuple(system_value(one) for one in filled.set.get("identifier[+]", ()))
    if not names and not numbers:
        draft.scene.at(nk1, 2)
        draft.scene.note("contact-incomplete", "A relative without name and number is left out.")
        return
    if numbers:
        key = Key(numbers[0][0], (numbers[0][1],), numbers)
    else:
        parts = (nk1.text(3), names[0].get("family", ""), *names[0].get("given", ()))
        key = Key("relative", (patient, *(part.casefold() for part in parts)))
    start, end = filled.set.get("period.start"), filled.set.get("period.end")
    if start and end and end[:10] < start[:10]:
        del filled.set["period.end"]
    filled.set["patient"] = reference(patient)
    draft.add(
        "RelatedPerson", key, Mode.MERGE, filled, nk1, defaults={"active": True}, subject=patient
    )


def _keep_numbers(filled: Filled, identifiers: list[tuple[str, str]]) -> None:
    """Have the Patient carry every number that finds it, wherever it stood."""
    numbers = filled.set.get("identifier[+]", [])
    known = {system_value(one) for one in numbers}
    more = [
        {"system": system, "value": value}
        for system, value in identifiers
        if (system, value) not in known
    ]
    if more:
        filled.set["identifier[+]"] = [*numbers, *more]


# ---------------------------------------------------------------------------------------- visits


def visit_key(draft: Draft, group: PatientGroup, visit: VisitGroup, patient: Patient) -> Key:
    """Return how the Encounter of a PV1 is found: its number, else the fallbacks of section 9."""
    scene, pv1 = draft.scene, visit.pv1
    for field in (19, 50):
        value = pv1.value(field)
        scene.at(pv1, field)
        if value and (number := cx(value, scene)):
            system, text = system_value(number)
            return Key(system, (text,), ((system, text),))
    value = group.pid.value(18) if group.pid and scene.profile.pid18_is_visit else None
    if value and (number := cx(value, scene)):
        system, text = system_value(number)
        return Key(system, (text, "PID-18"))
    begun = pv1.text(44)
    parts = (patient.handle, scene.sender, pv1.text(2), begun)
    return Key("visit", parts, open_of="" if begun else patient.handle)


def visit_filled(draft: Draft, visit: VisitGroup) -> Filled:
    """Return what PV1 and PV2 say of the Encounter."""
    filled = VISIT.apply(visit.pv1, draft.scene)
    if visit.pv2:
        VISIT_MORE.apply(visit.pv2, draft.scene, filled)
    start, end = filled.set.get("period.start"), filled.set.get("period.end")
    if start and end and end[:10] < start[:10]:
        draft.scene.at(visit.pv1, 45)
        draft.scene.note("date-invalid", "The end is before the start.")
        del filled.set["period.end"]
    return filled


def visit_in_passing(draft: Draft, group: PatientGroup, patient: Patient) -> None:
    """Draft the Encounter that a message mentions in passing: it fills gaps."""
    visit = group.visit
    if visit is None or not says_visit(visit.pv1, admitting=False):
        return
    filled = visit_filled(draft, visit)
    filled.set["subject"] = reference(patient.handle)
    patient.encounter = draft.add(
        "Encounter",
        visit_key(draft, group, visit, patient),
        Mode.FILL,
        filled,
        visit.pv1,
        defaults={"status": status_of_class(visit, filled), "class": UNKNOWN_CLASS},
        subject=patient.handle,
    )


UNKNOWN_CLASS = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-NullFlavor",
    "code": "UNK",
    "display": "unknown",
}


def status_of_class(visit: VisitGroup, filled: Filled) -> str:
    """Return the status of a visit that is new: finished after PV1-45, else by PV1-2."""
    if "period.end" in filled.set:
        return "finished"
    kind = visit.pv1.text(2).upper()
    return {"P": "planned", "U": "unknown"}.get(kind, "in-progress")


# ------------------------------------------------------------------------------- other segments


def merge_numbers(draft: Draft, merge: Segment, fields: tuple[int, ...]) -> list[Json]:
    """Return the identifiers of MRG, as ``old`` ones; they are partition keys as well."""
    found = []
    for field in fields:
        draft.scene.at(merge, field)
        for value in merge.values(field):
            if number := cx(value, draft.scene):
                found.append({**number, "use": "old"})
                draft.partitions["|".join(system_value(number))] = None
    return found


def instruct(draft: Draft, kind: str, segment: Segment, target: str = "", **more: Any) -> None:
    """Add an instruction."""
    draft.instructions.append(Instruction(kind, segment.where, target, **more))


def account_change(draft: Draft, group: PatientGroup, patient: Patient, **more: Any) -> str:
    """Draft the Account of PID-18; return its handle, "" without a number."""
    pid = group.pid
    value = pid.value(18) if pid else None
    if pid is None or value is None:
        return ""
    draft.scene.at(pid, 18)
    number = typed_cx("AN")(value, draft.scene)
    if not number:
        return ""
    system, text = system_value(number)
    places = {"identifier[+]": [number], "subject[+]": [reference(patient.handle)], **more}
    return draft.add(
        "Account",
        Key(system, (text,), ((system, text),)),
        Mode.MERGE,
        Filled(places, set()),
        pid,
        defaults={"status": "active"},
        subject=patient.handle,
    )


def is_new(resource: Json, change: Change) -> bool:
    """Return whether nothing was stored of the resource before this change."""
    return "id" not in resource
