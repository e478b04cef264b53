"""https://hl7.org/fhir/R4/http.html#delete and https://hl7.org/fhir/R4/references.html#integrity"""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from fhir_server.app import Server, opened
from fhir_server.dispatch import answer
from fhir_server.messages import Request, Resource, Response
from fhir_server.r4.json import decode
from fhir_server.settings import Settings
from fhir_server.store import transactions, writer
from tests.conftest import Emptied, Fhir
from tests.interactions.asking import (
    BASE,
    bundle,
    entry,
    issues_of,
    json_of,
    patient,
    put,
    statuses,
)

KEPT = "referential_integrity"
CHECKED = "reference_targets_checked"


@pytest.fixture
def settings(emptied: Emptied, request: pytest.FixtureRequest) -> Iterator[Settings]:
    """Settings with what the test is parametrized by; both for all types if it is not."""
    chosen = getattr(request, "param", {KEPT: "*", CHECKED: "*"})
    with emptied.one() as name:
        yield Settings.model_validate({"mongodb_database": name, **chosen})


def of(*chosen: dict[str, str]) -> Any:
    """Run a test with each of these settings."""
    return pytest.mark.parametrize("settings", chosen, indirect=True, ids=str)


def weight(id: str = "o", subject: str = "Patient/p", **members: Any) -> Resource:
    """Return an Observation of ``subject``."""
    return {
        "resourceType": "Observation",
        "id": id,
        "status": "final",
        "code": {"text": "Weight"},
        "subject": {"reference": subject},
        **members,
    }


def gone(place: str) -> Request:
    """Return the deletion of ``place``."""
    type, _, id = place.partition("/")
    return Request("delete", type, id)


def why(response: Response) -> str:
    """Return what a refusal says."""
    return str(json_of(response)["issue"][0]["diagnostics"])


@of({}, {CHECKED: "*"}, {KEPT: "Practitioner"})
async def test_without_the_setting_everything_can_be_deleted(fhir: Fhir) -> None:
    """The default; and for types that are not listed."""
    await fhir(put(patient()))
    await fhir(put(weight()))

    assert (await fhir(gone("Patient/p"))).status == 204


@of({KEPT: "*"}, {KEPT: "Patient"}, {KEPT: "*", CHECKED: "*"})
async def test_what_is_referred_to_is_not_deleted(fhir: Fhir) -> None:
    """409 with who refers to it; when nobody does any more, it is deleted."""
    await fhir(put(patient()))
    for reference in ("Patient/p", "Patient/p/_history/1", "http://localhost:8080/fhir/Patient/p"):
        await fhir(put(weight(subject=reference)))
        refused = await fhir(gone("Patient/p"))
        assert (refused.status, issues_of(refused)) == (409, [("conflict", "")]), reference
        assert "Observation/o" in why(refused)

    await fhir(put({**weight(), "subject": {"display": "?"}}))

    assert (await fhir(gone("Patient/p"))).status == 204


@of({KEPT: "*"})
async def test_ten_of_those_who_refer_are_named(fhir: Fhir) -> None:
    """The rest are *others*; the deleted do not count, nor who only resembles."""
    await fhir(put(patient()))
    await fhir(put(patient("pp")))
    await fhir(put(weight("other", "Patient/pp")))
    for number in range(12):
        await fhir(put(weight(f"o{number}")))
    await fhir(gone("Observation/o0"))

    text = why(await fhir(gone("Patient/p")))

    assert text.count("Observation/") == 10
    assert "and others" in text
    assert "other " not in text.replace("others", "")


@of({KEPT: "*"})
async def test_together_they_can_be_deleted(fhir: Fhir) -> None:
    """In a transaction, in any order; not with one of them left, and then nothing is."""
    await fhir(put(patient()))
    await fhir(
        put(patient("self", link=[{"type": "seealso", "other": {"reference": "Patient/self"}}]))
    )
    await fhir(put(weight("a")))
    await fhir(put(weight("b")))
    deletions = [entry("DELETE", url) for url in ("Patient/p", "Observation/a", "Observation/b")]

    part = await fhir(bundle(*deletions[:2]))
    rest = await fhir(bundle(*deletions))

    assert (part.status, issues_of(part)) == (409, [("conflict", "Bundle.entry[0]")])
    assert (rest.status, statuses(rest)) == (200, ["204"] * 3)
    assert (await fhir(gone("Patient/self"))).status == 204


@of({KEPT: "*"})
async def test_many_at_once_are_judged_each_for_itself(fhir: Fhir) -> None:
    """Writes that are committed together do not share a refusal."""
    for number in range(20):
        await fhir(put(patient(f"p{number}")))
    for number in range(0, 20, 2):
        await fhir(put(weight(f"o{number}", f"Patient/p{number}")))

    answers = await asyncio.gather(*(fhir(gone(f"Patient/p{number}")) for number in range(20)))

    assert [one.status for one in answers] == [409, 204] * 10


