"""The clinical and financial lists of a patient: allergies, problems, procedures, insurance.

design/hl7v2.md, sections 8, 9 and 13.
"""

from typing import Any

from adapters.hl7v2.changes import Key, Mode
from adapters.hl7v2.datatypes import cx, ei_of, name_text, span
from adapters.hl7v2.draft import Draft, Patient, concept_key, reference, system_value
from adapters.hl7v2.groups import PatientGroup
from adapters.hl7v2.message import Segment
from adapters.hl7v2.messages.observations import Parent, observations
from adapters.hl7v2.references import displayed, xcn
from adapters.hl7v2.rows import Filled
from adapters.hl7v2.segments import al1, dg1
from adapters.hl7v2.segments.in1 import INSURANCE, classes, payor_number
from adapters.hl7v2.segments.pv1 import diagnosis_use
from adapters.hl7v2.snapshots import entries, present
from adapters.hl7v2.times import later

Json = dict[str, Any]

_DELETED = ("D", "DE")


def _key(
    draft: Draft, type: str, segment: Segment, field: int, parts: tuple[str, ...], what: str
) -> Key:
    """Return the key of an entry of a list: its own number, else what it is about."""
    value = segment.value(field)
    draft.scene.at(segment, field)
    if value and (number := ei_of(value, draft.scene)):
        system, text = system_value(number)
        return Key(system, (text,))
    if not what:
        what = segment.where
    return Key(type, (*parts, what, *draft.nth(type, *parts, what)))


def allergies(draft: Draft, group: PatientGroup, patient: Patient) -> None:
    """Draft AL1 and IAM."""
    for name, table in (("AL1", al1.AL1), ("IAM", al1.IAM)):
        for segment in entries(group.lists.get(name, ()), draft.scene.profile):
            filled = table.apply(segment, draft.scene)
            reacted = al1.reacted(filled)
            if name == "AL1":
                filled.set.update(present(name, draft.scene.profile))
            deleted = name == "IAM" and segment.text(6).upper() in _DELETED
            what = concept_key(filled.set.get("code"))
            key = _key(draft, "allergy", segment, 7, (patient.handle,), what)
            if name == "AL1":
                key = Key("allergy", (patient.handle, what or segment.where))
            filled.set["patient"] = reference(patient.handle)
            draft.add(
                "AllergyIntolerance",
                key,
                Mode.MERGE,
                filled,
                segment,
                defaults=al1.REQUIRED,
                after=(reacted, al1.in_error if deleted else al1.confirmed),
                subject=patient.handle,
            )


def diagnoses(draft: Draft, group: PatientGroup, patient: Patient) -> None:
    """Draft DG1, and what the Encounter says of them."""
    members: list[Json] = []
    first: Segment | None = None
    for segment in entries(group.lists.get("DG1", ()), draft.scene.profile):
        first = first or segment
        filled = dg1.DIAGNOSIS.apply(segment, draft.scene)
        filled.set.update(present("DG1", draft.scene.profile))
        what = concept_key(filled.set.get("code"))
        scope = (patient.handle, patient.encounter or "-")
        key = _key(draft, "diagnosis", segment, 20, scope, what)
        filled.set["subject"] = reference(patient.handle)
        filled.set["category"] = dg1.category("encounter-diagnosis", "Encounter Diagnosis")
        if patient.encounter:
            filled.set["encounter"] = reference(patient.encounter)
        deleted = segment.text(21).upper() in _DELETED
        handle = draft.add(
            "Condition",
            key,
            Mode.MERGE,
            filled,
            segment,
            after=(dg1.in_error if deleted else dg1.settled,),
            subject=patient.handle,
        )
        members.append(_diagnosis(draft, segment, handle, len(members) + 1))
    if members and patient.encounter and first:
        _diagnosed(draft, patient, first, members)


def _diagnosis(draft: Draft, segment: Segment, handle: str, n: int) -> Json:
    member: Json = {"id": f"dg1.{n}", "condition": reference(handle)}
    use, rank = segment.value(6), segment.text(15)
    draft.scene.at(segment, 6)
    if use and (found := diagnosis_use(use, draft.scene)):
        member["use"] = found
    if rank.isdecimal() and int(rank[:6]) > 0:
        member["rank"] = int(rank[:6])
    return member


def _diagnosed(draft: Draft, patient: Patient, segment: Segment, members: list[Json]) -> None:
    visit = next(one for one in draft.changes if one.handle == patient.encounter)
    draft.add(
        "Encounter",
        visit.key,
        visit.mode,
        Filled({"diagnosis[dg1]": members}, set()),
        segment,
        subject=patient.handle,
    )


