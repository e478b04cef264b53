"""https://hl7.org/fhir/R4/http.html#transaction"""

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from pymongo.errors import PyMongoError

from fhir_server.app import Server
from fhir_server.dispatch import answer
from fhir_server.messages import Request
from tests.conftest import Fhir
from tests.interactions.asking import (
    BASE,
    bundle,
    entry,
    issues_of,
    json_of,
    patient,
    places,
    put,
    read,
    statuses,
    tags,
    versions,
)

BASIC: dict[str, Any] = {"resourceType": "Basic", "code": {"text": "x"}}


def put_entry(resource: dict[str, Any], **request: str) -> dict[str, Any]:
    """Return the entry that updates ``resource``."""
    return entry("PUT", f"{resource['resourceType']}/{resource['id']}", resource, **request)


async def nothing_there(fhir: Fhir) -> bool:
    """Whether the whole server has no version of anything."""
    return "entry" not in json_of(await fhir(Request("history-system", base_url=BASE)))


async def test_a_transaction_answers_each_entry_in_its_place(fhir: Fhir) -> None:
    """The answers stand in the order of the entries, with status, location, etag and time."""
    await fhir(put(patient("gone")))
    await fhir(put(patient("old")))
    response = await fhir(
        bundle(
            entry("GET", "Patient/old"),
            put_entry(patient("new")),
            put_entry(patient("old", active=True)),
            entry("POST", "Basic", BASIC),
            entry("DELETE", "Patient/gone"),
        )
    )
    answered = json_of(response)

    assert (response.status, answered["type"]) == (200, "transaction-response")
    assert statuses(response) == ["200", "201", "200", "201", "204"]
    assert answered["entry"][1]["response"]["location"] == f"{BASE}/Patient/new/_history/1"
    assert answered["entry"][2]["response"]["etag"] == 'W/"2"'
    assert answered["entry"][3]["response"]["location"].startswith(f"{BASE}/Basic/")
    assert answered["entry"][4]["response"]["etag"] == 'W/"2"'
    assert all("lastModified" in one["response"] for one in answered["entry"][1:])
    assert (await fhir(Request("read", "Patient", "gone"))).status == 410


@pytest.mark.parametrize("type", ["transaction", "batch"])
async def test_a_bundle_without_entries_is_no_error(fhir: Fhir, type: str) -> None:
    """http.html#trules: "It is not an error if the submitted bundle has no resources in it"."""
    response = await fhir(bundle(type=type))

    assert (response.status, json_of(response)["type"]) == (200, f"{type}-response")


async def test_reads_see_what_the_transaction_writes(fhir: Fhir) -> None:
    """GET comes last: reads, searches and histories see the writes of the same bundle."""
    await fhir(put(patient("a", gender="male")))
    response = await fhir(
        bundle(
            entry("GET", "Patient/a"),
            entry("GET", "Patient?family=Begum"),
            entry("GET", "Patient/a/_history"),
            entry("GET", "Patient?_id=b&_summary=count"),
            put_entry(patient("a", gender="female")),
            put_entry(patient("b")),
            entry("POST", "Patient", {"resourceType": "Patient", "name": [{"family": "Begum"}]}),
        )
    )
    a, found, history, counted, *_ = json_of(response)["entry"]

    assert a["resource"]["gender"] == "female"
    assert [e["resource"]["name"][0]["family"] for e in found["resource"]["entry"]] == ["Begum"]
    assert tags(history["resource"]["entry"]) == [2, 1]
    assert counted["resource"]["total"] == 1


async def test_a_read_that_fails_fails_the_whole(fhir: Fhir) -> None:
    """All or nothing holds for reads too, and the entry is named."""
    response = await fhir(bundle(put_entry(patient("a")), entry("GET", "Patient/nobody")))

    assert response.status == 404
    assert issues_of(response) == [("not-found", "Bundle.entry[1]")]
    assert await nothing_there(fhir)


