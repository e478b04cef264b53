"""Audit row -> AuditEvent, as IHE's Basic Audit Log Patterns have it. Pure.

https://profiles.ihe.net/ITI/BALP/ and https://hl7.org/fhir/R4/auditevent.html

The profiles are for what succeeded; a refusal has the same form and claims none. Their variants for
patients have one patient each. A row of several, such as a search, is one AuditEvent all the same,
by the profile without, and names all of them.
"""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fhir_server.security.audit import who

PROFILES = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit."
REST = "rest"

_EVENT_TYPE = "http://terminology.hl7.org/CodeSystem/audit-event-type"
_INTERACTION = "http://hl7.org/fhir/restful-interaction"
_DICOM = "http://dicom.nema.org/resources/ontology/DCM"
_ENTITY = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
_ROLE = "http://terminology.hl7.org/CodeSystem/object-role"
_BALP_ENTITY = "https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType"
_BALP_TOKEN = "https://profiles.ihe.net/ITI/BALP/CodeSystem/UserAgentTypes"
_AUTHZ = "https://profiles.ihe.net/ITI/BALP/CodeSystem/AuthZsubType"
_LIFECYCLE = "http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle"
_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
_PARTICIPANT = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
_REASON = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
_SOURCE = "http://terminology.hl7.org/CodeSystem/security-source-type"
_EVENTS = "http://hl7.org/fhir/uv/smart-app-launch"

PERFORMERS = (
    *("Practitioner", "PractitionerRole", "Organization", "Device", "Patient", "RelatedPerson"),
)
_REFUSED, _FAILED = 400, 500


@dataclass(frozen=True, slots=True)
class Kind:
    """What an AuditEvent says of what was done: the type's and the subtype's system and code, the
    profile, and the roles of client and server in it, as DICOM codes."""

    type: tuple[str, str]
    subtype: tuple[str, str] | None
    profile: str = ""
    client: tuple[str, str] = (_DICOM, "110153")
    server: tuple[str, str] = (_DICOM, "110152")
    user: str = "IRCP"


def _rest(code: str, profile: str = "", user: str = "IRCP") -> Kind:
    return Kind((_EVENT_TYPE, REST), (_INTERACTION, code), profile, user=user)


def _read(code: str) -> Kind:
    # The data flows to the client.
    flow = ((_DICOM, "110152"), (_DICOM, "110153"))
    return Kind((_EVENT_TYPE, REST), (_INTERACTION, code), "Read", *flow)


_DELETE = Kind(
    *((_EVENT_TYPE, REST), (_INTERACTION, "delete"), "Delete"),
    *((_DICOM, "110150"), (_PARTICIPANT, "custodian"), "AUT"),
)
_AUTHENTICATION = (_DICOM, "110114")
_ALERT = (_DICOM, "110113")

KINDS: Mapping[str, Kind] = {
    "read": _read("read"),
    "vread": _read("vread"),
    "create": _rest("create", "Create", "AUT"),
    "update": _rest("update", "Update", "AUT"),
    "patch": _rest("patch", "Update", "AUT"),
    "delete": _DELETE,
    "conditional-update": _rest("update", "", "AUT"),
    "conditional-patch": _rest("patch", "", "AUT"),
    "conditional-delete": _DELETE,
    "history-instance": _rest("history-instance"),
    "history-type": _rest("history-type"),
    "history-system": _rest("history-system"),
    "search-type": _rest("search-type", "Query"),
    "search-system": _rest("search-system", "Query"),
    "search-compartment": _rest("search", "Query"),
    "capabilities": _rest("capabilities"),
    "transaction": _rest("transaction", "", "AUT"),
    "login": Kind(_AUTHENTICATION, (_DICOM, "110122")),
    "logout": Kind(_AUTHENTICATION, (_DICOM, "110123")),
    "token": Kind(_AUTHENTICATION, (_EVENTS, "token")),
    "consent": Kind(_ALERT, (_AUTHZ, "AuthZ-Consent")),
    "break-glass": Kind(_ALERT, (_DICOM, "110127")),
    "export": Kind(
        *((_DICOM, "110106"), (_LIFECYCLE, "disclose"), "PrivacyDisclosure.Source"),
        *((_DICOM, "110152"), (_DICOM, "110153")),
    ),
}
"""What was done -> what is said of it. An operation is an ``operation``; the rest is no more."""

_OPERATION = _rest("operation")
_OTHER = Kind((_EVENT_TYPE, REST), None)


def kind_of(did: str) -> Kind:
    """Return what is said of what was done."""
    return KINDS.get(did) or (_OPERATION if did.startswith("$") else _OTHER)


def audit_event(row: Mapping[str, Any], base_url: str) -> dict[str, Any]:
    """Return the AuditEvent of ``row``, which is as it is stored. ``base_url`` is what this server
    is called by who reads it."""
    kind, moment = kind_of(row["did"]), _instant(row)
    entities = _entities(row, kind)
    profile = _profile(row, kind)
    meta = {"versionId": "1", "lastUpdated": moment}
    server = {"identifier": {"value": base_url}}
    return {
        "resourceType": "AuditEvent",
        "id": row["_id"],
        "meta": meta | ({"profile": [profile]} if profile else {}),
        "type": _coding(kind.type),
        **({"subtype": [_coding(kind.subtype)]} if kind.subtype else {}),
        "action": row["action"],
        "recorded": moment,
        "outcome": outcome_of(row["status"]),
        **_described(row),
        "purposeOfEvent": [{"coding": [{"system": _REASON, "code": row["purpose"]}]}],
        "agent": _agents(row, kind, server, base_url),
        "source": {
            "site": base_url,
            "observer": server,
            "type": [{"system": _SOURCE, "code": "4"}],
        },
        **({"entity": entities} if entities else {}),
    }


