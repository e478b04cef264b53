"""``$check-interactions``, ``$cds-report`` and ``$reload-knowledge``. design/cds.md, section 10."""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from fhir_server.context import Context
from fhir_server.features.cds.checking import Subject, checked
from fhir_server.features.cds.detected_issue import detected_issue
from fhir_server.features.cds.drug import KINDS, SEVERITIES
from fhir_server.features.cds.elements import entries, reference, text
from fhir_server.features.cds.elements import parts as elements
from fhir_server.features.cds.policy import shown
from fhir_server.features.cds.reloading import reload_knowledge
from fhir_server.features.cds.services import DrugSafety
from fhir_server.messages import Request, Response
from fhir_server.outcome import FhirError, Issue, invalid_value, nearest
from fhir_server.outcome import shown as quoted
from fhir_server.r4.json import decode, encode
from fhir_server.registry import Operation
from fhir_server.store.cds import REPORTED_MAX, report

_DEFINITION = "urn:fhir-server:OperationDefinition:"
_PARAMETERS = ("patient", "medication", "kind", "minimum-severity")
_REPORT_PARAMETERS = ("since", "count", "offset")
_REPORT_DAYS = 90
_REVIEW_CARDS = 50
_REVIEW_SHARE = 0.9

Json = dict[str, Any]


def operations(safety: DrugSafety) -> tuple[Operation, ...]:
    """Return the operations as they are registered."""
    check = partial(check_interactions, safety)
    return (
        Operation(
            "$check-interactions",
            _DEFINITION + "check-interactions",
            check,
            on=("MedicationRequest",),
            instance=True,
            needs="rs",
        ),
        Operation(
            "$check-interactions",
            _DEFINITION + "patient-check-interactions",
            check,
            on=("Patient",),
            instance=True,
            whole=False,
            needs="r",
        ),
        Operation("$cds-report", _DEFINITION + "cds-report", cds_report),
        Operation(
            "$reload-knowledge",
            _DEFINITION + "reload-knowledge",
            partial(reload_knowledge, safety),
            affects_state=True,
        ),
    )


async def check_interactions(safety: DrugSafety, request: Request, context: Context) -> Response:
    """Return what speaks against orders, or among the active drugs of a patient, as data."""
    given = _given(request)
    kinds = _chosen(given, "kind", KINDS) or list(KINDS)
    minimum = (_chosen(given, "minimum-severity", SEVERITIES) or ["moderate"])[0]
    subject = await _subject(given, request, context)
    found = await checked(safety, subject, context, kinds)
    knowledge = await safety.knowledge(context)
    findings = shown(found.findings, minimum)
    status = "partial" if any(one.reason != "no-limit" for one in found.not_checked) else "complete"
    out: list[Json] = [{"name": "status", "valueCode": status}]
    out += [
        {"name": "finding", "resource": detected_issue(one, subject.patient, context.now())}
        for one in findings
    ]
    out += [
        {
            "name": "not-checked",
            "part": [
                {"name": "subject", "valueString": one.subject},
                {"name": "reason", "valueCode": one.reason},
            ],
        }
        for one in found.not_checked
    ]
    for name, version in ((knowledge.label, knowledge.version), *safety.others()):
        parts = [
            {"name": "name", "valueString": name},
            {"name": "version", "valueString": version},
            {"name": "reviewed", "valueBoolean": False},
        ]
        out.append({"name": "knowledge", "part": parts})
    return Response(200, encode({"resourceType": "Parameters", "parameter": out}))


async def _subject(given: list[tuple[str, Any]], request: Request, context: Context) -> Subject:
    brought = [resource for name, one in given if name == "medication" for resource in _orders(one)]
    if request.type == "Patient":
        if brought or any(name == "patient" for name, _ in given):
            raise FhirError(Issue("value", "On a patient there is neither patient nor medication."))
        await _read(request.type, request.id, context)
        return Subject(request.id, (), among_current=True)
    if request.id:
        stored = await _read(request.type, request.id, context)
        return Subject(_patient(reference(stored, "subject")), (stored,))
    patient = next((_patient(str(one)) for name, one in given if name == "patient"), "")
    orders = [one for one in brought if text(one, "resourceType") == "MedicationRequest"]
    patient = patient or next((_patient(reference(one, "subject")) for one in orders), "")
    if not patient:
        said = "Say of whom: patient, or a medication whose subject is one."
        raise FhirError(Issue("required", said))
    numbered = [
        one if text(one, "id") else {**one, "id": f"draft-{n}"} for n, one in enumerate(orders)
    ]
    return Subject(patient, numbered, brought)


