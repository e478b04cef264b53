"""Whose a resource is, for access: predicates of what belongs to patients.

https://hl7.org/fhir/R4/compartmentdefinition-patient.html, changed as design/security.md says.
What is written beside a resource for this is in ``r4/compartments.py``.
"""

from collections.abc import Collection, Iterator, Mapping

from fhir_server.r4.compartments import PARTY
from fhir_server.security.labels import without_hidden
from fhir_server.security.plan import NOTHING, Filter, both, either

PATIENT = "Patient"

NAME_OTHERS = frozenset(("Group", "List", "Person", "AuditEvent"))
"""Types of the patient compartment that name other people; who sees the patient sees none."""

ALSO = frozenset(("Device", "Task", "Binary", "Bundle"))
"""Types with a patient's data that the definition of the compartment leaves out."""

PRIVATE = "Communication"
"""Seen by its sender and its recipients, whoever it is about."""

SCHEDULE = "Schedule"
"""Is everybody's unless one of its actors is a patient."""

DIRECTORY = (
    *("Organization", "OrganizationAffiliation", "Practitioner", "PractitionerRole"),
    *("Location", "HealthcareService", "Endpoint"),
)
CATALOGUE = ("Medication", "MedicationKnowledge", "Substance", "InsurancePlan")
DEFINITIONS = (
    *("ActivityDefinition", "CapabilityStatement", "ChargeItemDefinition", "CodeSystem"),
    *("CompartmentDefinition", "ConceptMap", "DeviceDefinition", "EventDefinition", "Evidence"),
    *("EffectEvidenceSynthesis", "EvidenceVariable", "ExampleScenario", "GraphDefinition"),
    *("ImplementationGuide", "Library", "Measure", "MessageDefinition", "NamingSystem"),
    *("ObservationDefinition", "OperationDefinition", "PlanDefinition", "Questionnaire"),
    *("ResearchDefinition", "ResearchElementDefinition", "RiskEvidenceSynthesis"),
    *("SearchParameter", "SpecimenDefinition", "StructureDefinition", "StructureMap"),
    *("TerminologyCapabilities", "TestScript", "ValueSet"),
)
UNIVERSAL = frozenset((*DIRECTORY, *CATALOGUE, *DEFINITIONS, "Slot"))
"""Types that everybody who is signed in may read; what is labelled as restricted or sensitive, only
who sees such labels by role."""

_READING = "rs"
_ANY_PATIENT = {"$gte": f"{PATIENT}/", "$lt": f"{PATIENT}0"}  # 0 is what comes after a slash
_OF_NOBODY: Filter = {"compartments": {"$not": {"$elemMatch": _ANY_PATIENT}}}


def belonging(patients: Collection[str], members: Collection[str]) -> Mapping[str, Filter]:
    """Return type -> predicate of what belongs to one of ``patients`` (``Patient/1``).

    ``members`` are the types of the patient compartment of R4. A type that is not there: nothing;
    without patients, no document of the others either. Of universal types nothing is said here.
    """
    inside = _in_compartment(sorted(patients))
    found = dict.fromkeys({*members, *ALSO} - NAME_OTHERS, inside)
    ids = sorted(one.partition("/")[2] for one in patients)
    found[PATIENT] = {"_id": ids[0] if len(ids) == 1 else {"$in": ids}}
    found[PRIVATE] = parties(patients)
    return found


def parties(who: Collection[str]) -> Filter:
    """Return the predicate of the messages that one of ``who`` has sent or received."""
    return _in_compartment(sorted(f"{PARTY}{one}" for one in who))


def to_change(patients: Collection[str], found: Mapping[str, Filter]) -> Mapping[str, Filter]:
    """Return ``found``, what belongs to ``patients``, without what is of another patient as well.

    R4 has in the compartment whoever recorded something about somebody else. That one sees it; but
    to write it would be to write into the other's record, or to make a relationship with the other.
    Neither a Patient whom a link names nor a message about somebody is in that record for access.
    """
    others = {**_ANY_PATIENT, "$nin": sorted(patients)}
    alone: Filter = {"compartments": {"$not": {"$elemMatch": others}}}
    free = (PATIENT, PRIVATE)
    return {type: one if type in free else both(one, alone) for type, one in found.items()}


def _in_compartment(places: list[str]) -> Filter:
    if not places:
        return NOTHING
    return {"compartments": places[0] if len(places) == 1 else {"$in": places}}


def open_to_patients(patients: Collection[str]) -> Iterator[tuple[str, str, Filter]]:
    """Yield type, letter and predicate of what a patient may read that is nobody's.

    A schedule of the ``patients`` themselves is theirs.
    """
    plain = without_hidden(frozenset())
    for letter in _READING:
        for type in UNIVERSAL:
            yield type, letter, plain
        schedules = either(_OF_NOBODY, _in_compartment(sorted(patients)))
        yield SCHEDULE, letter, both(schedules, plain)
