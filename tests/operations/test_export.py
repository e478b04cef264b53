"""https://hl7.org/fhir/uv/bulkdata/STU2/export.html"""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import Server
from fhir_server.load import load
from fhir_server.messages import Request, Response
from fhir_server.operations import export_files, export_pages, export_work
from fhir_server.operations.export import unsettled_s
from fhir_server.operations.export_work import work
from fhir_server.outcome import FhirError, Issue
from fhir_server.security import audit
from fhir_server.security.plan import Rights
from fhir_server.security.principal import NOBODY, Principal
from fhir_server.security.scopes import scopes_of
from fhir_server.store import exported
from fhir_server.store.client import OutcomeUnknownError
from fhir_server.store.documents import instant
from fhir_server.store.exports import CANCELLED, JOBS, PATIENTS, PIECES, Exports, Job
from fhir_server.store.expunge import Wanted
from tests.operations.exports import (
    ASYNC,
    BACKEND,
    Exporting,
    Granted,
    by,
    group,
    names,
    observation,
    patient,
    stored,
)

CLINIC = Path(__file__).resolve().parents[2] / "examples" / "dhaka-clinic" / "clinic.json"


@pytest.fixture
def granted() -> Granted:
    """Rights that the test gives and takes."""
    return Granted()


@pytest.fixture
def client(server: Server) -> Exporting:
    """Whoever may do everything."""
    return Exporting(server)


async def _searched(server: Server, type: str) -> list[bytes]:
    found = await server.context.store.indexes.existing()
    assert type in found
    rows = await server.database[type].find({"deleted": {"$exists": False}}).to_list()
    return [row["json"] for row in rows]


