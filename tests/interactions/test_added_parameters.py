"""Search parameters that a site adds: from the POST to the answer, and never half of it.

https://hl7.org/fhir/R4/searchparameter.html and section 16.6 of ARCHITECTURE.md.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fhir_server.app import Server, opened
from fhir_server.dispatch import answer
from fhir_server.ending import end_of
from fhir_server.messages import Request, Response
from fhir_server.search import added
from fhir_server.settings import Settings
from tests.conftest import Fhir
from tests.interactions.asking import BASE, bundle, entry, issues_of, json_of, patient, put

RACE = "http://example.org/race"
HAS_RACE = {"keys.race": {"$exists": True}}
CODING = {"system": "http://example.org/s", "code": "2106-3"}


def race(**members: Any) -> dict[str, Any]:
    """Return the SearchParameter of an extension; ``members`` are changed or further elements."""
    return {
        "resourceType": "SearchParameter",
        "id": "race",
        "url": "http://example.org/SearchParameter/race",
        "name": "Race",
        "status": "active",
        "description": "An extension of a patient",
        "code": "race",
        "base": ["Patient"],
        "type": "token",
        "expression": f"Patient.extension.where(url = '{RACE}').value",
    } | members


def raced(id: str, **members: Any) -> dict[str, Any]:
    """Return a Patient with the extension."""
    return patient(id, extension=[{"url": RACE, "valueCoding": CODING}], **members)


async def found(fhir: Fhir, *parameters: tuple[str, str], type: str = "Patient") -> Response:
    """Ask for resources of ``type``."""
    return await fhir(Request("search-type", type, parameters=parameters, base_url=BASE))


def ids(response: Response) -> list[str]:
    """Return the ids of the matches."""
    assert response.status == 200, response.body
    entries = json_of(response).get("entry", ())
    return [one["resource"]["id"] for one in entries if one["search"]["mode"] == "match"]


async def indexed(server: Server) -> int:
    """Have everything indexed; return how many steps it took."""
    steps = 0
    while await server.context.reindex.step():
        steps += 1
        assert steps < 1000
    return steps


def door(server: Server) -> Fhir:
    """Return the front door of ``server``."""

    async def ask(request: Request) -> Response:
        return await answer(server.registry, request, server.context)

    return ask


@pytest.fixture
async def other(server: Server, settings: Settings, mongodb_uri: str) -> AsyncIterator[Server]:
    """A second server process on the database of ``server``."""
    async with opened(settings, mongodb_uri) as second:
        yield second


async def test_it_is_refused_until_all_that_is_stored_is_indexed(
    server: Server, fhir: Fhir
) -> None:
    """What was stored before is found afterwards; in between the search says that it cannot tell.

    120 patients are three portions: after the first the search is still refused.
    """
    for number in range(120):
        await fhir(put(raced(f"p{number:03}") if number % 2 else patient(f"p{number:03}")))
    before = await found(fhir, ("race", "2106-3"))
    assert before.status == 400

    assert (await fhir(put(race()))).status == 201
    assert await server.context.reindex.step()
    between = await found(fhir, ("race", "2106-3"))
    assert (between.status, issues_of(between)) == (503, [("transient", "")])
    assert "Retry-After" in dict(between.headers)
    written = await fhir(put(raced("q")))
    assert written.status == 201

    await indexed(server)
    assert ids(await found(fhir, ("race", "2106-3"), ("_count", "200"))) == [
        *(f"p{number:03}" for number in range(1, 120, 2)),
        "q",
    ]
    assert len(ids(await found(fhir, ("race:missing", "true"), ("_count", "200")))) == 60


@pytest.mark.parametrize(
    "asked",
    [
        ("Patient", (("race", "a"),)),
        ("Patient", (("race:missing", "true"),)),
        ("Patient", (("_sort", "-race"),)),
        ("Patient", (("_filter", "race eq a"),)),
        ("Observation", (("subject:Patient.race", "a"),)),
        ("Practitioner", (("_has:Patient:general-practitioner:race", "a"),)),
    ],
    ids=str,
)
async def test_whichever_way_it_is_asked(fhir: Fhir, asked: tuple[str, Any]) -> None:
    """Alone, as an order, in a filter, at the end of a chain: half an answer is none."""
    await fhir(put(raced("p")))
    await fhir(put(race()))
    type, parameters = asked
    response = await found(fhir, *parameters, type=type)
    assert (response.status, issues_of(response)) == (503, [("transient", "")])


async def test_an_added_reference_leads_on(server: Server, fhir: Fhir) -> None:
    """It can be included and chained through, once it is indexed; before, both are refused."""
    url = "http://example.org/doctor"
    await fhir(put({"resourceType": "Practitioner", "id": "d", "name": [{"family": "Rahman"}]}))
    extension = [{"url": url, "valueReference": {"reference": "Practitioner/d"}}]
    await fhir(put(patient("p", extension=extension)))
    expression = f"Patient.extension('{url}').value as Reference"
    doctor = race(code="doctor", type="reference", expression=expression, target=["Practitioner"])
    await fhir(put(doctor))
    for parameters in (
        (("_include", "Patient:doctor"),),
        (("_include", "*"),),
        (("doctor.name", "rahman"),),
    ):
        assert (await found(fhir, *parameters)).status == 503
    await indexed(server)
    assert ids(await found(fhir, ("doctor.name", "rahman"))) == ["p"]
    included = json_of(await found(fhir, ("_include", "Patient:doctor")))["entry"]
    assert [one["resource"]["id"] for one in included] == ["p", "d"]


# What cannot be served, and the element that says why.
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a code with a dot": ({"code": "a.b"}, "code"),
    "a code with a dollar sign": ({"code": "$where"}, "code"),
    "a code of the specification's": ({"code": "_race"}, "code"),
    "the code of another parameter": ({"code": "gender"}, "expression"),
    "no expression": ({"expression": None}, "expression"),
    "an element that is not there": ({"expression": "Patient.race"}, "expression"),
    "a function that is not there": ({"expression": "Patient.name.matches('a+')"}, "expression"),
    "no FHIRPath": ({"expression": "Patient.("}, "expression"),
    "too many parentheses": ({"expression": f"Patient.{'(' * 90}name{')' * 90}"}, "expression"),
    "more places than can be walked": (
        {"expression": "Patient.extension.value.extension.value"},
        "expression",
    ),
    "the wrong type": ({"type": "quantity", "expression": "Patient.name"}, "expression"),
    "a type that nothing defines": ({"type": "special"}, "type"),
    "a component that is not there": (
        {
            "type": "composite",
            "expression": "Patient",
            "component": [{"definition": "http://example.org/none", "expression": "name"}],
        },
        "expression",
    ),
}


@pytest.mark.parametrize(("members", "place"), REFUSED.values(), ids=REFUSED)
async def test_what_cannot_be_served_is_refused(
    fhir: Fhir, members: dict[str, Any], place: str
) -> None:
    """422 with the element; with the status draft it is kept all the same, and not served."""
    resource = {name: value for name, value in race(**members).items() if value is not None}
    response = await fhir(put(resource))
    assert response.status == 422
    assert issues_of(response)[0] == ("business-rule", f"SearchParameter.{place}")
    assert (await fhir(put(resource | {"status": "draft"}))).status == 201


async def test_a_url_belongs_to_one(server: Server, fhir: Fhir) -> None:
    """A second with the url of the first would never be served, or would take its place."""
    await fhir(put(race()))
    second = await fhir(put(race(id="a", code="other")))
    assert (second.status, issues_of(second)[0][1]) == (422, "SearchParameter.url")
    assert (await fhir(put(race(description="The same, changed")))).status == 200


async def test_there_is_an_end_to_them(
    server: Server, fhir: Fhir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every one is walked along in every write. Those that came in some other way are not served,
    and the status says so."""
    monkeypatch.setattr(added, "ADDED_MAX", 2)
    for code in ("a", "b", "c"):
        url = f"http://example.org/SearchParameter/{code}"
        response = await fhir(put(race(id=code, code=code, url=url)))
        assert response.status == (422 if code == "c" else 201)
    monkeypatch.setattr(added, "ADDED_MAX", 1)
    await server.context.store.keys.changed()
    server.context.store.keys._sources = None
    await server.context.store.keys.refresh()
    told = json_of(await fhir(Request("$reindex-status", base_url=BASE)))
    assert [one["name"] for one in told["parameter"]].count("notServed") == 1
    assert (await found(fhir, ("b", "1"))).status == 400