def outcome_of(status: int) -> str:
    """Return success, minor or serious failure: https://hl7.org/fhir/R4/valueset-audit-event-outcome.html"""
    return "0" if status < _REFUSED else "4" if status < _FAILED else "8"


def _instant(row: Mapping[str, Any]) -> str:
    text: str = row["at"].isoformat(timespec="milliseconds")
    return text[: len("2024-02-29T12:00:00.000")] + "Z"


def _coding(code: tuple[str, str]) -> dict[str, str]:
    return {"system": code[0], "code": code[1]}


def _concept(code: tuple[str, str]) -> dict[str, Any]:
    return {"coding": [_coding(code)]}


def _described(row: Mapping[str, Any]) -> dict[str, str]:
    if row["status"] < _REFUSED:
        reason = row.get("reason", "")
        return {"outcomeDesc": f"Override: {reason}"} if reason else {}
    issue = row.get("issue", "")
    return {"outcomeDesc": f"HTTP {row['status']}" + (f", {issue}" if issue else "")}


def _profile(row: Mapping[str, Any], kind: Kind) -> str:
    """Return the profile that the AuditEvent meets, if there is one for what was done."""
    patients = len(row.get("patients", ()))
    if not kind.profile or row["status"] >= _REFUSED:
        return ""
    if kind.profile.startswith("Privacy"):
        return PROFILES + kind.profile if patients == 1 and row.get("id") else ""
    if kind.profile != "Query" and not row.get("id"):
        return ""
    return f"{PROFILES}{'Patient' if patients == 1 else ''}{kind.profile}"


def _agents(
    row: Mapping[str, Any], kind: Kind, server: dict[str, Any], base_url: str
) -> list[dict[str, Any]]:
    asked, name, client, user = who(row)
    address = row.get("address", "")
    is_person = asked == "user" or (asked == "demo" and bool(user))
    network = (
        {"address": address, "type": "2"} if address else {"address": "localhost", "type": "1"}
    )
    agents = [
        {
            "type": _concept(kind.client),
            "who": {"identifier": {"value": client or f"{asked}/{name}"}},
            "requestor": not is_person,
            "network": network,
        },
        {
            "type": _concept(kind.server),
            "who": server,
            "requestor": False,
            "network": {"address": base_url, "type": "5"},
        },
    ]
    if is_person:
        agents.append(
            {
                "type": _concept((_PARTICIPATION, kind.user)),
                "who": _person(user, name),
                "name": name,
                "requestor": True,
                "purposeOfUse": [_concept((_REASON, row["purpose"]))],
            }
        )
    return agents


def _person(reference: str, name: str) -> dict[str, Any]:
    parts = reference.rsplit("/", 2)
    type = parts[-2] if len(parts) > 1 else ""
    known = {"identifier": {"value": name}}
    return {"reference": reference} | known if type in PERFORMERS else known


def _entities(row: Mapping[str, Any], kind: Kind) -> list[dict[str, Any]]:
    entities: list[dict[str, Any]] = []
    query, type, id = row.get("query", ""), row.get("type", ""), row.get("id", "")
    if type and id and kind.profile != "Query":
        version = row.get("version", 0)
        place = f"{type}/{id}/_history/{version}" if version else f"{type}/{id}"
        data: dict[str, Any] = {
            "what": {"reference": place},
            "type": _coding((_ENTITY, "2")),
            "role": _coding((_ROLE, "4")),
        }
        entities.append(data | ({"description": query} if query else {}))
    elif query or kind.profile == "Query":
        path = f"{type}/{id}" if id else type
        asked = f"{path}?{query}" if path and query else path or query
        entities.append(
            {
                "type": _coding((_ENTITY, "2")),
                "role": _coding((_ROLE, "24")),
                "query": b64encode(asked.encode()).decode(),
            }
        )
    for patient in row.get("patients", ()):
        entities.append(
            {
                "what": {"reference": f"Patient/{patient}"},
                "type": _coding((_ENTITY, "1")),
                "role": _coding((_ROLE, "1")),
            }
        )
    entities += _carried(row)
    return entities


def _carried(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the entities of what carried the request: its id with its place, and the token."""
    entities: list[dict[str, Any]] = []
    if "request" in row:
        entry = {"description": f"entry {row['entry']}"} if "entry" in row else {}
        what = {"identifier": {"value": row["request"]}}
        entities.append({"what": what, "type": _coding((_BALP_ENTITY, "XrequestId")), **entry})
    if "token" in row:
        what = {"identifier": {"value": row["token"]}}
        entities.append({"what": what, "type": _coding((_BALP_TOKEN, "UserOauthAgent"))})
    return entities
