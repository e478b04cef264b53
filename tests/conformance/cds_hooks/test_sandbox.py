"""https://sandbox.cds-hooks.org: what the public sandbox sends, step by step, as its source has it.

design/cds.md, section 3.1. The same in a browser is ``test_browser.py``.
"""

import copy
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode
from uuid import uuid4

import httpx
import pytest

from fhir_server.app import Server
from fhir_server.messages import Request
from tests.conformance.cds_hooks.conftest import (
    EC,
    PATIENT,
    SANDBOX,
    cards_of,
    order,
    token,
)
from tests.features.cds.conftest import client_of

CASES = Path(__file__).resolve().parents[2] / "cases" / "cds"
RECORDED = json.loads((CASES / "sandbox-request.json").read_text("utf-8"))["request"]
SITE = "https://cds.example.org"
ANY = "application/json, text/plain, */*"
FHIR = "application/json+fhir"
Prefetch = dict[str, Any]


def signed(path: str) -> dict[str, str]:
    """Return the headers of a call from the sandbox's page, for the URL that it calls."""
    jku = {"jku": f"{SANDBOX}/.well-known/jwks.json"}
    return {"Origin": SANDBOX, **token(EC, jku, iss=SANDBOX, aud=SITE + path)}


async def test_the_request_on_file(hooks: httpx.AsyncClient) -> None:
    """What is on file gets the card about the order, and its suggestion can be taken."""
    (card,) = await cards_of(hooks, RECORDED, "/cds-services/drug-safety-select")

    assert "naproxen with warfarin" in card["summary"]
    assert card["indicator"] == "warning"
    (action,) = card["suggestions"][0]["actions"]
    assert (action["type"], action["resourceId"]) == ("delete", "MedicationRequest/request-123")
    assert action["description"]


@pytest.mark.parametrize(
    "change",
    [
        {"category": {}},
        {"dosageInstruction": [{"timing": {"repeat": {}}, "doseAndRate": [{}]}]},
        {"intent": "proposal"},
        {"id": None},
        {"medicationCodeableConcept": {"text": "Naproxen 500 MG Oral Tablet"}},
    ],
    ids=str,
)
async def test_an_order_that_is_not_finished(
    hooks: httpx.AsyncClient, change: dict[str, Any]
) -> None:
    """The page calls at every step of an order: none of them is refused."""
    body = copy.deepcopy(RECORDED)
    draft = body["context"]["draftOrders"]["entry"][0]["resource"] | change
    body["context"]["draftOrders"]["entry"][0]["resource"] = {
        name: value for name, value in draft.items() if value is not None
    }
    path = "/cds-services/drug-safety-select"

    assert (await hooks.post(path, json=body)).status_code == 200


async def chart(server: Server) -> None:
    """Store what the sandbox's patient has."""
    allergy = {
        "resourceType": "AllergyIntolerance",
        "id": "a1",
        "patient": {"reference": "Patient/p1"},
        "code": {"text": "Penicillin"},
    }
    drugs = [order("w1", "Warfarin Sodium 5 MG Oral Tablet"), order("m1", "metformin")]
    for one in (PATIENT, *drugs, allergy):
        request = Request("update", str(one["resourceType"]), str(one["id"]), body=one)
        await server.perform(request)


async def prefetched(
    page: httpx.AsyncClient, templates: dict[str, str]
) -> tuple[Prefetch, dict[str, str]]:
    """Return the data and by which method they were had: POST first, as a form, GET after it."""
    data: Prefetch = {}
    ways = {}
    for key, template in templates.items():
        path, _, query = template.replace("{{context.patientId}}", "p1").partition("?")
        fields = {name: values[0] for name, values in parse_qs(query).items()}
        response = await page.post(
            f"/fhir/{path}/_search",
            content=urlencode(fields),
            headers={
                "Origin": SANDBOX,
                "Accept": ANY,
                "Content-Type": "application/x-www-form-urlencoded",
            },
        )
        ways[key] = "POST"
        # A page that may not read a refusal does not know that there was one.
        assert response.headers["access-control-allow-origin"] in ("*", SANDBOX)
        if response.status_code >= 400:
            ways[key] = "GET"
            response = await page.get(
                f"/fhir/{path}?{urlencode(fields)}", headers={"Origin": SANDBOX, "Accept": FHIR}
            )
        assert response.status_code == 200, f"{key}: {response.text}"
        assert response.headers["access-control-allow-origin"] in ("*", SANDBOX)
        data[key] = response.json()
    return data, ways


async def test_step_by_step(closed_server: Server) -> None:
    """Discovery, metadata, prefetch, patient-view, order-select, order-sign, accepted,
    overridden: a page of another origin, with a token for each URL."""
    await chart(closed_server)
    async with client_of(closed_server) as page:
        found = await page.get("/cds-services", headers=signed("/cds-services"))
        services = {one["hook"]: one for one in found.json()["services"]}
        about = await page.get("/fhir/metadata", headers={"Origin": SANDBOX, "Accept": FHIR})
        assert about.json()["fhirVersion"] == "4.0.1"

        shown: dict[str, list[Any]] = {}
        for hook in ("patient-view", "order-select", "order-sign"):
            service = services[hook]
            data, ways = await prefetched(page, service["prefetch"])
            assert {ways.pop("patient"), *ways.values()} == {"GET", "POST"}
            assert set(ways.values()) == {"POST"}
            context = {"patientId": "p1", "userId": "Practitioner/COREPRACTITIONER1"}
            if hook != "patient-view":
                names = ("selections", "draftOrders")[hook == "order-sign" :]
                context |= {name: RECORDED["context"][name] for name in names}
            body = {
                "hookInstance": str(uuid4()),
                "hook": hook,
                "fhirServer": f"{SITE}/fhir",
                "context": context,
                "prefetch": data,
            }
            path = f"/cds-services/{service['id']}"
            answer = await page.post(path, json=body, headers=signed(path))
            assert answer.status_code == 200, answer.text
            assert answer.headers["access-control-allow-origin"] == SANDBOX
            shown[hook] = answer.json()["cards"]

        assert shown["patient-view"] == []
        card = shown["order-select"][0]
        assert "naproxen with warfarin" in card["summary"]
        assert card["summary"] in [one["summary"] for one in shown["order-sign"]]

        at = {"outcomeTimestamp": "2026-11-22T10:05:31.123Z"}
        taken = {"acceptedSuggestions": [{"id": card["suggestions"][0]["uuid"]}]}
        reason = {name: card["overrideReasons"][0][name] for name in ("code", "system")}
        path = f"/cds-services/{services['order-select']['id']}/feedback"
        for item in (
            {"card": card["uuid"], "outcome": "accepted", **taken, **at},
            {"card": card["uuid"], "outcome": "overridden", **at},
            {"card": card["uuid"], "outcome": "overridden", "overrideReason": {"reason": reason}}
            | {"outcomeTimestamp": "2026-11-22T10:06:31.123Z"},
        ):
            said = await page.post(path, json={"feedback": [item]}, headers=signed(path))
            assert said.status_code == 200, said.text
    kept = closed_server.database["cds_feedback"]
    assert await kept.count_documents({"card": card["uuid"]}) == 3
