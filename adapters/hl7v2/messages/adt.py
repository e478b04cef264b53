"""ADT: patients, visits, merges.

HL7 v2.5.1, chapter 3; design/hl7v2.md, sections 10 and 12.
"""

from dataclasses import replace
from typing import Any

from adapters.hl7v2.changes import Change, Merging, Mode
from adapters.hl7v2.draft import Draft, Patient, reference, system_value
from adapters.hl7v2.groups import PatientGroup, VisitGroup
from adapters.hl7v2.messages.clinical import lists
from adapters.hl7v2.messages.encounter import finishing, reclassed, transferred
from adapters.hl7v2.messages.patient import (
    UNKNOWN_CLASS,
    account_change,
    instruct,
    merge_numbers,
    patient_change,
    status_of_class,
    visit_filled,
    visit_key,
)
from adapters.hl7v2.rows import Filled
from adapters.hl7v2.segments.pid import numbers
from adapters.hl7v2.segments.pv1 import R5, says_visit
from adapters.hl7v2.snapshots import LISTS
from adapters.hl7v2.times import moment

Json = dict[str, Any]

PLANNED_END = f"extension[{R5}plannedEndDate]"
EVENTS = frozenset([f"A{n:02d}" for n in range(1, 56) if n not in (19, 20)] + ["A60", "A61", "A62"])
MERGES = frozenset(("A18", "A30", "A34", "A36", "A39", "A40"))
RENUMBERS = frozenset(("A46", "A47", "A48"))
LINKS = {"A24": "link", "A37": "unlink"}
# Event -> what its MRG names, the fields of MRG with the number, the instruction.
NUMBERED = {
    "A35": ("Account", (3,), "merge"),
    "A41": ("Account", (3,), "merge"),
    "A44": ("Account", (3,), "move"),
    "A49": ("Account", (3,), "rename"),
    "A42": ("Encounter", (5, 6), "merge"),
    "A50": ("Encounter", (5, 6), "rename"),
    "A51": ("Encounter", (5, 6), "rename"),
    "A45": ("Encounter", (5, 6), "repatient"),
}


def adt(draft: Draft, event: str) -> None:
    """Draft what an ADT message asks."""
    if event in LINKS:
        _link(draft, LINKS[event])
        return
    for group in draft.groups.patients:
        if event in MERGES:
            _merge(draft, group, event)
        elif event in RENUMBERS or event == "A43":
            _renumber(draft, group, event)
        elif event in NUMBERED:
            _numbered(draft, group, event)
        else:
            _admit(draft, group, event)


def _admit(draft: Draft, group: PatientGroup, event: str) -> None:
    visit = group.visit if group.visit and says_visit(group.visit.pv1, admitting=True) else None
    gone = event == "A29" or (event == "A23" and not (visit and visit.pv1.value(19)))
    patient = patient_change(draft, group, places={"active": False} if gone else None)
    if visit:
        _visit(draft, group, visit, patient, event)
    lists(draft, group, patient)
    for name in draft.scene.profile.snapshots:
        if found := group.lists.get(name):
            visit_of = patient.encounter if name == "DG1" else ""
            instruct(
                draft, "snapshot", found[0], patient.handle, type=LISTS[name][0], other=visit_of
            )


def _visit(
    draft: Draft, group: PatientGroup, visit: VisitGroup, patient: Patient, event: str
) -> None:
    scene = draft.scene
    filled = visit_filled(draft, visit)
    when = moment(draft.message.text("EVN", 6), scene.zone) or scene.stamp.said or scene.stamp.sent
    if event == "A03" and "period.end" not in filled.set:
        occurred = moment(draft.message.text("EVN", 6), scene.zone)
        if occurred:
            filled.set["period.end"] = occurred
    if event == "A13":
        filled.set.pop("period.end", None)
    by_class = status_of_class(visit, filled)
    places = filled.set.pop("location[pv1-3]", None)
    place = {k: v for k, v in places[0].items() if k != "id"} if places else None
    if place and by_class == "planned":
        place["status"] = "planned"
    if event == "A26":
        filled.set.pop("location[pv1-42]", None)
    if event == "A32":
        filled.set.pop("location[pv1-11]", None)
    if event == "A25":
        filled.set.pop(PLANNED_END, None)
    chosen = filled.set.pop("class", None)
    filled.set["subject"] = reference(patient.handle)
    patient.encounter = draft.add(
        "Encounter",
        visit_key(draft, group, visit, patient),
        Mode.MERGE,
        filled,
        visit.pv1,
        defaults={"class": UNKNOWN_CLASS} if chosen is None else {},
        after=(
            reclassed(event, chosen, when),
            transferred(event, place, when),
            finishing(event, by_class, when),
        ),
        subject=patient.handle,
    )


# ---------------------------------------------------------------------------------------- merges


