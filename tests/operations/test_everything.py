"""``$everything`` of a Patient and of an Encounter.

https://hl7.org/fhir/R4/patient-operation-everything.html
https://hl7.org/fhir/R4/encounter-operation-everything.html
"""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from pymongo import MongoClient

from fhir_server.app import Server, base_urls, opened
from fhir_server.dispatch import answer
from fhir_server.messages import Response
from fhir_server.operations.everything import CARE
from fhir_server.search.page import cursor, digest
from fhir_server.security.plan import Rights
from fhir_server.security.principal import Principal
from fhir_server.settings import Settings
from tests.conftest import Fhir
from tests.interactions.asking import bundle, entry, patient, put
from tests.operations.exports import BASE, Exporting, Granted, observation

[OURS, *_] = base_urls(Settings())
RECORD = "Patient/a/$everything"
APP = Principal("user", "a", "app", patient="a", fhir_user="Patient/a")


def _named(type: str, id: str, /, **members: Any) -> dict[str, Any]:
    return {"resourceType": type, "id": id, **members}


def _to(place: str) -> dict[str, str]:
    return {"reference": place}


CLINIC = [
    _named("Organization", "clinic"),
    _named("Organization", "other"),
    _named("Practitioner", "dr", birthDate="1970-01-01"),
    _named("Practitioner", "nobody-names"),
    _named("Location", "room", managingOrganization=_to("Organization/other")),
    _named("Medication", "m"),
    patient("a", managingOrganization=_to("Organization/clinic"), link=[
        {"other": _to("Patient/b"), "type": "seealso"}
    ]),
    patient("b", link=[{"other": _to("Patient/a"), "type": "seealso"}]),
    _named("Encounter", "e", status="finished", **{"class": {"code": "AMB"}},
           subject=_to("Patient/a"), period={"start": "2026-03-01", "end": "2026-03-05"},
           location=[{"location": _to("Location/room")}]),
    observation("o1", "a", effectiveDateTime="2026-01-10", performer=[_to("Practitioner/dr")]),
    observation("o2", "a", effectiveDateTime="2026-03-02", encounter=_to("Encounter/e"),
                performer=[_to(f"{OURS}/Practitioner/dr")]),
    observation("o3", "a", note=[{"text": '"reference":"Practitioner/nobody-names"'}]),
    observation("o4", "a", effectiveDateTime="2026-02-28T23:59:59Z"),
    observation("o5", "a", effectiveDateTime="2026-02"),
    observation("ob", "b", effectiveDateTime="2026-03-02"),
    _named("AllergyIntolerance", "al", patient=_to("Patient/a"), recordedDate="2020-01-01"),
    _named("MedicationRequest", "mr", status="active", intent="order", subject=_to("Patient/a"),
           medicationReference=_to("Medication/m"), authoredOn="2026-02-01"),
    _named("List", "l", status="current", mode="working", subject=_to("Patient/a")),
    _named("Group", "g", type="person", actual=True, member=[
        {"entity": _to("Patient/a")}, {"entity": _to("Patient/b")}
    ]),
]  # fmt: skip
MATCHES = [
    *("Patient/a", "AllergyIntolerance/al", "Encounter/e", "MedicationRequest/mr"),
    *(f"Observation/o{n}" for n in range(1, 6)),
]
ALONG = ["Location/room", "Medication/m", "Organization/clinic", "Practitioner/dr"]


async def _filled(server: Server) -> Server:
    entries = [entry("PUT", f"{one['resourceType']}/{one['id']}", one) for one in CLINIC]
    request = bundle(*entries)
    assert (await answer(server.registry, request, server.context)).status == 200
    return server


@pytest.fixture(scope="module")
async def clinic(mongodb_uri: str) -> AsyncIterator[Server]:
    """Two patients, who know of each other, in one clinic; nobody writes there."""
    settings = Settings.model_validate({"mongodb_database": "everything"})
    async with opened(settings, mongodb_uri) as server:
        yield await _filled(server)
    with MongoClient[dict[str, Any]](mongodb_uri) as gone:
        gone.drop_database("everything")