# What is wrong -> entries, status, expression of the first issue.
BAD: dict[str, tuple[list[Any], int, str]] = {
    "an element that is unknown": (
        [put_entry(patient("a", nmae=[]))],
        400,
        "Bundle.entry[1].resource",
    ),
    "a deeper fault": (
        [put_entry(patient("a", name=[{"family": 1}]))],
        400,
        "Bundle.entry[1].resource.name[0].family",
    ),
    "a code that is not bound": (
        [put_entry(patient("a", gender="x"))],
        422,
        "Bundle.entry[1].resource.gender",
    ),
    "no resource": ([entry("POST", "Patient")], 400, "Bundle.entry[1]"),
    "a resource that is a text": ([entry("PUT", "Patient/a", "Patient")], 400, "Bundle.entry[1]"),
    "a resource that is a list": (
        [entry("PUT", "Patient/a", [patient("a")])],
        400,
        "Bundle.entry[1]",
    ),
    "a resource that is a number": ([entry("POST", "Patient", 5)], 400, "Bundle.entry[1]"),
    "a resource of another type": ([entry("POST", "Patient", BASIC)], 400, "Bundle.entry[1]"),
    "another id": ([entry("PUT", "Patient/b", patient("a"))], 400, "Bundle.entry[1].resource.id"),
    "no request": ([{"resource": patient("a")}], 400, "Bundle.entry[1]"),
    "no url": ([{"resource": BASIC, "request": {"method": "POST"}}], 400, "Bundle.entry[1]"),
    "an unknown method": ([entry("FETCH", "Patient/a")], 422, "Bundle.entry[1]"),
    "an unknown type": ([entry("GET", "Patent/a")], 404, "Bundle.entry[1]"),
    "a path that is none": ([entry("GET", "a/b/c/d/e")], 404, "Bundle.entry[1]"),
    "an id that is none": ([entry("PUT", "Patient/a_b", patient("a_b"))], 404, "Bundle.entry[1]"),
    "another server": ([entry("GET", "http://elsewhere.org/Patient/a")], 400, "Bundle.entry[1]"),
    "a transaction inside": (
        [entry("POST", "", {"resourceType": "Bundle"})],
        400,
        "Bundle.entry[1]",
    ),
    "an entry that is a text": (["x"], 400, "Bundle.entry[1]"),
    "an entry that is null": ([None], 400, "Bundle.entry[1]"),
    "an empty entry": ([{}], 400, "Bundle.entry[1]"),
    "a version that does not fit": (
        [put_entry(patient("there"), ifMatch='W/"7"')],
        412,
        "Bundle.entry[1]",
    ),
    "a deletion that does not fit": (
        [entry("DELETE", "Patient/there", ifMatch='W/"7"')],
        412,
        "Bundle.entry[1]",
    ),
    "an ifMatch that is none": ([put_entry(patient("a"), ifMatch="?")], 400, "Bundle.entry[1]"),
}


@pytest.mark.parametrize(("bad", "status", "expression"), BAD.values(), ids=BAD)
async def test_one_bad_entry_refuses_the_whole(
    fhir: Fhir, bad: list[Any], status: int, expression: str
) -> None:
    """The answer is a 4xx that names the entry; nothing of the others is written."""
    await fhir(put(patient("there")))

    response = await fhir(
        bundle(put_entry(patient("good")), *bad, entry("DELETE", "Patient/there2"))
    )

    assert response.status == status, json_of(response)
    assert issues_of(response)[0][1].startswith(expression)
    assert (await fhir(Request("read", "Patient", "good"))).status == 404
    assert tags(await versions(fhir, "Patient/there")) == [1]


OVERLAPS = {
    "PUT and PUT": [put_entry(patient("a")), put_entry(patient("a", active=True))],
    "DELETE and PUT": [entry("DELETE", "Patient/a"), put_entry(patient("a"))],
    "DELETE and DELETE": [entry("DELETE", "Patient/a"), entry("DELETE", "Patient/a")],
    "absolute and relative": [
        entry("DELETE", "Patient/a"),
        entry("PUT", f"{BASE}/Patient/a", patient("a")),
    ],
    "POST and POST of one fullUrl": [
        entry("POST", "Basic", BASIC, "urn:uuid:7c0a2bb5-7d4c-4ad4-8f58-5f0a3d1d2f11"),
        entry("POST", "Basic", BASIC, "urn:uuid:7c0a2bb5-7d4c-4ad4-8f58-5f0a3d1d2f11"),
    ],
    "POST and PUT of one fullUrl": [
        entry("POST", "Basic", BASIC, "http://a.org/Basic/1"),
        entry("PUT", "Basic/1", {**BASIC, "id": "1"}, "http://a.org/Basic/1"),
    ],
}