async def test_what_was_never_judged_does_not_stop_the_server(
    server: Server, fhir: Fhir, settings: Settings, mongodb_uri: str
) -> None:
    """From a backup, say: an invalid one is named, and the rest is served."""
    await fhir(put(patient("p")))
    await fhir(put(race()))
    for id, members in (("x1", {"code": "a.b"}), ("x2", {"base": None}), ("x3", {"code": None})):
        resource = race(id=id, url=f"http://example.org/{id}") | members
        document = {"_id": id, "version": 1, "resource": resource, "json": b"{}"}
        await server.database["SearchParameter"].insert_one(document)
    async with opened(settings, mongodb_uri) as second:
        assert len(second.context.parameters.unusable) == 3
        assert "race" in second.context.parameters.of("Patient")


async def test_what_repeats_the_specification_is_kept(server: Server, fhir: Fhir) -> None:
    """A guide's own parameter ``name`` that reads the same elements changes nothing."""
    await fhir(put(patient("p", name=[{"family": "Khatun"}])))
    same = race(code="name", type="string", expression="Patient.name")
    assert (await fhir(put(same))).status == 201
    assert ids(await found(fhir, ("name", "khatun"))) == ["p"]
    assert await indexed(server) == 0


async def test_it_is_in_the_capability_statement_when_it_is_answered(
    server: Server, fhir: Fhir
) -> None:
    """Not before: what is listed there can be asked for."""

    async def listed() -> list[str]:
        response = await fhir(Request("capabilities", base_url=BASE))
        resources = json_of(response)["rest"][0]["resource"]
        [of] = [one for one in resources if one["type"] == "Patient"]
        return [one["name"] for one in of["searchParam"]]

    assert "race" not in await listed()
    await fhir(put(raced("p")))
    await fhir(put(race()))
    assert "race" not in await listed()
    await indexed(server)
    assert "race" in await listed()