@of({CHECKED: "*"})
async def test_refused_references_do_not_all_try_again_at_once(
    fhir: Fhir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a batch those at fault are told apart: they are made alone, a few at a time, and the
    others together."""
    tries: list[int] = [0]
    transacted = transactions.transacted

    async def counted(*arguments: Any) -> Any:
        tries.append(tries[0])
        tries[0] += 1
        try:
            return await transacted(*arguments)
        finally:
            tries[0] -= 1

    await fhir(put(patient()))
    await fhir(put(weight()))
    monkeypatch.setattr(writer, "transacted", counted)
    wanted = [weight(f"o{n}", "Patient/p" if n % 3 else "Patient/none") for n in range(90)]
    answers = await asyncio.gather(*map(fhir, map(put, wanted)))

    assert [one.status for one in answers] == [422, 201, 201] * 30
    assert max(tries[1:]) < 2 + 4
    assert len(tries) < 30 + 15


@of({KEPT: "Patient"})
async def test_a_conditional_delete_is_a_delete(fhir: Fhir) -> None:
    """It is refused like one by id."""
    await fhir(put(patient(active=True)))
    await fhir(put(weight()))
    request = Request("conditional-delete", "Patient", parameters=(("active", "true"),))

    assert (await fhir(request)).status == 409


@of({CHECKED: "Patient"}, {CHECKED: "*", KEPT: "*"})
async def test_a_reference_that_leads_to_nothing(fhir: Fhir) -> None:
    """422 with its place, for what never was and what was deleted; wherever it stands."""
    await fhir(put(patient("q")))
    await fhir(put(patient("gone")))
    await fhir(gone("Patient/gone"))
    note: Any = {"note": [{"text": "?", "authorReference": {"reference": "Patient/none"}}]}

    answers = [
        await fhir(put(weight())),
        await fhir(put(weight(subject="Patient/gone"))),
        await fhir(put(weight(subject="Patient/q", **note))),
    ]

    assert [one.status for one in answers] == [422, 422, 422]
    assert [issues_of(one)[0][1] for one in answers] == [
        *("Observation.subject", "Observation.subject", "Observation.note.authorReference"),
    ]
    for fine in ("Patient/q", "http://elsewhere.example/Patient/1", "urn:uuid:1", "#c"):
        inside = {"contained": [{"resourceType": "Patient", "id": "c"}]} if fine == "#c" else {}
        written = await fhir(put(weight("fine", fine, **inside)))
        assert written.status in (200, 201), (fine, written.body)


@of({CHECKED: "Patient"})
async def test_what_refers_to_nothing_already_can_be_changed(server: Server, fhir: Fhir) -> None:
    """Only references that a write adds are looked at: a setting must not lock what is there."""
    await fhir(put(patient()))
    await fhir(put(weight()))
    await fhir(gone("Patient/p"))

    again = await fhir(put(weight(status="amended")))
    new = await fhir(put(weight(status="amended", performer=[{"reference": "Patient/none"}])))

    assert (again.status, new.status) == (200, 422)


async def test_entries_of_a_transaction_refer_to_each_other(fhir: Fhir) -> None:
    """In whatever order they are written, by way of criteria as well."""
    urn = "urn:uuid:6f1c3a52-5a67-4c8e-9a6e-0f4b6f0f7a11"
    organization = {"resourceType": "Organization", "id": "org", "name": "Org"}
    await fhir(put(organization))
    member = {
        "resourceType": "Patient",
        "managingOrganization": {"reference": "Organization?name=Org"},
    }

    made = await fhir(
        bundle(
            entry("POST", "Observation", {**weight(), "subject": {"reference": urn}}),
            entry("POST", "Patient", member, urn),
        )
    )
    dangling = await fhir(
        bundle(
            entry("POST", "Observation", weight(subject="Patient/none")),
            entry("POST", "Patient", {**member, "active": True}),
        )
    )

    assert (made.status, statuses(made)) == (200, ["201", "201"]), made.body
    assert dangling.status == 422


async def test_a_deletion_and_a_reference_in_one_transaction(fhir: Fhir) -> None:
    """What is deleted cannot be referred to by what is written beside it."""
    await fhir(put(patient()))

    answer = await fhir(
        bundle(entry("DELETE", "Patient/p"), entry("POST", "Observation", weight()))
    )

    assert answer.status in (409, 422)
    assert (await fhir(Request("read", "Patient", "p"))).status == 200


async def test_of_a_deletion_and_a_reference_at_once_one_is_made(
    server: Server, mongodb_uri: str, settings: Settings
) -> None:
    """Through two servers, 25 times: never a reference that leads to nothing."""
    async with opened(settings, mongodb_uri) as second:
        for number in range(25):
            place = f"Patient/p{number}"
            await answer(server.registry, put(patient(f"p{number}")), server.context)
            deletion, reference = await asyncio.gather(
                answer(server.registry, gone(place), server.context),
                answer(second.registry, put(weight(f"o{number}", place)), second.context),
            )
            assert (deletion.status, reference.status) in {(204, 422), (409, 201)}


async def test_it_is_claimed_where_it_is_whole(server: Server) -> None:
    """CapabilityStatement.rest.resource.referencePolicy."""
    statement = decode(server.context.capabilities(BASE)[0])

    assert "enforced" in statement["rest"][0]["resource"][0]["referencePolicy"]