@pytest.mark.parametrize("entries", OVERLAPS.values(), ids=OVERLAPS)
async def test_identities_that_overlap_are_refused(fhir: Fhir, entries: list[Any]) -> None:
    """http.html#trules: "If any resource identities overlap … the transaction SHALL fail"."""
    response = await fhir(bundle(*entries))

    assert 400 <= response.status < 500
    assert issues_of(response)[0][1].startswith("Bundle.entry[1]")
    assert await nothing_there(fhir)


async def test_a_resource_may_be_read_and_written(fhir: Fhir) -> None:
    """Only writes overlap: a GET of what is written, twice, is allowed."""
    entries = [entry("GET", "Patient/a"), put_entry(patient("a")), entry("GET", "Patient/a")]

    assert statuses(await fhir(bundle(*entries))) == ["200", "201", "200"]


async def test_the_faults_of_all_entries_are_reported_together(fhir: Fhir) -> None:
    """One answer lists what is wrong in every entry, each with its place."""
    response = await fhir(
        bundle(
            put_entry(patient("a", gender="x")),
            put_entry(patient("b")),
            entry("POST", "Basic", {"resourceType": "Basic"}),
            put_entry(patient("c", birthDate="1.1.1970")),
            entry("POST", "Patient", BASIC),
        )
    )
    places = [expression for _, expression in issues_of(response)]

    assert 400 <= response.status < 500
    assert {place.partition("]")[0] + "]" for place in places} == {
        *("Bundle.entry[0]", "Bundle.entry[2]", "Bundle.entry[3]", "Bundle.entry[4]"),
    }
    assert {"Bundle.entry[0].resource.gender", "Bundle.entry[3].resource.birthDate"} <= set(places)
    assert await nothing_there(fhir)


async def test_preconditions_of_entries_are_obeyed(fhir: Fhir) -> None:
    """ifMatch and ifNoneMatch in an entry mean what the headers mean."""
    await fhir(put(patient("a")))
    first = await fhir(
        bundle(
            put_entry(patient("a", active=True), ifMatch='W/"1"'),
            put_entry(patient("b"), ifNoneMatch="*"),
        )
    )
    again = await fhir(bundle(put_entry(patient("b", active=True), ifNoneMatch="*")))

    assert statuses(first) == ["200", "201"]
    assert again.status == 412
    assert tags(await versions(fhir, "Patient/b")) == [1]


async def test_order_is_delete_post_put_get_whatever_the_bundle_has(fhir: Fhir) -> None:
    """http.html#trules: "The outcome … SHALL NOT depend on the order of the resources"."""
    await fhir(put(patient("gone", identifier=[{"system": "http://a.org", "value": "1"}])))
    entries = [
        entry("GET", "Patient?identifier=http://a.org|1"),
        put_entry(patient("new", identifier=[{"system": "http://a.org", "value": "1"}])),
        entry("DELETE", "Patient/gone"),
    ]
    response = await fhir(bundle(*entries))
    [found] = json_of(response)["entry"][0]["resource"]["entry"]

    assert found["resource"]["id"] == "new"


async def test_a_failure_half_way_leaves_nothing(server: Server, fhir: Fhir) -> None:
    """When MongoDB refuses the last of the writes, the first ones are not there either."""
    await fhir(put(patient("there", gender="male")))
    await fhir(bundle(entry("POST", "Basic", BASIC)))
    count = len(json_of(await fhir(Request("history-system")))["entry"])
    # MongoDB itself refuses one document; collections are written in alphabetical order.
    validator = {"resource.gender": {"$ne": "other"}}
    await server.database.command("collMod", "Patient", validator=validator)

    with pytest.raises(PyMongoError):
        await fhir(
            bundle(
                entry("POST", "Basic", BASIC),
                put_entry(patient("there", gender="female")),
                put_entry(patient("bad", gender="other")),
            )
        )

    assert len(json_of(await fhir(Request("history-system")))["entry"]) == count
    assert (await read(fhir, "Patient/there"))["gender"] == "male"
    for name in ("Basic", "Basic_history", "Patient_history"):
        kept = await server.database[name].count_documents({})
        assert kept == (1 if name == "Basic" else 0)


