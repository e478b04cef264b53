"""https://profiles.ihe.net/ITI/BALP/: what its profiles demand of an AuditEvent, as a table."""

from base64 import b64decode
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from fhir_server.security.audit import EVENTS, QUERY_CHARACTERS_MAX, Row, row_document, who
from fhir_server.security.audit_events import KINDS, PROFILES, audit_event
from fhir_server.security.principal import DEMO, NOBODY, SERVER, Principal
from fhir_server.validation.structure import StructureValidator

BASE = "https://fhir.example.org/fhir"
AT = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
ANNA = Principal(
    "user",
    "anna",
    client="app",
    fhir_user="Practitioner/1",
    token="t1",
    address="10.0.0.7",
    request_id="r1",
)
DCM = "http://dicom.nema.org/resources/ontology/DCM"
SOURCE, DESTINATION, APPLICATION = "110153", "110152", "110150"


def event(did: str, by: Principal = ANNA, **said: Any) -> dict[str, Any]:
    """Return the AuditEvent of a row."""
    row = row_document(Row(AT, did, by, said.pop("type", ""), said.pop("id", ""), **said))
    return audit_event({"_id": "chain.1.1", **row}, BASE)


# profile -> action, subtype, types of client, server and user, codes of the entities that must be
BALP: dict[str, tuple[str, str, str, str, str, set[str]]] = {
    "Create": ("C", "create", SOURCE, DESTINATION, "AUT", {"2/4"}),
    "PatientCreate": ("C", "create", SOURCE, DESTINATION, "AUT", {"2/4", "1/1"}),
    "Read": ("R", "read", DESTINATION, SOURCE, "IRCP", {"2/4"}),
    "PatientRead": ("R", "read", DESTINATION, SOURCE, "IRCP", {"2/4", "1/1"}),
    "Update": ("U", "update", SOURCE, DESTINATION, "AUT", {"2/4"}),
    "PatientUpdate": ("U", "update", SOURCE, DESTINATION, "AUT", {"2/4", "1/1"}),
    "Delete": ("D", "delete", APPLICATION, "custodian", "AUT", {"2/4"}),
    "PatientDelete": ("D", "delete", APPLICATION, "custodian", "AUT", {"2/4", "1/1"}),
    "Query": ("E", "search-type", SOURCE, DESTINATION, "IRCP", {"2/24"}),
    "PatientQuery": ("E", "search-type", SOURCE, DESTINATION, "IRCP", {"2/24", "1/1"}),
}


@pytest.mark.parametrize(("name", "wanted"), BALP.items(), ids=BALP)
def test_what_the_profiles_demand_is_there(name: str, wanted: tuple[Any, ...]) -> None:
    """Type, subtype, action, the three agents with who and network, and the entities."""
    action, did, client, server, user, entities = wanted
    concerns = ("Patient/1",) if name.startswith("Patient") else ()
    id = "" if did == "search-type" else "o1"
    found = event(did, type="Observation", id=id, version=2, concerns=concerns)

    assert found["meta"]["profile"] == [PROFILES + name]
    assert found["type"]["code"] == "rest"
    assert [one["code"] for one in found["subtype"]] == [did]
    assert (found["action"], found["outcome"]) == (action, "0")
    assert found["recorded"] == "2026-03-01T12:00:00.123Z"
    agents = {one["type"]["coding"][0]["code"]: one for one in found["agent"]}
    assert list(agents) == [client, server, user]
    assert agents[client]["who"]["identifier"]["value"] == "app"
    assert agents[client]["network"] == {"address": "10.0.0.7", "type": "2"}
    assert agents[server]["who"] == found["source"]["observer"]
    assert agents[server]["network"]["address"] == BASE
    assert agents[user]["who"]["reference"] == "Practitioner/1"
    assert (agents[user]["requestor"], "network" in agents[user]) == (True, False)
    roles = [
        f"{one['type']['code']}/{one['role']['code']}" for one in found["entity"] if "role" in one
    ]
    assert sorted(roles) == sorted(entities)
    carried = {
        one["type"]["code"]: one["what"]["identifier"]["value"]
        for one in found["entity"]
        if "identifier" in one.get("what", {})
    }
    assert carried == {"XrequestId": "r1", "UserOauthAgent": "t1"}


