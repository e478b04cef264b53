"""What drafts each family of messages, from the groups of its segments.

design/hl7v2.md, section 12.
"""

from adapters.hl7v2.draft import Draft
from adapters.hl7v2.messages.clinical import (
    allergies,
    conditions,
    coverages,
    diagnoses,
    loose_observations,
    procedures,
)
from adapters.hl7v2.messages.orders import orders, results
from adapters.hl7v2.messages.patient import account_change, patient_change, visit_in_passing
from adapters.hl7v2.groups import PatientGroup
from adapters.hl7v2.draft import Patient
from adapters.hl7v2.issues import MessageFault


def _begin(draft: Draft, group: PatientGroup) -> Patient:
    """Draft the patient and the visit that a message mentions."""
    patient = patient_change(draft, group)
    visit_in_passing(draft, group, patient)
    return patient


def _groups(draft: Draft) -> list[PatientGroup]:
    if not draft.groups.patients:
        raise MessageFault(100, "PID", "The message has no patient (PID).")
    return draft.groups.patients


def result_message(draft: Draft, event: str) -> None:
    """ORU and OUL: reports, results, specimens; order and visit in passing."""
    for group in _groups(draft):
        patient = _begin(draft, group)
        loose_observations(draft, group, patient)
        results(draft, group, patient)


def order_message(draft: Draft, event: str) -> None:
    """ORM, OML, OMG, OMP, RDE, RDS, RAS: orders of services and medications."""
    for group in _groups(draft):
        patient = _begin(draft, group)
        allergies(draft, group, patient)
        diagnoses(draft, group, patient)
        procedures(draft, group, patient, "unknown")
        coverages(draft, group, patient)
        loose_observations(draft, group, patient)
        orders(draft, group, patient)


def appointment(draft: Draft, event: str) -> None:
    pass


def vaccination(draft: Draft, event: str) -> None:
    pass


def document(draft: Draft, event: str) -> None:
    pass


def financial(draft: Draft, event: str) -> None:
    pass


def problem(draft: Draft, event: str) -> None:
    """PPR, REF: problems, and orders as they come."""
    for group in _groups(draft):
        patient = _begin(draft, group)
        allergies(draft, group, patient)
        conditions(draft, group, patient)
        diagnoses(draft, group, patient)
        procedures(draft, group, patient)
        coverages(draft, group, patient)
        loose_observations(draft, group, patient)
        orders(draft, group, patient)


_ = account_change