@pytest.fixture
def client(clinic: Server) -> Exporting:
    """Whoever may see everything."""
    return Exporting(clinic)


@pytest.fixture
async def busy(server: Server) -> Exporting:
    """Whoever may see everything, where others write."""
    return Exporting(await _filled(server))


def _names(answer: Any, mode: str = "") -> list[str]:
    return [
        f"{one['resource']['resourceType']}/{one['resource']['id']}"
        for one in answer.get("entry", ())
        if one["search"]["mode"] in ([mode] if mode else ["match", "include"])
    ]


def _read(response: Response) -> Any:
    assert response.status == 200, response.body
    return json.loads(response.body)


def _link(answer: Any, relation: str = "next") -> str:
    return next((one["url"] for one in answer["link"] if one["relation"] == relation), "")


async def _pages(client: Exporting, url: str) -> list[Any]:
    found = []
    while url:
        found.append(_read(await client.ask(url)))
        url = _link(found[-1])
    return found


async def test_a_record_in_one_page(client: Exporting) -> None:
    """The patient, the compartment, and what is referred to, once; nobody else, no List, no Group,
    and nothing that a text seems to refer to."""
    answer = _read(await client.ask(RECORD))
    assert (answer["type"], answer["total"]) == ("searchset", len(MATCHES))
    assert (_names(answer, "match"), _names(answer, "include")) == (MATCHES, ALONG)
    assert answer["entry"][0]["fullUrl"] == f"{BASE}/Patient/a"
    assert not _link(answer)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 10, 11, 12])
async def test_pages_have_everything_once(client: Exporting, count: int) -> None:
    """Whatever their length, in the same order."""
    pages = await _pages(client, f"{RECORD}?_count={count}")
    assert [name for page in pages for name in _names(page)] == MATCHES + ALONG
    assert all(len(_names(page)) <= count for page in pages)
    assert "total" not in pages[0] or len(pages) == 1


async def test_pages_are_of_one_moment(busy: Exporting, fhir: Fhir) -> None:
    """What is added, changed and deleted between two pages changes none of them; also not a type
    that nobody has used before."""
    url = f"{RECORD}?_count=2"
    found = []
    turn = 0
    while url:
        page = _read(await busy.ask(url))
        found += [one["resource"] for one in page["entry"]]
        url = _link(page)
        turn += 1
        await fhir(put(observation(f"o0{turn}", "a")))
        await fhir(put(observation("o2", "a", valueInteger=turn)))
        await fhir(put(_named("Goal", f"g{turn}", lifecycleStatus="active",
                              description={"text": "x"}, subject=_to("Patient/a"))))  # fmt: skip
        await busy.ask("Observation/o3", "DELETE")
    assert [f"{one['resourceType']}/{one['id']}" for one in found] == MATCHES + ALONG
    assert all(one["meta"]["versionId"] == "1" for one in found)


async def test_a_record_while_others_write(busy: Exporting, fhir: Fhir) -> None:
    """Check E2 of design/ehr-operations.md, small: no double, no gap, nobody else's."""
    await fhir(bundle(*(entry("PUT", f"Observation/w{n:03}", observation(f"w{n:03}", "a")) for n in range(300))))  # fmt: skip  # noqa: E501
    stop = asyncio.Event()

    async def write(name: str) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            await fhir(put(observation(f"{name}{number:03}", "ab"[number % 2])))

    writers = [asyncio.create_task(write(name)) for name in "npx"]
    try:
        pages = await _pages(busy, f"{RECORD}?_count=40")
    finally:
        stop.set()
        await asyncio.gather(*writers)
    names = [name for page in pages for name in _names(page, "match")]
    assert len(names) == len(set(names))
    assert {f"Observation/w{n:03}" for n in range(300)} <= set(names)
    subjects = {one["resource"].get("subject", _to("Patient/a"))["reference"] for page in pages
                for one in page["entry"]}  # fmt: skip
    assert subjects == {"Patient/a"}


