"""Break-glass: section 3.3 of design/security.md, checks A4 and C2."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fhir_server.app import Server
from fhir_server.context import Context
from fhir_server.dispatch import answer
from fhir_server.interactions.consenting import opened
from fhir_server.messages import Request, Response
from fhir_server.security.plan import Rights
from fhir_server.security.principal import Principal
from fhir_server.settings import Settings
from tests.interactions.asking import issues_of
from tests.security import consents
from tests.security.consents import BACKEND, CLINICIAN, COLLEAGUE, OWN, consent, everything, put

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
OFFICER = "privacy@clinic.example"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Settings that say who is told."""
    return settings.model_copy(update={"privacy_officer": OFFICER})


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The clock of the server."""
    return Clock()


@pytest.fixture
async def site(server: Server, clock: Clock) -> Server:
    """A server with patients a and b, who both deny everybody else everything."""
    for id in "ab":
        await put(server, {"resourceType": "Patient", "id": id})
        given = consent({"type": "deny"}, patient={"reference": f"Patient/{id}"})
        await put(server, given | {"id": f"c{id}"})
    return replace(server, context=replace(server.context, now=clock))


def _body(patient: str = "Patient/a", reason: str = "unconscious") -> Any:
    return {
        "resourceType": "Parameters",
        "parameter": [
            {"name": "patient", "valueReference": {"reference": patient}},
            {"name": "reason", "valueString": reason},
        ],
    }


async def _break(site: Server, principal: Principal = CLINICIAN, *asks: str) -> Response:
    return await consents.asked(site, principal, "POST", "$break-glass", _body(*asks))


async def _status(site: Server, principal: Principal, path: str) -> int:
    return (await consents.asked(site, principal, "GET", path)).status


async def test_c2_a_record_is_open_for_15_minutes_to_one_person(site: Server, clock: Clock) -> None:
    """It opens the record of that patient to that member of the staff, through any app, and closes
    on time; every use is written down, and the privacy officer is told."""
    assert await _status(site, CLINICIAN, "Patient/a") == 404
    found = await _break(site)
    assert found.status == 200
    assert b"2026-11-23T12:15:00.000Z" in found.body
    other_app = replace(CLINICIAN, client="tablet")
    for moment, who, path, status in (
        (timedelta(0), CLINICIAN, "Patient/a", 200),
        (timedelta(0), other_app, "Patient/a", 200),
        (timedelta(0), CLINICIAN, "Patient/b", 404),
        (timedelta(0), COLLEAGUE, "Patient/a", 404),
        (timedelta(minutes=14, seconds=59.9), CLINICIAN, "Patient/a", 200),
        (timedelta(minutes=15), CLINICIAN, "Patient/a", 404),
    ):
        clock.now = NOON + moment
        assert await _status(site, who, path) == status, (moment, who.name, path)
    [row] = await site.database["outbox"].find().to_list()
    assert (row["kind"], row["to"], row["state"]) == ("break-glass", OFFICER, "waiting")
    assert row["content"]["reason"] == "unconscious"
    assert row["content"]["patient"] == "a"


async def test_requests_under_it_have_their_own_purpose(site: Server, clock: Clock) -> None:
    """While a record is open, requests are for BTG: handlers and the audit record see that."""
    seen: list[tuple[str, str]] = []

    async def watched(principal: Principal, context: Context) -> Rights:
        rights = await everything(principal, context)
        found = await opened(principal, context)
        seen.append((rights.purpose, ",".join(sorted(found))))
        return rights

    context = replace(site.context, access=watched)
    site = replace(site, context=context)
    for _ in range(2):
        await _asked_by(site, CLINICIAN, "b")
        await _break(site)
    clock.now += timedelta(minutes=16)
    await _asked_by(site, CLINICIAN, "b")
    assert seen == [("TREAT", ""), ("BTG", "a"), ("TREAT", "")]


async def _asked_by(site: Server, principal: Principal, id: str) -> Response:
    """Return what is answered to who reads Patient/[id], with the rights that the site gives."""
    request = Request("read", "Patient", id)
    context = replace(site.context, principal=principal)
    return await answer(site.registry, request, context)


async def test_what_is_done_under_it_is_recorded_as_such(site: Server, clock: Clock) -> None:
    """The record says BTG of every request while it is open, refused ones too, and of the opening
    itself for whom; and not after it."""
    await _status(site, CLINICIAN, "Patient/b")
    await _break(site)
    await _status(site, CLINICIAN, "Patient/a")
    await _status(site, CLINICIAN, "Patient/b")
    clock.now += timedelta(minutes=16)
    await _status(site, CLINICIAN, "Patient/b")
    audit = site.context.store.audit
    assert audit is not None
    await audit.flushed()
    rows = await site.database["audit"].find({"agents": "Practitioner/1"}).to_list()
    said = sorted((row["did"], row["purpose"], row.get("id", "")) for row in rows)
    assert said == [
        ("$break-glass", "TREAT", ""),
        ("break-glass", "BTG", "a"),
        ("read", "BTG", "a"),
        ("read", "BTG", "b"),
        ("read", "TREAT", "b"),
        ("read", "TREAT", "b"),
    ]


async def test_five_times_a_day_and_no_more(site: Server, clock: Clock) -> None:
    """Of twenty at once five open the record; the others are told when to come again."""
    found = await asyncio.gather(*(_break(site) for _ in range(20)))
    assert sorted(one.status for one in found) == [200] * 5 + [429] * 15
    refused = next(one for one in found if one.status == 429)
    assert issues_of(refused) == [("throttled", "")]
    assert ("Retry-After", "86401") in refused.headers
    assert await site.database["outbox"].count_documents({}) == 5
    assert (await _break(site, COLLEAGUE)).status == 200
    clock.now += timedelta(days=1)
    assert (await _break(site)).status == 200


@pytest.mark.parametrize(
    ("principal", "asks", "status"),
    [
        (OWN, (), 403),
        (BACKEND, (), 403),
        (replace(CLINICIAN, fhir_user=""), (), 403),
        (CLINICIAN, ("Patient/none",), 404),
        (CLINICIAN, ("Observation/a",), 400),
        (CLINICIAN, ("http://other.example/fhir/Patient/a",), 400),
        (CLINICIAN, ("Patient/a", " "), 400),
        (CLINICIAN, ("Patient/a", "x" * 1001), 400),
    ],
)
async def test_who_may_not_and_what_is_no_reason(
    site: Server, principal: Principal, asks: tuple[str, ...], status: int
) -> None:
    """Patients, backends and who is nobody here may not; a patient and a reason are needed."""
    assert (await _break(site, principal, *asks)).status == status
    assert await _status(site, principal, "Patient/b") == 404
    assert await site.database["outbox"].count_documents({}) == 0


async def test_asking_for_patients_who_are_not_there_counts(site: Server) -> None:
    """Nobody finds out by break-glass which ids exist, but for five a day."""
    found = [(await _break(site, CLINICIAN, "Patient/none")).status for _ in range(6)]
    assert found == [404] * 5 + [429]


async def test_it_opens_no_type_that_scopes_do_not(site: Server) -> None:
    """What the scopes of the app do not open stays closed."""

    async def only_observations(principal: Principal, context: Context) -> Rights:
        rights = await everything(principal, context)
        return replace(rights, may={k: v for k, v in rights.may.items() if k[0] == "Observation"})

    assert (await _break(site)).status == 200
    narrow = replace(site, context=replace(site.context, access=only_observations))
    refused = await _asked_by(narrow, CLINICIAN, "a")
    assert refused.status == 403
