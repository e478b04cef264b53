"""Exports show what who asks may see, then and when a file is read; who read what is recorded."""

import json
from dataclasses import replace
from typing import Any

import pytest

from fhir_server.app import Server
from fhir_server.messages import Response
from fhir_server.operations import export_files, export_work
from fhir_server.security import audit
from fhir_server.security.plan import Rights
from fhir_server.security.principal import NOBODY, Principal
from fhir_server.security.scopes import scopes_of
from fhir_server.store.exports import JOBS
from tests.operations.exports import (
    ASYNC,
    BACKEND,
    Exporting,
    Granted,
    by,
    names,
    observation,
    stored,
)


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
