"""Consents, and who asks, for the tests of what Consents deny."""

from dataclasses import replace
from typing import Any

from fhir_server.app import Server
from fhir_server.context import Context
from fhir_server.dispatch import answer
from fhir_server.interactions.consenting import subtracted
from fhir_server.messages import Request, Response
from fhir_server.route import route
from fhir_server.security.plan import Filter, Rights
from fhir_server.security.principal import Principal
from tests.interactions.asking import BASE

CODES = "http://terminology.hl7.org/CodeSystem/"
CLINICIAN = Principal("user", "rahman", "app", roles=("physician",), fhir_user="Practitioner/1")
COLLEAGUE = Principal("user", "begum", "app", roles=("nurse",), fhir_user="Practitioner/2")
OWN = Principal("user", "a", "app", roles=("patient",), fhir_user="Patient/a", patient="a")
BACKEND = Principal("client", "warehouse")


def coding(text: str) -> dict[str, str]:
    """Return a Coding of ``system|code``; a short system is one of HL7's."""
    system, _, code = text.partition("|")
    full = system if ":" in system or not system else CODES + system
    return {**({"system": full} if full else {}), "code": code}


def concept(text: str) -> dict[str, Any]:
    """Return a CodeableConcept of ``system|code``."""
    return {"coding": [coding(text)]}


def actor(reference: str, role: str = "v3-ParticipationType|PRCP") -> dict[str, Any]:
    """Return an actor of a provision."""
    return {"role": concept(role), "reference": {"reference": reference}}


def consent(provision: dict[str, Any] | None = None, policy: str = "OPTIN", **more: Any) -> Any:
    """Return a Consent of patient a."""
    return {
        "resourceType": "Consent",
        "id": "c",
        "status": "active",
        "scope": concept("consentscope|patient-privacy"),
        "category": [concept("consentcategorycodes|npp")],
        "patient": {"reference": "Patient/a"},
        "policyRule": concept(f"v3-ActCode|{policy}"),
        **({"provision": provision} if provision is not None else {}),
        **more,
    }


async def everything(principal: Principal, context: Context) -> Rights:
    """Return the right to everything, without what Consents deny: scopes and roles are tested
    elsewhere."""
    types = context.definitions.resource_types
    may: dict[tuple[str, str], Filter] = {
        (type, letter): {} for type in types for letter in "cruds"
    }
    return await subtracted(Rights(may, principal.roles), principal, context)


async def asked(
    server: Server, principal: Principal, method: str, path: str, body: Any = None, **more: Any
) -> Response:
    """Return what is answered to ``principal``, who may do everything that no Consent denies."""
    context = replace(server.context, principal=principal, access=everything)
    found = replace(route(method, path), body=body, base_url=BASE, **more)
    return await answer(server.registry, found, context)


async def put(server: Server, resource: Any) -> None:
    """Write ``resource``, as the server itself does."""
    request = Request("update", resource["resourceType"], resource["id"], body=resource)
    assert (await server.perform(request)).status in (200, 201)
