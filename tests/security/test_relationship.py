"""design/security.md, section 3.1: the patients that somebody cares for."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from fhir_server.app import Server
from fhir_server.dispatch import answer
from fhir_server.interactions.access import AccessRights, Joined
from fhir_server.interactions.relationship import patients_of
from fhir_server.messages import Request
from fhir_server.settings import Settings
from fhir_server.store.changes import Change
from tests.security.principals import user

NURSE = user("n", roles=("nurse",), fhir_user="Practitioner/n")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Nurses see the patients they care for."""
    return settings.model_copy(update={"care_relationship": ("nurse",)})


def _to(reference: str) -> dict[str, str]:
    return {"reference": reference}


def _team(id: str, who: str, **members: Any) -> dict[str, Any]:
    about = {"subject": _to(f"Patient/{id}"), "participant": [{"member": _to(who)}]}
    return {"resourceType": "CareTeam", "id": id, "status": "active", **about, **members}


def _visit(id: str, who: str, **members: Any) -> dict[str, Any]:
    about = {"subject": _to(f"Patient/{id}"), "participant": [{"individual": _to(who)}]}
    coded = {"class": {"code": "AMB"}, "status": "in-progress"}
    return {"resourceType": "Encounter", "id": id, **coded, **about, **members}


def _booking(id: str, who: str, day: str, **members: Any) -> dict[str, Any]:
    actors = [{"actor": _to(one), "status": "accepted"} for one in (who, f"Patient/{id}")]
    times = {"start": f"{day}T10:00:00Z", "end": f"{day}T10:30:00Z", "participant": actors}
    return {"resourceType": "Appointment", "id": id, "status": "booked", **times, **members}


def _world(server: Server) -> list[dict[str, Any]]:
    now = server.context.now()
    soon, past = (f"{now + timedelta(days=days):%Y-%m-%d}" for days in (2, -100))
    me, role, other = "Practitioner/n", "PractitionerRole/r", "Practitioner/o"
    worker = {"resourceType": "PractitionerRole", "practitioner": _to(me)}
    return [
        {**worker, "id": "r"},
        {**worker, "id": "old", "active": False},
        _team("team", me),
        _team("role", role),
        _team("former-role", "PractitionerRole/old"),
        _team("ended-team", me, status="inactive"),
        _team("others", other),
        _team("friend", "Patient/team"),
        _visit("visit", me),
        _visit("ended-visit", me, status="finished"),
        _booking("booking", me, soon),
        _booking("old-booking", me, past),
        _booking("cancelled", me, soon, status="cancelled"),
    ]


async def _written(server: Server, resources: list[dict[str, Any]]) -> None:
    changes = [Change("update", one["resourceType"], one["id"], one) for one in resources]
    cancelled = [
        one for one in changes if one.resource and one.resource.get("status") == "cancelled"
    ]
    booked = [
        replace(one, resource={**(one.resource or {}), "status": "booked"}) for one in cancelled
    ]
    for some in (booked, changes):  # no future appointment is new and cancelled
        await server.context.store.write(some, server.context.now())


async def test_who_is_cared_for(server: Server) -> None:
    """Teams, visits and bookings that are under way count, of oneself and of one's roles."""
    await _written(server, _world(server))
    found = await patients_of("Practitioner/n", server.context)

    assert found == {f"Patient/{id}" for id in ("team", "role", "visit", "booking")}
    assert await patients_of("Practitioner/x", server.context) == frozenset()
    assert await patients_of("Patient/team", server.context) == frozenset()
    assert await patients_of("", server.context) == frozenset()


async def test_a_relationship_opens_its_patient_and_no_other(server: Server) -> None:
    """A nurse sees who has a visit, and, when it is over, not any more."""
    people = [{"resourceType": "Patient", "id": id} for id in ("visit", "x")]
    await _written(server, [*people, _visit("visit", "Practitioner/n")])

    async def statuses() -> list[int]:
        context = replace(server.context, principal=NURSE, access=AccessRights())
        asked = [Request("read", "Patient", id) for id in ("visit", "x")]
        return [(await answer(server.registry, one, context)).status for one in asked]

    assert await statuses() == [200, 404]
    await _written(server, [_visit("visit", "Practitioner/n", status="finished")])
    assert await statuses() == [404, 404]


async def test_those_who_ask_at_once_share_a_look() -> None:
    """One look answers all who ask meanwhile; who gives up does not end it for the others."""
    looks = []
    going_on = asyncio.Event()

    async def look() -> int:
        looks.append(1)
        await going_on.wait()
        return 42

    joined: Joined[int] = Joined()
    asked = [asyncio.ensure_future(joined.get("key", look)) for _ in range(3)]
    await asyncio.sleep(0)
    asked[0].cancel()
    going_on.set()

    assert await asyncio.gather(*asked[1:]) == [42, 42]
    assert await joined.get("key", look) == 42
    assert len(looks) == 1


async def test_a_look_that_failed_is_made_again() -> None:
    """What the database could not say is no answer for the next second."""
    failures = [ValueError("lost")]

    async def look() -> int:
        if failures:
            raise failures.pop()
        return 1

    joined: Joined[int] = Joined()
    with pytest.raises(ValueError, match="lost"):
        await joined.get("key", look)
    assert await joined.get("key", look) == 1
