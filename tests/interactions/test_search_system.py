"""https://hl7.org/fhir/R4/http.html#search and https://hl7.org/fhir/R4/search.html#compartment

Searches over several types, and in compartments.
"""

from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

import pytest

from fhir_server.app import Server
from fhir_server.dispatch import answer
from fhir_server.messages import Request, Response
from fhir_server.route import route
from tests.conftest import Fhir
from tests.interactions.asking import BASE, json_of, patient, put


def _observation(id: str, subject: str) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": id,
        "meta": {"tag": [{"code": "t"}]} if id == "o2" else {},
        "status": "final",
        "code": {"text": "x"},
        "subject": {"reference": subject},
    }


RESOURCES: list[dict[str, Any]] = [
    patient("1", meta={"tag": [{"code": "t"}]}),
    patient("2"),
    _observation("o1", "Patient/1"),
    _observation("o2", "Patient/1"),
    _observation("o3", "Patient/2"),
    {"resourceType": "Encounter", "id": "e1", "status": "finished", "class": {"code": "AMB"},
     "subject": {"reference": "Patient/1"}},
    {"resourceType": "Organization", "id": "org", "name": "A"},
    {"resourceType": "List", "id": "l", "status": "current", "mode": "working",
     "entry": [{"item": {"reference": one}} for one in ("Patient/2", "Observation/o3")]},
    patient("gone"),
]  # fmt: skip


@pytest.fixture
async def filled(fhir: Fhir) -> Fhir:
    """The front door of a server with the resources; Patient/gone is deleted."""
    for one in RESOURCES:
        assert (await fhir(put({key: value for key, value in one.items() if value}))).status == 201
    await fhir(Request("delete", "Patient", "gone"))
    return fhir


async def asked(fhir: Fhir, url: str, prefer: str = "strict") -> tuple[int, Any]:
    """Return status and body of ``GET url``, as HTTP would route it."""
    path, _, query = url.removeprefix(BASE).partition("?")
    routed = route("GET", path)
    parameters = tuple(parse_qsl(query, keep_blank_values=True))
    request = replace(routed, parameters=parameters, base_url=BASE, prefer={"handling": prefer})
    response = await fhir(request)
    return response.status, json_of(response)


def places(bundle: Any) -> list[str]:
    """Return ``Type/id`` of the matches."""
    found = [one for one in bundle.get("entry", []) if one["search"]["mode"] == "match"]
    return [one["fullUrl"].removeprefix(f"{BASE}/") for one in found]


IN_1 = "Encounter/e1 Observation/o1 Observation/o2 Patient/1"
# search -> what it finds, in this order
CASES = {
    "?_type=Patient,Observation": (
        "Observation/o1 Observation/o2 Observation/o3 Patient/1 Patient/2"
    ),
    "?_type=Patient": "Patient/1 Patient/2",
    "?_type=Account,Patient": "Patient/1 Patient/2",
    "?_type=Account": "",
    "?_tag=t": "Observation/o2 Patient/1",
    "?_id=o1,1,org": "Observation/o1 Organization/org Patient/1",
    "?_type=Observation,Encounter&status=final": "Observation/o1 Observation/o2 Observation/o3",
    "?_type=Observation,Encounter&subject:Patient._id=2": "Observation/o3",
    "?_lastUpdated=gt2000&_type=Organization": "Organization/org",
    "?_lastUpdated=lt2000": "",
    "?_type=Patient,Observation&_sort=_id": (
        "Patient/1 Patient/2 Observation/o1 Observation/o2 Observation/o3"
    ),
    "?_type=Patient,Observation&_sort=-_id": (
        "Observation/o3 Observation/o2 Observation/o1 Patient/2 Patient/1"
    ),
    "?_type=Patient,Observation&_sort=_lastUpdated": (
        "Patient/1 Patient/2 Observation/o1 Observation/o2 Observation/o3"
    ),
    "?_type=Patient,Organization,Encounter&_sort=-_lastUpdated": (
        "Organization/org Encounter/e1 Patient/2 Patient/1"
    ),
    "?_list=l": "Observation/o3 Patient/2",
    "?_list=l&_sort=_id": "Patient/2 Observation/o3",
    "?_content=org": "",
    "?_type=Observation,Encounter&_has:Provenance:target:_id=x": "",
    "Patient/1/*?_sort=-_id": "Observation/o2 Observation/o1 Encounter/e1 Patient/1",
    "Patient/1/Observation": "Observation/o1 Observation/o2",
    "Patient/1/Observation?_tag=t": "Observation/o2",
    "Patient/1/Observation?_sort=-_id": "Observation/o2 Observation/o1",
    "Patient/1/Encounter": "Encounter/e1",
    "Patient/1/Patient": "Patient/1",
    "Patient/1/*": IN_1,
    "Patient/1/*?_tag=t": "Observation/o2 Patient/1",
    "Patient/1/*?_type=Encounter,Patient": "Encounter/e1 Patient/1",
    "Patient/nobody/*": "",
    "Patient/gone/*": "",
    "Encounter/e1/*": "Encounter/e1",
    "Practitioner/x/Observation": "",
}


