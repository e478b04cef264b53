# design/security.md, section 3
"""What the choke point does that two worlds do not show."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from fhir_server.app import Server
from fhir_server.dispatch import answer
from fhir_server.messages import Request, Response
from fhir_server.r4.json import decode
from fhir_server.security.plan import NOTHING, AccessPlan, Filter, Rights
from fhir_server.security.principal import Principal
from fhir_server.settings import Settings
from fhir_server.store.access import UnseenStage, Visible
from fhir_server.store.documents import Document
from tests.conftest import Emptied

A, B = (Principal("user", one, "app", patient=one) for one in "ab")
_LABEL = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality",
    "code": "R",
}


@pytest.fixture
def settings(emptied: Emptied) -> Iterator[Settings]:
    """Settings under which references are looked after."""
    with emptied.one() as name:
        yield Settings.model_validate(
            {
                "mongodb_database": name,
                "referential_integrity": ["*"],
                "reference_targets_checked": ["*"],
            }
        )


@pytest.fixture
async def clinic(server: Server) -> Server:
    """Patients a and b with an Observation each, and rights for each patient's own."""
    server = replace(server, context=replace(server.context, access=_own))
    for id in "ab":
        await _put(server, {"resourceType": "Patient", "id": id})
        await _put(server, _observation(f"o{id}", id))
    return server


async def _own(principal: Principal, context: Any) -> Rights:
    may: dict[tuple[str, str], Filter] = {
        (type, letter): {"compartments": f"Patient/{principal.patient}"}
        for type in ("Observation", "Provenance", "Condition")
        for letter in "cruds"
    }
    return Rights({**may, ("Patient", "r"): {"_id": principal.patient}})


def _observation(id: str, patient: str, **more: Any) -> dict[str, Any]:
    body = {"resourceType": "Observation", "id": id, "status": "final", "code": {"text": "x"}}
    return {**body, "subject": {"reference": f"Patient/{patient}"}, **more}


def _without_id(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "id"}


async def _put(server: Server, body: dict[str, Any]) -> Response:
    request = Request("update", body["resourceType"], body["id"], body=body)
    return await server.perform(request)


async def _asked(server: Server, request: Request, principal: Principal = A) -> Response:
    return await answer(server.registry, request, replace(server.context, principal=principal))


async def test_reads_of_several_principals_are_not_joined(clinic: Server) -> None:
    """However many ask at once, who may see it gets it and the others do not."""
    asked = [(principal, id) for _ in range(40) for principal in (A, B) for id in ("oa", "ob")]
    requests = (_asked(clinic, Request("read", "Observation", id), who) for who, id in asked)
    statuses = [one.status for one in await asyncio.gather(*requests)]
    assert statuses == [200 if id == f"o{who.patient}" else 404 for who, id in asked]
    assert len(clinic.context.store.fetch._lanes) <= 1  # none is kept for a patient


async def test_a_page_link_is_for_who_was_given_it(clinic: Server) -> None:
    """Another principal's link is refused as one that does not belong here."""
    for number in range(3):
        await _put(clinic, _observation(f"o{number}", "a"))
    first = await _asked(
        clinic, Request("search-type", "Observation", parameters=(("_count", "1"),))
    )
    links = {one["relation"]: one["url"] for one in decode(first.body)["link"]}
    assert "oa" not in links["next"]
    given = (("_count", "1"), ("_cursor", links["next"].partition("_cursor=")[2]))
    request = Request("search-type", "Observation", parameters=given)
    assert (await _asked(clinic, request, A)).status == 200
    assert (await _asked(clinic, request, B)).status == 400


async def test_only_versions_that_show_are_counted(clinic: Server) -> None:
    """A version that was another patient's is neither shown nor counted."""
    await _put(clinic, _observation("ob", "a"))
    await _put(clinic, _observation("ob", "a", status="amended"))
    found = decode((await _asked(clinic, Request("history-instance", "Observation", "ob"))).body)
    versions = [one["resource"]["meta"]["versionId"] for one in found["entry"]]
    assert (found["total"], versions) == (2, ["3", "2"])
    assert (await _asked(clinic, Request("vread", "Observation", "ob", "1"))).status == 404
    one = Request("history-instance", "Observation", "ob", parameters=(("_count", "1"),))
    assert decode((await _asked(clinic, one)).body)["total"] == 2


