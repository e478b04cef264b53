"""``$hl7v2-to-fhir``: what a message would become. Nothing is written.

design/hl7v2.md, section 20.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from adapters.hl7v2.ack import Fault, Sent, acknowledgement, asked, header_of
from adapters.hl7v2.apply import tried, unmapped_of
from adapters.hl7v2.inbox import Intake
from adapters.hl7v2.issues import MessageFault
from adapters.hl7v2.lookups import HeldError
from adapters.hl7v2.outcomes import as_fault
from adapters.hl7v2.parameters import answer, given
from adapters.hl7v2.reading import Arrival
from adapters.hl7v2.rules import applicable
from adapters.hl7v2.strict import verdict
from fhir_server.context import Context
from fhir_server.messages import Request, Response
from fhir_server.outcome import FhirError, Issue, not_found, operation_outcome
from fhir_server.r4.json import encode

_KINDS = {
    "message": "bytes",
    "sender": "string",
    "zone": "string",
    "compare": "boolean",
    "strict": "boolean",
}


@dataclass(slots=True)
class _Told:
    """What is answered so far: parts, issues, and what the acknowledgement would say."""

    parts: list[dict[str, Any]] = field(default_factory=list)
    issues: list[Issue] = field(default_factory=list)
    code: str = "AA"
    faults: list[Fault] = field(default_factory=list)


async def to_fhir(intake: Intake, request: Request, context: Context) -> Response:
    """Return what a message would become: the Bundle, what is to be said, the acknowledgement.

    The message is the body itself (``application/hl7-v2``), or ``message`` in Parameters.
    """
    known, charset = _given(request)
    data = known.get("message", b"")
    sender = known.get("sender", "")
    if not data:
        raise FhirError(Issue("required", "message is to be given: base64Binary, or a string."))
    await intake.refresh()
    if sender and intake.readers.named(sender) is None:
        raise not_found("Profile", sender)
    arrival = Arrival(data, "", "dry-run", context.now(), charset, size=len(data))
    told = _Told()
    try:
        await _rehearse(arrival, known, intake, told)
    except MessageFault as fault:
        told.code = "AR" if fault.refused else "AE"
        told.faults.append(as_fault(fault))
        text = f"{fault.error_code}: {fault.text}"
        told.issues.append(Issue("processing", text, fault.where))
    except HeldError as held:
        told.code = "AE"
        told.faults += held.faults
        told.issues += [Issue("business-rule", one.text, one.place) for one in held.faults]
    if known.get("strict", False):
        told.issues += [Issue("structure", text, "", "warning") for text in await verdict(data)]
    nothing = Issue("informational", "No issues.", "", "information")
    outcome = operation_outcome(told.issues or [nothing])
    return answer(
        [*told.parts, {"name": "outcome", "resource": outcome}, *_ack(data, told, intake)]
    )


def _given(request: Request) -> tuple[dict[str, Any], str]:
    """Return the parameters, and the charset of a message that is the body itself."""
    body = request.body or {}
    if body.get("resourceType") != "Binary":
        return given(request, _KINDS), ""
    known = given(replace(request, body=None), _KINDS)
    known["message"] = base64.b64decode(body.get("data", ""))
    _, _, charset = str(body.get("contentType", "")).partition("charset=")
    return known, charset.partition(";")[0].strip(' "')


async def _rehearse(
    arrival: Arrival, known: Mapping[str, Any], intake: Intake, told: _Told
) -> None:
    item = intake.readers.item(
        arrival,
        header_of(arrival.data),
        zone=known.get("zone", ""),
        sender=known.get("sender", ""),
    )
    told.parts += [
        {"name": "rules", "valueString": encode(dict(rule)).decode()}
        for rule in applicable(item.message, item.profile)
    ]
    if not known.get("compare", False):
        item = replace(item, report=replace(item.report, instructions=()))
    plan, writes = await tried(item, intake.context)
    told.issues += [_issue(one) for one in (*item.issues, *item.report.issues, *plan.issues)]
    if plan.held:
        told.issues.append(Issue("business-rule", plan.held))
        told.code = "AE"
        told.faults.append(Fault(plan.condition, plan.held))
    bundle = _bundle([one.resource for one in writes])
    told.parts.append({"name": "bundle", "resource": bundle})
    told.parts += [_counted(one) for one in unmapped_of(item.report)]


def _ack(data: bytes, told: _Told, intake: Intake) -> list[dict[str, Any]]:
    """Return the acknowledgement as it would be sent, if one would be."""
    header = header_of(data)
    wishes = asked(header) if header else None
    code = told.code
    if wishes is not None and code == "AA" and not wishes.waits:
        code = "CA" if wishes.wants_commit(positive=True) else ""
    elif wishes is not None and code != "AA":
        code = wishes.refusal(code)
    if not code:
        return []
    sent = Sent("DRY-RUN", intake.context.now())
    text = acknowledgement(header, code, sent, told.faults)
    return [{"name": "ack", "valueString": text.decode(header.codec if header else "latin-1")}]


def _bundle(resources: list[dict[str, Any]]) -> dict[str, Any]:
    entries = [
        {
            "resource": one,
            "request": {"method": "PUT", "url": f"{one['resourceType']}/{one['id']}"},
        }
        for one in resources
    ]
    body = {"resourceType": "Bundle", "type": "transaction"}
    return {**body, "entry": entries} if entries else body


def _issue(one: Any) -> Issue:
    return Issue("processing", f"{one.code}: {one.text}", one.where, one.severity)


def _counted(one: Mapping[str, Any]) -> dict[str, Any]:
    parts = [
        {"name": member, "valueString": str(one[member])}
        for member in ("field", "system", "code")
        if one.get(member)
    ]
    return {"name": "unmapped", "part": [*parts, {"name": "count", "valueInteger": one["count"]}]}
