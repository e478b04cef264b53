"""design/security.md, section 3.1: what is written may be of nobody but those who are reached."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from fhir_server.app import Server
from fhir_server.dispatch import answer
from fhir_server.interactions.access import AccessRights
from fhir_server.messages import Request, Response
from fhir_server.r4.json import decode
from fhir_server.security.principal import Principal
from fhir_server.settings import Settings
from fhir_server.store.changes import Change
from tests.security.principals import user

NURSE = user("n", roles=("nurse",), fhir_user="Practitioner/n")
A = user("a", "patient/*.cruds", patient="a", fhir_user="Patient/a")
A_WITHOUT_APP = user("a", roles=("patient",), fhir_user="Patient/a")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Nurses see the patients they care for."""
    return settings.model_copy(update={"care_relationship": ("nurse",)})


@pytest.fixture
async def clinic(server: Server) -> Server:
    """Patients a and b; the nurse n has a visit of a."""
    visit = {
        "resourceType": "Encounter",
        "id": "v",
        "status": "in-progress",
        "class": {"code": "AMB"},
        "subject": _to("Patient/a"),
        "participant": [{"individual": _to("Practitioner/n")}],
    }
    people = [{"resourceType": "Patient", "id": id} for id in "ab"]
    await _put(server, *people, visit, _allergy("shared", "b", recorder=_to("Patient/a")))
    context = replace(server.context, access=AccessRights())
    return replace(server, context=context)


def _to(reference: str) -> dict[str, str]:
    return {"reference": reference}


def _allergy(id: str, patient: str, **members: Any) -> dict[str, Any]:
    body = {"resourceType": "AllergyIntolerance", "code": {"text": "x"}}
    return body | ({"id": id} if id else {}) | {"patient": _to(f"Patient/{patient}")} | members


def _booking(server: Server, *who: str) -> dict[str, Any]:
    day = f"{server.context.now() + timedelta(days=2):%Y-%m-%d}"
    actors = [{"actor": _to(one), "status": "accepted"} for one in who]
    times = {"start": f"{day}T10:00:00Z", "end": f"{day}T10:30:00Z", "participant": actors}
    return {"resourceType": "Appointment", "status": "booked", **times}


async def _put(server: Server, *resources: dict[str, Any]) -> None:
    changes = [Change("update", one["resourceType"], one["id"], one) for one in resources]
    await server.context.store.write(changes, server.context.now())


async def _asked(server: Server, request: Request, principal: Principal) -> Response:
    return await answer(server.registry, request, replace(server.context, principal=principal))


async def _created(server: Server, body: dict[str, Any], principal: Principal) -> int:
    return (
        await _asked(server, Request("create", body["resourceType"], body=body), principal)
    ).status


async def test_nobody_gives_themselves_a_relationship(clinic: Server) -> None:
    """A booking of a patient who is cared for, and of another, does not open that other one."""
    both = _booking(clinic, "Practitioner/n", "Patient/a", "Patient/b")
    team = {
        "resourceType": "CareTeam",
        "status": "active",
        "subject": _to("Patient/b"),
        "participant": [{"member": _to(one)} for one in ("Practitioner/n", "Patient/a")],
    }

    assert await _created(clinic, both, NURSE) == 403
    assert await _created(clinic, team, NURSE) == 403
    assert await _created(clinic, _booking(clinic, "Practitioner/n", "Patient/a"), NURSE) == 201
    assert (await _asked(clinic, Request("read", "Patient", "b"), NURSE)).status == 404


async def test_a_patient_writes_nothing_into_the_record_of_another(clinic: Server) -> None:
    """To have recorded something oneself does not make it one's own."""
    of_other = _allergy("", "b", recorder=_to("Patient/a"))
    answers = {
        "resourceType": "QuestionnaireResponse",
        "status": "completed",
        "subject": _to("Patient/b"),
        "author": _to("Patient/a"),
    }

    assert await _created(clinic, of_other, A) == 403
    assert await _created(clinic, _allergy("", "a", recorder=_to("Patient/a")), A) == 201
    assert await _created(clinic, answers, A_WITHOUT_APP) == 403
    assert await _created(clinic, {**answers, "subject": _to("Patient/a")}, A_WITHOUT_APP) == 201


async def test_a_patient_changes_nothing_that_is_also_of_another(clinic: Server) -> None:
    """It is seen, since R4 has it in both compartments, and stays as it is."""
    place = "AllergyIntolerance", "shared"
    body = _allergy("shared", "b", recorder=_to("Patient/a"), code={"text": "none"})
    found = await _asked(clinic, Request("read", *place), A)

    assert decode(found.body)["patient"] == _to("Patient/b")
    assert (await _asked(clinic, Request("update", *place, body=body), A)).status == 403
    assert (await _asked(clinic, Request("delete", *place), A)).status == 403
