"""A CDS Hooks request as its JSON -> what the services read. Pure.

https://cds-hooks.hl7.org/2.0/#calling-a-cds-service

Refused is only what cannot be answered; what clients send beside that is read as far as it goes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fhir_server.features.cds.elements import entries, part, text, texts
from fhir_server.outcome import FhirError, Issue, shown

Json = Mapping[str, Any]

HOOK_FIELDS: Mapping[str, Mapping[str, type]] = {
    "order-select": {"userId": str, "patientId": str, "selections": list, "draftOrders": dict},
    "order-sign": {"userId": str, "patientId": str, "draftOrders": dict},
    "patient-view": {"userId": str, "patientId": str},
    "appointment-book": {"userId": str, "patientId": str, "appointments": dict},
    "encounter-start": {"userId": str, "patientId": str, "encounterId": str},
    "encounter-discharge": {"userId": str, "patientId": str, "encounterId": str},
    "medication-refill": {"patientId": str, "medications": dict},
    "medication-verify": {"patientId": str, "medication": dict},
    "medication-prescribe": {"patientId": str, "medications": dict},
    "allergyintolerance-create": {"patientId": str, "allergyIntolerance": dict},
}
"""Hook -> the fields that its context has to have, and their kinds."""


@dataclass(frozen=True, slots=True)
class HookRequest:
    """One call. ``prefetch`` is as it came; a key that is not there was not asked for.

    ``token`` is the access token: it goes to ``fhir_server`` only, and is neither kept nor logged.
    """

    hook: str
    instance: str
    context: Json
    prefetch: Json
    patient: str
    user: str
    fhir_server: str = ""
    token: str = field(default="", repr=False)
    options: Json = field(default_factory=dict)


def hook_request(body: Any, hook: str) -> HookRequest:
    """Return the request in ``body`` for a service of ``hook``.

    Raises ``structure``, ``required`` or ``value`` with status 400 for what cannot be answered.
    """
    if not isinstance(body, dict):
        raise FhirError(Issue("structure", "The body is to be a JSON object."))
    for name in ("hook", "hookInstance"):
        if not text(body, name):
            raise FhirError(Issue("required", f"{name} is missing, or is no text.", name))
    if body["hook"] != hook:
        said = f"This service is for the hook {hook}, not {shown(body['hook'])}."
        raise FhirError(Issue("value", said, "hook"))
    context = body.get("context")
    if not isinstance(context, dict):
        raise FhirError(Issue("required", "context is missing, or is no object.", "context"))
    for name, kind in HOOK_FIELDS.get(hook, {}).items():
        value = context.get(name)
        if not isinstance(value, kind) or (kind is str and not value):
            said = f"context.{name} is missing, or is not {_KINDS[kind]}."
            raise FhirError(Issue("required", said, f"context.{name}"))
    authorization = body.get("fhirAuthorization")
    server = text(body, "fhirServer")
    if authorization is not None and not server:
        said = "fhirAuthorization needs fhirServer beside it."
        raise FhirError(Issue("required", said, "fhirServer"))
    prefetch = body.get("prefetch")
    return HookRequest(
        hook=hook,
        instance=text(body, "hookInstance")[:200],
        context=context,
        prefetch=prefetch if isinstance(prefetch, dict) else {},
        patient=text(context, "patientId").removeprefix("Patient/"),
        user=text(context, "userId")[:200],
        fhir_server=server.rstrip("/"),
        token=text(part(body, "fhirAuthorization"), "access_token"),
        options=part(part(body, "extension"), "pddi-configuration-items"),
    )


_KINDS: Mapping[type, str] = {str: "a text", list: "a list", dict: "an object"}


def drafts_of(request: HookRequest) -> list[dict[str, Any]]:
    """Return the resources that the context brings along: drafts, and what they refer to."""
    context = request.context
    for name in ("draftOrders", "medications", "appointments"):
        if name in context:
            return [*entries(context[name])]
    if isinstance(context.get("medication"), dict):
        return [_unwrapped(context["medication"])]
    return []


def recorded_allergy(request: HookRequest) -> dict[str, Any]:
    """Return the allergy of ``allergyintolerance-create``, which some clients wrap once more."""
    return _unwrapped(request.context.get("allergyIntolerance", {}))


def _unwrapped(resource: dict[str, Any]) -> dict[str, Any]:
    inner = resource.get("resource")
    return inner if "resourceType" not in resource and isinstance(inner, dict) else resource


def selections_of(request: HookRequest) -> frozenset[str]:
    """Return what is selected, as ``Type/id``."""
    found = texts(request.context, "selections")
    return frozenset("/".join(one.rsplit("/", 2)[-2:]) for one in found)


Handler = Callable[..., Any]
