"""One server for the whole checklist, with a registered client and a patient who takes warfarin."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from joserfc.jwk import ECKey, RSAKey

from fhir_server.app import Server, opened
from fhir_server.messages import Request
from fhir_server.settings import Settings
from tests.features.cds.conftest import client_of

EC = ECKey.generate_key("P-384", {"kid": "ec1"}, private=True)
RSA = RSAKey.generate_key(2048, {"kid": "rsa1"}, private=True)
ISSUER = "https://ehr.example.org"
OTHER = "https://other.example.org"
PATIENT = {"resourceType": "Patient", "id": "p1", "gender": "female", "birthDate": "1980-01-01"}


def order(id: str, drug: str, status: str = "active", **more: Any) -> dict[str, Any]:
    """Return a MedicationRequest."""
    return {
        "resourceType": "MedicationRequest",
        "id": id,
        "status": status,
        "intent": "order",
        "subject": {"reference": "Patient/p1"},
        "medicationCodeableConcept": {"text": drug},
        **more,
    }


def bundle(*resources: dict[str, Any]) -> dict[str, Any]:
    """Return a Bundle of resources."""
    return {"resourceType": "Bundle", "entry": [{"resource": one} for one in resources]}


def hook(*drafts: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a request for order-sign."""
    return {
        "hook": "order-sign",
        "hookInstance": str(uuid4()),
        "context": {"userId": "Practitioner/1", "patientId": "p1", "draftOrders": bundle(*drafts)},
        **more,
    }


def full(*drafts: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a request for order-sign that brings everything along."""
    known = {
        "patient": PATIENT,
        "medications": bundle(order("w1", "warfarin")),
        "allergies": None,
        "statements": None,
    }
    return hook(*drafts, prefetch=known, **more)


async def filled(server: Server) -> None:
    """Store the patient with warfarin and an allergy."""
    allergy = {
        "resourceType": "AllergyIntolerance",
        "id": "a1",
        "patient": {"reference": "Patient/p1"},
        "code": {"text": "Penicillin"},
        "reaction": [{"manifestation": [{"text": "Anaphylaxis"}]}],
    }
    for one in (PATIENT, order("w1", "warfarin"), allergy):
        request = Request("update", str(one["resourceType"]), str(one["id"]), body=one)
        await server.perform(request)


@pytest.fixture(scope="module")
async def open_server(mongodb_uri: str) -> AsyncIterator[Server]:
    """A server for trying out: no client is registered."""
    settings = Settings.model_validate(
        {
            "mongodb_database": f"test-{uuid4().hex[:12]}",
            "cds_services": "*",
            "cds_deadline_ms": 20_000,
            "base_url": "http://cds.example.org/fhir",
            "cors_origins": "https://sandbox.cds-hooks.org",
        }
    )
    async with opened(settings, mongodb_uri) as server:
        await filled(server)
        yield server
        await server.database.client.drop_database(server.database.name)


@pytest.fixture
async def hooks(open_server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the server for trying out."""
    async with client_of(open_server) as made:
        yield made


@pytest.fixture(scope="module")
async def closed_server(
    mongodb_uri: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Server]:
    """A server in production, with two registered clients."""
    path: Path = tmp_path_factory.mktemp("cds") / "clients.json"
    clients = [
        {
            "iss": ISSUER,
            "keys": {"keys": [EC.as_dict(private=False)]},
            "algorithm": "ES384",
            "services": ["drug-safety-sign"],
            "origins": ["https://ehr.example.org"],
        },
        {
            "iss": OTHER,
            "keys": {"keys": [RSA.as_dict(private=False)]},
            "algorithm": "RS384",
            "tenants": ["north"],
        },
    ]
    path.write_text(json.dumps({"clients": clients}), "utf-8")
    settings = Settings.model_validate(
        {
            "mode": "production",
            "mongodb_database": f"test-{uuid4().hex[:12]}",
            "cds_services": "*",
            "cds_clients": path,
            "cds_deadline_ms": 20_000,
            "base_url": "https://cds.example.org/fhir",
        }
    )
    async with opened(settings, mongodb_uri) as server:
        yield server
        await server.database.client.drop_database(server.database.name)


@pytest.fixture
async def guarded(closed_server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the server in production."""
    async with client_of(closed_server) as made:
        yield made
