"""The roles of a clinic: which types a role may do what with, of whom, and which labels it may see.

design/security.md, section 3.1. The table in docs/security.md is made of :data:`ROLES`. A group of
types that a role does not name: nothing. Roles of one user are joined by OR.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from fhir_server.security.compartments import CATALOGUE, DEFINITIONS, DIRECTORY
from fhir_server.security.labels import CONTROLLED
from fhir_server.security.scopes import OVERRIDE

Reach = Literal["all", "staff", "own"]

GROUPS: Mapping[str, tuple[str, ...]] = {
    "definitions": DEFINITIONS,
    "directory": DIRECTORY,
    "catalogue": (
        *CATALOGUE,
        *("CatalogEntry", "MedicinalProduct", "MedicinalProductAuthorization"),
        *("MedicinalProductContraindication", "MedicinalProductIndication"),
        *("MedicinalProductIngredient", "MedicinalProductInteraction"),
        *("MedicinalProductManufactured", "MedicinalProductPackaged"),
        *("MedicinalProductPharmaceutical", "MedicinalProductUndesirableEffect"),
        *("SubstanceNucleicAcid", "SubstancePolymer", "SubstanceProtein"),
        *("SubstanceReferenceInformation", "SubstanceSourceMaterial", "SubstanceSpecification"),
    ),
    "schedules": ("Schedule", "Slot"),
    "appointments": ("Appointment", "AppointmentResponse"),
    "patients": ("Patient", "RelatedPerson", "Person"),
    "encounters": ("Encounter", "EpisodeOfCare"),
    "insurance": (
        *("Coverage", "CoverageEligibilityRequest", "CoverageEligibilityResponse"),
        *("EnrollmentRequest", "EnrollmentResponse"),
    ),
    "billing": (
        *("Account", "ChargeItem", "Claim", "ClaimResponse", "Contract", "ExplanationOfBenefit"),
        *("Invoice", "PaymentNotice", "PaymentReconciliation"),
    ),
    "coded": ("Condition", "Procedure"),
    "chart": (
        *("AdverseEvent", "AllergyIntolerance", "Basic", "BodyStructure", "CarePlan", "CareTeam"),
        *("ClinicalImpression", "DetectedIssue", "DeviceUseStatement", "FamilyMemberHistory"),
        *("Flag", "Goal", "GuidanceResponse", "Immunization", "ImmunizationEvaluation"),
        *("ImmunizationRecommendation", "Linkage", "List", "MedicationAdministration"),
        *("MedicationDispense", "MedicationStatement", "RiskAssessment", "SupplyDelivery"),
        "VerificationResult",
    ),
    "orders": (
        *("CommunicationRequest", "DeviceRequest", "MedicationRequest", "NutritionOrder"),
        *("RequestGroup", "ServiceRequest", "SupplyRequest", "VisionPrescription"),
    ),
    "results": (
        *("BiologicallyDerivedProduct", "DiagnosticReport", "ImagingStudy", "Media"),
        *("MolecularSequence", "Observation", "Specimen"),
    ),
    "devices": ("Device", "DeviceMetric"),
    "documents": ("Binary", "Bundle", "Composition", "DocumentManifest", "DocumentReference"),
    "answers": ("QuestionnaireResponse",),
    "messages": ("Communication",),
    "tasks": ("Task",),
    "consents": ("Consent",),
    "origins": ("Provenance",),
    "cohorts": ("Group", "MeasureReport", "ResearchStudy", "ResearchSubject"),
    "audit": ("AuditEvent",),
    "operation": ("MessageHeader", "OperationOutcome", "Parameters", "Subscription", "TestReport"),
}
"""Every resource type of R4, in the group by which roles name it."""


@dataclass(frozen=True, slots=True)
class Role:
    """What somebody may do by being ``name``.

    ``letters`` are those of SMART scopes by group. ``reach`` is whose data: ``all``, ``staff``
    (all patients, but only messages of one's own; the setting FHIR_CARE_RELATIONSHIP may demand a
    relationship with the patient) or ``own`` (one's own). ``labels`` are the codes of labels that
    hide a resource from whoever does not have them here. ``powers`` are rights that belong to no
    type, by the texts of their scopes.
    """

    name: str
    title: str
    letters: Mapping[str, str]
    reach: Reach = "staff"
    labels: frozenset[str] = frozenset()
    powers: frozenset[str] = frozenset()

    def each(self) -> Iterator[tuple[str, str]]:
        """Yield each type with a letter that the role has of it."""
        for group, letters in self.letters.items():
            for type in GROUPS[group]:
                for letter in letters:
                    yield type, letter


_NOTES = frozenset(("PSYTHPN",))  # a therapist's own notes
_VERY = frozenset(("V",))
_IN_LABORATORY = frozenset(
    ("R", "ETH", "ETHUD", "GDIS", "HIV", "OPIOIDUD", "PREGNANT", "SCA", "SICKLE", "STD", "SUD")
)
_KNOWLEDGE = {"definitions": "rs", "directory": "rs", "catalogue": "rs"}
_TEAM = {"tasks": "crus", "messages": "crus", "audit": "c", "origins": "crs"}

PHYSICIAN = Role(
    "physician",
    "Physician",
    {
        **_KNOWLEDGE,
        **_TEAM,
        **dict.fromkeys(("schedules", "insurance", "cohorts", "billing"), "rs"),
        **dict.fromkeys(("patients", "appointments", "encounters", "consents"), "crus"),
        **dict.fromkeys(("coded", "chart", "orders", "results", "devices"), "cruds"),
        **dict.fromkeys(("documents", "answers"), "cruds"),
    },
    labels=CONTROLLED - _VERY,
)
NURSE = Role(
    "nurse",
    "Nurse",
    {
        **_KNOWLEDGE,
        **_TEAM,
        **dict.fromkeys(("schedules", "insurance", "orders"), "rs"),
        **dict.fromkeys(("patients", "appointments", "encounters", "consents"), "crus"),
        **dict.fromkeys(("coded", "chart", "results", "devices", "documents", "answers"), "crus"),
    },
    labels=CONTROLLED - _VERY - _NOTES,
)
FRONT_DESK = Role(
    "front-desk",
    "Front desk",
    {
        **_KNOWLEDGE,
        **_TEAM,
        "schedules": "rs",
        "appointments": "cruds",
        "billing": "rs",
        **dict.fromkeys(("patients", "encounters", "insurance", "consents"), "crus"),
        "answers": "crs",
    },
)
FRONT_DESK_LEAD = replace(
    FRONT_DESK,
    name="front-desk-lead",
    title="Front desk lead",
    powers=frozenset((OVERRIDE,)),
)
BILLING = Role(
    "billing",
    "Billing",
    {
        **_KNOWLEDGE,
        **_TEAM,
        **dict.fromkeys(("patients", "appointments", "encounters", "coded"), "rs"),
        **dict.fromkeys(("insurance", "billing"), "cruds"),
    },
)
LAB = Role(
    "lab",
    "Laboratory",
    {
        **_KNOWLEDGE,
        **_TEAM,
        **dict.fromkeys(("patients", "encounters", "coded"), "rs"),
        "orders": "rus",
        **dict.fromkeys(("results", "devices", "documents"), "crus"),
    },
    labels=_IN_LABORATORY,
)
ANALYST = Role(
    "analyst",
    "Analyst",
    {
        **_KNOWLEDGE,
        "audit": "c",
        **dict.fromkeys(("appointments", "patients", "encounters", "insurance", "billing"), "rs"),
        **dict.fromkeys(("coded", "chart", "orders", "results", "answers"), "rs"),
        "cohorts": "cruds",
    },
)
PATIENT = Role(
    "patient",
    "Patient",
    {
        **_KNOWLEDGE,
        "schedules": "rs",
        "patients": "rus",
        **dict.fromkeys(("encounters", "insurance", "billing", "coded", "chart", "orders"), "rs"),
        **dict.fromkeys(("results", "devices", "tasks", "origins", "cohorts"), "rs"),
        **dict.fromkeys(("appointments", "messages", "answers", "consents"), "crus"),
        "documents": "crs",
    },
    reach="own",
    labels=CONTROLLED - _NOTES,
)
BACKEND = Role(
    "backend",
    "Backend service",
    {group: "crs" if group == "audit" else "cruds" for group in GROUPS},
    reach="all",
)
ADMINISTRATOR = Role(
    "administrator",
    "Administrator",
    {
        **dict.fromkeys(("definitions", "directory", "catalogue", "schedules"), "cruds"),
        "operation": "cruds",
        "audit": "crs",
    },
    powers=frozenset((OVERRIDE,)),
)
CDS = Role(
    "cds",
    "Decision support",
    {
        **_KNOWLEDGE,
        **dict.fromkeys(("patients", "encounters", "coded", "chart", "orders", "results"), "rs"),
        **dict.fromkeys(("devices", "answers"), "rs"),
    },
    reach="all",
    labels=CONTROLLED - _VERY - _NOTES,
)

ROLES: Mapping[str, Role] = {
    role.name: role
    for role in (
        *(PHYSICIAN, NURSE, FRONT_DESK, FRONT_DESK_LEAD, BILLING, LAB, ANALYST),
        *(PATIENT, BACKEND, ADMINISTRATOR, CDS),
    )
}

OF_USERS = tuple(name for name in ROLES if name not in ("backend", "cds"))
"""The roles that a person can have."""
