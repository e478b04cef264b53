"""Section 4 of design/security.md: one record for each request and each entry of a bundle."""

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from fhir_server.app import Server, opened
from fhir_server.dispatch import answer
from fhir_server.interactions.recording import note
from fhir_server.messages import Request, Response
from fhir_server.security.audit import Row
from fhir_server.security.chain import Verifier
from fhir_server.security.principal import DEMO, NOBODY, Principal
from fhir_server.settings import Settings
from fhir_server.store.audit import AUDIT
from fhir_server.store.resources import ResourceStore
from tests.conftest import drop

ANNA = Principal("demo", "anna", token="t1", address="10.0.0.7", request_id="r1")
PATIENT = {"resourceType": "Patient", "id": "1", "name": [{"family": "Khan"}]}


async def ask(
    server: Server, did: str, type: str = "", id: str = "", by: Principal = ANNA, **said: Any
) -> Response:
    """Ask the front door."""
    context = replace(server.context, principal=by)
    return await answer(server.registry, Request(did, type, id, **said), context)


async def rows(server: Server) -> list[dict[str, Any]]:
    """Return what was recorded, in order; and see that it hangs together."""
    audit = server.context.store.audit
    assert audit is not None
    await audit.flushed()
    found = await server.database[AUDIT].find().sort("_id", 1).to_list()
    verifier = Verifier(server.audit_keys, audit.heads)
    faults = [fault for row in found for fault in verifier.take(row)]
    assert [*faults, *verifier.ends()] == []
    return found


def said(row: dict[str, Any]) -> tuple[Any, ...]:
    """Return what was done to what, and how it ended."""
    place = row.get("type", "") + ("/" + row["id"] if "id" in row else "")
    return (row.get("entry", -1), row["did"], place, row["status"])


async def test_every_request_has_one_record_whatever_came_of_it(server: Server) -> None:
    """Reads, searches, changes, refusals, operations, and what is not there."""
    asked: list[tuple[tuple[str, ...], dict[str, Any], tuple[Any, ...]]] = [
        (("update", "Patient", "1"), {"body": PATIENT}, ("update", "Patient/1", 201)),
        (("update", "Patient", "1"), {"body": PATIENT}, ("update", "Patient/1", 200)),
        (("read", "Patient", "1"), {}, ("read", "Patient/1", 200)),
        (("read", "Patient", "2"), {}, ("read", "Patient/2", 404)),
        (("vread", "Patient", "1"), {"version": "1"}, ("vread", "Patient/1", 200)),
        (("history-instance", "Patient", "1"), {}, ("history-instance", "Patient/1", 200)),
        (("search-type", "Patient"), {}, ("search-type", "Patient", 200)),
        (
            ("search-type", "Patient"),
            {"parameters": (("x", "1"),)},
            ("search-type", "Patient", 400),
        ),
        (("search-type", "Nothing"), {}, ("search-type", "", 404)),
        (("create", "Patient"), {"body": {"resourceType": "Nix"}}, ("create", "Patient", 400)),
        (("$meta", "Patient", "1"), {}, ("$meta", "Patient/1", 200)),
        (("$meta", "Patient", "2"), {}, ("$meta", "Patient/2", 404)),
        (("$nothing",), {}, ("$nothing", "", 404)),
        (("capabilities",), {"base_url": "http://a/fhir"}, ("capabilities", "", 200)),
        (("delete", "Patient", "1"), {}, ("delete", "Patient/1", 204)),
        (("delete", "Patient", "1"), {}, ("delete", "Patient/1", 204)),
        (("read", "Patient", "1"), {}, ("read", "Patient/1", 410)),
        (("transaction",), {"body": {"resourceType": "Patient"}}, ("transaction", "", 400)),
    ]
    for words, members, (did, place, status) in asked:
        did, type, id = (*words, "", "")[:3]
        response = await ask(server, did, type, id, **members)
        assert response.status == status, (did, place)
    refused = await ask(server, "read", "Patient", "1", by=NOBODY)

    assert refused.status == 401
    wanted = Counter((-1, *one[2]) for one in asked) + Counter([(-1, "read", "Patient/1", 401)])
    assert Counter(map(said, await rows(server))) == wanted


