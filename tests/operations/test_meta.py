"""https://hl7.org/fhir/R4/resource-operation-meta.html, -meta-add.html, -meta-delete.html"""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.app import Server
from fhir_server.messages import Request
from fhir_server.operations import meta as operations
from tests.conftest import Fhir
from tests.interactions.asking import (
    BASE,
    bundle,
    entry,
    issues_of,
    json_of,
    patient,
    put,
    read,
    statuses,
    versions,
)

URGENT = {"system": "https://fhir.example.org/tags", "code": "urgent"}
VIP = {"system": "https://fhir.example.org/labels", "code": "vip"}
PROFILE = "https://fhir.example.org/StructureDefinition/patient"


def ask(name: str, meta: Any = None, id: str = "p", **members: Any) -> Request:
    """Return the call of ``name`` on a Patient with ``meta``."""
    body = None
    if meta is not None:
        parameter = [{"name": "meta", "valueMeta": meta}]
        body = {"resourceType": "Parameters", "parameter": parameter}
    return Request(name, "Patient", id, body=body, base_url=BASE, **members)


def returned(response: Any) -> Any:
    """Return the Meta that an operation answered with."""
    body = json_of(response)
    assert body["resourceType"] == "Parameters"
    [one] = [one for one in body["parameter"] if one["name"] == "return"]
    return one["valueMeta"]


def said(meta: Any) -> Any:
    """Return ``meta`` without what the server says."""
    return {name: one for name, one in meta.items() if name not in ("versionId", "lastUpdated")}


async def test_meta_of_a_resource_and_of_a_version(fhir: Fhir) -> None:
    """All of meta, versionId and lastUpdated included."""
    await fhir(put(patient(meta={"tag": [URGENT]})))
    await fhir(put(patient(active=True)))

    now = await fhir(ask("$meta", reading=True))
    before = await fhir(ask("$meta", version="1", reading=True))

    assert (now.status, now.version, returned(now)["versionId"]) == (200, 2, "2")
    assert said(returned(now)) == {}
    assert said(returned(before)) == {"tag": [URGENT]}


async def test_meta_of_what_is_not_there(fhir: Fhir) -> None:
    """404, 410 after a deletion, 404 for a version that never was."""
    await fhir(put(patient()))
    await fhir(Request("delete", "Patient", "p"))

    answers = [
        await fhir(ask("$meta", id="none")),
        await fhir(ask("$meta")),
        await fhir(ask("$meta", version="9")),
        await fhir(ask("$meta-add", {"tag": [URGENT]}, id="none")),
        await fhir(ask("$meta-add", {"tag": [URGENT]})),
    ]

    assert [one.status for one in answers] == [404, 410, 404, 404, 410]


async def test_adding_makes_a_version_and_no_duplicates(fhir: Fhir) -> None:
    """A tag is known by system and code: another display adds nothing, and writes nothing."""
    await fhir(put(patient(active=True, meta={"tag": [URGENT]})))
    more = {"tag": [{**URGENT, "display": "!"}], "security": [VIP, VIP], "profile": [PROFILE] * 2}

    first = await fhir(ask("$meta-add", more))
    again = await fhir(ask("$meta-add", more))

    assert (first.status, first.version, again.version) == (200, 2, 2)
    assert said(returned(first)) == {"tag": [URGENT], "security": [VIP], "profile": [PROFILE]}
    stored = await read(fhir, "Patient/p")
    assert (said(stored["meta"]), stored["active"]) == (said(returned(first)), True)
    assert len(await versions(fhir, "Patient/p")) == 2
    found = await fhir(Request("search-type", "Patient", parameters=(("_security", "vip"),)))
    assert [one["resource"]["id"] for one in json_of(found)["entry"]] == ["p"]