@pytest.mark.parametrize("how", ["retired", "deleted"])
async def test_a_parameter_that_is_taken_back_is_unknown_at_once(
    server: Server, fhir: Fhir, how: str
) -> None:
    """And one that comes again is indexed again: what was written meanwhile lacks its keys."""
    await fhir(put(raced("p")))
    await fhir(put(race()))
    await indexed(server)
    if how == "retired":
        await fhir(put(race(status="retired")))
    else:
        await fhir(Request("delete", "SearchParameter", "race", base_url=BASE))
    assert (await found(fhir, ("race", "2106-3"))).status == 400
    await fhir(put(raced("q")))
    await fhir(put(race()))
    assert (await found(fhir, ("race", "2106-3"))).status == 503
    await indexed(server)
    assert ids(await found(fhir, ("race", "2106-3"))) == ["p", "q"]


async def test_another_expression_is_another_index(server: Server, fhir: Fhir) -> None:
    """Whoever changes what a parameter reads never gets answers from what it read before."""
    married = {"coding": [{"code": "M"}]}
    await fhir(put(raced("p", maritalStatus=married)))
    await fhir(put(race()))
    await indexed(server)
    await fhir(put(race(expression="Patient.maritalStatus")))
    assert (await found(fhir, ("race", "2106-3"))).status == 503
    await indexed(server)
    assert ids(await found(fhir, ("race", "M"))) == ["p"]
    assert ids(await found(fhir, ("race", "2106-3"))) == []


