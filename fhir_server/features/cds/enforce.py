"""Writes of MedicationRequest, held to the drug safety rules where a setting says so.

design/cds.md, section 10. The write is made, what came of it is checked in the same transaction,
and a finding that blocks undoes it. So a patch and a transaction are checked like a create, and an
order of a transaction sees those beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fhir_server.context import Context
from fhir_server.features.cds.checking import Subject, checked
from fhir_server.features.cds.detected_issue import detected_issue, override_of, rule_of
from fhir_server.features.cds.drug import RANK, Finding
from fhir_server.features.cds.elements import name_of, part, parts, reference, text
from fhir_server.features.cds.services import DrugSafety
from fhir_server.messages import Request, Response
from fhir_server.outcome import FhirError, Issue
from fhir_server.r4.json import decode
from fhir_server.registry import Handler
from fhir_server.store.resources import ResourceStore

_TYPE = "MedicationRequest"
_WRITES = frozenset(("create", "update", "patch", "conditional-update", "conditional-patch"))
# What is written, and what is read: a collection that is made meanwhile would wait for us.
_TOUCHED = frozenset(
    (
        *(_TYPE, "DetectedIssue", "AuditEvent", "Patient", "MedicationStatement"),
        *("AllergyIntolerance", "Observation", "Medication"),
    )
)
_AUDIT_TYPE = "http://terminology.hl7.org/CodeSystem/audit-event-type"


class Enforcement:
    """Stands before the handlers of writes."""

    def __init__(self, safety: DrugSafety) -> None:
        """Check with ``safety``."""
        self._safety = safety

    def concerns(self, request: Request, context: Context) -> bool:
        """Whether ``request`` may make an order, and the setting has it checked."""
        return context.settings.cds_enforce != "off" and _may_order(request)

    async def __call__(self, request: Request, context: Context, handler: Handler) -> Response:
        """Have ``handler`` answer, and keep to the rules. Raises ``business-rule`` (422)."""
        types = _TOUCHED | _types(request, context)

        async def work(store: ResourceStore) -> Response:
            inside = replace(context, store=store)
            response = await handler(request, inside)
            for id in _written(response, request, context):
                await self._check(id, inside)
            return response

        return await context.store.in_transaction(work, types)

    async def _check(self, id: str, context: Context) -> None:
        order = await _read(_TYPE, id, context)
        if text(order, "status") != "active" or text(order, "intent") != "order":
            return
        patient = reference(order, "subject").rpartition("/")[2]
        found = await checked(self._safety, Subject(patient, (order,)), context)
        loud = [one for one in found.findings if RANK[one.severity] >= RANK["serious"]]
        if not loud:
            return
        issues = await _issues(order, context)
        blocked = []
        for one in loud:
            issue = override_of(one, order, issues)
            if issue is not None:
                await _overridden(one, order, issue, patient, context)
            elif one.severity == "contraindicated" and context.settings.cds_enforce == "block":
                blocked.append(one)
            else:
                body = detected_issue(one, patient, context.now(), status="final")
                await context.perform(Request("create", "DetectedIssue", body=body), context)
        if blocked:
            raise FhirError(*map(_refusal, blocked))


def _refusal(finding: Finding) -> Issue:
    return Issue(
        "business-rule",
        f"{finding.title}: {finding.effect}. {finding.management}. Rule {rule_of(finding)}; draft, "
        "not reviewed by a pharmacist. To order it all the same, refer in detectedIssue to a "
        "DetectedIssue with this rule in its extension drug-finding-rule, what it is about in "
        "implicated, and a mitigation with action and author.",
        "MedicationRequest.medication",
    )


async def _overridden(
    finding: Finding,
    order: Mapping[str, Any],
    issue: Mapping[str, Any],
    patient: str,
    context: Context,
) -> None:
    """Keep the override: the finding with its mitigation, and a line in the audit trail."""
    body = detected_issue(finding, patient, context.now(), status="final")
    body["mitigation"] = [dict(one) for one in parts(issue, "mitigation")]
    await context.perform(Request("create", "DetectedIssue", body=body), context)
    mitigation = body["mitigation"][0]
    reason = text(part(mitigation, "action"), "text") or "overridden"
    event = {
        "resourceType": "AuditEvent",
        "type": {"system": _AUDIT_TYPE, "code": "rest", "display": "RESTful Operation"},
        "action": "U",
        "recorded": context.now().isoformat(timespec="seconds"),
        "outcome": "0",
        "outcomeDesc": f"Override of {rule_of(finding)}: {reason}",
        "agent": [{"who": dict(part(mitigation, "author")), "requestor": True}],
        "source": {"observer": {"display": "Drug safety"}},
        "entity": [
            {"what": {"reference": name_of(order)}},
            {"what": {"reference": f"Patient/{patient}"}},
        ],
    }
    await context.perform(Request("create", "AuditEvent", body=event), context)


async def _issues(order: Mapping[str, Any], context: Context) -> list[Mapping[str, Any]]:
    """Return the DetectedIssues that the order refers to, contained or stored."""
    contained = {text(one, "id"): one for one in parts(order, "contained")}
    found: list[Mapping[str, Any]] = []
    for one in list(parts(order, "detectedIssue"))[:20]:
        target = reference({"of": one}, "of")
        if target.startswith("#"):
            found.append(contained.get(target[1:], {}))
        elif target.startswith("DetectedIssue/"):
            try:
                found.append(await _read("DetectedIssue", target.partition("/")[2], context))
            except FhirError:
                continue  # what is not there overrides nothing
    return [one for one in found if text(one, "resourceType") == "DetectedIssue"]


async def _read(type: str, id: str, context: Context) -> dict[str, Any]:
    response = await context.perform(Request("read", type, id), context)
    return decode(response.body, depth_max=context.settings.depth_max)


def _may_order(request: Request) -> bool:
    if request.interaction in _WRITES:
        return request.type == _TYPE
    body = request.body
    if request.interaction != "transaction" or body is None or body.get("type") != "transaction":
        return False
    return any(
        text(part(one, "request"), "method") in ("POST", "PUT", "PATCH")
        and text(part(one, "request"), "url").startswith(_TYPE)
        for one in parts(body, "entry")
    )


def _types(request: Request, context: Context) -> set[str]:
    """Return the types that a transaction may write."""
    urls = [text(part(one, "request"), "url") for one in parts(request.body or {}, "entry")]
    types = {url.partition("/")[0].partition("?")[0] for url in urls}
    return types & set(context.definitions.resource_types)


def _written(response: Response, request: Request, context: Context) -> Sequence[str]:
    """Return the ids of the orders that were written."""
    places = [response.location]
    if request.interaction == "transaction" and response.body:
        answer = decode(response.body, depth_max=context.settings.depth_max)
        places = [text(part(one, "response"), "location") for one in parts(answer, "entry")]
    found = []
    for place in places:
        steps = place.partition("/_history/")[0].split("/")
        if len(steps) >= 2 and steps[-2] == _TYPE:
            found.append(steps[-1])
    return found
