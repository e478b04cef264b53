"""design/cds.md, section 3.2: what comes in an odd form is checked or named, never lost."""

from typing import Any

import httpx
import pytest

from fhir_server.features.cds.reading import Source, with_medications
from tests.conformance.cds_hooks.conftest import bundle, order

SIGN = ("drug-safety-sign", "order-sign")
SELECT = ("drug-safety-select", "order-select")
NEW = order("new", "Sildenafil 50 mg tablet", "draft")
NITRATE = order("old", "Isosorbide mononitrate 60 mg")
URN = "urn:uuid:0b1f6d0e-0d0c-4f5e-9a43-6f1d2c0a7d11"
LATE = {
    "authoredOn": "9999-12-31",
    "dispenseRequest": {"expectedSupplyDuration": {"value": 30, "code": "d"}},
}
FAILED = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "timeout"}]}
MEDICATION = {"resourceType": "Medication", "code": {"text": "Sildenafil 50 mg"}}


async def said(
    hooks: httpx.AsyncClient,
    service: tuple[str, str],
    context: dict[str, Any],
    prefetch: dict[str, Any],
) -> list[str]:
    """Return the summaries of the cards."""
    nothing = dict.fromkeys(("patient", "medications", "statements", "allergies"))
    body = {
        "hook": service[1],
        "hookInstance": "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea",
        "context": {"userId": "Practitioner/1", "patientId": "p", **context},
        "prefetch": {**nothing, **prefetch},
    }
    answer = await hooks.post(f"/cds-services/{service[0]}", json=body)
    assert answer.status_code == 200, answer.text
    return [card["summary"] for card in answer.json()["cards"]]


@pytest.mark.parametrize(
    "medications",
    [
        {"resourceType": "Bundle", "total": 40},
        {"resourceType": "Bundle", "entry": [{"fullUrl": "https://a.example/MedicationRequest/1"}]},
        {"resourceType": "Bundle", "entry": [None]},
        bundle(FAILED),
        {"resourceType": "Patient", "id": "p"},
    ],
    ids=["total", "no resource", "null", "outcome", "type"],
)
async def test_a_list_that_lacks_something_is_said_to(
    hooks: httpx.AsyncClient, medications: dict[str, Any]
) -> None:
    """A Bundle may say by itself that it is not all; another resource is no list of orders."""
    found = await said(hooks, SIGN, {"draftOrders": bundle(NEW)}, {"medications": medications})

    assert any("medications" in one for one in found)


@pytest.mark.parametrize("more", [LATE, {"status": "Active"}, {"status": "in-use"}])
async def test_an_odd_order_of_the_list_counts(
    hooks: httpx.AsyncClient, more: dict[str, Any]
) -> None:
    """A supply beyond the last day there is fails nothing, an unknown status hides nothing."""
    listed = {"medications": bundle({**NITRATE, **more})}
    found = await said(hooks, SIGN, {"draftOrders": bundle(NEW)}, listed)

    assert any("profound hypotension" in one for one in found)


async def test_what_says_no_type_is_named(hooks: httpx.AsyncClient) -> None:
    """A draft without a type may be an order; a new allergy without one is one."""
    untyped = {"id": "n7", "medicationCodeableConcept": {"text": "Sildenafil"}}
    found = await said(hooks, SIGN, {"draftOrders": bundle(untyped)}, {})
    assert found == ["Not everything could be checked: n7"]

    new = {"allergyIntolerance": {"code": {"text": "penicillin"}}}
    service = ("allergy-recorded", "allergyintolerance-create")
    listed = {"medications": bundle(order("a", "Amoxicillin 500 mg"))}
    assert any("amoxicillin" in one for one in await said(hooks, service, new, listed))

    wrapped = {"allergyIntolerance": bundle({"resourceType": "AllergyIntolerance", "id": "x"})}
    found = await said(hooks, service, wrapped, listed)
    assert found == ["Not everything could be checked: allergyIntolerance"]