async def test_a_thousand_entries_are_one_transaction_and_one_answer(fhir: Fhir) -> None:
    """1,000 entries that refer to each other are written with one time and answered in order."""
    urns = [f"urn:uuid:00000000-0000-4000-8000-{n:012d}" for n in range(1000)]
    entries = [
        entry(
            "POST",
            "Patient",
            {
                "resourceType": "Patient",
                "link": [{"other": {"reference": urns[n - 1]}, "type": "seealso"}],
            },
            urns[n],
        )
        for n in range(1000)
    ]
    response = await fhir(bundle(*entries))
    found = places(response)

    assert statuses(response) == ["201"] * 1000
    assert len(set(found)) == 1000
    assert len({one["response"]["lastModified"] for one in json_of(response)["entry"]}) == 1
    for n in (0, 1, 500, 999):
        link = (await read(fhir, found[n]))["link"][0]["other"]["reference"]
        assert link == found[n - 1]


async def test_transactions_that_cross_all_end(fhir: Fhir) -> None:
    """16 transactions over the same ten resources, in different orders, all succeed."""
    ids = [f"p{n}" for n in range(10)]

    def crossing(writer: int) -> Request:
        turned = ids[writer % 10 :] + ids[: writer % 10]
        ordered = turned if writer % 2 else turned[::-1]
        entries = [put_entry(patient(id, multipleBirthInteger=writer)) for id in ordered]
        reads = [entry("GET", f"Patient/{id}") for id in ordered] if writer % 4 == 0 else []
        return bundle(*entries, *reads)

    answers = await asyncio.gather(*(fhir(crossing(writer)) for writer in range(16)))
    histories = [await versions(fhir, f"Patient/{id}") for id in ids]
    writers = [[e["resource"]["multipleBirthInteger"] for e in history] for history in histories]

    assert [answer.status for answer in answers] == [200] * 16
    assert sorted(writers[0]) == list(range(16))
    assert all(one == writers[0] for one in writers)


async def test_no_reader_sees_half_a_transaction(fhir: Fhir) -> None:
    """While transactions move a mark between two resources, a transaction of reads sees it once."""

    def move(n: int) -> Request:
        marks = (n % 2 == 0, n % 2 == 1)
        return bundle(*(put_entry(patient(f"m{k}", active=mark)) for k, mark in enumerate(marks)))

    await fhir(move(0))
    seen: Counter[int] = Counter()

    async def writing() -> None:
        for n in range(1, 30):
            assert (await fhir(move(n))).status == 200

    async def reading() -> None:
        for _ in range(30):
            both = await fhir(bundle(entry("GET", "Patient/m0"), entry("GET", "Patient/m1")))
            seen[sum(one["resource"]["active"] for one in json_of(both)["entry"])] += 1

    await asyncio.gather(writing(), reading(), reading())

    assert seen == {1: 60}


async def test_limits_are_named(server: Server) -> None:
    """A bundle over the limit of entries is refused and the limit is named."""
    settings = server.context.settings.model_copy(update={"bundle_entries_max": 3})
    context = replace(server.context, settings=settings)
    entries = [put_entry(patient(f"p{n}")) for n in range(4)]
    refused = await answer(server.registry, bundle(*entries), context)
    passed = await answer(server.registry, bundle(*entries[:3]), context)

    assert refused.status == 413
    assert "limit is 3" in json_of(refused)["issue"][0]["diagnostics"]
    assert passed.status == 200


@pytest.mark.parametrize(
    ("wish", "kind"),
    [
        ("", ""),
        ("minimal", ""),
        ("representation", "Patient"),
        ("OperationOutcome", "OperationOutcome"),
    ],
)
async def test_entries_come_back_as_preferred(fhir: Fhir, wish: str, kind: str) -> None:
    """Resources come back where the client asks for them, outcomes where it asks for those."""
    prefer = {"return": wish} if wish else {}
    response = await fhir(bundle(put_entry(patient("a")), prefer=prefer))
    [only] = json_of(response)["entry"]
    body = only.get("resource") or only["response"].get("outcome") or {}

    assert body.get("resourceType", "") == kind


async def test_the_same_transaction_again_makes_no_versions(fhir: Fhir) -> None:
    """Updates that change nothing make no version inside a transaction either."""
    request = bundle(put_entry(patient("a")), put_entry(patient("b", active=True)))
    await fhir(request)
    again = await fhir(request)

    assert statuses(again) == ["200", "200"]
    assert tags(await versions(fhir, "Patient/a")) == [1]