async def test_nothing_is_moved_out_of_reach_or_into_it(clinic: Server) -> None:
    """What is A's does not become B's, and no label falls off it; one may be put on."""
    moved = Request("update", "Observation", "oa", body=_observation("oa", "b"))
    assert (await _asked(clinic, moved)).status == 403
    labelled = _observation("oa", "a", meta={"security": [_LABEL]})
    put_on = Request("update", "Observation", "oa", body=labelled)
    assert (await _asked(clinic, put_on)).status == 200
    taken_off = Request("update", "Observation", "oa", body=_observation("oa", "a"))
    assert (await _asked(clinic, taken_off)).status == 403
    higher = _observation("oa", "a", meta={"security": [{**_LABEL, "code": "V"}]})
    assert (await _asked(clinic, replace(taken_off, body=higher))).status == 200


async def test_who_is_hidden_is_not_named_where_it_keeps_something(clinic: Server) -> None:
    """What another patient's resource refers to is kept, and that one is not named."""
    await _put(clinic, _observation("hidden", "b", derivedFrom=[{"reference": "Observation/oa"}]))
    refused = await _asked(clinic, Request("delete", "Observation", "oa"))
    assert refused.status == 409
    assert b"others refer to it" in refused.body
    assert b"hidden" not in refused.body
    await _put(clinic, _observation("shown", "a", derivedFrom=[{"reference": "Observation/oa"}]))
    refused = await _asked(clinic, Request("delete", "Observation", "oa"))
    assert b"Observation/shown and others refer" in refused.body


async def test_what_is_written_together_may_refer_to_each_other(clinic: Server) -> None:
    """A reference to what the same request writes leads to it, though nobody may read it."""

    async def only_create(principal: Principal, context: Any) -> Rights:
        letters: dict[tuple[str, str], Filter] = {
            (type, "c"): {"compartments": "Patient/a"} for type in ("Observation", "Condition")
        }
        return Rights({**letters, ("Patient", "r"): {"_id": "a"}})

    writer = replace(clinic, context=replace(clinic.context, access=only_create))
    first, second = (f"urn:uuid:{number:08}-0000-4000-8000-{number:012}" for number in (1, 2))
    bodies = {
        first: _without_id(_observation("", "a")),
        second: _without_id(_observation("", "a", derivedFrom=[{"reference": first}])),
    }
    entries = [
        {"fullUrl": url, "request": {"method": "POST", "url": "Observation"}, "resource": body}
        for url, body in bodies.items()
    ]
    body = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    assert (await _asked(writer, Request("transaction", body=body))).status == 200


_PROVENANCE = {
    "resourceType": "Provenance",
    "recorded": "2024-01-01T00:00:00Z",
    "agent": [{"who": {"display": "x"}}],
}


_ELSEWHERE = "http://elsewhere.example.org/Patient/a"
_TARGETS: list[tuple[list[str], list[str]]] = [
    (["Patient/a"], ["Patient/a"]),
    (["Observation/oa"], ["Patient/a"]),
    (["Observation/oa", "Patient/a", "Observation/oa/_history/1"], ["Patient/a"]),
    (["Observation/oa", "Observation/ob"], []),
    (["Patient/a", "Patient/b"], []),
    (["Patient/a", _ELSEWHERE], []),
    (["Patient/a", "urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0"], []),
]


async def test_a_provenance_belongs_to_whom_all_its_targets_share(clinic: Server) -> None:
    """A second target of another patient, or of nobody, opens it to nobody; so does indexing."""
    stored = clinic.database["Provenance"]
    job = {"after": "", "until": "p", "done": 0, "total": 1, "failed": [], "asked": True}
    for targets, patients in _TARGETS:
        body = {**_PROVENANCE, "id": "p", "target": [{"reference": one} for one in targets]}
        await _put(clinic, body)
        assert (await _compartments(stored)) == patients
        status = (await _asked(clinic, Request("read", "Provenance", "p"))).status
        assert status == (200 if patients else 404)
        await stored.update_one({"_id": "p"}, {"$set": {"compartments": ["Patient/wrong"]}})
        await clinic.context.reindex._portion("Provenance", job)
        assert (await _compartments(stored)) == patients


async def _compartments(stored: Any) -> list[str]:
    found: Document | None = await stored.find_one({"_id": "p"})
    assert found is not None
    return [one for one in found["compartments"] if one.startswith("Patient/")]


async def test_a_provenance_knows_what_is_written_with_it(clinic: Server) -> None:
    """Its targets may be entries of the same transaction."""
    entries: list[Mapping[str, Any]] = [
        {
            "request": {"method": "PUT", "url": "Provenance/p"},
            "resource": {**_PROVENANCE, "id": "p", "target": [{"reference": "Observation/new"}]},
        },
        {
            "request": {"method": "PUT", "url": "Observation/new"},
            "resource": _observation("new", "a"),
        },
    ]
    body = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    await clinic.perform(Request("transaction", body=body))
    assert (await _compartments(clinic.database["Provenance"])) == ["Patient/a"]