async def test_what_is_found_whole_and_by_pages(filled: Fhir) -> None:
    """The same resources in the same order on pages of any length, with their number."""
    for search, expected in CASES.items():
        more = "&" if "?" in search else "?"
        status, whole = await asked(filled, search)
        assert (status, places(whole)) == (200, expected.split()), search
        assert whole["total"] == len(expected.split())
        for count in (1, 2, 3):
            url, found = f"{search}{more}_count={count}&_total=accurate", []
            while url:
                status, page = await asked(filled, url)
                assert status == 200, url
                assert page["total"] == whole["total"]
                assert len(places(page)) <= count
                found += places(page)
                url = {one["relation"]: one["url"] for one in page["link"]}.get("next", "")
            assert found == expected.split(), search


async def test_a_compartment_brings_along_what_is_referred_to(filled: Fhir) -> None:
    """Includes are those of any search of the type."""
    _, bundle = await asked(filled, "Patient/1/Observation?_include=Observation:patient")

    assert [one["search"]["mode"] for one in bundle["entry"]] == ["match", "match", "include"]


async def test_counting_only(filled: Fhir) -> None:
    """``_summary=count`` and ``_count=0`` give the number without entries."""
    for end in ("_summary=count", "_count=0"):
        _, bundle = await asked(filled, f"Patient/1/*?{end}")
        assert (bundle["total"], "entry" in bundle) == (4, False)


def _dated(number: int) -> dict[str, Any]:
    """An observation, encounter or procedure; some have the same date, some none."""
    subject = {"reference": f"Patient/{number % 3}"}
    date = f"2020-01-{number * 7 % 9 + 1:02}" if number % 4 else ""
    match number % 3:
        case 0:
            one = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}}
            one |= {"effectiveDateTime": date} if date else {}
        case 1:
            one = {"resourceType": "Encounter", "status": "finished", "class": {"code": "AMB"}}
            one |= {"period": {"start": date}} if date else {}
        case _:
            one = {"resourceType": "Procedure", "status": "completed"}
            one |= {"performedDateTime": date} if date else {}
    return {**one, "id": f"m{number:02}", "subject": subject}


def _date(resource: dict[str, Any]) -> str:
    period = resource.get("period", {}).get("start", "")
    return str(resource.get("effectiveDateTime") or resource.get("performedDateTime") or period)


async def walk(fhir: Fhir, url: str, relation: str = "next") -> list[Any]:
    """Return the bundles from ``url`` on."""
    bundles = []
    while url:
        status, bundle = await asked(fhir, url)
        assert status == 200, bundle
        bundles.append(bundle)
        assert len(bundles) < 100
        url = {one["relation"]: one["url"] for one in bundle["link"]}.get(relation, "")
    return bundles


SORTS = ["date", "-date", "-date,_id", "patient,-date", "-_lastUpdated", "_id", "code,date", ""]


async def test_one_order_over_several_types(fhir: Fhir) -> None:
    """Every page size gives the same resources in the same order, there and back; dates rise or
    fall over all types, and what has none is last."""
    resources = [_dated(number) for number in range(36)]
    for one in resources:
        assert (await fhir(put(one))).status == 201
    dates = {f"{one['resourceType']}/{one['id']}": _date(one) for one in resources}
    for sort in SORTS:
        types = "Observation,Procedure" if "code" in sort else "Observation,Procedure,Encounter"
        search = f"?_type={types}&_sort={sort}"
        _, bundle = await asked(fhir, search)
        whole = places(bundle)
        assert len(whole) == len(set(whole)) == bundle["total"] == (24 if "code" in sort else 36)
        if sort in ("date", "-date"):
            there = [dates[place] for place in whole if dates[place]]
            assert there == sorted(there, reverse=sort[0] == "-")
            assert not any(dates[place] for place in whole[len(there) :])
        for count in (1, 5, 12):
            pages = await walk(fhir, f"{search}&_count={count}")
            assert [place for page in pages for place in places(page)] == whole, (sort, count)
            assert all(len(places(page)) == count for page in pages[:-1])
            links = {one["relation"]: one["url"] for one in pages[-1]["link"]}
            back = await walk(fhir, links["self"], "previous")
            assert [places(page) for page in back] == [places(page) for page in reversed(pages)]


async def test_a_sorted_page_over_several_types_is_cut_for_its_size(
    fhir: Fhir, server: Server
) -> None:
    """A page ends early rather than hold too much, and the next goes on there."""
    for number in range(36):
        await fhir(put(_dated(number)))
    store = replace(server.context.store, page_bytes_max=900)
    context = replace(server.context, store=store)

    async def small(request: Request) -> Response:
        return await answer(server.registry, request, context)

    for sort in ("-date", ""):
        search = f"?_type=Observation,Procedure,Encounter&_sort={sort}"
        _, whole = await asked(fhir, search)
        pages = await walk(small, search)
        assert len(pages) > 7
        assert [place for page in pages for place in places(page)] == places(whole)


