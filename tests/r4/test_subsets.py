"""https://hl7.org/fhir/R4/search.html#summary and #elements"""

from typing import Any

import pytest

from fhir_server.r4.definitions import Definitions
from fhir_server.r4.subsets import SUBSETTED, subset

PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "p",
    "meta": {"versionId": "1", "tag": [{"code": "x"}]},
    "text": {"status": "generated", "div": "<div xmlns='http://www.w3.org/1999/xhtml'>A</div>"},
    "active": True,
    "name": [{"family": "Akter", "_family": {"extension": []}}],
    "birthDate": "1990",
    "_birthDate": {"extension": []},
    "photo": [{"contentType": "image/png", "data": "AA=="}],
    "contact": [{"name": {"family": "B"}}],
    "link": [{"other": {"reference": "Patient/q"}, "type": "seealso"}],
}
HEAD = {"resourceType", "id", "meta"}

CASES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "text": ({"summary": "text"}, {"text"}),
    "data": ({"summary": "data"}, set(PATIENT) - {"text"}),
    "true": ({"summary": "true"}, {"active", "name", "birthDate", "_birthDate", "link"}),
    "elements": ({"elements": {"birthDate"}}, {"birthDate", "_birthDate"}),
    "an unknown element": ({"elements": {"nothing"}}, set()),
}


@pytest.mark.parametrize(("asked", "kept"), CASES.values(), ids=CASES)
def test_what_is_kept(definitions: Definitions, asked: Any, kept: set[str]) -> None:
    """The elements asked for, those with a primitive's extensions, and always the head; tagged."""
    part = subset(PATIENT, definitions, **asked)

    assert set(part) == HEAD | kept
    assert part["meta"]["tag"] == [{"code": "x"}, SUBSETTED]
    assert "tag" in PATIENT["meta"]
    assert PATIENT["meta"]["tag"] == [{"code": "x"}]


def test_everything_is_the_resource_itself(definitions: Definitions) -> None:
    """``false`` and nothing asked for leave the resource as it is, without a tag."""
    assert subset(PATIENT, definitions, summary="false") is PATIENT
    assert subset(PATIENT, definitions) is PATIENT


def test_what_changes_the_meaning_is_kept_whole(definitions: Definitions) -> None:
    """A modifier extension is never emptied, and no part becomes an empty object."""
    extension = [{"url": "http://x", "valueBoolean": True}]
    consent = {
        "resourceType": "Consent",
        "id": "c",
        "status": "active",
        "modifierExtension": extension,
        "provision": {"actor": [{"reference": {"reference": "Patient/p"}}]},
    }

    for summary in ("true", "text"):
        part = subset(consent, definitions, summary=summary)
        assert part["modifierExtension"] == extension
        assert "provision" not in part


def test_a_negation_is_kept(definitions: Definitions) -> None:
    """Without ``doNotPerform`` an order not to give a medicine would be one to give it."""
    order = {
        "resourceType": "MedicationRequest",
        "id": "m",
        "status": "active",
        "intent": "order",
        "doNotPerform": True,
        "medicationCodeableConcept": {"text": "x"},
        "subject": {"reference": "Patient/p"},
        "note": [{"text": "z"}],
    }

    for asked in ({"elements": {"medication"}}, {"summary": "text"}):
        part = subset(order, definitions, **asked)
        assert part["doNotPerform"] is True
        assert "note" not in part


def test_mandatory_elements_are_kept(definitions: Definitions) -> None:
    """An Observation without its status could be taken for another one."""
    observation = {
        "resourceType": "Observation",
        "id": "o",
        "status": "entered-in-error",
        "code": {"text": "x"},
        "valueString": "y",
        "note": [{"text": "z"}],
    }

    part = subset(observation, definitions, elements={"value"})

    assert set(part) == HEAD | {"status", "code", "valueString"}


def test_a_summary_goes_into_the_types(definitions: Definitions) -> None:
    """The bytes of an attachment are no part of a summary, its title is."""
    document = {
        "resourceType": "DocumentReference",
        "id": "d",
        "status": "current",
        "content": [{"attachment": {"title": "t", "data": "AA=="}}],
    }

    part = subset(document, definitions, summary="true")

    assert part["content"] == [{"attachment": {"title": "t"}}]
