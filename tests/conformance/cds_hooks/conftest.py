"""One server for the whole checklist, with a registered client and a patient who takes warfarin."""

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from fhir_server.app import Server, opened
from fhir_server.messages import Request
from fhir_server.settings import Settings
from tests.conftest import Emptied
from tests.features.cds.conftest import client_of

EC = ECKey.generate_key("P-384", {"kid": "ec1"}, private=True)
RSA = RSAKey.generate_key(2048, {"kid": "rsa1"}, private=True)
SIGN = "/cds-services/drug-safety-sign"
AUDIENCE = f"https://cds.example.org{SIGN}"
ISSUER = "https://ehr.example.org"
MONOGRAPH = "https://monographs.example.org/vka-nsaid"
SANDBOX = "https://sandbox.cds-hooks.org"
OTHER = "https://other.example.org"
PATIENT = {"resourceType": "Patient", "id": "p1", "gender": "female", "birthDate": "1980-01-01"}


def token(
    key: Any = EC,
    header: dict[str, Any] | None = None,
    **claims: Any,
) -> dict[str, str]:
    """Return the header of a call that is signed; a claim that is ``None`` is left out."""
    now = int(time.time())
    said = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "exp": now + 120,
        "iat": now,
        "jti": str(uuid4()),
        **claims,
    }
    head = {"alg": "ES384", "typ": "JWT", "kid": "ec1", **(header or {})}
    algorithms = ["ES384", "RS384", "HS256", "ES256"]
    made = jwt.encode(
        head, {k: v for k, v in said.items() if v is not None}, key, algorithms=algorithms
    )
    return {"Authorization": f"Bearer {made}"}


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


def naproxen(**more: Any) -> dict[str, Any]:
    """Return a draft that interacts with the warfarin of the chart."""
    return order("n1", "naproxen", "draft", **more)


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


async def cards_of(hooks: httpx.AsyncClient, body: dict[str, Any], path: str = SIGN) -> list[Any]:
    """Return the cards that are answered to ``body``."""
    response = await hooks.post(path, json=body)
    assert response.status_code == 200, response.text
    found: list[Any] = response.json()["cards"]
    return found


def empties(of: Any, place: str = "") -> list[str]:
    """Return the places of null, empty text, array and object."""
    if of is None or of in ("", [], {}):
        return [place] if place else []
    if isinstance(of, dict):
        return [found for name, value in of.items() for found in empties(value, f"{place}.{name}")]
    if isinstance(of, list):
        return [found for n, value in enumerate(of) for found in empties(value, f"{place}[{n}]")]
    return []


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


def _policy(path: Path) -> Path:
    """Write a policy with a page about one rule."""
    path.write_text(json.dumps({"links": {"vka-nsaid": MONOGRAPH}}), "utf-8")
    return path


@pytest.fixture(scope="module")
async def open_server(
    mongodb_uri: str, emptied: Emptied, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Server]:
    """A server for trying out: no client is registered."""
    settings = Settings.model_validate(
        {
            "mongodb_database": (name := emptied.take()),
            "cds_services": "*",
            "cds_deadline_ms": 20_000,
            "base_url": "http://cds.example.org/fhir",
            "cds_policy": _policy(tmp_path_factory.mktemp("policy") / "policy.json"),
            "cors_origins": SANDBOX,
        }
    )
    async with opened(settings, mongodb_uri) as server:
        await filled(server)
        yield server
    emptied.give_back(name)


@pytest.fixture
async def hooks(open_server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the server for trying out."""
    async with client_of(open_server) as made:
        yield made


@pytest.fixture(scope="module")
async def closed_server(
    mongodb_uri: str, emptied: Emptied, tmp_path_factory: pytest.TempPathFactory
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
    clients.append(
        {
            "iss": SANDBOX,
            "keys": {"keys": [EC.as_dict(private=False)]},
            "algorithm": "ES384",
            "origins": [SANDBOX],
        }
    )
    path.write_text(json.dumps({"clients": clients}), "utf-8")
    settings = Settings.model_validate(
        {
            "mode": "production",
            "master_key": "5e" * 32,
            "mongodb_database": (name := emptied.take()),
            "cds_services": "*",
            "cds_clients": path,
            "cors_origins": SANDBOX,
            "cds_deadline_ms": 20_000,
            "base_url": "https://cds.example.org/fhir",
        }
    )
    async with opened(settings, mongodb_uri) as server:
        yield server
    emptied.give_back(name)


@pytest.fixture
async def guarded(closed_server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the server in production."""
    async with client_of(closed_server) as made:
        yield made
