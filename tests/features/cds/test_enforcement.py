"""design/cds.md, section 10: no way of writing an order passes by the rules."""

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import product
from typing import Any

import pytest

from fhir_server.app import Server, opened
from fhir_server.messages import Response
from fhir_server.settings import Settings
from tests.conftest import Emptied
from tests.features.cds.conftest import client_of
from tests.features.cds.test_fhir_side import PATIENT, ask, audited, count, order, put

RULE = "https://example.org/fhir/StructureDefinition/drug-finding-rule"
BASE = "http://cds.example.org/fhir"
URN = "urn:uuid:1d6b1f0e-0000-4000-8000-000000000001"
VIAGRA = order("viagra", "sildenafil")
DRAFT = order("draft", "sildenafil", "draft")
ACTIVATE = {
    "resourceType": "Parameters",
    "parameter": [
        {
            "name": "operation",
            "part": [
                {"name": "type", "valueCode": "replace"},
                {"name": "path", "valueString": "MedicationRequest.status"},
                {"name": "value", "valueCode": "active"},
            ],
        }
    ],
}


async def _filled(mongodb_uri: str, database: str, mode: str) -> AsyncIterator[Server]:
    settings = Settings.model_validate(
        {"mongodb_database": database, "cds_enforce": mode, "base_url": BASE}
    )
    async with opened(settings, mongodb_uri) as server:
        await put(server, PATIENT)
        await put(server, order("nitrate", "isosorbide mononitrate"))
        yield server


@pytest.fixture(params=["block"])
async def strict(
    mongodb_uri: str, emptied: Emptied, request: pytest.FixtureRequest
) -> AsyncIterator[Server]:
    """A server that holds orders to the rules, with a patient who takes a nitrate."""
    with emptied.one() as name:
        async for server in _filled(mongodb_uri, name, request.param):
            yield server


def entry(method: str, url: str, resource: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"request": {"method": method, "url": url, **more}, "resource": resource}


async def posted(server: Server, type: str, *entries: dict[str, Any], **more: Any) -> Response:
    body = {"resourceType": "Bundle", "type": type, "entry": list(entries)}
    return await ask(server, "transaction", body=body, base_url=BASE, **more)


async def test_no_form_of_an_order_passes(strict: Server) -> None:
    """All intents that are orders; and a drug that is still taken is not replaced by saying so."""
    forms: list[dict[str, Any]] = [
        {"intent": "original-order"},
        {"intent": "reflex-order"},
        {"intent": "filler-order"},
        {"intent": "instance-order"},
        {"priorPrescription": {"reference": "MedicationRequest/nitrate"}},
        {"basedOn": [{"reference": "MedicationRequest/nitrate"}]},
        {"subject": {"reference": f"{BASE}/Patient/p1"}},
        {"medicationCodeableConcept": {"coding": [{"display": "Sildenafil 50 mg tablet"}]}},
        {"reportedBoolean": True},
    ]
    passed = [one for one in forms if (await put(strict, {**VIAGRA, **one})).status != 422]

    assert passed == []


async def test_drugs_by_reference(strict: Server) -> None:
    """A Medication that is contained, stored, in the same transaction, or only named."""
    concept = {"text": "sildenafil"}
    plain = {k: v for k, v in VIAGRA.items() if k != "medicationCodeableConcept"}
    medication = {"resourceType": "Medication", "id": "m", "code": concept}
    mixed = {
        "resourceType": "Medication",
        "id": "m",
        "ingredient": [{"itemCodeableConcept": concept}],
    }
    await put(strict, medication)
    by: dict[str, dict[str, Any]] = {
        "contained": {"contained": [mixed], "medicationReference": {"reference": "#m"}},
        "stored": {"medicationReference": {"reference": "Medication/m"}},
        "versioned": {"medicationReference": {"reference": "Medication/m/_history/1"}},
        "absolute": {"medicationReference": {"reference": f"{BASE}/Medication/m"}},
        "named": {"medicationReference": {"display": "Sildenafil"}},
    }
    found = {name: (await put(strict, {**plain, **more})).status for name, more in by.items()}
    first = entry("POST", "Medication", {"resourceType": "Medication", "code": concept})
    both = await posted(
        strict,
        "transaction",
        {**first, "fullUrl": URN},
        entry(
            "POST",
            "MedicationRequest",
            {**plain, "medicationReference": {"reference": URN}},
        ),
    )

    assert found == dict.fromkeys(by, 422)
    assert both.status == 422


