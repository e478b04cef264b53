"""``$expunge``: what it removes is gone, and nothing else is."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from fhir_server.app import Server
from fhir_server.messages import Request, Response
from fhir_server.r4.json import decode
from fhir_server.settings import Settings
from fhir_server.store import expunge
from fhir_server.store.granules import BOOKINGS, GRANULES
from tests.conftest import Emptied, Fhir
from tests.interactions.asking import BASE, issues_of, json_of, patient, put, read, tags, versions

PREVIOUS = "expungePreviousVersions"
DELETED = "expungeDeletedResources"
EVERYTHING = "expungeEverything"


@pytest.fixture
def settings(emptied: Emptied, request: pytest.FixtureRequest) -> Iterator[Settings]:
    """Settings that allow it, with what the test is parametrized by."""
    chosen = getattr(request, "param", {"expunge": True})
    with emptied.one() as name:
        yield Settings.model_validate({"mongodb_database": name, **chosen})


def ask(place: str, *kinds: str, limit: int | None = None, **members: Any) -> Request:
    """Return the call on ``place``: ``Type/id``, ``Type`` or nothing."""
    type, _, id = place.partition("/")
    parameter: list[Any] = [{"name": one, "valueBoolean": True} for one in kinds]
    if limit is not None:
        parameter.append({"name": "limit", "valueInteger": limit})
    body = {"resourceType": "Parameters", "parameter": parameter}
    return Request("$expunge", type, id, body=body, base_url=BASE, **members)


def told(response: Response) -> tuple[int, bool]:
    """Return count and more of an answer."""
    assert response.status == 200, response.body
    count, more = json_of(response)["parameter"]
    assert (count["name"], more["name"]) == ("count", "more")
    return count["valueInteger"], more["valueBoolean"]


async def written(fhir: Fhir, id: str, count: int, *, deleted: bool = False) -> None:
    """Write ``count`` versions of a Patient, and delete it."""
    for number in range(count):
        await fhir(put(patient(id, name=[{"family": f"N{number}"}])))
    if deleted:
        await fhir(Request("delete", "Patient", id))


async def left(server: Server) -> dict[str, int]:
    """Return how many documents each collection of resources has."""
    names = [name for name in await server.database.list_collection_names() if name[0].isupper()]
    return {name: await server.database[name].count_documents({}) for name in names}


@pytest.mark.parametrize("settings", [{}], indirect=True)
async def test_it_is_off_unless_it_is_switched_on(server: Server, fhir: Fhir) -> None:
    """403 with the name of the setting; nothing goes, and nothing is claimed."""
    await written(fhir, "p", 2)

    for place in ("Patient/p", "Patient", ""):
        answer = await fhir(ask(place, PREVIOUS))
        assert (answer.status, issues_of(answer)) == (403, [("forbidden", "")])
    assert await left(server) == {"Patient": 1, "Patient_history": 1}
    assert "expunge" not in decoded_names(server)


async def test_it_is_claimed_where_it_is_on(server: Server) -> None:
    """Of the system, and of every type."""
    assert "expunge" in decoded_names(server)


def decoded_names(server: Server) -> set[str]:
    """Return the names of the operations in the CapabilityStatement."""
    [rest] = decode(server.context.capabilities(BASE)[0])["rest"]
    of_types = [
        {one["name"] for one in type["operation"]}
        for type in rest["resource"]
        if type["type"] != "AuditEvent"  # of which nothing is removed
    ]
    assert all(len(names & {"expunge"}) == len(of_types[0] & {"expunge"}) for names in of_types)
    return {one["name"] for one in rest["operation"]} & set.intersection(*of_types)


async def test_previous_versions_of_a_resource(server: Server, fhir: Fhir) -> None:
    """The current one stays, with its number; others' versions stay too."""
    await written(fhir, "p", 4)
    await written(fhir, "p2", 2)

    assert told(await fhir(ask("Patient/p", PREVIOUS))) == (3, False)

    assert (await read(fhir, "Patient/p"))["meta"]["versionId"] == "4"
    assert tags(await versions(fhir, "Patient/p")) == [4]
    assert (await fhir(Request("vread", "Patient", "p", "3"))).status == 404
    assert tags(await versions(fhir, "Patient/p2")) == [2, 1]
    assert told(await fhir(ask("Patient/p", PREVIOUS))) == (0, False)
    await fhir(put(patient(active=True)))
    assert tags(await versions(fhir, "Patient/p")) == [5, 4]