async def test_what_is_indexed_already_is_answered_at_once(server: Server, fhir: Fhir) -> None:
    """Another name for what a parameter of the specification reads needs no new keys."""
    await fhir(put(patient("p", gender="female")))
    await fhir(put(race(code="sex", expression="Patient.gender")))
    assert ids(await found(fhir, ("sex", "female"))) == ["p"]
    assert await indexed(server) == 0


async def test_one_that_comes_in_a_transaction_counts_as_well(server: Server, fhir: Fhir) -> None:
    """And one whose transaction fails does not."""
    await fhir(put(raced("p")))
    bad = entry("PUT", "Patient/x", patient("y"))
    good = entry("PUT", "SearchParameter/race", race())
    assert (await fhir(bundle(good, bad))).status == 400
    assert (await found(fhir, ("race", "2106-3"))).status == 400
    assert (await fhir(bundle(good))).status == 200
    await indexed(server)
    assert ids(await found(fhir, ("race", "2106-3"))) == ["p"]


async def test_indexing_leaves_versions_alone(server: Server, fhir: Fhir) -> None:
    """Nothing of a resource changes but what is beside it: no version, no time, no history."""
    await fhir(put(raced("p")))
    before = await server.context.store.read("Patient", "p")
    await fhir(put(race()))
    await indexed(server)
    assert await server.context.store.read("Patient", "p") == before
    assert await server.database["Patient_history"].count_documents({}) == 0


async def test_it_goes_on_where_it_stopped(
    server: Server, fhir: Fhir, settings: Settings, mongodb_uri: str
) -> None:
    """A server that starts after the end of another takes over what it left, not everything."""
    await fhir(bundle(*(entry("PUT", f"Patient/p{n:03}", raced(f"p{n:03}")) for n in range(130))))
    await fhir(put(race()))
    assert await server.context.reindex.step()  # what nothing is stored of
    assert await server.context.reindex.step()
    await server.database["server"].delete_one({"_id": "reindex"})  # its lease has run out
    await server.context.store.keys.beat()
    async with opened(settings, mongodb_uri) as second:
        assert (await found(door(second), ("race", "2106-3"))).status == 503
        [job] = [one for one in await second.context.reindex.jobs() if one.type == "Patient"]
        assert (job.status, job.done, job.total) == ("running", 50, 130)
        while (await found(door(second), ("race", "2106-3"))).status == 503:
            assert await second.context.reindex.step()
        assert len(ids(await found(door(second), ("race", "2106-3"), ("_count", "500")))) == 130
        [job] = [one for one in await second.context.reindex.jobs() if one.type == "Patient"]
        assert (job.status, job.done) == ("done", 130)


async def test_it_waits_for_a_process_that_does_not_know_yet(
    server: Server, other: Server, fhir: Fhir
) -> None:
    """Another process may write without the new keys, until it says that it knows of them."""
    await fhir(put(raced("p")))
    await other.context.store.keys.beat()
    await fhir(put(race()))
    assert not await server.context.reindex.step()
    stale = await door(other)(put(raced("q")))  # by the table it has: without the key
    assert stale.status == 201

    await other.context.store.keys.beat()
    await indexed(server)
    assert ids(await found(fhir, ("race", "2106-3"))) == ["p", "q"]
    await other.context.store.keys.beat()
    assert ids(await found(door(other), ("race", "2106-3"))) == ["p", "q"]


async def test_it_waits_for_a_write_that_began_before(server: Server, fhir: Fhir) -> None:
    """A write under way has its keys from the table of its beginning."""
    await fhir(put(raced("p")))
    keys = server.context.store.keys
    async with keys.writing():
        await fhir(put(race()))
        await keys.beat()
        assert not await server.context.reindex.step()
    await keys.beat()
    assert await server.context.reindex.step()