async def test_care_of_a_time(client: Exporting) -> None:
    """What was done in it, and what has no date or is true beside it."""
    beside = ["Patient/a", "AllergyIntolerance/al"]
    for query, expected in {
        "start=2026-03-01": [*beside, "Encounter/e", "Observation/o2", "Observation/o3"],
        "start=2026-03-05&end=9999": [*beside, "Encounter/e", "Observation/o3"],
        "start=0001": MATCHES,
        "end=2026-01": [*beside, "Observation/o1", "Observation/o3"],
        "start=2026-02-01&end=2026-03-01": [
            *(*beside, "Encounter/e", "MedicationRequest/mr"),
            *("Observation/o3", "Observation/o4", "Observation/o5"),
        ],
    }.items():
        assert _names(_read(await client.ask(f"{RECORD}?{query}")), "match") == expected, query


async def test_some_types_and_what_is_new(busy: Exporting, fhir: Fhir) -> None:
    """``_type`` may name what comes along as well; ``_since`` means what was written after it."""
    for types, expected in {
        "Observation": MATCHES[4:],
        "Observation,Practitioner": [*MATCHES[4:], "Practitioner/dr"],
        "Practitioner": ["Practitioner/dr"],
        "Goal": [],
    }.items():
        assert _names(_read(await busy.ask(f"{RECORD}?_type={types}"))) == expected, types
    again = await fhir(put(observation("o1", "a", valueInteger=1)))
    stamp = json.loads(again.body)["meta"]["lastUpdated"]
    assert not _names(_read(await busy.ask(f"{RECORD}?_since={stamp}")))
    before = stamp.replace(stamp[:4], str(int(stamp[:4]) - 1))
    assert "Observation/o1" in _names(_read(await busy.ask(f"{RECORD}?_since={before}")))
    assert not _names(_read(await busy.ask(f"{RECORD}?_since=2100-01-01T00:00:00Z")))


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("start=yesterday", "start"),
        ("start=2026-13-01", "start"),
        ("start=2026-03-02&end=2026-03-01", "start is after end"),
        ("_since=2026", "_since"),
        ("_type=Slot", "Slot"),
        ("_type=List", "List"),
        ("_type=Nothing", "Nothing"),
        ("_count=-1", "_count"),
        ("_cursor=abc", "page link"),
        ("_elements=id", "_elements"),
        ("start=2026&start=2027", "start"),
    ],
)
async def test_wrong_questions_are_refused(client: Exporting, query: str, said: str) -> None:
    """400, with what is wrong."""
    refused = await client.ask(f"{RECORD}?{query}")
    assert refused.status == 400
    assert said in refused.body.decode()


async def test_by_post(client: Exporting) -> None:
    """The parameters may come as Parameters."""
    parameter = [
        {"name": "start", "valueDate": "2026-03-01"},
        {"name": "_since", "valueInstant": "2020-01-01T00:00:00Z"},
        {"name": "_type", "valueCode": "Observation"},
        {"name": "_type", "valueCode": "Practitioner"},
        {"name": "_count", "valueInteger": 2},
    ]
    body = {"resourceType": "Parameters", "parameter": parameter}
    first = _read(await client.ask(RECORD, "POST", body=body))
    assert _names(first) == ["Observation/o2", "Observation/o3"]
    assert _names(_read(await client.ask(_link(first)))) == ["Practitioner/dr"]


async def test_an_encounter(client: Exporting) -> None:
    """What belongs to it, its patient, who and where."""
    answer = _read(await client.ask("Encounter/e/$everything"))
    assert _names(answer, "match") == ["Encounter/e", "Observation/o2"]
    assert _names(answer, "include") == ["Location/room", "Patient/a", "Practitioner/dr"]
    assert (await client.ask("Encounter/e/$everything?start=2026")).status == 400


async def test_who_is_not_there(busy: Exporting) -> None:
    """404, and 410 after a deletion."""
    assert (await busy.ask("Patient/nobody/$everything")).status == 404
    await busy.ask("Encounter/e", "DELETE")
    assert (await busy.ask("Encounter/e/$everything")).status == 410