async def test_a_limit_takes_the_oldest_first(fhir: Fhir) -> None:
    """The call is repeated until nothing is left; history counts what is there."""
    await written(fhir, "p", 7)

    assert told(await fhir(ask("Patient/p", PREVIOUS, limit=2))) == (2, True)

    assert tags(await versions(fhir, "Patient/p")) == [7, 6, 5, 4, 3]
    parameters = (("_count", "2"),)
    page = await fhir(Request("history-instance", "Patient", "p", parameters=parameters))
    assert json_of(page)["total"] == 5
    assert told(await fhir(ask("Patient/p", PREVIOUS, limit=3))) == (3, True)
    assert told(await fhir(ask("Patient/p", PREVIOUS, limit=3))) == (1, False)


async def test_a_deleted_resource(server: Server, fhir: Fhir) -> None:
    """It is as if it had never been: 404, no history, and its id begins again at 1."""
    await written(fhir, "p", 3, deleted=True)
    await written(fhir, "kept", 2)

    assert told(await fhir(ask("Patient/kept", DELETED))) == (0, False)
    assert told(await fhir(ask("Patient/p", DELETED))) == (4, False)

    for request in (Request("read", "Patient", "p"), Request("history-instance", "Patient", "p")):
        assert (await fhir(request)).status == 404
    assert (await fhir(ask("Patient/p", DELETED))).status == 404
    assert await left(server) == {"Patient": 1, "Patient_history": 1}
    assert (await fhir(put(patient()))).version == 1