async def test_deleting_takes_exactly_what_is_named(fhir: Fhir) -> None:
    """The same code of another system stays, as does another version of a profile."""
    other = {"code": "urgent", "system": "https://fhir.example.org/other"}
    bare = {"code": "urgent"}
    meta = {"tag": [URGENT, other, bare], "profile": [PROFILE, f"{PROFILE}|1"], "security": [VIP]}
    await fhir(put(patient(meta=meta)))
    unwanted = {
        "tag": [{**URGENT, "version": "7"}, {"code": "none"}],
        "profile": [PROFILE],
        "security": [VIP],
    }

    answer = await fhir(ask("$meta-delete", unwanted))

    assert (answer.status, answer.version) == (200, 2)
    assert said(returned(answer)) == {"tag": [other, bare], "profile": [f"{PROFILE}|1"]}
    again = await fhir(ask("$meta-delete", unwanted))
    assert again.version == 2


async def test_what_stands_beside_a_profile_stays_beside_it(fhir: Fhir) -> None:
    """Extensions of primitives are in an array of the same order."""
    beside = {"extension": [{"url": "https://fhir.example.org/x", "valueBoolean": True}]}
    await fhir(put(patient(meta={"profile": [PROFILE, "urn:b"], "_profile": [None, beside]})))

    added = await fhir(ask("$meta-add", {"profile": ["urn:c"]}))
    deleted = await fhir(ask("$meta-delete", {"profile": [PROFILE]}))

    assert returned(added)["_profile"] == [None, beside, None]
    assert returned(deleted)["profile"] == ["urn:b", "urn:c"]
    assert returned(deleted)["_profile"] == [beside, None]


async def test_if_match(fhir: Fhir) -> None:
    """A version that is not the current one is 412, and nothing is written."""
    await fhir(put(patient()))

    stale = await fhir(ask("$meta-add", {"tag": [URGENT]}, if_match=frozenset({"7"})))
    fresh = await fhir(ask("$meta-add", {"tag": [URGENT]}, if_match=frozenset({"1"})))

    assert (stale.status, fresh.status, fresh.version) == (412, 200, 2)


async def test_many_at_once_all_count(fhir: Fhir) -> None:
    """Each is made over what is there in that moment."""
    await fhir(put(patient()))
    tags = [{"system": "urn:many", "code": f"c{number}"} for number in range(12)]

    answers = await asyncio.gather(*(fhir(ask("$meta-add", {"tag": [one]})) for one in tags))

    assert {one.status for one in answers} == {200}
    stored = await read(fhir, "Patient/p")
    assert {one["code"] for one in stored["meta"]["tag"]} == {one["code"] for one in tags}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (None, 400),
        ({"resourceType": "Patient"}, 400),
        ({"resourceType": "Parameters"}, 400),
        ({"resourceType": "Parameters", "parameter": [{"name": "mate", "valueMeta": {}}]}, 400),
        ({"resourceType": "Parameters", "parameter": [{"name": "meta", "valueCode": "x"}]}, 400),
        (
            {
                "resourceType": "Parameters",
                "parameter": [{"name": "meta", "valueMeta": {"tag": [{"$set": 1}]}}],
            },
            400,
        ),
    ],
)
async def test_a_body_that_is_none(fhir: Fhir, body: Any, status: int) -> None:
    """Refused, with the reason."""
    await fhir(put(patient()))

    answer = await fhir(Request("$meta-add", "Patient", "p", body=body))

    assert (answer.status, json_of(answer)["resourceType"]) == (status, "OperationOutcome")
    assert len(await versions(fhir, "Patient/p")) == 1


