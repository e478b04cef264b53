"""https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html"""

from dataclasses import replace

import pytest

from fhir_server.app import Server
from fhir_server.dispatch import answer
from fhir_server.messages import Request, Response
from fhir_server.security.principal import NOBODY, Principal
from fhir_server.security.scopes import scopes_of

A = Principal("user", "a", "app", scopes_of("patient/*.rs patient/Observation.c"), patient="a")


@pytest.fixture
async def two_patients(server: Server) -> Server:
    """A server with patients a and b, each with an observation of their own."""
    for id in "ab":
        await server.perform(
            Request("update", "Patient", id, body={"resourceType": "Patient", "id": id})
        )
        await server.perform(Request("update", "Observation", f"o{id}", body=_observation(id)))
    return server


def _observation(patient: str, id: str = "") -> dict[str, object]:
    return {
        "resourceType": "Observation",
        "id": id or f"o{patient}",
        "status": "final",
        "code": {"text": "weight"},
        "subject": {"reference": f"Patient/{patient}"},
    }


async def _asked(server: Server, request: Request, principal: Principal) -> Response:
    context = replace(server.context, principal=principal)
    return await answer(server.registry, request, context)


@pytest.mark.parametrize(
    ("request_", "principal", "status"),
    [
        (Request("read", "Observation", "oa"), A, 200),
        (Request("read", "Observation", "ob"), A, 404),
        (Request("read", "Observation", "none"), A, 404),
        (Request("read", "Observation", "oa"), NOBODY, 401),
        (Request("capabilities"), NOBODY, 200),
        (Request("delete", "Observation", "oa"), A, 403),
        (Request("$expunge", "Observation", "oa"), A, 403),
        (Request("create", "Observation", body=_observation("a")), A, 201),
        (Request("create", "Observation", body=_observation("b")), A, 403),
    ],
)
async def test_a_patient_has_what_is_granted_of_its_own(
    two_patients: Server, request_: Request, principal: Principal, status: int
) -> None:
    """What is granted is done, what is not is refused, and what is hidden is not there."""
    body = {**request_.body} if request_.body else None
    if body and request_.interaction == "create":
        body.pop("id")
    found = await _asked(two_patients, replace(request_, body=body), principal)
    assert found.status == status


async def test_a_search_counts_what_is_visible(two_patients: Server) -> None:
    """A search finds and counts what is in the patient's compartment, and nothing else."""
    found = await _asked(two_patients, Request("search-type", "Observation"), A)
    assert b'"total":1' in found.body
    assert b"Patient/a" in found.body
    assert b"Patient/b" not in found.body


async def test_a_context_that_is_made_anew_has_all_parts_in_their_places(server: Server) -> None:
    """Quicker than ``replace``, and the same."""
    context = server.context
    asked = context.asked_by(A)
    assert asked == replace(context, principal=A)
    rights = await asked.access(A, asked)
    store = asked.store.narrowed(rights.plan("r"))
    assert asked.seeing(store, rights) == replace(asked, store=store, rights=rights)
    assert asked.store.narrowed(rights.plan("r")) is store
    assert asked.store.narrowed(rights.plan("s")).plan is rights.plan("s")
    bound = replace(asked.store, rows=[])
    assert bound.narrowed(rights.plan("r")).rows is bound.rows