async def test_portions_are_resumed(
    server: Server, fhir: Fhir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resource of more versions than one portion; the tombstone goes last."""
    monkeypatch.setattr(expunge, "_PORTION", 3)
    await written(fhir, "p", 11, deleted=True)

    assert told(await fhir(ask("Patient/p", DELETED, limit=5))) == (6, True)

    assert (await fhir(Request("read", "Patient", "p"))).status == 410
    assert told(await fhir(ask("Patient/p", DELETED, limit=6))) == (6, False)
    assert await left(server) == {"Patient": 0, "Patient_history": 0}


async def test_a_first_answer_keeps_nothing_of_what_is_gone(server: Server, fhir: Fhir) -> None:
    """Asked again under its Idempotency-Key a write is answered as before, but for the body: also
    when its id is in use again, with the same number of a version."""
    name = [{"family": "Secret"}]
    requests = [
        put(patient("p", name=name), idempotency_key="a"),
        put(patient("p", name=name, active=True), idempotency_key="b"),
        Request(*("create", "Patient"), body=patient(name=name), if_none_exist="name=x"),
    ]
    requests[2] = replace(requests[2], idempotency_key="c")
    first = [await fhir(one) for one in requests]
    assert [one.status for one in first] == [201, 200, 201]
    kept = await server.database["idempotency"].find().to_list()
    assert (len(kept), "Secret" in str(kept)) == (3, False)
    assert [(await fhir(one)).body for one in requests] == [one.body for one in first]

    assert told(await fhir(ask("Patient", EVERYTHING))) == (3, False)
    await fhir(put(patient("p", name=[{"family": "Other"}])))

    for request, before in zip(requests, first, strict=True):
        again = await fhir(request)
        assert (again.status, again.version, again.location, again.body) == (
            *(before.status, before.version, before.location),
            b"",
        )


@pytest.mark.parametrize("place", ["Patient", ""])
async def test_of_a_type_and_of_the_system(server: Server, fhir: Fhir, place: str) -> None:
    """Deleted resources and old versions of all, and of other types only if nothing is named."""
    for number in range(5):
        await written(fhir, f"p{number}", 2, deleted=number % 2 == 0)
    for active in (True, False):
        await fhir(put({"resourceType": "Practitioner", "id": "x", "active": active}))

    total, calls, more = 0, 0, True
    while more:
        count, more = told(await fhir(ask(place, DELETED, PREVIOUS, limit=3)))
        total, calls = total + count, calls + 1

    wanted = {"Patient": 2, "Patient_history": 0, "Practitioner": 1}
    assert await left(server) == {**wanted, "Practitioner_history": 0 if not place else 1}
    assert (total, calls > 2) == (3 * 3 + 2 + (not place), True)


async def test_everything_of_a_resource_and_of_a_type(server: Server, fhir: Fhir) -> None:
    """Also what is not deleted."""
    await written(fhir, "p", 3)
    await written(fhir, "q", 2)

    assert told(await fhir(ask("Patient/p", EVERYTHING))) == (3, False)
    assert await left(server) == {"Patient": 1, "Patient_history": 1}
    assert told(await fhir(ask("Patient", EVERYTHING))) == (2, False)
    assert await left(server) == {"Patient": 0, "Patient_history": 0}


async def test_an_appointment_that_goes_holds_no_time(server: Server, fhir: Fhir) -> None:
    """Its claims go with it, and nobody else's."""
    doctor = [{"reference": "Practitioner/p"}]
    some = [{"resourceType": "Schedule", "id": "s", "actor": doctor}]
    some += [
        {
            "resourceType": "Appointment",
            "id": f"a{hour}",
            "status": "booked",
            "start": f"2036-12-01T{hour}:00:00Z",
            "end": f"2036-12-01T{hour}:30:00Z",
            "participant": [{"actor": doctor[0], "status": "accepted"}],
        }
        for hour in (10, 11)
    ]
    for one in some:
        asked = Request("update", str(one["resourceType"]), str(one["id"]), body=one)
        assert (await fhir(asked)).status == 201
    assert (await fhir(ask("Appointment/a10", EVERYTHING))).status == 200
    assert await server.database[BOOKINGS].distinct("_id") == ["Appointment/a11"]
    assert await server.database[GRANULES].distinct("h.a") == ["Appointment/a11"]
    again = Request("create", "Appointment", body={**some[1], "id": "b"})
    assert (await fhir(again)).status == 201


@pytest.mark.parametrize(
    "settings", [{"expunge": True, "referential_integrity": "Patient"}], indirect=True
)
async def test_what_others_refer_to_is_not_removed_past_the_check(fhir: Fhir) -> None:
    """Where a deletion would be refused, everything is refused; what is deleted can go."""
    await written(fhir, "p", 1)

    assert (await fhir(ask("Patient/p", EVERYTHING))).status == 409
    await fhir(Request("delete", "Patient", "p"))
    assert told(await fhir(ask("Patient/p", DELETED))) == (2, False)


async def test_deletions_are_found_by_an_index(server: Server, fhir: Fhir) -> None:
    """A type of millions is not read for its three deleted resources."""
    await written(fhir, "p", 1, deleted=True)

    plan = await server.database["Patient"].find({"deleted": True}).explain()

    assert "deleted_1" in str(plan["queryPlanner"]["winningPlan"])


async def test_the_log_says_who_was_removed(fhir: Fhir, caplog: pytest.LogCaptureFixture) -> None:
    """What was asked before, and what came of it after."""
    await written(fhir, "p", 2)

    with caplog.at_level(logging.WARNING, "fhir_server.audit"):
        await fhir(ask("Patient/p", PREVIOUS))

    before, after = [decode(one.message.encode()) for one in caplog.records]
    assert (before["expunge"], before["limit"]) == ("Patient/p", 1000)
    assert (after["expunge"], after["count"], after["more"]) == ("Patient/p", 1, False)


async def test_what_is_refused(server: Server, fhir: Fhir) -> None:
    """GET, nothing to do, too much, another parameter, no body, a resource that never was."""
    await written(fhir, "p", 2)
    other = {"resourceType": "Parameters", "parameter": [{"name": "all", "valueBoolean": True}]}

    answers = [
        await fhir(ask("Patient/p", PREVIOUS, reading=True)),
        await fhir(ask("Patient/p")),
        await fhir(ask("Patient/p", PREVIOUS, limit=0)),
        await fhir(ask("Patient/p", PREVIOUS, limit=10_001)),
        await fhir(Request("$expunge", "Patient", "p", body=other)),
        await fhir(Request("$expunge", "Patient", "p")),
        await fhir(ask("Patient/none", PREVIOUS)),
        await fhir(ask("Patent", PREVIOUS)),
    ]

    assert [one.status for one in answers] == [405, 400, 400, 400, 400, 400, 404, 404]
    assert await left(server) == {"Patient": 1, "Patient_history": 1}


async def test_what_is_revived_meanwhile_keeps_its_versions(
    server: Server, fhir: Fhir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deleted resource with many versions, written again when its turn comes: all are kept."""
    await written(fhir, "p", 8, deleted=True)
    monkeypatch.setattr(expunge, "_PORTION", 3)
    choose = expunge.Expunging._rows

    async def revived(self: Any, type: str, filter: Any) -> Any:
        rows = await choose(self, type, filter)
        if rows:
            await fhir(put({"resourceType": "Patient", "id": "p", "active": True}))
        return rows

    monkeypatch.setattr(expunge.Expunging, "_rows", revived)
    before = await server.database["Patient_history"].count_documents({})
    await fhir(ask("Patient", DELETED))

    assert await server.database["Patient_history"].count_documents({}) >= before
    assert (await fhir(Request("read", "Patient", "p"))).status == 200