def _patient(target: str) -> str:
    return target.rpartition("/")[2] if target.startswith("Patient/") or "/" not in target else ""


async def _read(type: str, id: str, context: Context) -> Json:
    response = await context.perform(Request("read", type, id), context)
    return decode(response.body, depth_max=context.settings.depth_max)


def _orders(resource: Any) -> Iterable[Json]:
    if text(resource, "resourceType") == "Bundle":
        return entries(resource)
    if text(resource, "resourceType") in ("MedicationRequest", "Medication"):
        return (resource,)
    said = "A medication is a MedicationRequest, or a Bundle of them."
    raise FhirError(Issue("value", said, "Parameters.parameter"))


def _given(request: Request) -> list[tuple[str, Any]]:
    """Return name and value of each parameter, of the query and of the body."""
    found: list[tuple[str, Any]] = list(request.parameters)
    body = request.body
    if body is not None:
        if body.get("resourceType") in ("MedicationRequest", "Bundle"):
            found.append(("medication", body))
        elif body.get("resourceType") != "Parameters":
            raise invalid_value("The body", body.get("resourceType"), "Parameters", "resourceType")
        for one in body.get("parameter", ()) if body["resourceType"] == "Parameters" else ():
            if isinstance(one, dict):
                value = one.get("resource") or _value(one)
                found.append((text(one, "name"), value))
    for name, _ in found:
        if name not in _PARAMETERS:
            said = f"{request.interaction} has no parameter {quoted(name)}."
            raise FhirError(Issue("value", said + nearest(name, _PARAMETERS)))
    return found


def _value(parameter: Json) -> Any:
    if "valueReference" in parameter:
        return reference(parameter, "valueReference")
    return next((parameter[name] for name in parameter if name.startswith("value")), "")


def _chosen(given: list[tuple[str, Any]], wanted: str, known: tuple[str, ...]) -> list[str]:
    found = [value for name, value in given if name == wanted]
    for value in found:
        if value not in known:
            raise invalid_value(wanted, value, ", ".join(known))
    return found


async def cds_report(request: Request, context: Context) -> Response:
    """Return how often each rule was shown, accepted and overridden, most shown first.

    A rule that is overridden nearly always is marked: it is to be reviewed. In pages: ``count`` of
    them from ``offset`` on, of the cards that were shown ``since``.
    """
    given = _report_given(request)
    since = _since(given.get("since", ""), context)
    count = _whole(given, "count", 1, REPORTED_MAX, REPORTED_MAX)
    offset = _whole(given, "offset", 0, 1_000_000, 0)
    seconds = context.settings.request_timeout_s
    total, rows = await report(context.store.database, since, seconds, count, offset)
    out: list[Json] = [
        {"name": "since", "valueDateTime": since.isoformat(timespec="seconds")},
        {"name": "total", "valueUnsignedInt": total},
    ]
    for row in rows:
        is_noisy = (
            row["shown"] >= _REVIEW_CARDS and row["overridden"] >= _REVIEW_SHARE * row["shown"]
        )
        parts: list[Json] = [
            {"name": "id", "valueString": row["rule"]},
            {"name": "kind", "valueCode": row["kind"]},
            {"name": "shown", "valueUnsignedInt": row["shown"]},
            {"name": "accepted", "valueUnsignedInt": row["accepted"]},
            {"name": "overridden", "valueUnsignedInt": row["overridden"]},
            {"name": "review", "valueBoolean": is_noisy},
        ]
        out.append({"name": "rule", "part": parts})
    return Response(200, encode({"resourceType": "Parameters", "parameter": out}))


def _report_given(request: Request) -> dict[str, str]:
    body = request.body or {}
    found = list(request.parameters)
    found += [(text(one, "name"), str(_value(one))) for one in elements(body, "parameter")]
    for name, _ in found:
        if name not in _REPORT_PARAMETERS:
            said = f"{request.interaction} has no parameter {quoted(name)}."
            raise FhirError(Issue("value", said + nearest(name, _REPORT_PARAMETERS)))
    return dict(found)


def _since(said: str, context: Context) -> datetime:
    if not said:
        return context.now() - timedelta(days=_REPORT_DAYS)
    try:
        found = datetime.fromisoformat(said)
    except ValueError as error:
        raise invalid_value("since", said, "a date such as 2026-01-31", "since") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _whole(given: Mapping[str, str], name: str, least: int, most: int, default: int) -> int:
    said = given.get(name, str(default))
    if not re.fullmatch(r"[0-9]{1,7}", said) or not least <= int(said) <= most:
        raise invalid_value(name, said, f"a whole number from {least} to {most:,}", name)
    return int(said)