def test_a_query_is_kept_as_it_was_sent() -> None:
    """Base64 of the search, within bounds; that of a write stands beside the resource."""
    found = event("search-type", type="Patient", query="name=%E2%82%AC&x=1")
    cut = event("search-type", type="Patient", query="x" * (QUERY_CHARACTERS_MAX + 9))
    written = event("conditional-update", type="Patient", id="1", query="identifier=7")

    assert b64decode(found["entity"][0]["query"]) == b"Patient?name=%E2%82%AC&x=1"
    assert b64decode(cut["entity"][0]["query"]).decode().endswith("x…")
    assert written["entity"][0]["description"] == "identifier=7"


@pytest.mark.parametrize(("status", "outcome"), [(200, "0"), (304, "0"), (404, "4"), (503, "8")])
def test_a_refusal_says_how_it_ended_and_claims_no_profile(status: int, outcome: str) -> None:
    """The profiles are for what succeeded."""
    found = event("read", type="Patient", id="1", status=status, issue="not-found")

    assert found["outcome"] == outcome
    assert ("profile" in found["meta"]) is (status < 400)
    assert ("outcomeDesc" in found) is (status >= 400)


def test_a_row_of_several_patients_names_them_all() -> None:
    """The variant for patients has exactly one."""
    found = event("search-type", type="Observation", concerns=("Patient/1", "Patient/2"))
    named = [
        one["what"]["reference"] for one in found["entity"] if "reference" in one.get("what", {})
    ]

    assert found["meta"]["profile"] == [PROFILES + "Query"]
    assert named == ["Patient/1", "Patient/2"]


EVENT_TYPES = {
    "login": ("110114", "110122"),
    "logout": ("110114", "110123"),
    "token": ("110114", "token"),
    "consent": ("110113", "AuthZ-Consent"),
    "break-glass": ("110113", "110127"),
    "export": ("110106", "disclose"),
}


def test_each_event_has_a_type_of_its_own() -> None:
    """The table covers all that may be noted."""
    found = {did: event(did) for did in EVENTS}

    assert {
        did: (one["type"]["code"], one["subtype"][0]["code"]) for did, one in found.items()
    } == EVENT_TYPES


def test_an_export_of_one_patient_is_a_disclosure() -> None:
    """IHE.BasicAudit.PrivacyDisclosure.Source: the source is who records."""
    found = event("export", type="Patient", id="1")

    assert found["meta"]["profile"] == [PROFILES + "PrivacyDisclosure.Source"]
    source = next(one for one in found["agent"] if one["type"]["coding"][0]["code"] == SOURCE)
    assert source["who"] == found["source"]["observer"]


@pytest.mark.parametrize("by", [ANNA, DEMO, NOBODY, SERVER, Principal("client", "backend")])
@pytest.mark.parametrize("did", [*KINDS, "$validate", "unknown"])
def test_every_record_is_an_audit_event_of_r4(
    structural: StructureValidator, did: str, by: Principal
) -> None:
    """Whoever did what: what is shown of it is valid."""
    for status in (200, 404):
        for id in ("", "1"):
            found = event(did, by, type="Patient", id=id, query="a=b", status=status)
            assert structural.issues(found) == ()


def test_who_asked_is_read_back_from_what_is_stored() -> None:
    """Kind, name, client and reference."""
    assert who(row_document(Row(AT, "read", ANNA))) == ("user", "anna", "app", "Practitioner/1")
    assert who(row_document(Row(AT, "read", DEMO))) == ("demo", "demo", "", "")
    other = replace(ANNA, client="")
    assert who(row_document(Row(AT, "read", other))) == ("user", "anna", "", "Practitioner/1")