def along(bundle: Any) -> list[str]:
    """Return ``Type/id`` of what comes along."""
    found = [one for one in bundle.get("entry", []) if one["search"]["mode"] == "include"]
    return [one["fullUrl"].removeprefix(f"{BASE}/") for one in found]


INCLUDES = {
    "?_type=Observation,Encounter&_include=Observation:patient": "Patient/1 Patient/2",
    "?_type=Observation,Encounter&_id=e1&_include=Encounter:patient": "Patient/1",
    "?_type=Observation,Encounter&_include=*": "Patient/1 Patient/2",
    "?_type=Encounter,Patient&_include=Encounter:patient": "",
    "?_type=Patient,Organization&_revinclude=Encounter:patient": "Encounter/e1",
    "?_type=Patient,Organization&_revinclude=*": (
        "Encounter/e1 List/l Observation/o1 Observation/o2 Observation/o3"
    ),
    "?_type=Encounter,Organization&_include=Encounter:patient&_sort=-_lastUpdated"
    "&_revinclude:iterate=Observation:patient": "Observation/o1 Observation/o2 Patient/1",
    "Patient/1/*?_type=Observation&_include=Observation:patient": "Patient/1",
}


async def test_what_comes_along_with_several_types(filled: Fhir, server: Server) -> None:
    """Whole, and on pages that hold two: everything once per page, the rest behind ``next``."""
    store = replace(server.context.store, includes_max=2)
    context = replace(server.context, store=store)

    async def small(request: Request) -> Response:
        return await answer(server.registry, request, context)

    for search, expected in INCLUDES.items():
        _, bundle = await asked(filled, search)
        assert sorted(along(bundle)) == expected.split(), search
        for count in (1, 50):
            pages = await walk(small, f"{search}&_count={count}")
            matches = [place for page in pages for place in places(page)]
            assert matches == places(bundle), search
            assert all(len(along(page)) <= 2 for page in pages)
            found = {place for page in pages for place in along(page)}
            assert found - set(matches) == set(expected.split()), (search, count)


async def test_a_lenient_client_is_told_what_not_all_types_have(filled: Fhir) -> None:
    """The parameter is left out of ``self``, and an OperationOutcome names it."""
    status, bundle = await asked(filled, "?_type=Patient,Observation&gender=x&_sort=gender",
                                 "lenient")  # fmt: skip
    [outcome] = [one for one in bundle["entry"] if one["search"]["mode"] == "outcome"]

    assert status == 200
    assert len(outcome["resource"]["issue"]) == 2
    assert bundle["link"][0]["url"] == f"{BASE}?_type=Patient,Observation"


async def test_links_of_a_long_search_over_several_types(filled: Fhir) -> None:
    """They have everything in one parameter, as those of one type."""
    ids = ",".join(f"{number:064}" for number in range(100))
    pages = await walk(filled, f"?_id=o1,1,org,{ids}&_count=1&_sort=_id")

    assert [places(page) for page in pages] == [["Patient/1"], ["Observation/o1"],
                                                ["Organization/org"]]  # fmt: skip
    assert all(len(page["link"][-1]["url"]) < 2000 for page in pages)


REFUSED = {
    "?_type=Patient,Foo": (400, "which is not among"),
    "?name=x": (400, "Not all of the types"),
    "?_type=Patient,Observation&status=x": (400, "Not all of the types"),
    "?_type=Patient,Observation&_sort=gender": (400, "Not all of the types"),
    "?_type=Patient,Observation&_sort=-_lastUpdate": (400, "Did you mean _lastUpdated"),
    "?_type=Patient,Observation&_include=Encounter:patient": (400, "_include:iterate"),
    "?_type=Account,ChargeItemDefinition&_sort=name": (400, "Not all of the types"),
    "?_type=Slot,GraphDefinition&_sort=start": (400, "of type"),
    "?_type=Patient&_cursor=AAAA": (400, "page link"),
    "Patient/1/*?_type=Organization": (400, "which is not among"),
    "Patient/1/Organization": (404, "never in the compartment"),
    "Patient/1/Foo": (404, "not a resource type"),
    "Organization/1/Patient": (404, "no compartment"),
    "Organization/1/*": (404, "no compartment"),
    "Patient/1/Observation?_cursor=AAAA": (400, "page link"),
}


@pytest.mark.parametrize(("search", "expected"), REFUSED.items(), ids=REFUSED)
async def test_refusals(fhir: Fhir, search: str, expected: tuple[int, str]) -> None:
    """What cannot be asked of all types is refused with a way out."""
    status, outcome = await asked(fhir, search)

    assert status == expected[0]
    assert expected[1] in outcome["issue"][0]["diagnostics"]
