"""https://cds-hooks.hl7.org/2.0/#calling-a-cds-service: S-10 to S-16 of design/cds.md, 16."""

import asyncio
import time
from dataclasses import replace
from typing import Any
from uuid import uuid4

import httpx
import pytest

from fhir_server.app import Server
from fhir_server.features.cds.reading import Source
from fhir_server.features.cds.request import HOOK_FIELDS, hook_request
from fhir_server.features.cds.services import SERVICES, DrugSafety, answered
from fhir_server.messages import Request, Response
from tests.conformance.cds_hooks.conftest import (
    SIGN,
    bundle,
    cards_of,
    full,
    hook,
    naproxen,
    order,
    token,
)
from tests.features.cds.conftest import client_of

BASE = "http://cds.example.org/fhir"
FAILED = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "timeout"}]}


@pytest.mark.parametrize(
    "change",
    [
        {"hook": None},
        {"hook": "order-select"},
        {"hookInstance": None},
        {"hookInstance": 7},
        {"context": None},
        {"context": []},
        {"fhirAuthorization": {"access_token": "x"}},
    ],
    ids=lambda change: str(*change),
)
async def test_s10_what_cannot_be_answered(
    hooks: httpx.AsyncClient, change: dict[str, Any]
) -> None:
    """S-10: 400 for what is missing, the wrong hook, or authorization without a server."""
    body = {k: v for k, v in {**full(naproxen()), **change}.items() if v is not None}
    response = await hooks.post(SIGN, json=body)

    assert response.status_code == 400
    assert response.json()["resourceType"] == "OperationOutcome"
    assert response.json()["issue"][0]["diagnostics"]


@pytest.mark.parametrize("kind", SERVICES, ids=lambda kind: kind.id)
async def test_s10_required_fields_of_each_context(hooks: httpx.AsyncClient, kind: Any) -> None:
    """S-10: each field that a hook's context has to have: 400 without it, which names it."""
    values: dict[type, Any] = {str: "p1", list: [], dict: bundle()}
    whole = {name: values[kind] for name, kind in HOOK_FIELDS[kind.hook].items()}
    for name in whole:
        context = {other: value for other, value in whole.items() if other != name}
        body = {"hook": kind.hook, "hookInstance": str(uuid4()), "context": context}
        response = await hooks.post(f"/cds-services/{kind.id}", json=body)

        assert response.status_code == 400, name
        assert f"context.{name}" in response.json()["issue"][0]["diagnostics"]


async def test_s10_unknown_services_and_bodies(hooks: httpx.AsyncClient) -> None:
    """S-10: 404 for an unknown id, 400 for no JSON, 413 for too much, 405 for another method."""
    assert (await hooks.post("/cds-services/none", json=full(naproxen()))).status_code == 404
    assert (await hooks.post("/cds-services/a/b", json={})).status_code == 404
    assert (await hooks.post(SIGN, content=b"{")).status_code == 400
    assert (await hooks.post(SIGN, content=b"[]")).status_code == 400
    assert (await hooks.post(SIGN, content=b" " * 1_048_577)).status_code == 413
    assert (await hooks.get(SIGN)).status_code == 405
    assert (await hooks.post("/cds-services")).status_code == 405


async def test_s11_nothing_to_say(hooks: httpx.AsyncClient) -> None:
    """S-11: 200 and no cards."""
    draft = order("z", "azithromycin", "draft")
    context = {**full(draft)["context"], "selections": ["MedicationRequest/z"]}
    prefetch = {"medications": None, "allergies": None}
    body = {**full(draft), "hook": "order-select", "context": context, "prefetch": prefetch}
    response = await hooks.post("/cds-services/drug-safety-select", json=body)

    assert (response.status_code, response.content) == (200, b'{"cards":[]}')


async def test_s12_without_data(hooks: httpx.AsyncClient) -> None:
    """S-12: 412 with an OperationOutcome that names the keys."""
    response = await hooks.post(SIGN, json=hook(naproxen()))

    assert response.status_code == 412
    assert response.json()["resourceType"] == "OperationOutcome"
    assert "medications and allergies" in response.json()["issue"][0]["diagnostics"]


async def test_s13_from_the_server_or_from_prefetch(hooks: httpx.AsyncClient) -> None:
    """S-13: an OperationOutcome in prefetch is no data; what is missing is read from the server."""
    drafts = [naproxen(), order("m1", "amoxicillin", "draft")]
    by_server = await cards_of(hooks, hook(*drafts, fhirServer=BASE))
    by_failed = await cards_of(
        hooks, hook(*drafts, fhirServer=BASE, prefetch={"medications": FAILED})
    )

    said = [[card["summary"] for card in cards] for cards in (by_server, by_failed)]
    assert said[0] == said[1]
    assert any("naproxen with warfarin" in one for one in said[0])
    assert any("amoxicillin: recorded allergy to Penicillin" in one for one in said[0])