async def test_a_record_says_who_asked_and_whose_data_it_was(server: Server) -> None:
    """The principal's own facts, the query, and the patients of what was found."""
    observation = {
        "resourceType": "Observation",
        "id": "o",
        "status": "final",
        "code": {"text": "x"},
        "subject": {"reference": "Patient/1"},
    }
    await ask(server, "update", "Patient", "1", body=PATIENT)
    await ask(server, "update", "Observation", "o", body=observation)
    await ask(server, "read", "Observation", "o")
    await ask(server, "search-type", "Observation", parameters=(("status", "final"),))
    await ask(server, "search-type", "Observation", parameters=(("patient", "7"),))
    await ask(server, "history-type", "Observation")
    await ask(server, "delete", "Observation", "o")

    found = await rows(server)
    others = [one for one in found if one["did"] != "search-type"]
    assert {one["did"] for one in others} == {"update", "read", "history-type", "delete"}
    assert [one["patients"] for one in others] == [["1"]] * len(others)
    searched = [(one["query"], one["patients"]) for one in found if one["did"] == "search-type"]
    assert sorted(searched) == [("patient=7", ["7"]), ("status=final", ["1"])]
    assert {tuple(one["agents"]) for one in found} == {("demo/anna",)}
    assert {(one["token"], one["address"], one["request"]) for one in found} == {
        ("t1", "10.0.0.7", "r1")
    }


def entry(method: str, url: str, resource: Any = None, **members: str) -> dict[str, Any]:
    """Return an entry of a bundle."""
    body = {"resource": resource} if resource else {}
    return {"request": {"method": method, "url": url, **members}, **body}


WRITTEN = [
    entry("POST", "Patient", {"resourceType": "Patient"}),
    entry("PUT", "Patient/1", {**PATIENT, "active": True}),
    entry("GET", "Patient/1"),
    entry("GET", "Patient?name=Khan"),
    entry("DELETE", "Patient/3"),
    entry("POST", "Patient", PATIENT, ifNoneExist="name=Khan"),
]


def bundle(type: str, entries: list[Any]) -> dict[str, Any]:
    """Return a bundle."""
    return {"resourceType": "Bundle", "type": type, "entry": entries}


def _by_entry(found: list[dict[str, Any]]) -> list[tuple[int, str, int]]:
    return sorted((one.get("entry", -1), one["did"], one["status"]) for one in found)


@pytest.mark.parametrize("type", ["transaction", "batch"])
async def test_each_entry_of_a_bundle_has_its_own_record(server: Server, type: str) -> None:
    """And the bundle one, with the entry's own interaction and status."""
    await ask(server, "update", "Patient", "1", body=PATIENT)
    before = len(await rows(server))
    response = await ask(server, "transaction", body=bundle(type, WRITTEN))

    assert response.status == 200
    found = _by_entry((await rows(server))[before:])
    assert found == [
        (-1, "transaction", 200),
        (0, "create", 201),
        (1, "update", 200),
        (2, "read", 200),
        (3, "search-type", 200),
        (4, "delete", 204),
        (5, "create", 200),
    ]


async def test_of_a_transaction_the_rows_are_one_block(server: Server) -> None:
    """What is written together is recorded together, the bundle itself included."""
    await ask(server, "transaction", body=bundle("transaction", WRITTEN[:4]))

    found = await rows(server)
    assert len({one["_id"].rpartition(".")[0] for one in found}) == 1
    assert len(found) == 5


async def test_a_refused_transaction_has_a_refused_record_for_each_entry(server: Server) -> None:
    """None of them was done, and each was asked for."""
    entries = [*WRITTEN[:3], entry("GET", "Patient/none"), entry("FOO", "a b")]
    refused = await ask(server, "transaction", body=bundle("transaction", entries))

    assert refused.status >= 400
    found = _by_entry(await rows(server))
    assert [one[0] for one in found] == [-1, 0, 1, 2, 3, 4]
    assert {one[2] for one in found} == {refused.status}
    assert await server.context.store.read("Patient", "1") is None


async def test_what_a_transaction_has_read_before_it_fails_is_no_success(server: Server) -> None:
    """Its reads are done when all is written; the record does not say they were answered."""
    entries = [*WRITTEN[:1], entry("GET", "Patient?name=x"), entry("GET", "Patient/none")]
    refused = await ask(server, "transaction", body=bundle("transaction", entries))

    assert refused.status == 404
    assert {one[2] for one in _by_entry(await rows(server))} == {404}


async def test_an_entry_of_a_batch_that_is_no_request_is_recorded(server: Server) -> None:
    """With the status that it was answered."""
    entries = [entry("GET", "Nothing/1"), entry("GET", "a/b/c/d/e"), entry("GET", "Patient/1")]
    await ask(server, "transaction", body=bundle("batch", entries))

    assert [one[0::2] for one in _by_entry(await rows(server))] == [
        (-1, 200),
        (0, 404),
        (1, 404),
        (2, 404),
    ]


async def test_what_an_operation_reads_on_its_way_is_part_of_its_record(server: Server) -> None:
    """One request, one record; and it names the patient."""
    await ask(server, "update", "Patient", "1", body=PATIENT)
    await ask(server, "$meta", "Patient", "1")

    operation = [one for one in await rows(server) if one["did"] != "update"]
    assert [(one["did"], one["patients"]) for one in operation] == [("$meta", ["1"])]


