"""Writes of MedicationRequest, held to the drug safety rules where a setting says so.

design/cds.md, section 10. The write is made, what came of it is checked in the same transaction,
and a finding that blocks undoes it. So a patch and a transaction are checked like a create, and an
order of a transaction sees those beside it. Two transactions about one patient do not pass each
other unseen: each claims the patient.

What could not be checked is in the audit trail: an order without a finding is one that was checked.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

from fhir_server.context import Context
from fhir_server.features.cds.checking import Subject, checked
from fhir_server.features.cds.detected_issue import (
    decides,
    detected_issue,
    override_of,
    rule_of,
)
from fhir_server.features.cds.drug import RANK, Finding, NotChecked
from fhir_server.features.cds.elements import name_of, part, parts, reference, text
from fhir_server.features.cds.services import DrugSafety
from fhir_server.interactions.admitting import as_server
from fhir_server.interactions.entries import Entry, entries_of
from fhir_server.interactions.idempotency import REPEATED
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


# http://hl7.org/fhir/medicationrequest-intent: order, and the codes below it
_ORDERS = frozenset(("order", "original-order", "reflex-order", "filler-order", "instance-order"))
_FINDINGS = "https://example.org/fhir/NamingSystem/drug-finding"
# Reasons that leave nothing to be said: what is known was checked.
_CHECKED = frozenset(("no-limit", "not-covered", "code-text-conflict"))
_NAMED_MAX = 20


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
            by_patient: dict[str, list[dict[str, Any]]] = defaultdict(list)
            for id in _written(response, request, context):
                order = await _read(_TYPE, id, as_server(inside))  # the author wrote it
                if is_order(order):
                    by_patient[_patient_of(order)].append(order)
            most = context.settings.cds_drafts_max
            for patient, orders in sorted(by_patient.items()):
                await store.claim([f"cds:{patient}"])
                for start in range(0, len(orders), most):
                    await self._check(patient, orders[start : start + most], inside)
            return response

        return await context.store.in_transaction(work, types)

    async def _check(
        self, patient: str, orders: Sequence[dict[str, Any]], context: Context
    ) -> None:
        found = await checked(self._safety, Subject(patient, orders, is_stored=True), context)
        loud = [one for one in found.findings if RANK[one.severity] >= RANK["serious"]]
        issues = {name_of(one): await _issues(one, context) for one in orders} if loud else {}
        blocked = []
        for one in loud:
            order, issue = _override(one, orders, issues, patient)
            if issue is not None:
                await _overridden(one, order, issue, patient, context)
            elif one.severity == "contraindicated" and context.settings.cds_enforce == "block":
                blocked.append(one)
            else:
                await _keep(one, patient, context)
        if blocked:
            raise FhirError(*map(_refusal, blocked))
        missing = [one for one in found.not_checked if one.reason not in _CHECKED]
        if missing:
            await _unchecked(missing, orders, patient, context)


def is_order(resource: Mapping[str, Any]) -> bool:
    """Whether a MedicationRequest has its patient take something now: an active order."""
    is_active = text(resource, "status") == "active" and text(resource, "intent") in _ORDERS
    return is_active and resource.get("doNotPerform") is not True


def _patient_of(order: Mapping[str, Any]) -> str:
    target = reference(order, "subject")
    return target.partition("/")[2] if target.startswith("Patient/") else ""


def _override(
    finding: Finding,
    orders: Sequence[Mapping[str, Any]],
    issues: Mapping[str, Sequence[Mapping[str, Any]]],
    patient: str,
) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    """Return the order that overrides ``finding``, and the DetectedIssue by which it does."""
    for order in orders:
        if name_of(order) in finding.orders:
            issue = override_of(finding, order, issues[name_of(order)], patient)
            if issue is not None:
                return order, issue
    return {}, None


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
    mitigations = [dict(one) for one in parts(issue, "mitigation")]
    await _keep(finding, patient, context, mitigations)
    mitigation = next(one for one in mitigations if decides(one))
    reason = text(part(mitigation, "action"), "text") or "overridden"
    await _audit(
        f"Override of {rule_of(finding)}: {reason}",
        dict(part(mitigation, "author")),
        [name_of(order)],
        patient,
        context,
    )


async def _unchecked(
    missing: Sequence[NotChecked],
    orders: Sequence[Mapping[str, Any]],
    patient: str,
    context: Context,
) -> None:
    """Say in the audit trail what was written without having been checked."""
    said = [f"{one.subject} ({one.reason})"[:200] for one in missing[:_NAMED_MAX]]
    if len(missing) > _NAMED_MAX:
        said.append(f"{len(missing) - _NAMED_MAX} more")
    await _audit(
        f"Not checked: {'; '.join(said)}",
        {"display": "Drug safety"},
        [name_of(one) for one in orders],
        patient,
        context,
        outcome="4",
    )


async def _keep(
    finding: Finding,
    patient: str,
    context: Context,
    mitigations: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Store ``finding``, once: an order that is written again is no new finding."""
    body = detected_issue(finding, patient, context.now(), status="final")
    if mitigations:
        body["mitigation"] = [*mitigations]
    same = [finding.key, finding.severity, finding.judged, *map(str, mitigations)]
    value = sha256("\n".join(same).encode()).hexdigest()[:32]
    body["identifier"] = [{"system": _FINDINGS, "value": value}]
    once = f"identifier={_FINDINGS}|{value}"
    request = Request("create", "DetectedIssue", body=body, if_none_exist=once)
    await context.perform(request, as_server(context))