async def test_an_answer_is_not_told_again_to_who_may_see_less(clinic: Server) -> None:
    """After rights have changed, the key is still taken and the answer's body is not repeated."""
    entry = {"request": {"method": "GET", "url": "Observation/oa"}}
    made = {
        "request": {"method": "POST", "url": "Observation"},
        "resource": _without_id(_observation("", "a")),
    }
    body = {"resourceType": "Bundle", "type": "transaction", "entry": [made, entry]}
    request = Request("transaction", body=body, idempotency_key="k")
    assert b"Patient/a" in (await _asked(clinic, request)).body
    assert b"Patient/a" in (await _asked(clinic, request)).body

    async def less(principal: Principal, context: Any) -> Rights:
        rights = await _own(principal, context)
        return Rights({key: one for key, one in rights.may.items() if key[1] != "s"})

    later = replace(clinic, context=replace(clinic.context, access=less))
    again = await _asked(later, request)
    assert again.status == 200
    assert b"Patient/a" not in again.body


@pytest.mark.parametrize(
    "stage",
    [
        {"$graphLookup": {"from": "Patient"}},
        {"$unionWith": "Patient"},
        {"$facet": {"x": []}},
        {"$out": "Patient"},
        {"$merge": "Patient"},
        {"$lookup": {"from": "Patient_history", "pipeline": [], "as": "x"}},
        {"$lookup": {"from": "Patient", "pipeline": [{"$unionWith": "Observation"}], "as": "x"}},
        {"$documents": []},
    ],
)
async def test_a_stage_that_would_read_around_the_plan_is_refused(
    stage: Document,
) -> None:
    """Such a pipeline is a fault of ours, and is not run."""
    visible = Visible({"Observation": None, "server": None}, AccessPlan({}, {}), lambda _: None)  # type: ignore[arg-type,return-value]
    for name in ("Observation", "server"):
        with pytest.raises(UnseenStage):
            await visible[name].aggregate([stage])


def test_what_is_looked_up_from_beside_is_narrowed() -> None:
    """A collection without resources is no way around: what it looks up is narrowed as well."""
    seen: Filter = {"compartments": "Patient/a"}
    visible = Visible({}, AccessPlan({"Patient": seen}, {}), lambda _: None)  # type: ignore[arg-type,return-value]
    narrowed = visible.stage({"$lookup": {"from": "Patient", "pipeline": [{"$limit": 1}]}})
    assert narrowed["$lookup"]["pipeline"] == [{"$match": seen}, {"$limit": 1}]
    hidden = visible.stage({"$lookup": {"from": "Observation", "as": "x"}})
    assert hidden["$lookup"]["pipeline"] == [{"$match": NOTHING}]
    with pytest.raises(AttributeError):
        visible.command  # noqa: B018


async def test_a_deletion_is_told_by_what_was_deleted(clinic: Server) -> None:
    """Where keys decide, a deletion is 410 to whom the resource was visible, and else 404; nobody
    lists it or makes it anew."""
    codes = {"shown": "x", "hidden": "secret"}
    for id, code in codes.items():
        coded = {"coding": [{"system": "urn:x", "code": code}]}
        await _put(clinic, _observation(id, "a", code=coded))
        await clinic.perform(Request("delete", "Observation", id))

    async def by_keys(principal: Principal, context: Any) -> Rights:
        secret = {"keys.code": {"$elemMatch": {"$gte": "secret", "$lt": "secret "}}}
        seen: Filter = {"$and": [{"compartments": "Patient/a"}, {"$nor": [secret]}]}
        return Rights({("Observation", letter): seen for letter in "cruds"})

    clinic = replace(clinic, context=replace(clinic.context, access=by_keys))
    for id, status in {"shown": 410, "hidden": 404, "absent": 404}.items():
        assert (await _asked(clinic, Request("read", "Observation", id))).status == status
    for id in codes:
        again = Request("update", "Observation", id, body=_observation(id, "a"))
        assert (await _asked(clinic, again)).status == 404
    listed = await _asked(clinic, Request("history-type", "Observation"))
    assert b"hidden" not in listed.body


async def test_a_closure_table_is_of_who_began_it(clinic: Server) -> None:
    """The name of a table is chosen by clients: another's of that name is neither told nor begun
    anew."""
    clinic = replace(clinic, context=replace(clinic.context, access=_own))

    def call(*more: dict[str, Any]) -> Request:
        body = {
            "resourceType": "Parameters",
            "parameter": [{"name": "name", "valueString": "t"}, *more],
        }
        return Request("$closure", body=body)

    since = {"name": "version", "valueString": "0"}
    assert (await _asked(clinic, call(), A)).status == 200
    assert (await _asked(clinic, call(since), A)).status == 200
    assert (await _asked(clinic, call(since), B)).status == 404