async def test_all_of_a_clinic_is_exported_once_as_a_search_returns_it(
    server: Server, client: Exporting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the sample clinic each resource comes once, byte for byte as it is stored, type by type,
    in files that end where they are full, of pieces that somebody can hold."""
    monkeypatch.setattr(export_pages, "_PIECE_BYTES", 5000)
    client.server = by(server, export_page_entries=17, export_file_bytes_max=20_000)
    settings = server.context.settings
    report = await load([CLINIC], server.perform, xml=server.xml, bytes_max=settings.body_bytes_max)
    assert not report.errors
    place = await client.begin()
    await client.worked()
    manifest = await client.manifest(place)
    found = await client.output(manifest)
    existing = await server.context.store.indexes.existing()
    types = [type for type in existing if type not in ("Binary", "AuditEvent")]
    expected = [json.loads(one) for type in types for one in await _searched(server, type)]
    assert len(found) == len(expected) > 100
    by_name = {(one["resourceType"], one["id"]): one for one in expected}
    assert all(by_name[one["resourceType"], one["id"]] == one for one in found)
    names(found)
    files = [one["type"] for one in manifest["output"]]
    assert files == sorted(files)
    assert len(files) > len(set(files))
    assert await server.database[PIECES].count_documents({}) > len(files) > len(expected) / 17
    assert manifest["requiresAccessToken"] is True
    assert manifest["request"] == "http://localhost/fhir/$export"
    assert manifest["deleted"] == manifest["error"] == []


@pytest.mark.slow
async def test_synthetic_patients_are_exported_once(
    server: Server, client: Exporting, shared: Path
) -> None:
    """Of some thousand resources each comes once; those of one patient as the compartment search
    has them."""
    files = sorted((shared / "synthea").glob("*.json.gz"))[:6]
    if not files:
        pytest.skip("the synthetic patients are not there (../shared/data/synthea)")
    most = server.context.settings.body_bytes_max
    assert not (await load(files, server.perform, xml=server.xml, bytes_max=most)).errors
    found = await client.exported()
    types = await server.context.store.indexes.existing()
    expected = [json.loads(one) for type in types for one in await _searched(server, type)]
    assert len(names(found)) == len(expected) > 1000
    assert {one["id"]: one for one in found} == {one["id"]: one for one in expected}
    [id, *_] = [one["id"] for one in found if one["resourceType"] == "Patient"]
    body = {
        "resourceType": "Parameters",
        "parameter": [
            {"name": "patient", "valueReference": {"reference": f"Patient/{id}"}},
            {"name": "_type", "valueString": "Patient,Observation,Encounter,Claim"},
        ],
    }
    theirs = await client.exported("Patient/$export", method="POST", body=body)
    place = ("Observation", "Encounter", "Claim")
    counts = [
        json.loads((await client.ask(f"Patient/{id}/{type}?_summary=count")).body)["total"]
        for type in place
    ]
    assert len(names(theirs)) == 1 + sum(counts) > 10


async def test_status_says_how_far_it_is(server: Server, client: Exporting) -> None:
    """202 with X-Progress and Retry-After until it is done; then 200 with Expires."""
    await stored(server, patient("a"))
    place = await client.begin()
    waiting = await client.ask(place)
    said = dict(waiting.headers)
    assert (waiting.status, waiting.body) == (202, b"")
    assert said["X-Progress"] == "0 resources; 0 of 1 steps"
    assert int(said["Retry-After"]) >= 1
    await client.worked()
    assert "GMT" in dict((await client.ask(place)).headers)["Expires"]


async def test_cancelling_removes_all_of_it(server: Server, client: Exporting) -> None:
    """DELETE ends an export, complete or not; then it and its files are gone."""
    await stored(server, patient("a"))
    complete = await client.begin()
    await client.worked()
    file = (await client.manifest(complete))["output"][0]["url"]
    waiting = await client.begin("Patient/$export")
    for place in (complete, waiting):
        assert (await client.ask(place, "DELETE")).status == 202
        assert (await client.ask(place)).status == 404
        assert (await client.ask(place, "DELETE")).status == 404
    assert (await client.ask(file)).status == 404
    assert not await work(server.context)
    for name in (JOBS, PIECES, PATIENTS):
        assert await server.database[name].count_documents({}) == 0


async def test_what_is_cancelled_while_it_is_worked_on_takes_no_further_page(
    server: Server, client: Exporting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker in the middle of a page writes nothing to a job that was cancelled; what a process
    that died has not removed of it goes with the next look around."""
    await stored(server, patient("a"))
    await client.begin()
    read = export_pages.PAGES["output"]

    async def meanwhile(*given: Any) -> export_pages.Page:
        page = await read(*given)
        await server.database[JOBS].update_many({}, {"$set": {"status": CANCELLED}})
        return page

    monkeypatch.setitem(export_pages.PAGES, "output", meanwhile)
    assert await work(server.context)
    assert await server.database[PIECES].count_documents({}) == 0
    server.context.exports._swept = float("-inf")
    assert not await work(server.context)
    for name in (JOBS, PIECES):
        assert await server.database[name].count_documents({}) == 0


async def test_what_is_over_its_time_is_gone(server: Server, client: Exporting) -> None:
    """An export expires for its requester at once; what is kept of it is removed an hour later."""
    await stored(server, patient("a"))
    place = await client.begin()
    await client.worked()
    for minutes, left in ((30, 1), (61, 0)):
        past = datetime.now(UTC) - timedelta(minutes=minutes)
        await server.database[JOBS].update_many({}, {"$set": {"expires": past}})
        assert (await client.ask(place)).status == 404
        server.context.exports._swept = float("-inf")
        await work(server.context)
        assert await server.database[JOBS].count_documents({}) == left
        assert await server.database[PIECES].count_documents({}) == left


async def test_another_process_goes_on_where_one_has_stopped(
    server: Server, client: Exporting
) -> None:
    """A job that is left in its middle is done by who comes next, and nothing comes twice; the one
    that was too slow writes nothing any more."""
    client.server = server = by(server, export_page_entries=2)
    await stored(server, *(patient(f"p{n}") for n in range(7)))
    place = await client.begin()
    exports = server.context.exports
    job = await exports.leased(server.context.now())
    assert job is not None
    job = await export_work._further(job, exports, server.context)
    assert job is not None
    assert not await work(server.context)  # the lease holds
    await server.database[JOBS].update_many(
        {}, {"$set": {"until": datetime(2020, 1, 1, tzinfo=UTC), "worker": "another"}}
    )
    assert await export_work._further(job, exports, server.context) is None
    assert await server.database[PIECES].count_documents({}) == 1
    await client.worked()
    found = await client.output(await client.manifest(place))
    assert names(found) == [f"Patient/p{n}" for n in range(7)]


async def test_what_changed_since_and_what_was_deleted(server: Server, client: Exporting) -> None:
    """With _since come the newer versions, and a DELETE for each deletion."""
    await stored(server, patient("old"), patient("gone"), patient("before"), patient("new"))
    await server.perform(Request("delete", "Patient", "before"))
    [tombstone] = await server.database["Patient"].find({"_id": "before"}).to_list()
    since = instant(tombstone["last_updated"])
    await stored(server, patient("new", gender="female"), observation("o", "new"))
    await server.perform(Request("delete", "Patient", "gone"))
    place = await client.begin(f"Patient/$export?_since={since}")
    await client.worked()
    manifest = await client.manifest(place)
    assert names(await client.output(manifest)) == ["Observation/o", "Patient/new"]
    [bundle] = [one for file in manifest["deleted"] for one in await client.lines(file["url"])]
    assert manifest["deleted"][0]["type"] == bundle["resourceType"] == "Bundle"
    assert bundle["type"] == "transaction"
    assert bundle["entry"] == [{"request": {"method": "DELETE", "url": "Patient/gone"}}]


async def test_the_transaction_time_lies_before_what_may_be_under_way(
    server: Server, client: Exporting
) -> None:
    """What was begun before the time is committed, or never will be, when the export reads: an
    export _since that time misses nothing."""
    began = datetime.now(UTC)
    place = await client.begin()
    await client.worked()
    time = datetime.fromisoformat((await client.manifest(place))["transactionTime"])
    settings = server.context.settings
    assert unsettled_s(settings) > settings.request_timeout_s
    margin = timedelta(seconds=unsettled_s(settings) - 1)
    assert began - margin - timedelta(seconds=2) < time < began - margin


@pytest.fixture
async def clinic(server: Server) -> Server:
    """Patients a, b and c; d is a directory. Two observations each, one of both a and c."""
    both = observation("ac", "a", performer=[{"reference": "Patient/c"}])
    await stored(
        server,
        *(patient(id) for id in "abc"),
        *(observation(f"{id}{n}", id) for id in "abc" for n in (1, 2)),
        both,
        {"resourceType": "Practitioner", "id": "doctor"},
        {"resourceType": "ValueSet", "id": "v", "status": "draft"},
    )
    return server


@pytest.fixture
def judged(clinic: Server, granted: Granted) -> Server:
    """The clinic, where ``granted`` says who may do what."""
    return replace(clinic, context=replace(clinic.context, access=granted))


async def test_patients_are_exported_with_what_belongs_to_them(
    clinic: Server, client: Exporting
) -> None:
    """At the level of patients comes what is in their compartments, and the directories."""
    found = names(await client.exported("Patient/$export"))
    assert "ValueSet/v" not in found
    assert len(found) == 3 + 7 + 1
    assert names(await client.exported("Patient/$export?_type=Practitioner,Patient")) == [
        *("Patient/a", "Patient/b", "Patient/c", "Practitioner/doctor")
    ]


async def test_members_of_a_group(
    clinic: Server, client: Exporting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Active members, also of groups in it; what belongs to others as well is left out, what
    belongs to several members comes once, however many are taken at a time."""
    inactive = {"entity": {"reference": "Patient/b"}, "inactive": True}
    listed = group("g", "Patient/a", "Group/inner", "Group/g")
    listed["member"].append(inactive)
    await stored(clinic, group("inner", "Patient/c"), listed, group("alone", "Patient/a"))
    wanted = "$export?_type=Patient,Observation"
    for together in (1, 2, 100):
        monkeypatch.setattr("fhir_server.store.exports.PATIENTS_TOGETHER", together)
        assert names(await client.exported(f"Group/g/{wanted}")) == [
            *("Observation/a1", "Observation/a2", "Observation/ac", "Observation/c1"),
            *("Observation/c2", "Patient/a", "Patient/c"),
        ]
    assert names(await client.exported(f"Group/alone/{wanted}")) == [
        *("Observation/a1", "Observation/a2", "Patient/a"),
    ]
    assert (await client.ask("Group/none/$export", prefer=ASYNC)).status == 404


async def test_provenance_comes_with_its_targets(clinic: Server, client: Exporting) -> None:
    """One whose target belongs to a patient comes with that patient; one of others does not."""
    for id, *targets in (
        ("of-a", "Observation/a1"),
        ("of-c", "Patient/c"),
        ("of-both", "Observation/a1", "Observation/b1"),
        ("of-v", "ValueSet/v"),
    ):
        provenance = {
            "resourceType": "Provenance",
            "id": id,
            "target": [{"reference": one} for one in targets],
            "recorded": "2026-01-01T00:00:00Z",
            "agent": [{"who": {"display": "somebody"}}],
        }
        await stored(clinic, provenance)
    await stored(clinic, group("g", "Patient/a", "Patient/c"))
    url = "$export?_type=Provenance"
    everywhere = ["of-a", "of-both", "of-c"]
    assert names(await client.exported(f"Patient/{url}")) == [f"Provenance/{n}" for n in everywhere]
    assert names(await client.exported(f"Group/g/{url}")) == ["Provenance/of-a", "Provenance/of-c"]


async def test_patients_that_are_listed(clinic: Server, client: Exporting) -> None:
    """POST with patients exports these; one that is not there, or not in the group, is an error."""

    def body(*ids: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = [
            {"name": "patient", "valueReference": {"reference": f"Patient/{id}"}} for id in ids
        ]
        return {
            "resourceType": "Parameters",
            "parameter": [*found, {"name": "_type", "valueString": "Patient,Observation"}],
        }

    place = await client.begin("Patient/$export", method="POST", body=body("b"))
    await client.worked()
    assert names(await client.output(await client.manifest(place))) == [
        *("Observation/b1", "Observation/b2", "Patient/b")
    ]
    await stored(clinic, group("g", "Patient/a"))
    for url in ("Patient/$export", "Group/g/$export"):
        bad = body("a", "nobody") if url == "Patient/$export" else body("a", "b")
        refused = await client.ask(url, "POST", body=bad, prefer=ASYNC)
        assert refused.status == 400
        place = await client.begin(url, "lenient", method="POST", body=bad)
        await client.worked()
        manifest = await client.manifest(place)
        assert names(await client.output(manifest)) == [
            *("Observation/a1", "Observation/a2", "Patient/a")
        ]
        [problem] = await client.output(manifest, "error")
        assert problem["resourceType"] == "OperationOutcome"


async def test_searches_of_a_type(clinic: Server, client: Exporting) -> None:
    """What one of several searches finds comes, and comes once; other types come whole. A comma
    inside a search is part of it."""
    found = await client.exported(
        "$export?_type=Observation,Practitioner&_typeFilter=Observation?subject=Patient/a,Patient/b"
        "&_typeFilter=Observation%3Fsubject:Patient._id=c,Observation%3F_id=a1,c1"
    )
    assert names(found) == [
        *("Observation/a1", "Observation/a2", "Observation/ac", "Observation/b1"),
        *("Observation/b2", "Observation/c1", "Observation/c2", "Practitioner/doctor"),
    ]


async def test_elements(clinic: Server, client: Exporting) -> None:
    """Elements of a type leave the others as they are; a bare name is about all of them."""
    some = await client.exported("$export?_type=Observation,Patient&_elements=Observation.code")
    assert all(("subject" in one, "code" in one) == (False, True) for one in some[:7])
    assert some[0]["meta"]["tag"][0]["code"] == "SUBSETTED"
    assert "tag" not in some[-1]["meta"]
    bare = await client.exported("$export?_type=Observation,Patient&_elements=code")
    assert "tag" in bare[-1]["meta"]


NOT_SUPPORTED = (
    ("$export?_tpye=Patient", "_type"),
    ("$export?_outputFormat=text/csv", "ndjson"),
    ("$export?includeAssociatedData=LatestProvenanceResources", "not supported"),
    ("$export?_type=Patient,Nonsense", "Nonsense"),
    ("$export?_type=Patient,AuditEvent", "AuditEvent"),
    ("$export?_typeFilter=Patient", "_typeFilter"),
    ("$export?_typeFilter=Patient%3F_sort=name", "_sort"),
    ("$export?_typeFilter=Patient%3Fnonsense=1", "nonsense"),
    ("$export?_type=Patient&_typeFilter=Observation%3Fstatus=final", "is exported"),
    ("$export?_elements=Patient.nonsense", "nonsense"),
    ("$export?patient=Patient/a", "patient"),
    ("Patient/$export?patient=Patient/a", "POST"),
    ("Patient/$export?_type=Patient,ValueSet", "ValueSet"),
)


async def test_what_is_not_supported_is_refused_or_reported(
    server: Server, client: Exporting
) -> None:
    """400 with what is wrong; with lenient handling it is left out, and said in the manifest."""
    client.server = by(server, export_kept_max=100)
    await stored(server, patient("a"))
    for url, said in NOT_SUPPORTED:
        refused = await client.ask(url, prefer=ASYNC)
        assert refused.status == 400
        assert said in json.loads(refused.body)["issue"][0]["diagnostics"]
        place = await client.begin(url, "lenient")
        await client.worked()
        manifest = await client.manifest(place)
        assert names(await client.output(manifest)) == ["Patient/a"]
        [problem] = await client.output(manifest, "error")
        assert said in problem["issue"][0]["diagnostics"]


@pytest.mark.parametrize(
    "url",
    [
        "$export?_since=yesterday",
        "$export?_since=2026-01-01",
        "$export?_since=2026-01-01T00:00:00Z&_since=2026-01-02T00:00:00Z",
        "$export?_since=2026-99-01T00:00:00Z",
        "$export?_type=Nonsense",
        "$export?_type=" + ",".join(f"T{n}" for n in range(600)),
        "$export-status?job=x&job=y",
    ],
)
@pytest.mark.parametrize("handling", ["strict", "lenient"])
async def test_what_cannot_be_meant_is_refused_in_any_case(
    empty: Server, url: str, handling: str
) -> None:
    """400, however lenient the client is."""
    found = await Exporting(empty).ask(url, prefer={**ASYNC, "handling": handling})
    assert found.status == 400


@pytest.mark.parametrize(
    "body",
    [
        {"resourceType": "Patient"},
        {"resourceType": "Parameters", "parameter": [{"name": "_type", "valueBoolean": True}]},
        {"resourceType": "Parameters", "parameter": [{"name": "patient", "valueString": "x"}]},
        {"resourceType": "Parameters", "parameter": [{"name": "_since", "valueInstant": "x"}]},
        {
            "resourceType": "Parameters",
            "parameter": [{"name": "patient", "valueReference": {"reference": "Group/$ne"}}],
        },
    ],
)
async def test_bodies_that_are_none(empty: Server, body: dict[str, Any]) -> None:
    """A body that is no Parameters, or whose values are of another kind, is refused."""
    client = Exporting(empty)
    assert (await client.ask("Patient/$export", "POST", body=body, prefer=ASYNC)).status == 400


async def test_an_export_is_asked_for_in_the_background(empty: Server) -> None:
    """Without Prefer: respond-async it is refused, and the sentence says what to send."""
    refused = await Exporting(empty).ask("$export")
    assert refused.status == 400
    assert b"respond-async" in refused.body


async def test_a_group_that_describes_whom_it_means(server: Server, client: Exporting) -> None:
    """A Group without actual members is refused."""
    await stored(server, group("g", actual=False))
    assert (await client.ask("Group/g/$export", prefer=ASYNC)).status == 422


async def test_too_many_at_once(server: Server, client: Exporting) -> None:
    """429 while too many are under way, or are kept."""
    client.server = by(server, export_jobs_max=2, export_kept_max=3)
    at_once = await asyncio.gather(*(client.ask("$export", prefer=ASYNC) for _ in range(8)))
    begun = [one for one in at_once if one.status == 202]
    assert len(begun) <= 2
    assert {one.status for one in at_once} <= {202, 429}
    places = [dict(one.headers)["Content-Location"] for one in begun]
    places += [await client.begin() for _ in range(2 - len(begun))]
    refused = await client.ask("$export", prefer=ASYNC)
    assert refused.status == 429
    assert "Retry-After" in dict(refused.headers)
    await client.worked()
    places.append(await client.begin())
    await client.worked()
    assert (await client.ask("$export", prefer=ASYNC)).status == 429
    await client.ask(places[0], "DELETE")
    await client.begin()


async def test_scopes_say_what_is_exported(judged: Server, granted: Granted) -> None:
    """Without _type what the scopes open, and of that what they show; 403 for a type that they do
    not open, and for whoever may not export at all."""
    backend = Exporting(judged, BACKEND)
    assert (await backend.ask("$export", prefer=ASYNC)).status == 403
    granted.open("backend", {"Observation": {"compartments": "Patient/a"}, "Practitioner": {}})
    assert names(await backend.exported()) == [
        *("Observation/a1", "Observation/a2", "Observation/ac", "Practitioner/doctor")
    ]
    refused = await backend.ask("$export?_type=Observation,Patient", prefer=ASYNC)
    assert refused.status == 403
    lenient = {**ASYNC, "handling": "lenient"}
    assert (await backend.ask("$export?_type=Patient", prefer=lenient)).status == 403
    assert (await backend.ask("Group/g/$export", prefer=ASYNC)).status == 403
    assert (await Exporting(judged, NOBODY).ask("$export", prefer=ASYNC)).status == 401
    user = Principal("user", "u")
    granted.open("u", {"Observation": {}})
    assert (await Exporting(judged, user).ask("$export", prefer=ASYNC)).status == 403
    granted.open("u", {"ValueSet": {}}, roles=("analyst",))
    assert names(await Exporting(judged, user).exported()) == ["ValueSet/v"]


async def test_system_scopes_as_they_are_granted(clinic: Server) -> None:
    """The rights of a backend are those of its scopes, of both versions, parameters among them."""
    for scopes, expected in (
        ("system/Patient.read", ["Patient/a", "Patient/b", "Patient/c"]),
        ("system/Practitioner.rs system/Patient.cud", ["Practitioner/doctor"]),
        ("system/Observation.rs?subject=Patient/b", ["Observation/b1", "Observation/b2"]),
    ):
        backend = Exporting(clinic, replace(BACKEND, scopes=scopes_of(scopes)))
        assert names(await backend.exported()) == expected
    patients = Principal("user", "u", "app", scopes_of("patient/*.rs"), patient="a")
    assert (await Exporting(clinic, patients).ask("$export", prefer=ASYNC)).status == 403


async def test_read_alone_opens_no_export(judged: Server, granted: Granted) -> None:
    """What may be read by its id and not searched for is not handed out as a list."""
    granted.rights["backend"] = Rights({("Patient", "r"): {}})
    refused = await Exporting(judged, BACKEND).ask("$export?_type=Patient", prefer=ASYNC)
    assert refused.status == 403


async def test_filters_show_nothing_of_what_is_hidden(judged: Server, granted: Granted) -> None:
    """A chain of a _typeFilter leads only through what the scopes show."""
    granted.open("backend", {"Observation": {}, "Patient": {"_id": "a"}})
    client = Exporting(judged, BACKEND)
    url = "$export?_type=Observation&_typeFilter=Observation%3Fsubject:Patient._id="
    assert names(await client.exported(f"{url}a")) == [
        *("Observation/a1", "Observation/a2", "Observation/ac")
    ]
    assert names(await client.exported(f"{url}b")) == []


async def test_others_find_no_export(judged: Server, granted: Granted) -> None:
    """Status, files and cancelling are for who asked: 401 without a token, 404 for others, whose
    rights may be the same."""
    granted.open("backend", {"Observation": {}})
    granted.open("other", {"Observation": {}})
    backend = Exporting(judged, BACKEND)
    place = await backend.begin()
    await backend.worked()
    file = (await backend.manifest(place))["output"][0]["url"]
    for principal, status in ((NOBODY, 401), (Principal("client", "other"), 404)):
        stranger = Exporting(judged, principal)
        for url in (place, file):
            assert (await stranger.ask(url)).status == status
        assert (await stranger.ask(place, "DELETE")).status == status
    assert (await Exporting(judged).ask(file)).status == 404
    again = Exporting(judged, replace(BACKEND, token="another", request_id="another"))
    assert len(await again.lines(file)) == 7
    for number in ("1", "-1", "x", "", "99999999999"):
        url = file.replace("file=0", f"file={number}")
        assert (await backend.ask(url)).status == 404


async def test_rights_that_end_while_it_is_under_way(judged: Server, granted: Granted) -> None:
    """Before each page they are looked up anew: what was named and is not open any more ends the
    export with 403; what was not named is left out."""
    judged = by(judged, export_page_entries=2)
    everything: dict[str, Any] = {"Observation": {}, "Patient": {}}
    exports, backend = judged.context.exports, Exporting(judged, BACKEND)
    found = Response(0)
    for url, status in (("$export?_type=Observation,Patient", 403), ("$export", 200)):
        granted.open("backend", everything)
        place = await backend.begin(url)
        job = await exports.leased(judged.context.now())
        assert job is not None
        job = await export_work._further(job, exports, judged.context)
        assert job is not None
        assert job.count == 2
        await exports.release(job)
        granted.open("backend", {"Patient": {}})
        await backend.worked()
        found = await backend.ask(place)
        assert found.status == status
        assert await judged.database[JOBS].count_documents({"status": "running"}) == 0
    listed = json.loads(found.body)["output"]
    assert [(one["type"], one["count"]) for one in listed] == [("Observation", 2), ("Patient", 3)]
    assert (await backend.ask(listed[0]["url"])).status == 403
    assert len(await backend.lines(listed[1]["url"])) == 3
    granted.rights.clear()
    assert (await backend.ask(listed[1]["url"])).status == 403


async def test_what_fails_is_tried_again_with_less(
    clinic: Server, client: Exporting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that cannot be read now is read later; one that never can ends the export, and the
    status says of what."""
    monkeypatch.setattr(export_work, "_PAUSE_S_MAX", 0)
    read = export_pages.PAGES["output"]
    wanted: list[int] = []

    async def failing(job: Job, type: str, context: Any) -> export_pages.Page:
        if job.failures < fails:
            raise FhirError(Issue("timeout", "This took too long."))
        wanted.append((await export_pages.searched(job, type, 0, [], context)).count)
        return await read(job, type, context)

    monkeypatch.setitem(export_pages.PAGES, "output", failing)
    fails = 3
    assert len(names(await client.exported("$export?_type=Observation"))) == 7
    assert wanted == [clinic.context.settings.export_page_entries >> 3]
    fails = 1000
    place = await client.begin()
    await client.worked()
    failed = await client.ask(place)
    assert failed.status == 503
    assert json.loads(failed.body)["issue"][0]["diagnostics"] == "This took too long."


async def test_what_fails_in_the_middle_is_done_again(
    clinic: Server, client: Exporting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several pages that are written together none is kept if a later one fails, or if another
    process has taken the job meanwhile: each resource comes once, in files that follow each other
    without a gap."""
    monkeypatch.setattr(export_work, "_PAUSE_S_MAX", 0)
    monkeypatch.setattr(export_work, "_TOGETHER_S", 60)
    monkeypatch.setattr(export_pages, "_SEARCHED_ENTRIES", 2)
    read = export_pages.PAGES["output"]
    calls: list[str] = []

    async def failing(job: Job, type: str, context: Any) -> export_pages.Page:
        calls.append(type)
        if len(calls) in (3, 5, 6):
            raise FhirError(Issue("timeout", "This took too long."))
        if len(calls) == 10:
            lost = {"worker": "another", "until": datetime(2020, 1, 1, tzinfo=UTC)}
            await clinic.database[JOBS].update_many({}, {"$set": lost})
        return await read(job, type, context)

    monkeypatch.setitem(export_pages.PAGES, "output", failing)
    place = await client.begin(
        "$export?_type=Observation,Patient,Practitioner"
        "&_typeFilter=Observation?status=final,Patient?_id=a,b,c,Practitioner?_id=doctor"
    )
    exports = clinic.context.exports
    two = [replace(clinic.context, exports=replace(exports, worker=name)) for name in "xy"]
    turn = 0
    while await work(two[turn % 2], slice_s=60):
        turn += 1
    assert turn == 5
    manifest = await client.manifest(place)
    assert len(names(await client.output(manifest))) == 7 + 3 + 1
    [job] = await clinic.database[JOBS].find().to_list()
    ends = [file["first"] + file["pieces"] for file in job["files"]]
    assert [file["first"] for file in job["files"]] == [0, *ends[:-1]]
    numbers = [row["_id"]["n"] async for row in clinic.database[PIECES].find().sort("_id")]
    assert numbers == list(range(ends[-1]))


async def test_what_was_written_without_an_answer_is_not_written_again(
    clinic: Server, client: Exporting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is unknown whether pages were written, what is stored says how far the job is: in
    its middle, and at its end."""
    client.server = by(clinic, export_page_entries=2)
    monkeypatch.setattr(export_work, "_PAUSE_S_MAX", 0)
    write = Exports.write
    written: list[int] = []

    async def lost(exports: Exports, job: Job, *given: Any) -> bool:
        is_ours = await write(exports, job, *given)
        written.append(job.pieces)
        if len(written) in (1, 3) or job.status == "complete":
            raise OutcomeUnknownError
        return is_ours

    monkeypatch.setattr(Exports, "write", lost)
    assert len(names(await client.exported("$export?_type=Observation,Patient"))) == 7 + 3
    assert written == sorted(set(written))


async def test_a_file_has_what_may_be_seen_now(judged: Server, granted: Granted) -> None:
    """What is hidden after the export, as by a consent, is not in its files either; nor is a
    version of somebody who is hidden, whoever the resource belongs to now."""
    granted.open("backend", {"Observation": {}})
    backend = Exporting(judged, BACKEND)
    place = await backend.begin()
    await backend.worked()
    file = (await backend.manifest(place))["output"][0]["url"]
    assert len(await backend.lines(file)) == 7
    granted.open("backend", {"Observation": {"$nor": [{"compartments": "Patient/a"}]}})
    assert names(await backend.lines(file)) == [
        *("Observation/b1", "Observation/b2", "Observation/c1", "Observation/c2")
    ]
    await stored(judged, observation("a1", "b"))
    granted.open("backend", {"Observation": {"compartments": "Patient/b"}})
    assert names(await backend.lines(file)) == ["Observation/b1", "Observation/b2"]


async def test_a_file_has_the_versions_that_were_found(
    clinic: Server, client: Exporting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is changed or deleted after the export is in its files as it was found; what was
    expunged is nowhere any more, nor is what was written anew under its id and version."""
    monkeypatch.setattr(exported, "_AT_ONCE", 2)
    place = await client.begin("$export?_type=Observation")
    await client.worked()
    [file] = (await client.manifest(place))["output"]
    before = await client.lines(file["url"])
    await stored(clinic, observation("a1", "a", status="amended"), observation("b2", "c"))
    await clinic.perform(Request("delete", "Observation", "c1"))
    assert await client.lines(file["url"]) == before
    expunge = clinic.context.store.expunge
    await expunge(Wanted(("Observation",), "b2", 10, previous=True))
    await expunge(Wanted(("Observation",), "c1", 10, everything=True))
    left = [one for one in before if one["id"] not in ("c1", "b2")]
    assert await client.lines(file["url"]) == left
    assert len(left) == file["count"] - 2
    for version, status in ((1, "final"), (2, "amended")):
        await stored(clinic, observation("c1", "b", status=status))
        anew = await clinic.context.store.read("Observation", "c1")
        assert anew is not None
        assert anew.version == version
        assert await client.lines(file["url"]) == left


async def test_a_file_of_before_is_read(clinic: Server, client: Exporting) -> None:
    """A piece of the release before has the bytes of resources, which are handed out as they are;
    one of those after it may not have the time of a version."""
    place = await client.begin("$export?_type=Patient")
    await client.worked()
    line = b'{"resourceType":"Patient","id":"a"}\n'
    old = {"$set": {"data": line, "ids": ["a"]}, "$unset": {"versions": ""}}
    await clinic.database[PIECES].update_one({}, old)
    [file] = (await client.manifest(place))["output"]
    assert await client.lines(file["url"]) == [json.loads(line)]
    new = {"$set": {"versions": "a/1 b/2"}, "$unset": {"data": "", "ids": ""}}
    await clinic.database[PIECES].update_one({}, new)
    assert names(await client.lines(file["url"])) == ["Patient/a"]


async def test_what_is_handed_out_is_recorded(judged: Server, granted: Granted) -> None:
    """Each piece of a file is a record of disclosure, with whom it is about."""
    granted.open("backend", {"Observation": {"compartments": "Patient/b"}, "Practitioner": {}})
    backend = Exporting(judged, BACKEND)
    place = await backend.begin()
    await backend.worked()
    for file in (await backend.manifest(place))["output"]:
        await backend.lines(file["url"])
    rows = await judged.database["audit"].find({"did": "export"}).sort("_id").to_list()
    assert [(row["type"], row.get("patients", [])) for row in rows] == [
        ("Observation", ["b"]),
        ("Practitioner", []),
    ]


async def test_no_patient_is_missing_in_the_record(
    judged: Server, granted: Granted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a row holds, all patients of a piece are recorded before it is sent."""
    for module in (audit, export_files):
        monkeypatch.setattr(module, "PATIENTS_MAX", 2)
    granted.open("backend", {"Observation": {}})
    backend = Exporting(judged, BACKEND)
    place = await backend.begin()
    await backend.worked()
    [file] = (await backend.manifest(place))["output"]
    await backend.lines(file["url"])
    rows = await judged.database["audit"].find({"did": "export"}).sort("_id").to_list()
    assert [row["patients"] for row in rows] == [["a", "b"], ["c"]]


async def test_nothing_that_lets_in_is_kept(judged: Server, granted: Granted) -> None:
    """A job has what its requester is made of again, and comes to the same principal."""
    granted.open("backend", {"Observation": {}})
    await Exporting(judged, replace(BACKEND, token="name", context={"a": "b"})).begin()
    [job] = await judged.database[JOBS].find().to_list()
    assert job["owner"] == BACKEND.key
    assert set(job["principal"]) == {
        *("kind", "name", "client", "scopes", "roles", "fhir_user", "patient", "purpose"),
        *("token", "address", "context"),
    }


async def test_metadata_declares_it(empty: Server) -> None:
    """The CapabilityStatement names the guide, the three operations and our own."""
    found = await Exporting(empty).ask("metadata")
    said = json.loads(found.body)
    assert said["instantiates"] == ["http://hl7.org/fhir/uv/bulkdata/CapabilityStatement/bulk-data"]
    rest = said["rest"][0]
    here = {one["name"]: one["definition"] for one in rest["operation"]}
    assert here["export"].endswith("OperationDefinition/export")
    assert {"export-status", "export-cancel", "export-file"} <= set(here)
    by_type = {one["type"]: one.get("operation", ()) for one in rest["resource"]}
    for type in ("Patient", "Group"):
        [url] = [one["definition"] for one in by_type[type] if one["name"] == "export"]
        assert url.endswith(f"OperationDefinition/{type.lower()}-export")
        assert empty.context.published.find("OperationDefinition", url)
    for url in here.values():
        if "export" in url:
            assert empty.context.published.find("OperationDefinition", url)
