"""Medications of order messages: requests, dispenses, administrations.

HL7 v2.5.1, chapter 4; design/hl7v2.md, sections 9 and 12.
"""

from typing import Any

from adapters.hl7v2.changes import Key, Mode
from adapters.hl7v2.datatypes import ei_of
from adapters.hl7v2.draft import (
    Draft,
    Patient,
    concept_key,
    concept_keys,
    reference,
    system_value,
)
from adapters.hl7v2.groups import GiveGroup, OrderGroup, PatientGroup
from adapters.hl7v2.messages.observations import Parent, observations
from adapters.hl7v2.messages.orders import numbers_of, order_key
from adapters.hl7v2.rows import Filled
from adapters.hl7v2.segments.nte import annotations
from adapters.hl7v2.segments.obr import order_status
from adapters.hl7v2.segments.rx import (
    ADMINISTRATION,
    DISPENSE,
    administered,
    dispensed,
    prescription,
)

Json = dict[str, Any]

# Status of a request -> that of a MedicationRequest; a discontinued order was being taken.
_STATUS = {"revoked": "cancelled", "unknown": "unknown"}
# Messages that repeat an order which they are not about.
_IN_PASSING = frozenset(("RDS", "RAS"))
_STOPS = frozenset(("DC", "OD", "DR", "DF"))


def medications(draft: Draft, group: PatientGroup, patient: Patient) -> None:
    """Draft what the orders of a patient say of medications."""
    for order in group.orders:
        request = ""
        if order.rxo or order.rxe:
            request = _request(draft, order, patient)
        for give in order.gives:
            if give.segment.name == "RXD":
                _dispense(draft, order, give, patient, request)
            elif give.segment.name == "RXA":
                _administration(draft, order, give, patient, request)
        if order.obr is None and order.obxs:
            handle = request or patient.handle
            observations(draft, order.obxs, Parent(handle, patient, orders=request))


def _request(draft: Draft, order: OrderGroup, patient: Patient) -> str:
    scene = draft.scene
    segment = order.rxe or order.rxo
    assert segment is not None
    filled = prescription(order, scene)
    places = filled.set
    status = order_status(order, scene).get("status")
    if status:
        control = order.orc.text(1).upper() if order.orc else ""
        said = _STATUS.get(status, status)
        places["status"] = "stopped" if said == "cancelled" and control in _STOPS else said
    if notes := annotations(order.notes, scene):
        places["note"] = notes
    places["subject"] = reference(patient.handle)
    if patient.encounter:
        places["encounter"] = reference(patient.encounter)
    code = places.get("medicationCodeableConcept") or _contained(places)
    key = order_key(draft, order, patient, concept_keys(code), concept_key(code), "")
    unknown = {} if code else {"medicationCodeableConcept": {"text": "unknown"}}
    return draft.add(
        "MedicationRequest",
        key,
        Mode.FILL if draft.message.type in _IN_PASSING else Mode.MERGE,
        filled,
        segment,
        defaults={"status": "active", "intent": "order", **unknown},
        subject=patient.handle,
    )


def _contained(places: dict[str, Any]) -> Json:
    for one in places.get("contained", ()):
        return dict(one["code"])
    return {}


def _numbered(draft: Draft, order: OrderGroup, patient: Patient, *parts: str) -> Key:
    value = order.orc.value(3) or order.orc.value(2) if order.orc else None
    number = ei_of(value, draft.scene) if value else None
    if number:
        system, text = system_value(number)
        return Key(system, (text, *parts, *draft.nth(system, text, *parts)))
    return Key("given", (patient.handle, *parts, *draft.nth(patient.handle, *parts)))


def _dispense(
    draft: Draft, order: OrderGroup, give: GiveGroup, patient: Patient, request: str
) -> None:
    rxd = give.segment
    places = dispensed(rxd, draft.scene)
    places["subject"] = reference(patient.handle)
    if patient.encounter:
        places["context"] = reference(patient.encounter)
    if request:
        places["authorizingPrescription[+]"] = [reference(request)]
    if notes := annotations(give.notes, draft.scene):
        places["note"] = notes
    what = concept_key(places.get("medicationCodeableConcept"))
    handle = draft.add(
        "MedicationDispense",
        _numbered(draft, order, patient, rxd.text(1), what),
        Mode.REPLACE,
        Filled(places, set()),
        rxd,
        owned=DISPENSE.owned | {"quantity", "note"},
        defaults={"status": "completed", "medicationCodeableConcept": {"text": "unknown"}},
        subject=patient.handle,
    )
    observations(draft, give.obxs, Parent(handle, patient))


def _administration(
    draft: Draft, order: OrderGroup, give: GiveGroup, patient: Patient, request: str
) -> None:
    rxa = give.segment
    places = administered(rxa, give.routes, draft.scene)
    places["subject"] = reference(patient.handle)
    if patient.encounter:
        places["context"] = reference(patient.encounter)
    if request:
        places["request"] = reference(request)
    elif numbers := numbers_of(order, draft):
        number = next(iter(numbers.values()))
        places["request"] = {"type": "MedicationRequest", "identifier": number}
    if not {"effectiveDateTime", "effectivePeriod"} & places.keys():
        places["_effectiveDateTime"] = {"extension": [_UNKNOWN]}
    what = concept_key(places.get("medicationCodeableConcept"))
    handle = draft.add(
        "MedicationAdministration",
        _numbered(draft, order, patient, rxa.text(1), rxa.text(3), what),
        Mode.REPLACE,
        Filled(places, set()),
        rxa,
        owned=ADMINISTRATION.owned | {"effectiveDateTime", "effectivePeriod", "dosage", "status"},
        defaults={"medicationCodeableConcept": {"text": "unknown"}},
        subject=patient.handle,
    )
    observations(draft, give.obxs, Parent(handle, patient, part_of=""))


_UNKNOWN = {
    "url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason",
    "valueCode": "unknown",
}