async def _audit(
    said: str,
    who: Mapping[str, Any],
    orders: Sequence[str],
    patient: str,
    context: Context,
    outcome: str = "0",
) -> None:
    about = [*orders, *((f"Patient/{patient}",) if patient else ())]
    event = {
        "resourceType": "AuditEvent",
        "type": {"system": _AUDIT_TYPE, "code": "rest", "display": "RESTful Operation"},
        "action": "U",
        "recorded": context.now().isoformat(timespec="seconds"),
        "outcome": outcome,
        "outcomeDesc": said,
        "agent": [{"who": dict(who), "requestor": outcome == "0"}],
        "source": {"observer": {"display": "Drug safety"}},
        "entity": [{"what": {"reference": one}} for one in about],
    }
    # What is noted of a write does not depend on what its author may write.
    await context.perform(Request("create", "AuditEvent", body=event), as_server(context))


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
    return any(one.request.interaction in _WRITES for one in _entries(request, _TYPE))


def _entries(request: Request, type: str = "") -> Iterator[Entry]:
    """Yield the entries of a transaction, of ``type`` or of all, as the transaction reads them."""
    body = request.body
    if request.interaction != "transaction" or body is None or body.get("type") != "transaction":
        return
    try:
        found = entries_of(body, request)
    except (FhirError, LookupError, TypeError, AttributeError):
        return  # it is refused as a whole: who performs it says why
    yield from (one for one in found if not type or one.request.type == type)


def _types(request: Request, context: Context) -> set[str]:
    """Return the types that a transaction may write."""
    types = {one.request.type for one in _entries(request)}
    return types & set(context.definitions.resource_types)


def _written(response: Response, request: Request, context: Context) -> Sequence[str]:
    """Return the ids of the orders that were written, and not told a second time."""
    if REPEATED in response.headers:
        return ()
    found = [(request.interaction, str(response.status), response.location)]
    if request.interaction == "transaction" and response.body:
        answer = decode(response.body, depth_max=context.settings.depth_max)
        answers = [part(one, "response") for one in parts(answer, "entry")]
        found = [
            (one.request.interaction, text(said, "status"), text(said, "location"))
            for one, said in zip(_entries(request), answers, strict=True)
        ]
    ids = []
    for interaction, status, place in found:
        steps = place.partition("/_history/")[0].split("/")
        # A conditional create that found something wrote nothing.
        is_there = interaction == "create" and not status.startswith("201")
        if interaction in _WRITES and len(steps) >= 2 and steps[-2] == _TYPE and not is_there:
            ids.append(steps[-1])
    return ids
