"""How long a hook takes with 25 medications and 10 allergies, at 20 requests a second.

design/cds.md, section 12: p95 below 50 ms with prefetch, below 150 ms with our own look-ups. In
this process, without a socket.
"""

import asyncio
import time
from uuid import uuid4

import httpx

from fhir_server.app import opened
from fhir_server.messages import Request
from fhir_server.settings import Settings
from tests.conformance.cds_hooks.conftest import bundle, hook, order
from tests.features.cds.conftest import client_of

RATE = 20
CALLS = 200
DRUGS = (
    "warfarin metformin amlodipine atorvastatin omeprazole lisinopril metoprolol furosemide "
    "digoxin levothyroxine sertraline gabapentin tramadol prednisone albuterol montelukast "
    "allopurinol colchicine spironolactone insulin clopidogrel ramipril tamsulosin "
    "finasteride folic"
).split()
ALLERGENS = (
    "penicillin sulfa codeine aspirin latex ibuprofen cefalexin iohexol morphine peanut".split()
)
PATIENT = {"resourceType": "Patient", "id": "p1", "gender": "male", "birthDate": "1950-01-01"}


def chart() -> list[dict[str, object]]:
    """Return a patient with 25 medications and 10 allergies."""
    allergies = [
        {
            "resourceType": "AllergyIntolerance",
            "id": f"a{n}",
            "patient": {"reference": "Patient/p1"},
            "code": {"text": name},
        }
        for n, name in enumerate(ALLERGENS)
    ]
    return [PATIENT, *(order(f"m{n}", name) for n, name in enumerate(DRUGS)), *allergies]


async def p95(client: httpx.AsyncClient, body: dict[str, object]) -> float:
    """Return the 95th percentile in ms of calls that begin 20 times a second."""
    taken: list[float] = []

    async def one() -> None:
        began = time.perf_counter()
        response = await client.post("/cds-services/drug-safety-sign", json=body)
        taken.append((time.perf_counter() - began) * 1000)
        assert response.status_code == 200

    await one()
    taken.clear()
    calls = []
    for _ in range(CALLS):
        calls.append(asyncio.create_task(one()))
        await asyncio.sleep(1 / RATE)
    await asyncio.gather(*calls)
    return sorted(taken)[int(len(taken) * 0.95)]


async def test_latency(mongodb_uri: str) -> None:
    """With prefetch, and with our own look-ups."""
    settings = Settings.model_validate(
        {
            "mongodb_database": f"test-{uuid4().hex[:12]}",
            "base_url": "http://cds.example.org/fhir",
            "cds_deadline_ms": 10_000,
        }
    )
    resources = chart()
    draft = order("n", "naproxen", "draft")
    prefetch = {
        "patient": PATIENT,
        "medications": bundle(*(r for r in resources if r["resourceType"] == "MedicationRequest")),
        "allergies": bundle(*(r for r in resources if r["resourceType"] == "AllergyIntolerance")),
    }
    async with opened(settings, mongodb_uri) as server:
        for one in resources:
            request = Request("update", str(one["resourceType"]), str(one["id"]), body=one)
            await server.perform(request)
        async with client_of(server) as client:
            brought = await p95(client, hook(draft, prefetch=prefetch))
            read = await p95(client, hook(draft, fhirServer="http://cds.example.org/fhir"))
        await server.database.client.drop_database(server.database.name)
    print(f"\np95 at {RATE}/s: {brought:.1f} ms with prefetch, {read:.1f} ms with our own look-ups")
