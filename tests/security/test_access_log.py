"""``Patient/[id]/$access-log``: section 3.1 of design/security.md."""

from base64 import b64decode
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

import pytest

from fhir_server.app import Server
from fhir_server.messages import Response
from fhir_server.security.principal import DEMO, Principal
from tests.interactions.asking import BASE, json_of
from tests.security.consents import BACKEND, CLINICIAN, COLLEAGUE, OWN, asked, put

MOTHER = replace(OWN, name="m", fhir_user="RelatedPerson/m")
SECRET = "Kodu-1187"


@pytest.fixture
async def site(server: Server) -> Server:
    """A server with two patients, whose records were looked at."""
    for id in "ab":
        await put(server, {"resourceType": "Patient", "id": id, "name": [{"family": SECRET}]})
    clinician = replace(CLINICIAN, address="10.1.2.3", token="token-7", request_id="request-7")
    for principal, path in (
        (clinician, "Patient/a"),
        (COLLEAGUE, "Patient/b"),
        (clinician, f"Patient?family={SECRET}"),
        (COLLEAGUE, "Patient/a/_history/7"),
    ):
        bare, _, query = path.partition("?")
        await asked(server, principal, "GET", bare, parameters=tuple(parse_qsl(query)))
    audit = server.context.store.audit
    assert audit is not None
    await audit.flushed()
    return server


async def _log(site: Server, principal: Principal, patient: str = "a", query: str = "") -> Response:
    path, parameters = f"Patient/{patient}/$access-log", tuple(parse_qsl(query))
    return await asked(site, principal, "GET", path, parameters=parameters)


def _events(bundle: Any) -> list[Any]:
    return [one["resource"] for one in bundle.get("entry", ())]


def _told(bundle: Any) -> list[tuple[str, str]]:
    """Return who did what, of each AuditEvent."""
    events = _events(bundle)
    return [(event["agent"][-1].get("name", ""), event["subtype"][0]["code"]) for event in events]


async def test_a_patient_sees_who_has_looked(site: Server) -> None:
    """Whoever has seen something of the record is named, newest first, with nobody else's data."""
    found = await _log(site, OWN)
    assert found.status == 200
    told = _told(json_of(found))
    assert [one for one in told if one[0]] == [("rahman", "search-type"), ("rahman", "read")]
    text = found.body.decode()
    for hidden in ("Patient/b", SECRET, "10.1.2.3", "token-7", "request-7", "begum"):
        assert hidden not in text, hidden
    entities = [one for event in _events(json_of(found)) for one in event.get("entity", ())]
    queries = [b64decode(one["query"]) for one in entities if "query" in one]
    assert queries == [b"Patient"]


@pytest.mark.parametrize(
    ("principal", "patient", "status"),
    [
        (OWN, "a", 200),
        (MOTHER, "a", 200),
        (DEMO, "a", 200),
        (replace(COLLEAGUE, roles=("administrator",)), "a", 200),
        (OWN, "b", 403),
        (MOTHER, "b", 403),
        (replace(OWN, fhir_user="Practitioner/1"), "a", 403),
        (CLINICIAN, "a", 403),
        (BACKEND, "a", 403),
        (OWN, "none", 404),
    ],
)
async def test_it_is_for_the_patient_and_who_acts_for_the_patient(
    site: Server, principal: Principal, patient: str, status: int
) -> None:
    """Staff who treat the patient do not see each other here; administrators do."""
    assert (await _log(site, principal, patient)).status == status


async def test_pages_have_each_access_once(site: Server) -> None:
    """The links lead through all that the whole log has; they are the patient's own."""
    whole = _told(json_of(await _log(site, OWN, query="_count=100")))
    told: list[tuple[str, str]] = []
    query = last = "_count=1"
    links: dict[str, str] = {}
    while query:
        page = json_of(await _log(site, OWN, query=query))
        told += _told(page)
        links = {one["relation"]: one["url"] for one in page["link"]}
        query = links.get("next", "").partition("?")[2]
        last = query or last
    # To look at the log is an access as well; those have come meanwhile, and are newer.
    assert told == whole
    assert links["self"].startswith(f"{BASE}/Patient/a/$access-log")
    assert (await _log(site, MOTHER, query=last)).status == 400