async def test_a_medication_of_another_server_is_not_ours(strict: Server) -> None:
    """What has its id here is another drug: it is said not to be checked, and refuses nothing."""
    await put(
        strict, {"resourceType": "Medication", "id": "m", "code": {"text": "isosorbide dinitrate"}}
    )
    elsewhere = {"reference": "https://other.example/fhir/Medication/m", "display": "a syrup"}
    plain = {k: v for k, v in VIAGRA.items() if k != "medicationCodeableConcept"}
    await put(strict, {"resourceType": "Medication", "id": "s", "code": {"text": "sildenafil"}})
    taken = {"reference": "https://other.example/fhir/Medication/s", "display": "a syrup"}

    ours = {"reference": "Medication/s"}
    assert (await put(strict, {**plain, "medicationReference": ours})).status == 422
    assert (await put(strict, {**plain, "medicationReference": taken})).status == 201
    assert (await put(strict, {**plain, "medicationReference": elsewhere})).status == 200
    assert await audited(strict)


async def test_no_entry_of_a_bundle_passes(strict: Server) -> None:
    """POST, PUT, PATCH, conditional ones, absolute and odd URLs."""
    await put(strict, {**DRAFT, "identifier": [{"value": "i"}]})
    active = {**VIAGRA, "identifier": [{"value": "i"}]}
    nameless = {k: v for k, v in active.items() if k != "id"}
    entries = [
        entry("POST", "MedicationRequest", VIAGRA),
        entry("POST", "/MedicationRequest", VIAGRA),
        entry("POST", "%4dedicationRequest", VIAGRA),
        entry("POST", f"{BASE}/MedicationRequest", VIAGRA),
        entry("POST", "MedicationRequest", VIAGRA, ifNoneExist="identifier=new"),
        entry("PUT", "MedicationRequest/viagra", VIAGRA),
        entry("PUT", f"{BASE}/MedicationRequest/viagra", VIAGRA),
        entry("PUT", "MedicationRequest?identifier=i", nameless),
        entry("PATCH", "MedicationRequest/draft", ACTIVATE),
        entry("PATCH", "MedicationRequest?identifier=i", ACTIVATE),
    ]
    passed = []
    for type, one in product(("batch", "transaction"), entries):
        answer = await posted(strict, type, one)
        if type == "batch":
            (inner,) = json.loads(answer.body)["entry"]
            status = inner["response"]["status"]
        else:
            status = str(answer.status)
        if not status.startswith("422"):
            passed.append((type, one["request"], status))

    assert passed == []
    assert await count(strict, "MedicationRequest") == 2


