"""Check A4 of design/security.md: denied at t, nothing is served after its 2xx, on any path."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

import pytest

from fhir_server.app import Server, opened
from fhir_server.messages import Response
from fhir_server.operations.export_work import work
from fhir_server.security.principal import DEMO, Principal
from fhir_server.settings import Settings
from tests.interactions.asking import BASE, bundle, entry, json_of
from tests.interactions.patches import merge_patch
from tests.operations.exports import Exporting
from tests.security.consents import (
    BACKEND,
    CLINICIAN,
    COLLEAGUE,
    OWN,
    actor,
    asked,
    coding,
    consent,
    everything,
    put,
)

SECRET = "Kodu-1187"
"""What is nowhere but in the record of patient a."""

_HIV = "v3-ActCode|HIV"
DENIED = consent({"type": "deny", "actor": [actor("Practitioner/1")]})


def _observation(id: str, patient: str, *labels: str) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": id,
        **({"meta": {"security": [coding(one) for one in labels]}} if labels else {}),
        "status": "final",
        "code": {"text": SECRET if patient == "a" else "weight"},
        "identifier": [{"system": "urn:i", "value": id or "o1"}],
        "subject": {"reference": f"Patient/{patient}"},
        "performer": [{"reference": "Practitioner/2"}],
    }


RECORD: list[dict[str, Any]] = [
    {"resourceType": "Practitioner", "id": "2", "name": [{"family": "Begum"}]},
    {"resourceType": "Patient", "id": "b", "name": [{"family": "Other"}]},
    {"resourceType": "Patient", "id": "a", "name": [{"family": SECRET}]},
    _observation("ob", "b"),
    *(_observation(f"o{number}", "a", *([_HIV] if number == 3 else [])) for number in range(4)),
]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Settings with ``$expunge`` on."""
    return settings.model_copy(update={"expunge": True})


@pytest.fixture
async def site(server: Server) -> Server:
    """A server with the records of patients a and b, in which o0 has a former version."""
    for one in RECORD:
        await put(server, one)
    await put(server, {**RECORD[4], "status": "amended"})
    return server


@pytest.fixture
async def second(site: Server, mongodb_uri: str, settings: Settings) -> AsyncIterator[Server]:
    """What another process on the same database is: it shares nothing with the first."""
    async with opened(settings, mongodb_uri) as other:
        yield other


async def _get(server: Server, principal: Principal, url: str) -> Response:
    path, _, query = url.partition("?")
    return await asked(server, principal, "GET", path, parameters=tuple(parse_qsl(query)))


READS = (
    *("Observation/o0", "Observation/o0/_history/1", "Observation/o0/_history", "Patient/a"),
    *("Observation/_history", "_history", "Observation", "Observation?_id=o1", "Observation/$meta"),
    *("Patient/a/$everything", "Patient/a/$everything?_count=1"),
    *("Patient/a/Observation", "Patient/a/*", "?_type=Observation,Patient", "Observation/o0/$meta"),
    *("Practitioner?_revinclude=Observation:performer", "Observation?_include=Observation:subject"),
    f"Observation?subject:Patient.family={SECRET}",
    f"Practitioner?_has:Observation:performer:patient.family={SECRET}",
    *(
        "Observation?_summary=count",
        "Observation?_filter=status+eq+final",
        "Patient?_elements=name",
    ),
    *("Observation?_sort=-_lastUpdated&_count=1", "Observation?_contained=both"),
    *("Observation?_total=accurate&_count=0", f"Observation?code:text={SECRET}"),
)
WRITES: tuple[tuple[str, str, Any, dict[str, Any]], ...] = (
    ("PUT", "Observation/o1", _observation("o1", "a") | {"status": "amended"}, {}),
    ("PATCH", "Observation/o1", merge_patch(status="amended"), {}),
    ("DELETE", "Observation/o1", None, {}),
    ("POST", "Observation", _observation("", "a"), {}),
    ("POST", "Observation", _observation("", "a"), {"if_none_exist": "identifier=urn:i|o1"}),
    ("PUT", "Observation", _observation("", "a"), {"parameters": (("identifier", "urn:i|o1"),)}),
    ("DELETE", "Observation", None, {"parameters": (("identifier", "urn:i|o1"),)}),
)


