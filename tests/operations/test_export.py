"""https://hl7.org/fhir/uv/bulkdata/STU2/export.html"""

import json
from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import Server
from fhir_server.load import load
from fhir_server.messages import Request
from fhir_server.operations import export_pages
from fhir_server.store.documents import instant
from fhir_server.store.exports import PIECES
from tests.operations.exports import (
    ASYNC,
    Exporting,
    by,
    group,
    names,
    observation,
    patient,
    stored,
)

CLINIC = Path(__file__).resolve().parents[2] / "examples" / "dhaka-clinic" / "clinic.json"


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