@pytest.mark.parametrize("type", ["Patient", ""])
async def test_what_is_in_use(fhir: Fhir, type: str) -> None:
    """Each profile, tag and label once; not what only deleted resources and old versions had."""
    meta = {"tag": [URGENT, {"code": "b"}], "security": [VIP], "profile": [f"{PROFILE}|1"]}
    for id in ("a", "b", "c"):
        await fhir(put(patient(id, meta=meta)))
    await fhir(put(patient("d", meta={"tag": [{"code": "gone"}]})))
    await fhir(put(patient("d", meta={"tag": [{"code": "late"}]})))
    await fhir(put(patient("e", meta={"tag": [{"code": "deleted"}]})))
    await fhir(Request("delete", "Patient", "e"))
    await fhir(put({"resourceType": "Basic", "id": "x", "code": {}, "meta": {"tag": [URGENT]}}))

    found = returned(await fhir(Request("$meta", type, reading=True)))

    assert sorted(one["code"] for one in found["tag"]) == ["b", "late", "urgent"]
    assert (found["security"], found["profile"]) == ([VIP], [f"{PROFILE}|1"])


async def test_no_more_than_can_be_looked_up(fhir: Fhir, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cut off is said to be."""
    monkeypatch.setattr(operations, "_VALUES_MAX", 3)
    await fhir(put(patient(meta={"tag": [{"code": f"c{number}"} for number in range(5)]})))

    answer = json_of(await fhir(Request("$meta", "Patient", reading=True)))

    assert [one["code"] for one in answer["parameter"][0]["valueMeta"]["tag"]] == ["c0", "c1", "c2"]
    assert answer["parameter"][1]["resource"]["issue"][0]["code"] == "incomplete"


async def test_every_key_is_found_whoever_has_it(server: Server, fhir: Fhir) -> None:
    """The index is read from key to key: no order of resources hides one."""
    for number in range(40):
        codes = {(number * 7) % 23, (number * 5) % 31, number % 3}
        tags = [{"code": f"{code:02}"} for code in sorted(codes, reverse=bool(number % 2))]
        await fhir(put(patient(f"{(number * 11) % 40:02}", meta={"tag": tags})))

    keyed, complete = await server.context.store.distinct("Patient", "keys._tag", 1000)

    wanted = sorted({f"{(n * k) % m:02}" for n in range(40) for k, m in ((7, 23), (5, 31), (1, 3))})
    assert ([key[:2] for key, _ in keyed], complete) == (wanted, True)


async def test_where_the_operations_can_be_called(fhir: Fhir) -> None:
    """Changing goes by POST and by id; nothing of it in a transaction, which says so."""
    await fhir(put(patient()))
    body = ask("$meta-add", {"tag": [URGENT]}).body
    call = entry("POST", "Patient/p/$meta-add", body)

    assert (await fhir(Request("$meta-add", "Patient", body=body))).status == 404
    assert (await fhir(Request("$meta-add", "Patient", "p", "1", body=body))).status == 404
    assert (await fhir(ask("$meta-add", reading=True))).status == 405
    assert (await fhir(Request("$meta", "Nonsense"))).status == 404
    assert issues_of(await fhir(bundle(call)))[0][0] == "not-supported"
    assert statuses(await fhir(bundle(call, type="batch"))) == ["200"]
    assert statuses(await fhir(bundle(entry("GET", "Patient/p/$meta")))) == ["200"]


CODINGS = st.lists(
    st.fixed_dictionaries(
        {}, optional={"system": st.sampled_from("ab"), "code": st.sampled_from("xy")}
    ).filter(bool),
    max_size=4,
)
METAS = st.fixed_dictionaries(
    {}, optional={"tag": CODINGS, "security": CODINGS, "profile": st.lists(st.sampled_from("pq"))}
)


@given(METAS, METAS)
def test_sets(before: Any, given: Any) -> None:
    """What was added is there once, what was deleted is not; the rest is as it was."""
    added = operations._with(before, given)
    deleted = operations._without(added, given)

    assert operations._with(added, given) == added
    assert operations._without(deleted, given) == deleted
    for name in ("tag", "security", "profile"):
        wanted = given.get(name, [])
        assert all(one in added[name] for one in wanted)
        assert not [one for one in deleted.get(name, ()) if one in wanted]
        assert added.get(name, [])[: len(before.get(name, ()))] == before.get(name, [])
        rest = [one for one in before.get(name, ()) if one not in wanted]
        assert deleted.get(name, []) == rest