async def _texts(server: Server, principal: Principal) -> dict[str, tuple[int, str]]:
    """Return status and body of the answer on every path that reads, and that of a batch."""
    found = {url: await _get(server, principal, url) for url in READS}
    paths = [entry("GET", url) for url in READS if "$" not in url]
    request = bundle(*paths, type="batch")
    found["batch"] = await asked(server, principal, "POST", "", request.body)
    return {url: (one.status, str(_told(json_of(one)))) for url, one in found.items()}


def _told(value: Any) -> Any:
    """Return what an answer tells that the question did not: no links, no refusals."""
    if isinstance(value, list):
        return [_told(one) for one in value]
    if not isinstance(value, dict):
        return value
    if value.get("resourceType") == "OperationOutcome":
        return {}
    return {name: _told(one) for name, one in value.items() if name not in ("link", "outcome")}


async def test_a4_what_is_denied_is_served_on_no_path_after_that(
    site: Server, second: Server
) -> None:
    """Every path shows the record before; after the Consent's 2xx none does, in no process, to the
    one who is named, and all still do to others."""
    for one in (site, second):
        before = await _texts(one, CLINICIAN)
        missing = [url for url, (_, text) in before.items() if not _shows_a(url, text)]
        assert missing == []
        assert {status for status, _ in before.values()} == {200}
    await put(site, DENIED)
    for one in (second, site):
        after = await _texts(one, CLINICIAN)
        assert [url for url, (_, text) in after.items() if _shows_a(url, text)] == []
        for principal in (COLLEAGUE, OWN):
            others = await _texts(one, principal)
            assert [url for url, (_, text) in others.items() if not _shows_a(url, text)] == []


def _shows_a(url: str, text: str) -> bool:
    """Whether the answer to ``url`` tells of the record of patient a."""
    if "_count=0" in url or "count" in url.partition("_summary=")[2]:
        return "'total': 5" in text
    if "$meta" in url:
        return "HIV" in text if url.startswith("Observation/$") else "versionId" in text
    if "_has:" in url:
        return "Begum" in text
    return SECRET in text or "Patient/a" in text or "'id': 'o1'" in text


async def test_a4_what_is_denied_is_not_changed_either(site: Server) -> None:
    """A write of what is denied is refused as if it were not there, or as forbidden."""
    await put(site, DENIED)
    for method, path, body, more in WRITES:
        request = {**body} if body else None
        if request is not None and not request.get("id", "x"):
            del request["id"]
        found = await asked(site, CLINICIAN, method, path, request, **more)
        assert SECRET not in found.body.decode(), (method, path)
        assert found.status in (403, 404) or (method == "DELETE" and found.status in (200, 204))
    after = await site.context.store.read_all("Observation", ["o1"])
    assert [one.version for one in after] == [1]


async def test_a4_the_next_page_has_nothing_of_it(site: Server, second: Server) -> None:
    """A page link from before the Consent leads to what is left."""
    first = json_of(await _get(site, CLINICIAN, "Observation?_count=1&_sort=_id"))
    [following] = [one["url"] for one in first["link"] if one["relation"] == "next"]
    await put(second, DENIED)
    found = await _get(site, CLINICIAN, following.removeprefix(f"{BASE}/"))
    assert found.status == 200
    assert SECRET not in found.body.decode()


async def test_a4_who_keeps_asking_gets_nothing_after_the_answer(
    site: Server, second: Server
) -> None:
    """Ten times denied and allowed again under constant reading: never a stale answer."""
    stop = asyncio.Event()

    async def read(one: Server) -> None:
        while not stop.is_set():
            await _get(one, CLINICIAN, "Observation/o1")

    readers = [asyncio.create_task(read(one)) for one in (site, second) for _ in range(3)]
    try:
        for _ in range(10):
            await put(site, DENIED)
            found = await asyncio.gather(
                *(
                    _get(one, CLINICIAN, "Observation/o1")
                    for one in (site, second)
                    for _ in range(3)
                )
            )
            assert {one.status for one in found} == {404}
            await put(site, {**DENIED, "status": "inactive"})
            assert (await _get(second, CLINICIAN, "Observation/o1")).status == 200
    finally:
        stop.set()
        await asyncio.gather(*readers)


async def test_however_a_consent_is_written_its_row_is(site: Server, second: Server) -> None:
    """Rows follow the Consent, by whichever interaction it is written; one process writes, the
    other is asked."""
    for way, (steps, status) in _WAYS.items():
        for method, path, body, more in steps:
            found = await asked(site, DEMO, method, path, body, **more)
            assert found.status < 300, (way, found.body)
        assert (await _get(second, CLINICIAN, "Observation/o1")).status == status, way
        assert await site.context.store.denials.differing() == [], way
        rows = await site.database["denials"].count_documents({})
        assert rows == (1 if status == 404 or way == "expired" else 0), way
        for one in await site.database["Consent"].find({}, {"_id": 1}).to_list():
            gone = await asked(site, DEMO, "POST", f"Consent/{one['_id']}/$expunge", _ALL)
            assert gone.status == 200, gone.body