async def test_each_resource_that_a_conditional_delete_removes_is_named(
    mongodb_uri: str, settings: Settings
) -> None:
    """By a row of its own, with the criteria."""
    several = settings.model_copy(update={"conditional_delete_max": 10})
    async with opened(several, mongodb_uri) as server:
        for id in ("1", "2"):
            await ask(server, "update", "Patient", id, body={**PATIENT, "id": id})
        criteria = (("name", "Khan"),)
        await ask(server, "conditional-delete", "Patient", parameters=criteria)
        await ask(server, "conditional-delete", "Patient", parameters=criteria)
        gone = [one for one in await rows(server) if "delete" in one["did"]]

    assert sorted((one["did"], one.get("id"), one["query"]) for one in gone) == [
        ("conditional-delete", None, "name=Khan"),
        ("delete", "1", "name=Khan"),
        ("delete", "2", "name=Khan"),
    ]


async def test_a_write_that_is_told_again_is_a_request_of_its_own(server: Server) -> None:
    """Nothing is written for it, and it was asked."""
    for _ in range(3):
        await ask(server, "create", "Patient", body=PATIENT, idempotency_key="k")

    assert [one["did"] for one in await rows(server)] == ["create"] * 3


async def test_writes_that_are_committed_together_are_recorded_together(server: Server) -> None:
    """As many records as writes, also where they meet each other."""
    await asyncio.gather(
        *(
            ask(server, "update", "Patient", f"{n % 7}", body={**PATIENT, "id": f"{n % 7}"} | m)
            for n in range(100)
            for m in [{"active": bool(n % 2)}]
        )
    )

    found = await rows(server)
    assert len(found) == 100
    written = {(one["id"], one["version"]) for one in found}
    for id in range(7):
        stored = await server.context.store.read("Patient", f"{id}")
        assert stored is not None
        assert {(f"{id}", version) for version in range(1, stored.version + 1)} <= written


async def test_what_is_rolled_back_is_not_recorded(server: Server) -> None:
    """The row of a change is there if and only if the change is."""

    async def work(store: ResourceStore) -> None:
        inside = replace(server.context, store=store, principal=ANNA)
        await server.context.perform(Request("update", "Patient", "1", body=PATIENT), inside)
        raise LookupError

    with pytest.raises(LookupError):
        await server.context.store.in_transaction(work, ["Patient"])

    assert await rows(server) == []
    assert await server.context.store.read("Patient", "1") is None


async def test_a_note_is_written_when_it_returns(server: Server) -> None:
    """What others record: a sign-in that failed."""
    context = server.context
    row = Row(context.now(), "login", ANNA, query="anna", status=401, issue="login")
    await note(context, row)

    [found] = await server.database[AUDIT].find().to_list()
    assert (found["did"], found["status"], found["token"]) == ("login", 401, "t1")


async def test_the_record_of_a_read_waits_where_the_setting_is_strict(
    mongodb_uri: str, settings: Settings
) -> None:
    """It is in the database when the answer is there; of many reads at once together."""
    strict = settings.model_copy(update={"audit_reads": "strict"})
    async with opened(strict, mongodb_uri) as server:
        await ask(server, "read", "Patient", "1")
        assert await server.database[AUDIT].count_documents({}) == 1
        await asyncio.gather(*(ask(server, "read", "Patient", "1") for _ in range(50)))
        assert await server.database[AUDIT].count_documents({}) == 51
        assert await server.database[AUDIT].count_documents({"block": {"$exists": True}}) < 10


async def test_nothing_is_answered_when_too_much_waits(server: Server) -> None:
    """A full queue refuses reads and writes with 503, until it is written."""
    audit = server.context.store.audit
    assert audit is not None
    audit.queue_max = 2
    audit.add(Row(server.context.now(), "read", DEMO))
    audit.add(Row(server.context.now(), "read", DEMO))

    refused = await ask(server, "read", "Patient", "1")
    assert (refused.status, dict(refused.headers)) == (503, {"Retry-After": "2"})
    await audit.flushed()
    assert (await ask(server, "read", "Patient", "1")).status == 404


async def test_without_audit_nothing_is_recorded(mongodb_uri: str) -> None:
    """FHIR_AUDIT=false: no collection, no row."""
    fresh = Settings.model_validate({"mongodb_database": f"test-{uuid4().hex}", "audit": False})
    async with opened(fresh, mongodb_uri) as server:
        await ask(server, "update", "Patient", "1", body=PATIENT)
        await ask(server, "read", "Patient", "1")
        assert AUDIT not in await server.database.list_collection_names()
        await drop(server.database)
