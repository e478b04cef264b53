"""What is in the two worlds: patient A and what all share in both, patient B in the second alone.

A resource of any type is made from the search parameters of its type: whatever can be searched for
is there, with a value that A and B have in common and one of their own. It is written by the store
and need not be valid.
"""

from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any

from fhir_server.messages import Resource
from fhir_server.r4.packages import CONFORMANCE
from fhir_server.r4.paths import Path
from fhir_server.search.parameters import ParameterTable

RESTRICTED = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality",
    "code": "R",
}
SHARED = ("Practitioner", "Organization", "Location", "Medication")
"""Types of which there is one, ``shared``, that everybody refers to."""
UNIVERSAL = (
    *("Organization", "OrganizationAffiliation", "Practitioner", "PractitionerRole", "Location"),
    *("HealthcareService", "Endpoint", "Medication", "MedicationKnowledge", "Substance"),
    *("InsurancePlan", "ChargeItemDefinition", "Slot", "Schedule"),
)
"""Types that everybody sees, unless an instance is restricted."""
_NOT_STORED = ("Parameters", "OperationOutcome")

Values = dict[str, Any]


def types_of(table: ParameterTable, few: bool) -> list[str]:
    """Return the types that A and B have resources of: all, or ``few``."""
    chosen = [one for one in table.types if one not in CONFORMANCE and one not in _NOT_STORED]
    return [one for one in chosen if one in FEW] if few else chosen


FEW = (
    *("AuditEvent", "Binary", "Condition", "Device", "Encounter", "Group", "List", "Location"),
    *("Medication", "Observation", "Organization", "Patient", "Person", "Practitioner"),
    *("Provenance", "Task"),
)


def shared_resources() -> list[Resource]:
    """Return what both patients refer to."""
    found: list[Resource] = [{"resourceType": type, "id": "shared"} for type in SHARED]
    found[0]["name"] = [{"family": "Shared", "given": ["Dora"]}]
    found[1]["name"] = found[2]["name"] = "Shared"
    found.append({"resourceType": "Practitioner", "id": "second"})
    inner = {"reference": "Location/location-b"}
    found.append({"resourceType": "Location", "id": "inner", "partOf": inner})
    return found


def alone() -> Resource:
    """Return what is B's and refers to what A refers to nowhere."""
    return {
        "resourceType": "Encounter",
        "id": "encounter-second",
        "status": "shared",
        "subject": {"reference": "Patient/b"},
        "participant": [{"individual": {"reference": "Practitioner/second"}}],
    }


def resources_of(whose: str, table: ParameterTable, few: bool, least: int = 0) -> list[Resource]:
    """Return the resources of patient ``whose``, one of each type and ``least`` in all."""
    types = types_of(table, few)
    found = [made(type, name(type, whose), whose, table) for type in types]
    clinical = ("Observation", "Condition", "Encounter", "Procedure", "Appointment")
    more = islice(cycle(one for one in clinical if one in types), max(0, least - len(found)))
    found += (made(type, f"{name(type, whose)}-{n}", whose, table) for n, type in enumerate(more))
    return found


def name(type: str, whose: str) -> str:
    """Return the id of the resource of ``type`` that is ``whose``."""
    return whose if type == "Patient" else f"{type.lower()}-{whose}"[:64]


def made(type: str, id: str, whose: str, table: ParameterTable) -> Resource:
    """Return a ``type`` with a value for each search parameter, as far as one can be put there."""
    resource: Resource = {"resourceType": type, "id": id}
    linked = type not in UNIVERSAL and type in table.compartment_types("Patient")
    if whose == "b" and not linked:  # what is nobody's is everybody's, unless it is restricted
        resource["meta"] = {"security": [RESTRICTED]}
    for code in sorted(table.of(type)):
        for path in table.of(type)[code].paths:
            _put(resource, path, whose)
    if type == "List":
        resource["entry"] = [
            {"item": {"reference": f"Observation/{name('Observation', one)}"}} for one in "ab"
        ]
    if type == "Provenance":
        resource["target"] = [
            {"reference": f"{one}/{name(one, whose)}"} for one in ("Patient", "Observation")
        ]
    if type == "Observation":
        resource["contained"] = [
            {"resourceType": "Patient", "id": "p", "name": [{"family": f"Inner {whose}"}]}
        ]
    if type == "Binary":
        resource |= {"contentType": "text/plain", "data": "c2VjcmV0"}
    return resource