async def test_keys_of_an_older_form_are_never_searched(
    server: Server, fhir: Fhir, settings: Settings, mongodb_uri: str
) -> None:
    """A release that writes dates in another way asks nobody by dates until they are rewritten."""
    await fhir(put(patient("p", birthDate="1980-02-03", gender="male")))
    await server.database["server"].update_one(
        {"_id": "keys"}, {"$set": {"types.Patient.birthdate": "older"}, "$inc": {"version": 1}}
    )
    async with opened(settings, mongodb_uri) as second:
        ask = door(second)
        assert (await found(ask, ("birthdate", "1980-02-03"))).status == 503
        assert ids(await found(ask, ("gender", "male"))) == ["p"]
        await server.context.store.keys.beat()
        await indexed(second)
        assert ids(await found(ask, ("birthdate", "1980-02-03"))) == ["p"]


async def test_a_database_that_says_nothing_is_indexed_first(
    server: Server, fhir: Fhir, settings: Settings, mongodb_uri: str
) -> None:
    """Whatever wrote it: what is not known to be complete is not asked. Ids and times are."""
    await fhir(put(patient("p", gender="male")))
    await server.database["server"].delete_one({"_id": "keys"})
    async with opened(settings, mongodb_uri) as second:
        ask = door(second)
        assert (await found(ask, ("gender", "male"))).status == 503
        assert (await found(ask, ("_text", "x"))).status == 503
        compartment = Request("search-compartment", "Patient", "p", "Patient", base_url=BASE)
        assert (await ask(compartment)).status == 503
        assert ids(await found(ask, ("_id", "p"))) == ["p"]
        await server.context.store.keys.beat()
        await indexed(second)
        assert ids(await found(ask, ("gender", "male"))) == ["p"]
        assert (await ask(compartment)).status == 200


async def test_words_that_were_switched_off_meanwhile(
    server: Server, fhir: Fhir, settings: Settings, mongodb_uri: str
) -> None:
    """What was stored without words is not searched by words when they are written again."""
    await fhir(put(patient("p", name=[{"family": "Khatun"}])))
    off = settings.model_copy(update={"text_search": False})
    async with opened(off, mongodb_uri) as second:
        await door(second)(put(patient("q", name=[{"family": "Khatun"}])))
    await server.context.store.keys.refresh()
    assert (await found(fhir, ("_content", "khatun"))).status == 503
    await indexed(server)
    assert ids(await found(fhir, ("_content", "khatun"))) == ["p", "q"]


async def test_reindex_on_request(server: Server, fhir: Fhir) -> None:
    """Keys that somebody has harmed are mended; the status says how far it is."""
    await fhir(put(patient("p", gender="male")))
    await server.database["Patient"].update_one({"_id": "p"}, {"$unset": {"keys": ""}})
    assert ids(await found(fhir, ("gender", "male"))) == []
    body = {"resourceType": "Parameters", "parameter": [{"name": "type", "valueCode": "Patient"}]}
    response = await fhir(Request("$reindex", body=body, base_url=BASE))
    assert response.status == 202
    assert dict(response.headers)["Content-Location"] == f"{BASE}/$reindex-status"
    assert await state(fhir) == {"Patient": "waiting"}
    await indexed(server)
    assert await state(fhir) == {"Patient": "done"}
    assert ids(await found(fhir, ("gender", "male"))) == ["p"]
    assert await indexed(server) == 0


async def state(fhir: Fhir) -> dict[str, str]:
    """Return the status of each type."""
    told = json_of(await fhir(Request("$reindex-status", base_url=BASE)))
    parts = [{part["name"]: part for part in one["part"]} for one in told["parameter"]]
    return {one["name"]["valueCode"]: one["status"]["valueCode"] for one in parts}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"resourceType": "Patient"}, 400),
        ({"resourceType": "Parameters", "parameter": {}}, 400),
        ({"resourceType": "Parameters", "parameter": [{"name": "type"}]}, 400),
        (
            {"resourceType": "Parameters", "parameter": [{"name": "type", "valueCode": "Pat"}]},
            404,
        ),
    ],
    ids=str,
)
async def test_reindex_of_what_is_not_there(fhir: Fhir, body: Any, status: int) -> None:
    """A refusal, and nothing is begun."""
    response = await fhir(Request("$reindex", body=body, base_url=BASE))
    assert response.status == status
    assert "parameter" not in json_of(await fhir(Request("$reindex-status", base_url=BASE)))


