"""https://hl7.org/fhir/R4/compartmentdefinition.html, design/security.md, section 3.1"""

from typing import Any

import pytest

from fhir_server.r4.compartments import places

OURS = "http://127.0.0.1:8080/fhir"


def _to(reference: str) -> dict[str, str]:
    return {"reference": reference}


def _document(subject: Any, full_url: str = "urn:uuid:1", **members: Any) -> dict[str, Any]:
    composition = {"resourceType": "Composition", "subject": subject}
    entry = [{"fullUrl": full_url, "resource": composition}]
    return {"resourceType": "Bundle", "type": "document", "entry": entry, **members}


# What a resource says -> what it belongs to.
CASES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "device": ({"resourceType": "Device", "patient": _to("Patient/1")}, {"Patient/1"}),
    "absolute": ({"resourceType": "Device", "patient": _to(f"{OURS}/Patient/1")}, {"Patient/1"}),
    "elsewhere": ({"resourceType": "Device", "patient": _to("http://b.c/Patient/1")}, set()),
    "versioned": ({"resourceType": "Task", "for": _to("Patient/1/_history/2")}, {"Patient/1"}),
    "task for a group": ({"resourceType": "Task", "for": _to("Group/1")}, set()),
    "task of a patient's": ({"resourceType": "Task", "owner": _to("Patient/1")}, set()),
    "content": ({"resourceType": "Binary", "securityContext": _to("Patient/1")}, {"Patient/1"}),
    "content of a document": (
        {"resourceType": "Binary", "securityContext": _to("DocumentReference/1")},
        set(),
    ),
    "contained": ({"resourceType": "Device", "patient": _to("#p")}, set()),
    "document": (_document(_to("Patient/1")), {"Patient/1"}),
    "document of ours": (
        _document(_to("Patient/1"), f"{OURS}/Composition/1"),
        {"Patient/1"},
    ),
    "document of another server": (
        _document(_to("Patient/1"), "http://b.c/fhir/Composition/1"),
        set(),
    ),
    "look-alike server": (_document(_to("Patient/1"), f"{OURS}x/Composition/1"), set()),
    "absolute in a foreign document": (
        _document(_to(f"{OURS}/Patient/1"), "http://b.c/fhir/Composition/1"),
        {"Patient/1"},
    ),
    "collection": (_document(_to("Patient/1"), type="collection"), set()),
    "message": (
        {
            "resourceType": "Communication",
            "subject": _to("Patient/3"),
            "sender": _to("Practitioner/1"),
            "recipient": [_to("Patient/2"), _to("http://b.c/Patient/4"), {"display": "x"}],
        },
        {"party:Practitioner/1", "party:Patient/2"},
    ),
    "observation": ({"resourceType": "Observation", "subject": _to("Patient/1")}, set()),
    "nonsense": ({"resourceType": "Bundle", "type": "document", "entry": [1]}, set()),
    "odd": ({"resourceType": "Communication", "recipient": {"a": 1}, "sender": 1}, set()),
    "odder": ({"resourceType": "Device", "patient": [_to("Patient/1")]}, set()),
    "no text": ({"resourceType": "Task", "for": {"reference": 1}}, set()),
}


@pytest.mark.parametrize("name", CASES)
def test_what_a_resource_belongs_to(name: str) -> None:
    """What the definition leaves out belongs to the patient that it names on this server."""
    resource, expected = CASES[name]

    assert set(places(resource, (OURS,))) == expected