def _merge(draft: Draft, group: PatientGroup, event: str) -> None:
    merge = group.merge
    if merge is None:
        patient_change(draft, group)
        return
    fields = (1, 4) if event in ("A34", "A18") else (1,)
    prior = merge_numbers(draft, merge, fields)
    own = numbers(group.pid, draft.scene) if group.pid else []
    after = (_olden(prior), _renewed(own, prior))
    patient = patient_change(draft, group, places={"identifier[+]": prior}, after=after)
    instruct(draft, "merge", merge, patient.handle, prior=_pairs(prior))


def _renumber(draft: Draft, group: PatientGroup, event: str) -> None:
    merge = group.merge
    prior = merge_numbers(draft, merge, (1,)) if merge else []
    found = numbers(group.pid, draft.scene) if group.pid else []
    patient = patient_change(
        draft,
        group,
        places={"identifier[+]": prior},
        after=(_olden(prior), _renewed(found, prior)),
        first=_pairs(prior),
    )
    if merge and event == "A43":
        text = "Identifiers are to be moved: which data follow them is a decision."
        instruct(draft, "hold", merge, patient.handle, text=text)
    elif merge and prior:
        instruct(draft, "renumber", merge, patient.handle, prior=tuple(found))


def _olden(prior: list[Json]) -> Merging:
    """Return the function that marks the prior numbers as old ones."""
    pairs = set(_pairs(prior))

    def finish(resource: Json, change: Change, late: bool) -> None:
        for identifier in resource.get("identifier", ()):
            if "value" in identifier and system_value(identifier) in pairs:
                identifier["use"] = "old"

    return finish


def _renewed(own: list[tuple[str, str]], prior: list[Json]) -> Merging:
    """Return the function that has the numbers of PID-3 be old no more: a merge turned around."""
    pairs = set(own) - set(_pairs(prior))

    def finish(resource: Json, change: Change, late: bool) -> None:
        for identifier in resource.get("identifier", ()):
            is_old = identifier.get("use") == "old" and "value" in identifier
            if is_old and system_value(identifier) in pairs:
                del identifier["use"]

    return finish


def _pairs(identifiers: list[Json]) -> tuple[tuple[str, str], ...]:
    return tuple(system_value(one) for one in identifiers)


def _numbered(draft: Draft, group: PatientGroup, event: str) -> None:
    """Merge, move or rename accounts and visits."""
    type, fields, kind = NUMBERED[event]
    patient = patient_change(draft, group)
    merge = group.merge
    prior = merge_numbers(draft, merge, fields) if merge else []
    if merge is None or not prior:
        return
    if kind == "repatient":
        instruct(draft, kind, merge, patient.handle, type=type, prior=_pairs(prior))
        return
    if type == "Account":
        target = _renamed_account(draft, group, patient, prior, kind)
    else:
        target = _renamed_visit(draft, group, patient, prior, kind)
    if target:
        new = draft.changes[-1].set["identifier[+]"]
        wanted = _pairs(prior) if kind in ("merge", "move") else _pairs(new[: -len(prior)])
        instruct(draft, kind, merge, target, type=type, prior=wanted)


def _renamed_account(
    draft: Draft, group: PatientGroup, patient: Patient, prior: list[Json], kind: str
) -> str:
    handle = account_change(draft, group, patient)
    if handle:
        draft.changes[-1] = _known_by(draft.changes[-1], prior, kind)
    return handle


def _renamed_visit(
    draft: Draft, group: PatientGroup, patient: Patient, prior: list[Json], kind: str
) -> str:
    visit = group.visit
    if visit is None or not (visit.pv1.value(19) or visit.pv1.value(50)):
        return ""
    filled = visit_filled(draft, visit)
    chosen = {"identifier[+]": filled.set["identifier[+]"], "subject": reference(patient.handle)}
    handle = draft.add(
        "Encounter",
        visit_key(draft, group, visit, patient),
        Mode.FILL,
        Filled(chosen, set()),
        visit.pv1,
        defaults={"status": "unknown", "class": filled.set.get("class", UNKNOWN_CLASS)},
        subject=patient.handle,
    )
    draft.changes[-1] = _known_by(draft.changes[-1], prior, kind)
    return handle


def _known_by(change: Change, prior: list[Json], kind: str) -> Change:
    """Return the change with the prior numbers as old ones; renamed, they find the resource."""
    places = {**change.set, "identifier[+]": [*change.set["identifier[+]"], *prior]}
    key = change.key
    if kind == "rename":
        key = replace(key, identifiers=(*_pairs(prior), *key.identifiers))
    return replace(change, set=places, key=key, after=(*change.after, _olden(prior)))


def _link(draft: Draft, kind: str) -> None:
    """A24, A37: the Patients of the two groups, linked or unlinked."""
    patients = [patient_change(draft, group) for group in draft.groups.patients]
    for group, other in zip(draft.groups.patients[1:], patients[1:], strict=True):
        assert group.pid
        instruct(draft, kind, group.pid, patients[0].handle, other=other.handle)