async def test_s13_in_half_a_second(open_server: Server) -> None:
    """S-13: a server that does not answer is not waited for; what it would have said is missing,
    and the drafts are checked with each other."""

    async def never(_: str) -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    settings = open_server.context.settings.model_copy(update={"cds_deadline_ms": 200})
    context = replace(open_server.context, settings=settings)
    sign = next(kind for kind in SERVICES if kind.hook == "order-sign")
    body = hook(naproxen(), order("w2", "warfarin", "draft"), fhirServer=BASE)
    safety = DrugSafety()
    await safety.knowledge(context)
    began = time.monotonic()
    request = hook_request(body, "order-sign")
    answer = await answered(safety, sign, request, Source(BASE, never), context)
    took = time.monotonic() - began

    assert 0.1 < took < 5  # half a second, and what a busy machine takes
    said = [card.json for card in answer.cards]
    assert "naproxen with warfarin" in said[0]["summary"]
    assert "there was no time left" in said[-1]["detail"]
    assert said[-1]["indicator"] == "warning"


async def test_s14_the_access_token_is_not_kept(
    hooks: httpx.AsyncClient, open_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """S-14: the token is neither stored, nor logged, nor sent elsewhere."""
    secret = f"secret-{uuid4()}"
    authorization = {"access_token": secret, "token_type": "Bearer", "expires_in": 300}
    elsewhere = "https://elsewhere.example.org"
    with caplog.at_level("DEBUG"):
        for server in (elsewhere, BASE):
            body = full(naproxen(), fhirServer=server, fhirAuthorization=authorization)
            response = await hooks.post(SIGN, json=body)
            assert response.status_code == 200
            assert secret not in response.text
    await open_server.registry.routes["/cds-services"].recorder.written()

    for name in await open_server.database.list_collection_names():
        kept = await open_server.database[name].find({}).to_list()
        assert secret not in str(kept), name
    assert await open_server.database["cds_calls"].count_documents({})
    assert secret not in caplog.text
    body = full(naproxen(), fhirServer=BASE, fhirAuthorization=authorization)
    assert secret not in repr(hook_request(body, "order-sign"))


async def test_s15_no_other_server_is_called(hooks: httpx.AsyncClient) -> None:
    """S-15: a server that nobody listed is never asked; its data are unknown."""
    for server in ("http://169.254.169.254/fhir", "https://ehr.example.org/fhir", f"{BASE}/../x"):
        response = await hooks.post(SIGN, json=hook(naproxen(), fhirServer=server))

        assert response.status_code == 412


async def test_s15_everything_is_read_through_the_front_door(open_server: Server) -> None:
    """S-15: the service is no super-user: whatever it reads is a request like any other, about
    this patient, and what is refused there is not known here."""
    asked: list[Request] = []
    allowed = open_server.context.perform

    async def perform(request: Request, context: Any) -> Response:
        asked.append(request)
        return await allowed(request, context)

    context = replace(open_server.context, perform=perform)
    server = replace(open_server, context=context)
    async with client_of(server) as hooks:
        await cards_of(hooks, hook(naproxen(), fhirServer=BASE))

    assert {one.type for one in asked} == {
        *("Patient", "MedicationRequest", "MedicationStatement", "AllergyIntolerance"),
        "Observation",
    }
    for one in asked:
        assert one.id == "p1" or ("patient", "p1") in one.parameters


async def test_s15_services_of_a_client(guarded: httpx.AsyncClient) -> None:
    """S-15: a service that is not open to the client is 403, and not in its discovery."""
    path = "/cds-services/drug-safety-view"
    headers = token(aud=f"https://cds.example.org{path}")
    found = await guarded.get(
        "/cds-services", headers=token(aud="https://cds.example.org/cds-services")
    )

    assert (await guarded.post(path, json=full(naproxen()), headers=headers)).status_code == 403
    assert [one["id"] for one in found.json()["services"]] == ["drug-safety-sign"]


async def test_s15_calls_are_recorded(guarded: httpx.AsyncClient, closed_server: Server) -> None:
    """S-15: who called, about whom, and who was refused is in the audit record."""
    audit = closed_server.context.store.audit
    assert audit is not None
    await guarded.post(SIGN, json=full(naproxen()), headers=token())
    await guarded.post(SIGN, json=full(naproxen()), headers={"Authorization": "Bearer x"})
    await audit.flushed()

    rows = await closed_server.database["audit"].find().sort("at", -1).limit(2).to_list()
    refused, called = sorted(rows, key=lambda one: one["status"], reverse=True)
    assert called["did"] == "$cds-hook"
    assert called["agents"] == ["client/cds/https://ehr.example.org"]
    assert called["patients"] == ["p1"]
    assert (refused["status"], refused["issue"]) == (401, "login")
    assert refused["agents"] == ["nobody/nobody"]
    assert "cds-services/drug-safety-sign" in refused["query"]


@pytest.mark.parametrize(
    "more",
    [
        {"unknown": {"a": 1}},
        {"extension": {"org.example": [1], "pddi-configuration-items": {}}},
        {"extension": [1]},
        {"extension": "x"},
        {"hookInstance": "not-a-uuid"},
    ],
)
async def test_s16_unknown_fields(hooks: httpx.AsyncClient, more: dict[str, Any]) -> None:
    """S-16: unknown fields and extensions are ignored, whatever is in them."""
    cards = await cards_of(hooks, {**full(naproxen()), **more})

    assert cards[0]["indicator"] == "warning"