async def test_get_changes_nothing(fhir: Fhir) -> None:
    """A link that a browser follows must not have a database indexed."""
    response = await fhir(Request("$reindex", base_url=BASE, reading=True))
    assert response.status == 405
    assert dict(response.headers) == {"Allow": "POST"}


async def test_writers_on_two_servers_while_it_is_added(
    server: Server, other: Server, fhir: Fhir
) -> None:
    """Whoever writes, by whichever table: once it is answered, nothing is missing from it."""
    doors = (fhir, door(other))
    running = [asyncio.create_task(one.context.reindex.run()) for one in (server, other)]
    written: list[str] = []
    answered = asyncio.Event()

    async def write(worker: int) -> None:
        number = 0
        while not answered.is_set():
            id = f"w{worker}-{number:05}"
            response = await doors[worker % 2](put(raced(id)))
            assert response.status == 201
            written.append(id)
            number += 1

    writers = [asyncio.create_task(write(worker)) for worker in range(4)]
    try:
        await asyncio.sleep(0.3)
        await fhir(put(race()))
        end = time.monotonic() + 60
        while (await found(fhir, ("race", "2106-3"), ("_summary", "count"))).status != 200:
            assert time.monotonic() < end
            await asyncio.sleep(0.05)
        known = set(written)
        complete = {one["_id"] async for one in server.database["Patient"].find(HAS_RACE)}
    finally:
        answered.set()
        await asyncio.gather(*writers)
        await end_of(running)
    assert known - complete == set()
    assert await server.database["Patient"].count_documents(HAS_RACE) == len(written)


async def test_one_that_cannot_be_indexed_stops_no_other(
    server: Server, fhir: Fhir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named in the status; its type stays refused, other types are indexed all the same."""
    await fhir(put(raced("p")))
    await fhir(put(raced("bad")))
    await fhir(put({"resourceType": "Practitioner", "id": "d", "gender": "male"}))
    reindex = server.context.reindex
    index = reindex.index

    def failing(resource: Any) -> Any:
        if resource["id"] == "bad":
            raise ValueError("a fault of ours")
        return index(resource)

    monkeypatch.setattr(reindex, "index", failing)
    extension = {"expression": f"extension.where(url = '{RACE}').value", "base": ["DomainResource"]}
    assert (await fhir(put(race(**extension)))).status == 201
    await indexed(server)
    jobs = {job.type: job for job in await reindex.jobs()}
    assert (jobs["Patient"].status, jobs["Patient"].failed) == ("failed", ("bad",))
    assert jobs["Practitioner"].status == "done"
    assert (await found(fhir, ("race", "2106-3"))).status == 503
    assert (await found(fhir, ("race:missing", "true"), type="Practitioner")).status == 200

    monkeypatch.setattr(reindex, "index", index)
    body = {"resourceType": "Parameters", "parameter": [{"name": "type", "valueCode": "Patient"}]}
    await fhir(Request("$reindex", body=body, base_url=BASE))
    await indexed(server)
    assert ids(await found(fhir, ("race", "2106-3"))) == ["bad", "p"]


async def test_asking_again_does_not_begin_again(server: Server, fhir: Fhir) -> None:
    """Whoever asks every minute would otherwise never see the end."""
    await fhir(bundle(*(entry("PUT", f"Patient/p{n:03}", raced(f"p{n:03}")) for n in range(120))))
    body = {"resourceType": "Parameters", "parameter": [{"name": "type", "valueCode": "Patient"}]}
    ask = Request("$reindex", body=body, base_url=BASE)
    await fhir(ask)
    assert await server.context.reindex.step()
    await fhir(ask)
    [job] = await server.context.reindex.jobs()
    assert (job.status, job.done) == ("running", 50)
    await indexed(server)
    assert await state(fhir) == {"Patient": "done"}