async def test_a_link_that_is_too_old(client: Exporting) -> None:
    """The database does not remember: 410, and to begin again helps."""
    subject = digest(RECORD, (("_count", "2"),))
    values = (1_600_000_000, 1, "Patient,Observation", 0, "Observation", "")
    link = cursor(values, subject, client.server.context.link_key)
    gone = await client.ask(f"{RECORD}?_count=2&_cursor={link}")
    assert gone.status == 410
    assert "Start again" in gone.body.decode()


async def test_a_patients_own_record(clinic: Server) -> None:
    """Without an id it is the patient's who asks; of many, ``$export`` is advised."""
    granted = Granted()
    granted.open("a", {"Patient": {"_id": "a"}, "Observation": {"compartments": "Patient/a"}})
    judged = replace(clinic, context=replace(clinic.context, access=granted))
    own = Exporting(judged, APP)
    assert _names(_read(await own.ask("Patient/$everything"))) == [
        *("Patient/a", *MATCHES[4:]),
    ]
    assert "left out" in (await own.ask(RECORD)).body.decode()
    assert "left out" not in (await Exporting(clinic).ask(RECORD)).body.decode()
    assert (await own.ask("Patient/b/$everything")).status == 404
    assert (await own.ask(f"{RECORD}?_type=Encounter")).status == 403
    refused = await Exporting(clinic).ask("Patient/$everything")
    assert refused.status == 400
    assert "$export" in refused.body.decode()


async def test_who_may_not_search_is_refused(clinic: Server) -> None:
    """An empty record would read as if nothing was known."""
    granted = Granted()
    granted.rights["a"] = Rights({("Patient", "r"): {}})
    judged = replace(clinic, context=replace(clinic.context, access=granted))
    assert (await Exporting(judged, APP).ask(RECORD)).status == 403


async def test_pages_go_on_from_a_transaction(busy: Exporting) -> None:
    """What a transaction reads has no moment that others could read at: the next page has one of
    its own."""
    request = bundle(
        entry("PUT", "Observation/o6", observation("o6", "a")),
        entry("GET", f"{RECORD}?_count=4"),
    )
    done = await answer(busy.server.registry, request, busy.server.context)
    assert done.status == 200, done.body
    first = json.loads(done.body)["entry"][1]["resource"]
    pages = [first, *await _pages(busy, _link(first))]
    names = [name for page in pages for name in _names(page, "match")]
    assert names == [*MATCHES, "Observation/o6"]


async def test_a_moment_that_is_not_yet(client: Exporting) -> None:
    """As after the database was restored from a copy: 410, as for one that is forgotten."""
    subject = digest(RECORD, (("_count", "2"),))
    values = (4_000_000_000, 1, "Patient,Observation", 0, "Observation", "")
    link = cursor(values, subject, client.server.context.link_key)
    assert (await client.ask(f"{RECORD}?_count=2&_cursor={link}")).status == 410


async def test_rights_are_looked_up_for_each_page(clinic: Server) -> None:
    """A link opens no more than who follows it may see, and to others it is none."""
    granted = Granted()
    granted.open("a", {"Patient": {}, "Observation": {}})
    judged = replace(clinic, context=replace(clinic.context, access=granted))
    own = Exporting(judged, APP)
    first = _read(await own.ask(f"{RECORD}?_count=2"))
    granted.open("a", {"Patient": {}, "Observation": {"_id": "o3"}})
    assert [_names(one) for one in await _pages(own, _link(first))] == [["Observation/o3"]]
    granted.open("other", {"Patient": {}, "Observation": {}})
    other = Exporting(judged, replace(APP, name="other"))
    assert (await other.ask(_link(first))).status == 400


def test_dates_of_care_are_searched_by(server: Server) -> None:
    """Each is a search parameter of its type, for a date."""
    parameters = server.context.parameters
    wrong = {type for type, code in CARE.items() if parameters.of(type)[code].type != "date"}
    assert not wrong
    assert CARE.keys() <= set(parameters.compartment_types("Patient"))
