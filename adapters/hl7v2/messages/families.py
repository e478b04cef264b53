"""What drafts results, orders and problems, from the groups of their segments.

design/hl7v2.md, section 12.
"""

from adapters.hl7v2.draft import Draft, Patient
from adapters.hl7v2.groups import PatientGroup
from adapters.hl7v2.issues import MessageFault
from adapters.hl7v2.messages.clinical import lists
from adapters.hl7v2.messages.orders import orders, results
from adapters.hl7v2.messages.patient import patient_change, visit_in_passing
from adapters.hl7v2.messages.pharmacy import medications


def _groups(draft: Draft) -> list[PatientGroup]:
    if not draft.groups.patients:
        raise MessageFault(100, "PID", "The message has no patient (PID).")
    return draft.groups.patients


def _begin(draft: Draft, group: PatientGroup, procedures_are: str = "completed") -> Patient:
    """Draft the patient, the visit, and the lists that any type of message may bring."""
    patient = patient_change(draft, group)
    visit_in_passing(draft, group, patient)
    lists(draft, group, patient, procedures_are)
    return patient


def result_message(draft: Draft, event: str) -> None:
    """ORU and OUL: reports, results, specimens; order and visit in passing."""
    for group in _groups(draft):
        results(draft, group, _begin(draft, group))


def order_message(draft: Draft, event: str) -> None:
    """ORM, OML, OMG, OMP, RDE, RDS, RAS: orders of services and medications."""
    for group in _groups(draft):
        patient = _begin(draft, group, "unknown")
        orders(draft, group, patient)
        medications(draft, group, patient)


def problem(draft: Draft, event: str) -> None:
    """PPR, REF: problems, and orders as they come."""
    for group in _groups(draft):
        patient = _begin(draft, group)
        orders(draft, group, patient)
        medications(draft, group, patient)
