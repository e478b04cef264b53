"""https://hl7.org/fhir/R4/http.html#concurrency: a server may demand If-Match."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from fhir_server.app import Server, opened
from fhir_server.messages import Request
from fhir_server.patch.formats import MERGE_PATCH, as_binary
from fhir_server.r4.json import decode
from fhir_server.settings import Settings
from tests.conftest import Emptied, Fhir
from tests.interactions.asking import BASE, bundle, entry, issues_of, patient, put, statuses

ONE, ANY = frozenset({"1"}), frozenset({"*"})
ACTIVE = as_binary(MERGE_PATCH, b'{"active":true}')
PARAMETERS = {
    "resourceType": "Parameters",
    "parameter": [{"name": "meta", "valueMeta": {"tag": [{"code": "x"}]}}],
}
CHANGES = {
    "update": put(patient(active=True)),
    "patch": Request("patch", "Patient", "p", body=ACTIVE),
    "delete": Request("delete", "Patient", "p"),
    "$meta-add": Request("$meta-add", "Patient", "p", body=PARAMETERS),
    "conditional-update": Request(
        "conditional-update", "Patient", body=patient(active=True), parameters=(("_id", "p"),)
    ),
    "conditional-patch": Request(
        "conditional-patch", "Patient", body=ACTIVE, parameters=(("_id", "p"),)
    ),
    "conditional-delete": Request("conditional-delete", "Patient", parameters=(("_id", "p"),)),
}


@pytest.fixture
def settings(emptied: Emptied) -> Iterator[Settings]:
    """Settings that demand a version for changes of Patients."""
    with emptied.one() as name:
        yield Settings.model_validate({"mongodb_database": name, "versioned_updates": "Patient"})


@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_without_a_version_is_refused(fhir: Fhir, name: str) -> None:
    """400 without If-Match and with ``*``, which names none; with the version it is made."""
    await fhir(put(patient()))
    request = CHANGES[name]

    refused = [await fhir(replace(request, if_match=one)) for one in (None, ANY)]
    stale = await fhir(replace(request, if_match=frozenset({"9"})))
    made = await fhir(replace(request, if_match=ONE))

    assert [one.status for one in refused] == [400, 400]
    assert issues_of(refused[0]) == [("required", "")]
    assert (stale.status, made.status, made.version) == (412, 204 if "delete" in name else 200, 2)


async def test_what_is_not_there_needs_no_version(fhir: Fhir) -> None:
    """Creating, creating by update, and writing again what was deleted."""
    assert (await fhir(put(patient()))).status == 201
    assert (
        await fhir(Request("create", "Patient", body={"resourceType": "Patient"}))
    ).status == 201
    await fhir(Request("delete", "Patient", "p", if_match=ONE))
    assert (await fhir(Request("delete", "Patient", "p"))).status == 204
    assert (await fhir(put(patient()))).status == 201


async def test_other_types_need_none(fhir: Fhir) -> None:
    """The setting lists types."""
    await fhir(put({"resourceType": "Practitioner", "id": "p"}))
    answer = await fhir(put({"resourceType": "Practitioner", "id": "p", "active": True}))
    assert (answer.status, answer.version) == (200, 2)


async def test_in_a_bundle(fhir: Fhir) -> None:
    """Bundle.entry.request.ifMatch; without it the entry is named."""
    await fhir(put(patient()))

    bare = await fhir(bundle(entry("PUT", "Patient/p", patient(active=True))))
    named = await fhir(bundle(entry("PUT", "Patient/p", patient(active=True), ifMatch='W/"1"')))

    assert (bare.status, issues_of(bare)) == (400, [("required", "Bundle.entry[0]")])
    assert statuses(named) == ["200"]


@pytest.mark.parametrize(
    ("text", "types"),
    [
        ("*", ("*",)),
        ("Patient, Encounter", ("Patient", "Encounter")),
        ('["Patient"]', ("Patient",)),
        ("", ()),
    ],
)
def test_how_types_are_listed(
    text: str, types: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the environment: with commas, as JSON, or all."""
    monkeypatch.setenv("FHIR_VERSIONED_UPDATES", text)

    assert Settings().versioned_updates == types


async def test_a_type_that_is_none_stops_the_start(mongodb_uri: str) -> None:
    """And is named."""
    wrong = Settings.model_validate({"versioned_updates": "Patent"})

    with pytest.raises(ValueError, match=r"FHIR_VERSIONED_UPDATES.*Patent.*Patient"):
        async with opened(wrong, mongodb_uri):
            pass


async def test_it_is_claimed(server: Server) -> None:
    """CapabilityStatement.rest.resource.versioning, per type."""
    statement = decode(server.context.capabilities(BASE)[0])
    versioning = {one["type"]: one["versioning"] for one in statement["rest"][0]["resource"]}

    assert versioning["Patient"] == "versioned-update"
    assert versioning["Practitioner"] == "versioned"