def _put(resource: Resource, path: Path, whose: str) -> None:
    value = _value(path, whose)
    names = [step for step in path.steps if step.name]
    if value is None or not names or names[0].name in ("meta", "id", "text", "contained"):
        return
    here: Any = resource
    for step in names:
        if step.choice:
            stem = step.choice.rpartition(".")[2].removesuffix("[x]")
            others = [one for one in here if one.startswith(stem) and one != step.name]
            if others:
                return  # one form of a choice is there already
        last = step is names[-1]
        if last:
            if step.name not in here:
                here[step.name] = [value] if step.many else value
        else:
            below = here.setdefault(step.name, [{}] if step.many else {})
            here = below[0] if isinstance(below, list) else below
            if not isinstance(here, dict):
                return


def _value(path: Path, whose: str) -> Any:
    if path.type == "Reference":
        return {"reference": _place(path.targets, whose)}
    return _VALUES.get(path.type, lambda _: None)(whose)


def _place(targets: tuple[str, ...], whose: str) -> str:
    if not targets or "Patient" in targets:
        return f"Patient/{whose}"
    for one in SHARED:
        if one in targets:
            return f"{one}/shared"
    return f"{targets[0]}/{name(targets[0], whose)}"


def _concept(whose: str) -> Values:
    codes = ("shared", f"only-{whose}")
    return {"coding": [{"system": "urn:codes", "code": one} for one in codes], "text": "Shared"}


_VALUES: dict[str, Any] = {
    "Identifier": lambda whose: {"system": "urn:mrn", "value": f"mrn-{whose}"},
    "CodeableConcept": _concept,
    "Coding": lambda whose: {"system": "urn:codes", "code": "shared"},
    "code": lambda whose: "shared",
    "id": lambda whose: "shared",
    "string": lambda whose: f"Shared {whose}",
    "markdown": lambda whose: f"Shared {whose}",
    "uri": lambda whose: f"urn:x:{whose}",
    "url": lambda whose: f"urn:x:{whose}",
    "canonical": lambda whose: f"http://example.org/{whose}",
    "boolean": lambda whose: True,
    "date": lambda whose: "2020-01-02" if whose == "a" else "1977-07-07",
    "dateTime": lambda whose: "2020-01-02T03:04:05Z" if whose == "a" else "1977-07-07T07:07:07Z",
    "instant": lambda whose: "2020-01-02T03:04:05Z",
    "Period": lambda whose: {"start": "2020-01-02T03:04:05Z"},
    "HumanName": lambda whose: {"family": "Shared", "given": [f"Given {whose}"]},
    "Address": lambda whose: {"city": f"City {whose}", "country": "Shared"},
    "ContactPoint": lambda whose: {"system": "phone", "value": f"555-{whose}"},
    "Quantity": lambda whose: {"value": 5, "unit": "kg", "system": "urn:units", "code": "kg"},
    "integer": lambda whose: 5,
    "positiveInt": lambda whose: 5,
    "decimal": lambda whose: 5,
}


def probes(whose: str) -> Iterator[str]:
    """Yield the values of patient ``whose`` that nobody else has."""
    yield from (f"mrn-{whose}", f"only-{whose}", f"Shared {whose}", f"Given {whose}")
    yield from (f"City {whose}", f"555-{whose}", f"Inner {whose}", f"urn:x:{whose}")
