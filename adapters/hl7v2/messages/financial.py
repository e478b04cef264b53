"""DFT and BAR: charges and accounts.

HL7 v2.5.1, chapter 6; design/hl7v2.md, sections 12 and 13.
"""

from typing import Any

from adapters.hl7v2.changes import Key, Mode
from adapters.hl7v2.datatypes import cx
from adapters.hl7v2.draft import Draft, Patient, concept_key, reference, system_value
from adapters.hl7v2.groups import PatientGroup
from adapters.hl7v2.issues import MessageFault
from adapters.hl7v2.message import Segment
from adapters.hl7v2.messages.clinical import lists
from adapters.hl7v2.messages.orders import orders
from adapters.hl7v2.messages.patient import account_change, patient_change, visit_in_passing
from adapters.hl7v2.segments.in1 import CHARGE

Json = dict[str, Any]

# FT1-6 (table 0017) -> ChargeItem.status; payments and adjustments are no charges.
_CHARGES = {"CG": "billable", "CD": "aborted", "": "billable"}
_ENDED = "P06"


def financial(draft: Draft, event: str) -> None:
    """Draft what a DFT or BAR asks."""
    if not draft.groups.patients:
        raise MessageFault(100, "PID", "The message has no patient (PID).")
    for group in draft.groups.patients:
        patient = patient_change(draft, group)
        visit_in_passing(draft, group, patient)
        ended = {"status": "inactive"} if event == _ENDED else {}
        account = account_change(draft, group, patient, **ended)
        lists(draft, group, patient)
        orders(draft, group, patient)
        for segment in group.lists.get("FT1", ()):
            _charge(draft, group, segment, patient, account)


def _charge(
    draft: Draft, group: PatientGroup, ft1: Segment, patient: Patient, account: str
) -> None:
    scene = draft.scene
    kind = ft1.text(6).upper()
    if kind not in _CHARGES:
        ft1.read.update(range(len(ft1.fields)))
        scene.at(ft1, 6)
        scene.note("not-a-charge", "A payment or adjustment makes no charge.", "information")
        return
    filled = CHARGE.apply(ft1, scene)
    places = filled.set
    places["subject"] = reference(patient.handle)
    if patient.encounter:
        places["context"] = reference(patient.encounter)
    if account:
        places["account[+]"] = [reference(account)]
    places["status"] = _CHARGES[kind]
    service = ft1.value(23)
    scene.at(ft1, 23)
    if service and (number := cx(service, scene)):
        places["service[+]"] = [{"identifier": number}]
    draft.add(
        "ChargeItem",
        _key(draft, ft1, patient, concept_key(places.get("code"))),
        Mode.REPLACE,
        filled,
        ft1,
        owned=CHARGE.owned,
        defaults={"code": {"text": "unknown"}},
        subject=patient.handle,
    )


def _key(draft: Draft, ft1: Segment, patient: Patient, what: str) -> Key:
    value = ft1.value(2)
    number = cx(value, draft.scene) if value else None
    if number:
        system, text = system_value(number)
        return Key(system, (text, *draft.nth("charge", system, text)))
    parts = (patient.handle, ft1.text(4), what, ft1.text(1))
    return Key("charge", (*parts, *draft.nth("charge", *parts)))