async def test_no_way_over_http_passes(strict: Server) -> None:
    """XML, patches of three formats, Prefer, keys, conditional writes, a change of status."""
    await put(strict, {**DRAFT, "identifier": [{"value": "i"}]})
    path, json_type = "/fhir/MedicationRequest", "application/fhir+json"
    xml = (
        b'<MedicationRequest xmlns="http://hl7.org/fhir"><status value="active"/>'
        b'<intent value="order"/><medicationCodeableConcept><text value="sildenafil"/>'
        b'</medicationCodeableConcept><subject><reference value="Patient/p1"/></subject>'
        b"</MedicationRequest>"
    )
    whole = json.dumps({**VIAGRA, "identifier": [{"value": "i"}]}).encode()
    named = json.dumps(VIAGRA).encode()
    activated = json.dumps({**VIAGRA, "id": "draft"}).encode()
    replaced = b'[{"op": "replace", "path": "/status", "value": "active"}]'
    plain = {k: v for k, v in VIAGRA.items() if k != "id"}
    asked: list[tuple[str, str, bytes, str, dict[str, str]]] = [
        ("POST", path, xml, "application/fhir+xml", {}),
        ("POST", path, whole, json_type, {"Prefer": "return=minimal"}),
        ("POST", path, whole, json_type, {"Prefer": "return=OperationOutcome"}),
        ("POST", path, whole, json_type, {"Idempotency-Key": "one"}),
        ("POST", path, whole, json_type, {"Idempotency-Key": "one"}),
        ("POST", path, whole, json_type, {"If-None-Exist": "identifier=new"}),
        ("POST", path, whole, json_type, {"If-None-Exist": "identifier=x", "Idempotency-Key": "3"}),
        ("PUT", f"{path}/viagra", named, json_type, {"Idempotency-Key": "two"}),
        ("PUT", f"{path}/draft", activated, json_type, {"If-Match": 'W/"1"'}),
        ("PUT", f"{path}?identifier=i", json.dumps(plain).encode(), json_type, {}),
        ("PATCH", f"{path}/draft", replaced, "application/json-patch+json", {}),
        ("PATCH", f"{path}?identifier=i", replaced, "application/json-patch+json", {}),
        ("PATCH", f"{path}/draft", b'{"status": "active"}', "application/merge-patch+json", {}),
        ("PATCH", f"{path}/draft", json.dumps(ACTIVATE).encode(), json_type, {}),
        (
            "PATCH",
            f"{path}/draft",
            b'<diff><replace sel="MedicationRequest/status/@value">active</replace></diff>',
            "application/xml-patch+xml",
            {},
        ),
    ]
    passed = []
    async with client_of(strict) as http:
        for method, url, body, type, headers in asked:
            answer = await http.request(
                method, url, content=body, headers={"Content-Type": type, **headers}
            )
            if answer.status_code != 422:
                passed.append((method, url, headers, answer.status_code, answer.text))

    assert passed == []
    assert await count(strict, "MedicationRequest") == 2
    assert await count(strict, "DetectedIssue") == 0


async def test_orders_that_are_none_pass(strict: Server) -> None:
    """What is planned, stopped, or not to be given is no order; a stopped drug is not taken."""
    stopped = entry(
        "PUT", "MedicationRequest/nitrate", order("nitrate", "isosorbide mononitrate", "stopped")
    )
    plan = {**VIAGRA, "intent": "plan"}
    forbidden = {**VIAGRA, "id": "never", "doNotPerform": True}

    assert (await put(strict, plan)).status == 201
    assert (await put(strict, forbidden)).status == 201
    assert (
        await posted(strict, "transaction", stopped, entry("POST", "MedicationRequest", VIAGRA))
    ).status == 200


async def test_a_drug_not_to_be_given_speaks_against_nothing(strict: Server) -> None:
    """An active order that says not to give a drug is no drug that is taken."""
    await put(strict, order("never", "sildenafil", doNotPerform=True))

    assert (await put(strict, order("again", "glyceryl trinitrate"))).status == 201


async def test_two_orders_at_once_do_not_pass_each_other(strict: Server) -> None:
    """Of two orders that are fine alone, one at most is written, whoever comes first."""
    await put(strict, {**PATIENT, "id": "p2"})
    of: dict[str, Any] = {"subject": {"reference": "Patient/p2"}}
    answers = await asyncio.gather(
        *(
            put(strict, order(f"{drug[:4]}{n}", drug, **of))
            for n in range(3)
            for drug in ("sildenafil", "isosorbide mononitrate")
        )
    )
    found = json.loads(
        (
            await ask(
                strict,
                "search-type",
                "MedicationRequest",
                parameters=(("patient", "p2"), ("status", "active")),
            )
        ).body
    )["entry"]

    assert {one.status for one in answers} == {201, 422}
    assert len({one["resource"]["medicationCodeableConcept"]["text"] for one in found}) == 1