_PUT: tuple[str, str, Any, dict[str, Any]] = ("PUT", "Consent/c", DENIED, {})
_WITHOUT_ID = {name: value for name, value in DENIED.items() if name != "id"}
_INACTIVE = {**DENIED, "status": "inactive"}
_ALL: dict[str, Any] = {
    "resourceType": "Parameters",
    "parameter": [{"name": "expungeEverything", "valueBoolean": True}],
}
_EXPIRED = {**DENIED, "provision": {**DENIED["provision"], "period": {"end": "2020"}}}
_PERMITTING = {**DENIED, "provision": {"type": "permit"}}
_WAYS: dict[str, tuple[list[tuple[str, str, Any, dict[str, Any]]], int]] = {
    "create": ([("POST", "Consent", _WITHOUT_ID, {})], 404),
    "update": ([("PUT", "Consent/c", _PERMITTING, {}), _PUT], 404),
    "patch": (
        [
            ("PUT", "Consent/c", _INACTIVE, {}),
            ("PATCH", "Consent/c", merge_patch(status="active"), {}),
        ],
        404,
    ),
    "transaction": (
        [("POST", "", bundle(entry("POST", "Consent", _WITHOUT_ID, "urn:uuid:1")).body, {})],
        404,
    ),
    "conditional": (
        [("POST", "Consent", _WITHOUT_ID, {"if_none_exist": "identifier=urn:i|c"})],
        404,
    ),
    "keyed": ([("POST", "Consent", _WITHOUT_ID, {"idempotency_key": "k"})], 404),
    "again": ([_PUT, ("DELETE", "Consent/c", None, {}), _PUT], 404),
    "deleted": ([_PUT, ("DELETE", "Consent/c", None, {})], 200),
    "inactive": ([_PUT, ("PUT", "Consent/c", _INACTIVE, {})], 200),
    "expired": ([_PUT, ("PUT", "Consent/c", _EXPIRED, {})], 200),
    "ended": ([_PUT, ("PATCH", "Consent/c", merge_patch(status="inactive"), {})], 200),
    "expunged": ([_PUT, ("POST", "Consent/c/$expunge", _ALL, {})], 200),
}
"""How a Consent is written -> steps, and what who is denied gets then."""


async def test_rows_of_an_older_release_are_made_at_the_start(
    site: Server, mongodb_uri: str, settings: Settings
) -> None:
    """A database with Consents and without rows, or with rows of none, has the right ones once a
    server is open."""
    await put(site, DENIED)
    [row] = await site.database["denials"].find().to_list()
    await site.database["denials"].delete_many({})
    await site.database["denials"].insert_one({**row, "_id": "gone"})
    await site.database["server"].update_one({"_id": "denials"}, {"$unset": {"form": ""}})
    assert sorted(await site.context.store.denials.differing()) == ["c", "gone"]
    async with opened(settings, mongodb_uri) as other:
        assert await other.context.store.denials.differing() == []
        assert (await _get(other, CLINICIAN, "Observation/o1")).status == 404


@pytest.mark.parametrize("when", ["before", "between pages", "after"])
async def test_a4_a_running_export_has_nothing_of_it(site: Server, when: str) -> None:
    """Whatever was exported before the Consent: no file that is loaded after it has the record."""
    site = replace(site, context=replace(site.context, access=everything))
    backend = Exporting(site, BACKEND)
    place = await backend.begin("$export?_type=Observation,Patient")
    if when == "between pages":
        await work(site.context)
    if when == "after":
        await backend.worked()
        told = await backend.output(await backend.manifest(place))
        assert any(SECRET in str(one) for one in told)
    await put(site, consent({"type": "deny"}))
    await backend.worked()
    said = await backend.ask(place)
    assert SECRET not in said.body.decode()
    for file in json_of(said).get("output", ()):
        found = await backend.ask(file["url"])
        if found.pieces is not None and found.status == 200:
            text = b"".join([piece async for piece in found.pieces(0, 0)])
            assert SECRET not in text.decode()
            assert b"Patient/a" not in text
