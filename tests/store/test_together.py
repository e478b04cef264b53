"""https://www.mongodb.com/docs/manual/core/transactions-operations/: look-ups that go together."""

import pytest

from fhir_server.app import Server
from fhir_server.messages import Request
from fhir_server.store import together
from fhir_server.store.inbox import Row
from fhir_server.store.resources import ResourceStore
from fhir_server.store.together import Answers, Named, TooMuchTogether
from tests.conftest import Fhir
from tests.store.conftest import Commands

NAMED = [
    Named("Patient", identifiers=(("urn:a", "1"), ("", "2"))),
    Named("Patient", ids=("p1", "gone", "never")),
    Named("Device", ids=("none",)),
    Named("Patient", identifiers=(("urn:a", "2"),)),
]


@pytest.fixture
async def filled(server: Server, fhir: Fhir) -> Server:
    """Two Patients, one that was deleted, and what was said of two of them."""
    for id, system, value in (("p1", "urn:a", "1"), ("p2", "", "2"), ("gone", "urn:a", "1")):
        identifier = {"value": value} | ({"system": system} if system else {})
        body = {"resourceType": "Patient", "id": id, "identifier": [identifier]}
        assert (await fhir(Request("update", "Patient", id, body=body))).status == 201
    await fhir(Request("delete", "Patient", "gone"))
    inbox = server.context.store.inbox
    await inbox.ensure()
    await inbox.insert(
        Row("row", 1, "done", server.context.now(), key="F|A|1", digest=b"d", raw=b"MSH")
    )
    said = [{"_id": f"Patient/{id}", "said": "2026", "row": "row"} for id in ("p1", "p2")]
    await inbox.set_origins(said, ())
    return server


async def _asked(server: Server, *, apart: bool, key: str = "F|A|1") -> Answers:
    async def work(store: ResourceStore) -> Answers:
        return await store.together(NAMED, key, apart=apart)

    return await server.context.store.in_transaction(work, ["Patient"])


def _ids(answers: Answers) -> list[list[str]]:
    return [sorted(one["_id"] for one in documents) for documents in answers.documents]


@pytest.mark.parametrize("apart", [False, True])
async def test_each_question_has_its_own_answer(filled: Server, apart: bool) -> None:
    """By number and by id, with what was said of them; a deletion is found by its id only."""
    found = await _asked(filled, apart=apart)

    assert _ids(found) == [["p1", "p2"], ["gone", "p1"], [], []]
    assert set(found.origins) == {"Patient/p1", "Patient/p2"}
    assert found.row is not None
    assert (found.row.id, found.row.digest, found.row.raw) == ("row", b"d", b"")
    assert next(one for one in found.documents[1] if one["_id"] == "gone")["deleted"]


@pytest.mark.parametrize("apart", [False, True])
async def test_a_key_that_no_row_has(filled: Server, apart: bool) -> None:
    """There is no row, and everything else is found."""
    found = await _asked(filled, apart=apart, key="F|A|2")

    assert found.row is None
    assert _ids(found)[0] == ["p1", "p2"]


async def test_one_command(listened: Server, commands: Commands) -> None:
    """However many questions there are, they are one command; many ids are asked one by one."""
    store = listened.context.store
    await store.inbox.ensure()
    commands.sent.clear()
    await store.together(NAMED, "F|A|1")
    assert len(commands.named("aggregate", "find")) == 1

    many = Named("Patient", ids=tuple(f"n{number}" for number in range(together._IDS_MAX + 1)))
    await store.together([many, NAMED[1]], "F|A|1")
    assert len(commands.named("aggregate", "find")) == 1 + 5


async def test_too_much_for_one_answer(server: Server, fhir: Fhir) -> None:
    """What has over 16 MiB together is refused as a whole, and found when asked apart."""
    await server.context.store.inbox.ensure()
    long = [{"url": "urn:long", "valueString": "x" * 900_000}] * 4
    for number in range(5):
        code = {"text": "long", "extension": long}
        body = {"resourceType": "Basic", "id": f"b{number}", "code": code}
        assert (await fhir(Request("update", "Basic", f"b{number}", body=body))).status == 201
    named = [Named("Basic", ids=("b0", "b1")), Named("Basic", ids=("b2", "b3", "b4"))]
    attempts = []

    async def work(store: ResourceStore) -> Answers:
        attempts.append(1)
        return await store.together(named, apart=len(attempts) > 1)

    with pytest.raises(TooMuchTogether):
        await server.context.store.together(named)
    found = await server.context.store.in_transaction(work, ["Basic"])
    assert len(attempts) == 2
    assert [len(documents) for documents in found.documents] == [2, 3]
