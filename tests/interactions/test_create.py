"""https://hl7.org/fhir/R4/http.html#create"""

import asyncio
from dataclasses import replace

import pytest

from fhir_server.app import opened
from fhir_server.dispatch import answer
from fhir_server.messages import Request
from fhir_server.settings import Settings
from tests.conftest import Fhir
from tests.interactions.asking import issues_of, json_of, patient, read, versions


async def test_a_created_resource_gets_an_id_of_ours(fhir: Fhir) -> None:
    """The answer is 201 with version 1 and its location; id, version and time sent are ignored."""
    sent = patient(
        "mine", active=True, meta={"versionId": "9", "lastUpdated": "2001-01-01T00:00:00Z"}
    )
    response = await fhir(Request("create", "Patient", body=sent))
    id = json_of(response)["id"]

    assert (response.status, response.version) == (201, 1)
    assert id != "mine"
    assert response.location == f"Patient/{id}/_history/1"
    assert json_of(response)["meta"]["versionId"] == "1"
    assert await read(fhir, f"Patient/{id}") == json_of(response)
    assert (await fhir(Request("read", "Patient", "mine"))).status == 404


async def test_concurrent_creates_are_all_there(fhir: Fhir) -> None:
    """64 creates make 64 resources, each with a history of one version that says POST."""
    answers = await asyncio.gather(
        *(
            fhir(
                Request(
                    "create", "Patient", body={"resourceType": "Patient", "multipleBirthInteger": n}
                )
            )
            for n in range(64)
        )
    )
    ids = [json_of(one)["id"] for one in answers]

    assert len(set(ids)) == 64
    for n, id in enumerate(ids):
        assert (await read(fhir, f"Patient/{id}"))["multipleBirthInteger"] == n
    [only] = await versions(fhir, f"Patient/{ids[0]}")
    assert only["request"] == {"method": "POST", "url": "Patient"}


async def test_an_id_that_is_taken_does_not_overwrite(
    fhir: Fhir, settings: Settings, mongodb_uri: str
) -> None:
    """Should a new id be there already, the resource there stays what it is."""
    await fhir(Request("update", "Patient", "taken", body=patient("taken", active=True)))
    ids = iter(["taken", "free"])
    hasty = settings.model_copy(update={"write_timeout_s": 0.5})
    async with opened(hasty, mongodb_uri) as other:
        context = replace(other.context, new_id=lambda: next(ids))
        created = Request("create", "Patient", body={"resourceType": "Patient"})
        await answer(other.registry, created, context)

    assert (await read(fhir, "Patient/taken"))["active"] is True


REFUSED = {
    "no body": (None, 400),
    "another type": ({"resourceType": "Basic"}, 400),
    "no type": ({}, 400),
}


@pytest.mark.parametrize(("body", "status"), REFUSED.values(), ids=REFUSED)
async def test_what_cannot_be_created(fhir: Fhir, body: dict[str, str] | None, status: int) -> None:
    """A body that is missing or of another type is refused, and nothing is written."""
    response = await fhir(Request("create", "Patient", body=body))
    history = await fhir(Request("history-type", "Patient"))

    assert response.status == status
    assert issues_of(response)
    assert "entry" not in json_of(history)