def override(**more: Any) -> dict[str, Any]:
    return {
        "resourceType": "DetectedIssue",
        "id": "o",
        "extension": [{"url": RULE, "valueString": "interaction/pde5-nitrate"}],
        "status": "final",
        "patient": {"reference": "Patient/p1"},
        "implicated": [{"reference": "MedicationRequest/nitrate"}],
        "mitigation": [{"action": {"text": "Stopped"}, "author": {"display": "Dr. Rahman"}}],
        **more,
    }


async def test_a_stored_override_is_about_this_patient(strict: Server) -> None:
    """An override is not one for everybody, nor one that was taken back."""
    refused = json.loads((await put(strict, VIAGRA)).body)["issue"][0]["diagnostics"]
    rule = refused.partition("Rule ")[2].partition(";")[0]
    for one in ({**PATIENT, "id": "p2"}, order("other", "metformin")):
        assert (await put(strict, one)).status == 201
    wanted = {**VIAGRA, "detectedIssue": [{"reference": "DetectedIssue/o"}]}
    wrong: list[dict[str, Any]] = [
        {"status": "entered-in-error"},
        {"patient": {"reference": "Patient/p2"}},
        {"implicated": [{"reference": "MedicationRequest/other"}]},
        {"extension": [{"url": RULE, "valueString": "interaction/other"}]},
        {"mitigation": [{"action": {"text": "Stopped"}}]},
    ]
    statuses = []
    for changed in (*wrong, {}):
        stored = override(**{"extension": [{"url": RULE, "valueString": rule}], **changed})
        assert (await put(strict, stored)).status in (200, 201)
        statuses.append((await put(strict, wanted)).status)

    assert statuses == [422] * len(wrong) + [201]


async def test_an_override_of_a_dose_names_its_order(strict: Server) -> None:
    """One stored override does not excuse every other dose of the patient."""
    dose = [
        {
            "timing": {"repeat": {"frequency": 4, "period": 1, "periodUnit": "d"}},
            "doseAndRate": [{"doseQuantity": {"value": 5, "code": "g"}}],
        }
    ]
    much = order("much", "paracetamol", dosageInstruction=dose)
    refused = json.loads((await put(strict, much)).body)["issue"][0]["diagnostics"]
    rule = refused.partition("Rule ")[2].partition(";")[0]
    extension = [{"url": RULE, "valueString": rule}]
    wanted = {**much, "detectedIssue": [{"reference": "DetectedIssue/o"}]}
    statuses = []
    for about in ("nitrate", "much"):
        implicated = [{"reference": f"MedicationRequest/{about}"}]
        await put(strict, order("much", "paracetamol", "draft"))
        await put(strict, override(extension=extension, implicated=implicated))
        statuses.append((await put(strict, wanted)).status)

    assert rule.startswith("dose/")
    assert statuses == [422, 200]


@pytest.mark.parametrize("strict", ["warn"], indirect=True)
async def test_a_finding_is_stored_once(strict: Server) -> None:
    """An order that is written again, or told again, is no new finding."""
    first, again = [
        await ask(
            *(strict, "update", "MedicationRequest", "viagra"), body=VIAGRA, idempotency_key="k"
        )
        for _ in range(2)
    ]
    noted = await put(strict, {**VIAGRA, "note": [{"text": "n"}]})

    assert [first.status, again.status, noted.status] == [201, 201, 200]
    assert await count(strict, "DetectedIssue") == 1


async def test_what_is_not_checked_is_in_the_audit_trail(strict: Server) -> None:
    """An order that nobody could check is written, and said to be so."""
    assert (await put(strict, order("x", "Foobarilium forte"))).status == 201
    assert (await put(strict, {**order("y", "warfarin"), "subject": {"display": "N. N."}})).status

    said = await audited(strict)
    assert any("Foobarilium forte (unknown-drug)" in one for one in said)
    assert any("allergies (list-missing)" in one for one in said)