def conditions(draft: Draft, group: PatientGroup, patient: Patient) -> None:
    """Draft PRB."""
    for segment in group.lists.get("PRB", ()):
        filled = dg1.PROBLEM.apply(segment, draft.scene)
        what = concept_key(filled.set.get("code"))
        key = _key(draft, "problem", segment, 4, (patient.handle,), what)
        filled.set["subject"] = reference(patient.handle)
        filled.set["category"] = dg1.category("problem-list-item", "Problem List Item")
        deleted = segment.text(1).upper() in _DELETED
        draft.add(
            "Condition",
            key,
            Mode.MERGE,
            filled,
            segment,
            after=(dg1.in_error if deleted else dg1.settled,),
            subject=patient.handle,
        )


def procedures(
    draft: Draft, group: PatientGroup, patient: Patient, status: str = "completed"
) -> None:
    """Draft PR1."""
    scene = draft.scene
    for segment in group.lists.get("PR1", ()):
        filled = dg1.PROCEDURE.apply(segment, scene)
        performers: list[Json] = []
        for field in (8, 11, 12):
            scene.at(segment, field)
            for value in segment.values(field):
                if actor := xcn(value, scene):
                    performers.append({"id": f"pr1.{len(performers) + 1}", "actor": actor})
        if performers:
            filled.set["performer[pr1]"] = performers
        _performed_until(segment, filled)
        what = concept_key(filled.set.get("code"))
        key = _key(
            draft, "procedure", segment, 19, (patient.handle, patient.encounter or "-"), what
        )
        filled.set["subject"] = reference(patient.handle)
        if patient.encounter:
            filled.set["encounter"] = reference(patient.encounter)
        deleted = segment.text(20).upper() in _DELETED
        filled.set["status"] = "entered-in-error" if deleted else status
        draft.add("Procedure", key, Mode.MERGE, filled, segment, subject=patient.handle)


def _performed_until(segment: Segment, filled: Filled) -> None:
    """Make a Period of PR1-5 and the minutes of PR1-7."""
    start, minutes = filled.set.get("performedDateTime"), segment.text(7)
    if start and "T" in start and minutes.isdecimal() and int(minutes[:6]):
        del filled.set["performedDateTime"]
        filled.set["performedPeriod"] = span(start, later(start, 60 * int(minutes[:6])))


def coverages(draft: Draft, group: PatientGroup, patient: Patient) -> None:
    """Draft IN1."""
    scene = draft.scene
    for segment in entries(group.lists.get("IN1", ()), scene.profile):
        filled = INSURANCE.apply(segment, scene)
        places = filled.set
        places.update(present("IN1", scene.profile))
        if kinds := classes(segment, scene):
            places["class[in1]"] = [{"id": f"in1.{n}", **k} for n, k in enumerate(kinds, 1)]
        payor = places.get("payor[in1-4]")
        if not payor:
            number = payor_number(segment, scene)
            payor = [{"id": "in1-4.1", **(number or {"display": "unknown"})}]
        places["beneficiary"] = reference(patient.handle)
        _subscriber(draft, segment, places, patient)
        start, end = places.get("period.start"), places.get("period.end")
        if start and end and end[:10] < start[:10]:
            scene.at(segment, 13)
            scene.note("date-invalid", "The end is before the start.")
            del places["period.end"]
        number_of = segment.value(3)
        payer = (cx(number_of, scene) or {}).get("value") if number_of else ""
        names = [displayed(one) for one in payor]
        parts = (patient.handle, segment.text(2), str(payer or names[0]), segment.text(36))
        draft.add(
            "Coverage",
            Key("coverage", (*parts, *draft.nth("coverage", *parts))),
            Mode.MERGE,
            filled,
            segment,
            defaults={"status": "active", "payor[in1-4]": payor},
            subject=patient.handle,
        )


def _subscriber(draft: Draft, segment: Segment, places: dict[str, Any], patient: Patient) -> None:
    relation = segment.text(17).upper()
    if relation in ("SEL", "S", "SELF", "18", "01"):
        places["subscriber"] = reference(patient.handle)
        return
    name = segment.value(16)
    if name:
        draft.scene.at(segment, 16)
        if text := name_text(name, draft.scene):
            places["subscriber"] = {"display": text}


def lists(
    draft: Draft, group: PatientGroup, patient: Patient, procedures_are: str = "completed"
) -> None:
    """Draft the lists that any type of message may bring, and the patient's own OBX."""
    allergies(draft, group, patient)
    conditions(draft, group, patient)
    diagnoses(draft, group, patient)
    procedures(draft, group, patient, procedures_are)
    coverages(draft, group, patient)
    loose_observations(draft, group, patient)


def loose_observations(draft: Draft, group: PatientGroup, patient: Patient) -> None:
    """Draft the OBX that stand before any order: the patient's own."""
    observations(draft, group.obxs, Parent(patient.handle, patient))
