"""design/cds.md, section 10: ``$check-interactions``, writes held to the rules, statistics."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fhir_server.app import Server, opened
from fhir_server.dispatch import answer
from fhir_server.messages import Request, Response
from fhir_server.settings import Settings
from tests.conftest import Emptied
from tests.features.cds.conftest import client_of

PATIENT = {"resourceType": "Patient", "id": "p1", "gender": "female", "birthDate": "1980-01-01"}


def order(id: str, drug: str, status: str = "active", **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "MedicationRequest",
        "id": id,
        "status": status,
        "intent": "order",
        "subject": {"reference": "Patient/p1"},
        "medicationCodeableConcept": {"text": drug},
        **more,
    }


async def ask(
    server: Server, interaction: str, type: str = "", id: str = "", **more: Any
) -> Response:
    return await answer(server.registry, Request(interaction, type, id, **more), server.context)


async def put(server: Server, resource: dict[str, Any]) -> Response:
    return await ask(server, "update", resource["resourceType"], resource["id"], body=resource)


async def audited(server: Server) -> list[str]:
    found = json.loads((await ask(server, "search-type", "AuditEvent")).body).get("entry", [])
    events = [one["resource"] for one in found]
    ours = {"display": "Drug safety"}  # the others are the record of the requests
    return [one["outcomeDesc"] for one in events if one["source"]["observer"] == ours]


async def count(server: Server, type: str) -> int:
    found: int = json.loads(
        (await ask(server, "search-type", type, parameters=(("_total", "accurate"),))).body
    )["total"]
    return found


@pytest.fixture(params=["block"])
async def strict(
    mongodb_uri: str, emptied: Emptied, request: pytest.FixtureRequest
) -> AsyncIterator[Server]:
    """A server that holds orders to the rules, with a patient who takes a nitrate."""
    with emptied.one() as name:
        settings = Settings.model_validate({"mongodb_database": name, "cds_enforce": request.param})
        async with opened(settings, mongodb_uri) as server:
            await put(server, PATIENT)
            await put(server, order("nitrate", "isosorbide mononitrate"))
            yield server


def findings(response: Response) -> list[dict[str, Any]]:
    assert response.status == 200, response.body
    found = json.loads(response.body)["parameter"]
    return [one["resource"] for one in found if one["name"] == "finding"]


async def test_check_interactions(server: Server) -> None:
    """Orders, stored orders and a patient's active drugs are checked; the answer is data."""
    await put(server, PATIENT)
    await put(server, order("nitrate", "isosorbide mononitrate"))
    await put(server, order("viagra", "sildenafil"))
    draft = order("new", "sildenafil", "draft")
    by_type = findings(await ask(server, "$check-interactions", "MedicationRequest", body=draft))
    by_order = findings(await ask(server, "$check-interactions", "MedicationRequest", "viagra"))
    by_patient = findings(await ask(server, "$check-interactions", "Patient", "p1"))

    for found in (by_type, by_order, by_patient):
        (issue, *_) = found
        assert issue["severity"] == "high"
        assert issue["status"] == "preliminary"
        assert not server.context.validate(issue)
    assert by_patient[0]["code"]["coding"][0]["code"] == "DRG"


@pytest.mark.parametrize(
    ("parameters", "status"),
    [
        ((("kind", "none"),), 400),
        ((("minimum-severity", "all"),), 400),
        ((("x", "y"),), 400),
        ((), 400),
    ],
)
async def test_what_cannot_be_checked_is_refused(
    server: Server, parameters: Any, status: int
) -> None:
    """Unknown parameters, and nothing that says of whom."""
    response = await ask(server, "$check-interactions", "MedicationRequest", parameters=parameters)

    assert response.status == status


async def test_a_contraindicated_order_is_refused(strict: Server) -> None:
    """With ``block`` nothing is written, by no kind of write; a draft is."""
    refused = await put(strict, order("viagra", "sildenafil"))
    created = await ask(strict, "create", "MedicationRequest", body=order("x", "sildenafil"))
    draft = await put(strict, order("draft", "sildenafil", "draft"))
    patched = await ask(
        strict,
        "update",
        "MedicationRequest",
        "draft",
        body=order("draft", "sildenafil"),
    )

    assert [one.status for one in (refused, created, draft, patched)] == [422, 422, 201, 422]
    issue = json.loads(refused.body)["issue"][0]
    assert issue["code"] == "business-rule"
    assert "interaction/" in issue["diagnostics"]
    assert "not reviewed by a pharmacist" in issue["diagnostics"]
    assert await count(strict, "MedicationRequest") == 2
    assert await count(strict, "DetectedIssue") == 0


