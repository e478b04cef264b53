"""A CDS Hooks request as its JSON -> what the services read. Pure.

https://cds-hooks.hl7.org/2.0/#calling-a-cds-service

Refused is only what cannot be answered; what clients send beside that is read as far as it goes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fhir_server.features.cds.elements import (
    entries,
    full_urls,
    name_of,
    part,
    text,
    texts,
    unreadable,
)
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


def unreadable_of(request: HookRequest) -> list[str]:
    """Return what names the resources of the context that say no type, and so are not checked."""
    context = request.context
    for name in ("draftOrders", "medications"):
        if name in context:
            return [one[:200] for one in unreadable(context[name])]
    for name in ("medication", "allergyIntolerance"):
        if isinstance(context.get(name), dict):
            one = recorded_allergy(request) if name != "medication" else _unwrapped(context[name])
            type = text(one, "resourceType")
            is_read = type == "AllergyIntolerance" if name != "medication" else bool(type)
            return [] if is_read else [text(one, "id")[:200] or name]
    return []


def by_full_url(request: HookRequest) -> dict[str, dict[str, Any]]:
    """Return what came in Bundles under a ``urn:``, by which an order may refer to it."""
    found: dict[str, dict[str, Any]] = {}
    for bundle in (*request.prefetch.values(), *request.context.values()):
        found |= full_urls(bundle)
    return found


def recorded_allergy(request: HookRequest) -> dict[str, Any]:
    """Return the allergy of ``allergyintolerance-create``, which some clients wrap once more.

    One that says no type is one: nothing else belongs there.
    """
    found = _unwrapped(request.context.get("allergyIntolerance", {}))
    return found if "resourceType" in found else {**found, "resourceType": "AllergyIntolerance"}


def _unwrapped(resource: dict[str, Any]) -> dict[str, Any]:
    inner = resource.get("resource")
    return inner if "resourceType" not in resource and isinstance(inner, dict) else resource


def selections_of(request: HookRequest) -> frozenset[str] | None:
    """Return what is selected, as ``Type/id``; ``None`` where one of them names nothing that came:
    then nobody knows which it is, and each may be it."""
    listed = request.context.get("selections")
    said = texts(request.context, "selections")
    if isinstance(listed, list) and len(said) < len(listed):
        return None
    brought = [name_of(one) for one in drafts_of(request)]
    by_id = {name.partition("/")[2]: name for name in brought}
    by_url = {url: name_of(one) for url, one in by_full_url(request).items()}
    found = set()
    for one in said:
        plain = "/".join(one.partition("/_history/")[0].rsplit("/", 2)[-2:])
        name = by_url.get(one) or by_id.get(plain) or plain
        if name not in brought:
            return None
        found.add(name)
    return frozenset(found)


Handler = Callable[..., Any]