@pytest.mark.parametrize(
    ("selections", "is_said"),
    [
        (["MedicationRequest/new"], True),
        (["MedicationRequest/new/_history/1"], True),
        (["new"], True),
        ([URN], True),
        (["MedicationRequest/elsewhere"], True),
        ([5], True),
        (["MedicationRequest/other"], False),
        ([], False),
    ],
)
async def test_a_selection_that_names_nothing_hides_nothing(
    hooks: httpx.AsyncClient, selections: list[Any], is_said: bool
) -> None:
    """Findings are left out only where it is known which drafts were selected."""
    drafts = bundle(NEW, order("other", "Amoxicillin 500 mg", "draft"))
    context = {"draftOrders": drafts, "selections": selections}
    found = await said(hooks, SELECT, context, {"medications": bundle(NITRATE)})

    assert any("profound hypotension" in one for one in found) == is_said


async def test_an_order_refers_to_a_medication_of_its_bundle(hooks: httpx.AsyncClient) -> None:
    """https://hl7.org/fhir/R4/bundle.html#references: by the ``fullUrl`` of its entry."""
    draft = {**NEW, "medicationReference": {"reference": URN}}
    del draft["medicationCodeableConcept"]
    drafts = {**bundle(draft)}
    drafts["entry"] = [*drafts["entry"], {"fullUrl": URN, "resource": MEDICATION}]
    found = await said(hooks, SIGN, {"draftOrders": drafts}, {"medications": bundle(NITRATE)})

    assert any("profound hypotension" in one for one in found)


async def test_what_a_draft_stops_is_not_ordered(hooks: httpx.AsyncClient) -> None:
    """Neither does it interact, nor is it taken beside what is ordered in its place."""
    stopped = {**NITRATE, "status": "stopped"}
    found = await said(
        hooks, SIGN, {"draftOrders": bundle(NEW, stopped)}, {"medications": bundle(NITRATE)}
    )

    assert not any("profound hypotension" in one for one in found)


async def test_a_reaction_says_to_which_drug(hooks: httpx.AsyncClient) -> None:
    """The code may be no more than "allergy to drug"."""
    entry = {
        "resourceType": "AllergyIntolerance",
        "id": "a",
        "code": {"text": "Allergy to drug"},
        "reaction": [{"substance": {"text": "amoxicillin"}}],
    }
    drafts = {"draftOrders": bundle(order("am", "Amoxicillin 500 mg", "draft"))}
    found = await said(hooks, SIGN, drafts, {"allergies": bundle(entry)})

    assert any(one.startswith("amoxicillin: recorded allergy") for one in found)


async def test_a_limit_of_nothing_hides_no_dose(hooks: httpx.AsyncClient) -> None:
    """A ``maxDosePerPeriod`` of 0 says that somebody left it out."""
    dosage = {
        "timing": {"repeat": {"frequency": 12, "period": 1, "periodUnit": "d"}},
        "doseAndRate": [{"doseQuantity": {"value": 1000, "unit": "mg"}}],
        "maxDosePerPeriod": {
            "numerator": {"value": 0, "unit": "mg"},
            "denominator": {"value": 1, "unit": "d"},
        },
    }
    draft = order("x", "Paracetamol 500 mg tablet", "draft", dosageInstruction=[dosage])
    found = await said(hooks, SIGN, {"draftOrders": bundle(draft)}, {})

    assert any("4,000 mg are the most" in one for one in found)


async def test_a_medication_of_another_server_is_not_ours() -> None:
    """What has the same id here is another drug: it is not read in its place."""
    draft = {**NEW, "medicationReference": {"reference": "https://other.example/fhir/Medication/1"}}
    asked: list[str] = []

    async def get(path: str) -> dict[str, Any]:
        asked.append(path)
        return bundle({**MEDICATION, "id": "1"})

    source = Source("https://own.example/fhir", get)
    assert await with_medications([draft], {}, source, 1) == {}
    assert not asked

    draft["medicationReference"] = {"reference": "https://own.example/fhir/Medication/1"}
    assert "Medication/1" in await with_medications([draft], {}, source, 1)