async def test_orders_of_a_transaction_see_each_other(strict: Server) -> None:
    """Two orders that do not go together are refused though neither was there before."""
    entries = [
        {"request": {"method": "POST", "url": "MedicationRequest"}, "resource": order(id, drug)}
        for id, drug in (("a", "warfarin"), ("b", "sildenafil"))
    ]
    body = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    response = await ask(strict, "transaction", body=body)

    assert response.status == 422
    assert await count(strict, "MedicationRequest") == 1


async def test_a_serious_order_is_flagged(strict: Server) -> None:
    """What is serious is written, with a DetectedIssue beside it in the same transaction."""
    assert (await put(strict, order("w", "warfarin"))).status == 201
    assert (await put(strict, order("n", "naproxen"))).status == 201

    found = json.loads((await ask(strict, "search-type", "DetectedIssue")).body)["entry"]
    assert [one["resource"]["status"] for one in found] == ["final"]
    assert "naproxen with warfarin" in found[0]["resource"]["detail"]


async def test_an_override_needs_a_recorded_reason(strict: Server) -> None:
    """A DetectedIssue with the rule and a mitigation lets the order pass, and stays."""
    refused = json.loads((await put(strict, order("viagra", "sildenafil"))).body)
    rule = refused["issue"][0]["diagnostics"].partition("Rule ")[2].partition(";")[0]
    override = {
        "resourceType": "DetectedIssue",
        "id": "o",
        "extension": [
            {
                "url": "https://example.org/fhir/StructureDefinition/drug-finding-rule",
                "valueString": rule,
            }
        ],
        "status": "final",
        "implicated": [{"reference": "MedicationRequest/nitrate"}],
        "mitigation": [
            {
                "action": {"text": "Nitrate was stopped yesterday"},
                "author": {"display": "Dr. Rahman"},
            }
        ],
    }
    wanted: dict[str, Any] = {"contained": [override], "detectedIssue": [{"reference": "#o"}]}
    silent: dict[str, Any] = {**override, "mitigation": [{"action": {"text": "x"}}]}
    without: dict[str, Any] = {"contained": [silent], "detectedIssue": [{"reference": "#o"}]}

    assert (await put(strict, order("viagra", "sildenafil", **without))).status == 422
    assert (await put(strict, order("viagra", "sildenafil", **wanted))).status == 201
    (found,) = json.loads((await ask(strict, "search-type", "DetectedIssue")).body)["entry"]
    assert found["resource"]["mitigation"][0]["action"]["text"] == "Nitrate was stopped yesterday"
    said = await audited(strict)
    assert [one for one in said if one.startswith("Override of interaction/")]


@pytest.mark.parametrize("strict", ["warn"], indirect=True)
async def test_warn_refuses_nothing(strict: Server) -> None:
    """With ``warn`` a contraindicated order is written, and flagged."""
    assert (await put(strict, order("viagra", "sildenafil"))).status == 201
    assert await count(strict, "DetectedIssue") == 1


async def test_statistics_count_what_was_shown_and_overridden(server: Server) -> None:
    """``$cds-report`` says for each rule how often it was shown, accepted and overridden."""
    body = {
        "hook": "order-sign",
        "hookInstance": "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea",
        "context": {
            "userId": "Practitioner/1",
            "patientId": "p1",
            "draftOrders": {
                "resourceType": "Bundle",
                "entry": [{"resource": order("n", "naproxen", "draft")}],
            },
        },
        "prefetch": {
            "allergies": None,
            "medications": {
                "resourceType": "Bundle",
                "entry": [{"resource": order("w", "warfarin")}],
            },
        },
    }
    async with client_of(server) as hooks:
        path = "/cds-services/drug-safety-sign"
        cards = [(await hooks.post(path, json=body)).json()["cards"][0] for _ in range(3)]
        feedback = [
            {
                "card": card["uuid"],
                "outcome": "overridden",
                "outcomeTimestamp": "2026-11-22T10:05:31Z",
            }
            for card in cards[:2]
        ]
        assert (
            await hooks.post(f"{path}/feedback", json={"feedback": feedback})
        ).status_code == 200
    report = json.loads((await ask(server, "$cds-report")).body)["parameter"]
    rules = [
        {part["name"]: next(v for k, v in part.items() if k != "name") for part in one["part"]}
        for one in report
        if one["name"] == "rule"
    ]

    (rule,) = [one for one in rules if one["id"] == "vka-nsaid"]
    assert (rule["shown"], rule["overridden"], rule["accepted"]) == (3, 2, 0)
