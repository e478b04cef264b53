"""Exports end as they began: after failures, in other processes, while resources change."""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fhir_server.app import Server
from fhir_server.messages import Request
from fhir_server.operations import export_pages, export_work
from fhir_server.operations.export import unsettled_s
from fhir_server.operations.export_work import work
from fhir_server.outcome import FhirError, Issue
from fhir_server.store import exported
from fhir_server.store.client import OutcomeUnknownError
from fhir_server.store.exports import CANCELLED, JOBS, PATIENTS, PIECES, Exports, Job
from fhir_server.store.expunge import Wanted
from tests.operations.exports import (
    ASYNC,
    Exporting,
    by,
    names,
    observation,
    patient,
    stored,
)


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
