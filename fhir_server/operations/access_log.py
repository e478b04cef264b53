"""``Patient/[id]/$access-log``: who has seen or changed a patient's record, for the patient.

design/security.md, section 3.1: a patient sees accesses here and not by a search of AuditEvent,
which would name other people. Of each access it is said who, what, when, why; other patients,
queries, addresses and tokens are left out. Refused requests showed nothing, and are not in it.
"""

from typing import Any

from fhir_server.context import Context
from fhir_server.interactions.admitting import ADMINISTRATOR
from fhir_server.interactions.parameters import count_of, known_only, value_of
from fhir_server.messages import Request, Response
from fhir_server.outcome import FhirError, Issue, not_found
from fhir_server.r4.bundles import bundle, entry
from fhir_server.r4.json import encode
from fhir_server.registry import Operation
from fhir_server.search.page import cursor, digest, values_of
from fhir_server.search.parse import CURSOR
from fhir_server.security.audit_events import audit_event
from fhir_server.store.audit_rows import AUDIT_EVENT, Wanted

_SHOWN = ("_id", "at", "did", "action", "agents", "type", "id", "version", "status", "purpose")
_REFUSED = 400  # the first status of an answer that shows nothing


async def access_log(request: Request, context: Context) -> Response:
    """Return a page of AuditEvents, newest first; ``_count`` says how long it is.

    Raises ``forbidden`` for others than the patient, who acts for the patient by a token of that
    patient, and administrators; ``not-found`` where the patient is not to be seen.
    """
    known_only(request, ("_count", CURSOR))
    found = await context.store.read("Patient", request.id)
    if found is None:
        raise not_found("Patient", request.id)
    if not _may_see(request.id, context):
        raise FhirError(Issue("forbidden", "$access-log is for the patient whose record it is."))
    if context.store.audit is None:
        raise FhirError(Issue("not-supported", "Accesses are not recorded here (FHIR_AUDIT)."))
    place = f"Patient/{request.id}/$access-log"
    subject = digest(place, ())
    text = value_of(request, CURSOR)
    moment, id = values_of(text, subject, context.link_key) if text else (None, "")
    wanted = Wanted(
        {"patients": request.id, "status": {"$lt": _REFUSED}},
        None,
        count_of(request, context.settings.page_entries, context.settings.page_entries_max) or 1,
        after=(moment, id) if moment else None,
    )
    rows, more = await context.store.audit_page(wanted)
    entries = [_entry(one.row or {}, request) for one in rows]
    links = [("self", f"{request.base_url}/{place}?_count={wanted.count}")]
    if more:
        following = cursor(rows[-1].place, subject, context.link_key)
        links.append(("next", f"{links[0][1]}&{CURSOR}={following}"))
    body = bundle("searchset", entries, links=tuple(links))
    return Response(200, body, concerns=[f"Patient/{request.id}"])


def _may_see(patient: str, context: Context) -> bool:
    """Whether who asks is the patient, acts for the patient, or looks after the server."""
    principal, rights = context.principal, context.rights
    if rights is None or ADMINISTRATOR in rights.roles:
        return True
    person = principal.fhir_user.partition("/")[0]
    acts_for = person == "RelatedPerson" and principal.patient == patient
    return acts_for or principal.fhir_user == f"Patient/{patient}"


def _entry(row: dict[str, Any], request: Request) -> bytes:
    shown = {name: row[name] for name in _SHOWN if name in row}
    if shown.get("type") == "Patient" and shown.get("id") != request.id:
        shown.pop("id", None)  # another one, whose request concerned this one too
        shown.pop("version", None)
    shown["patients"] = [request.id]
    json = encode(audit_event(shown, request.base_url))
    url = f"{request.base_url}/{AUDIT_EVENT}/{row['_id']}"
    return entry(url, json, search={"mode": "match"})


ACCESS_LOG = Operation(
    "$access-log",
    "urn:fhir-server:OperationDefinition:access-log",
    access_log,
    on=("Patient",),
    instance=True,
    whole=False,
    needs="r",
)
