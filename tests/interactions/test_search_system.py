"""https://hl7.org/fhir/R4/http.html#search and https://hl7.org/fhir/R4/search.html#compartment

Searches over several types, and in compartments.
"""

from typing import Any
from urllib.parse import parse_qsl

import pytest

from fhir_server.messages import Request
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
    {"resourceType": "Organization", "id": "org"},
    patient("gone"),
]  # fmt: skip


@pytest.fixture
async def filled(fhir: Fhir) -> Fhir:
    """The front door of a server with the resources; Patient/gone is deleted."""
    for one in RESOURCES:
        assert (await fhir(put({key: value for key, value in one.items() if value}))).status == 201
    await fhir(Request("delete", "Patient", "gone"))
    return fhir


async def asked(fhir: Fhir, url: str) -> tuple[int, Any]:
    """Return status and body of ``GET url``, as HTTP would route it."""
    path, _, query = url.removeprefix(BASE).partition("?")
    routed = route("GET", path)
    parameters = tuple(parse_qsl(query, keep_blank_values=True))
    request = Request(routed.interaction, routed.type, routed.id, routed.version,
                      parameters=parameters, base_url=BASE)  # fmt: skip
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


REFUSED = {
    "?_type=Patient,Foo": (400, "which is not among"),
    "?name=x": (400, "Not all of the types"),
    "?_type=Patient,Observation&status=x": (400, "Not all of the types"),
    "?_type=Patient,Observation&_sort=_id": (400, "not served yet"),
    "?_type=Patient&_include=*": (400, "not served yet"),
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
