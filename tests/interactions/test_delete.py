"""https://hl7.org/fhir/R4/http.html#delete"""

import asyncio

from fhir_server.messages import Request
from tests.conftest import Fhir
from tests.interactions.asking import BASE, issues_of, json_of, patient, put, read, tags, versions

DELETE = Request("delete", "Patient", "p", base_url=BASE)
READ = Request("read", "Patient", "p", base_url=BASE)


async def test_what_was_deleted_is_gone_and_its_versions_stay(fhir: Fhir) -> None:
    """The deletion is a version: read is 410, vread of it 410, earlier versions are served."""
    await fhir(put(patient(active=True)))
    deleted = await fhir(DELETE)
    first = await fhir(Request("vread", "Patient", "p", version="1"))
    second = await fhir(Request("vread", "Patient", "p", version="2"))
    gone = await fhir(READ)

    assert (deleted.status, deleted.version, deleted.body) == (204, 2, b"")
    assert (gone.status, issues_of(gone)[0][0]) == (410, "deleted")
    assert (first.status, json_of(first)["active"]) == (200, True)
    assert second.status == 410
    assert (await fhir(Request("vread", "Patient", "p", version="3"))).status == 404


async def test_deleting_again_changes_nothing(fhir: Fhir) -> None:
    """A second deletion succeeds and makes no version."""
    await fhir(put(patient()))
    first = await fhir(DELETE)
    second = await fhir(DELETE)

    assert (second.status, second.version) == (204, 2)
    assert second.last_updated == first.last_updated
    assert tags(await versions(fhir, "Patient/p")) == [2, 1]


async def test_deleting_what_never_was_leaves_no_trace(fhir: Fhir) -> None:
    """The answer is a success; read stays 404 and history too."""
    assert (await fhir(DELETE)).status == 204
    assert (await fhir(READ)).status == 404
    assert (await fhir(Request("history-instance", "Patient", "p"))).status == 404


async def test_what_was_deleted_can_be_brought_back(fhir: Fhir) -> None:
    """A PUT after a deletion is 201 with the next version; the history says all of it."""
    await fhir(put(patient(active=True)))
    await fhir(DELETE)
    back = await fhir(put(patient(active=True)))
    history = await versions(fhir, "Patient/p")

    assert (back.status, back.version) == (201, 3)
    assert (await read(fhir, "Patient/p"))["meta"]["versionId"] == "3"
    assert tags(history) == [3, 2, 1]
    assert [one["request"]["method"] for one in history] == ["PUT", "DELETE", "PUT"]
    assert ["resource" in one for one in history] == [True, False, True]
    assert (await fhir(Request("vread", "Patient", "p", version="2"))).status == 410


async def test_a_deletion_of_another_version_is_refused(fhir: Fhir) -> None:
    """If-Match holds for deletions too."""
    await fhir(put(patient()))
    await fhir(put(patient(active=True)))
    refused = await fhir(Request("delete", "Patient", "p", if_match=frozenset({"1"})))
    done = await fhir(Request("delete", "Patient", "p", if_match=frozenset({"2"})))

    assert (refused.status, issues_of(refused)[0][0]) == (412, "conflict")
    assert (done.status, done.version) == (204, 3)


async def test_concurrent_deletions_make_one_version(fhir: Fhir) -> None:
    """32 deletions of one resource all succeed and leave one tombstone."""
    await fhir(put(patient()))
    answers = await asyncio.gather(*(fhir(DELETE) for _ in range(32)))

    assert {(answer.status, answer.version) for answer in answers} == {(204, 2)}
    assert tags(await versions(fhir, "Patient/p")) == [2, 1]


async def test_deletions_and_updates_that_meet_lose_nothing(fhir: Fhir) -> None:
    """32 updates and 32 deletions at once: every write that was told a version is in history."""
    asked = [put(patient(multipleBirthInteger=n)) if n % 2 else DELETE for n in range(64)]
    answers = await asyncio.gather(*map(fhir, asked))
    history = await versions(fhir, "Patient/p")
    updated = {a.version for a in answers if a.status in (200, 201)}
    deleted = {a.version for a in answers if a.status == 204} - {0}

    assert {answer.status for answer in answers} <= {200, 201, 204}
    assert len(updated) == 32
    assert not updated & deleted
    assert tags(history) == list(range(len(history), 0, -1))
    assert updated == {v for v, e in zip(tags(history), history, strict=True) if "resource" in e}
    assert deleted == set(tags(history)) - updated


async def test_a_deletion_says_what_it_did_if_asked(fhir: Fhir) -> None:
    """Prefer: return=OperationOutcome makes it 200 with a word about the resource."""
    await fhir(put(patient()))
    wish = {"return": "OperationOutcome"}
    response = await fhir(Request("delete", "Patient", "p", prefer=wish))

    assert response.status == 200
    assert "Patient/p was deleted" in json_of(response)["issue"][0]["diagnostics"]
