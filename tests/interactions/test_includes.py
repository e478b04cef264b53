"""https://hl7.org/fhir/R4/search.html#revinclude"""

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from fhir_server.app import Server
from fhir_server.messages import Request
from fhir_server.settings import Settings
from tests.conftest import Fhir
from tests.interactions.asking import BASE, bundle, entry, json_of, patient, put


def _observation(id: str, subject: str, **members: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": id,
        "status": "final",
        "code": {"text": "x"},
        "subject": {"reference": subject},
        **members,
    }


RESOURCES: list[dict[str, Any]] = [
    {"resourceType": "Organization", "id": "top", "name": "A"},
    *(
        {
            "resourceType": "Organization", "id": id, "name": "A",
            "partOf": {"reference": f"Organization/{above}"},
        }
        for id, above in {"mid": "top", "low": "mid", "ring1": "ring2", "ring2": "ring1"}.items()
    ),
    patient("a", managingOrganization={"reference": "Organization/low"}),
    patient("b"),
    patient("gone"),
    _observation("o1", "Patient/a"),
    _observation("o2", "Patient/a", hasMember=[{"reference": "Observation/o1"}]),
    _observation("o3", "Patient/b", device={"reference": "Device/none"}),
    _observation("o4", "Patient/gone"),
    _observation("o5", "Patient/b/_history/1"),
    _observation("o6", "http://elsewhere/Patient/a"),
    {"resourceType": "Provenance", "id": "pv", "recorded": "2020-01-01T00:00:00Z",
     "target": [{"reference": "Observation/o1"}], "agent": [{"who": {"reference": "Patient/b"}}]},
    {"resourceType": "Questionnaire", "id": "q1", "status": "active", "url": "u:q", "version": "1"},
    {"resourceType": "Questionnaire", "id": "q2", "status": "active", "url": "u:q", "version": "2"},
    {"resourceType": "QuestionnaireResponse", "id": "r2", "status": "completed",
     "questionnaire": "u:q|2"},
]  # fmt: skip


@pytest.fixture
async def filled(fhir: Fhir) -> Fhir:
    """The front door of a server with the resources; Patient/gone is deleted, b at version 2."""
    for one in RESOURCES:
        assert (await fhir(put(one))).status == 201, one
    await fhir(put(patient("b", active=True)))
    await fhir(Request("delete", "Patient", "gone"))
    return fhir


async def asked(fhir: Fhir, search: str) -> Any:
    """Return the Bundle that the search answers, whose status must be 200."""
    place, _, query = search.removeprefix(f"{BASE}/").partition("?")
    parameters = tuple(parse_qsl(query, keep_blank_values=True))
    response = await fhir(Request("search-type", place, parameters=parameters, base_url=BASE))
    assert response.status == 200, response.body
    return json_of(response)


def places(bundle: Any, mode: str) -> list[str]:
    """Return ``Type/id`` of the entries of ``mode``."""
    return [
        f"{one['resource']['resourceType']}/{one['resource'].get('id', '')}"
        for one in bundle.get("entry", [])
        if one["search"]["mode"] == mode
    ]


ALL_OF_O1 = "Observation/o2 Patient/a Provenance/pv"
# search -> what comes along
CASES = {
    "Observation?_id=o1&_include=Observation:subject": "Patient/a",
    "Observation?_id=o1&_include=Observation:subject:Patient": "Patient/a",
    "Observation?_id=o1&_include=Observation:subject:Group": "",
    "Observation?_id=o1&_include=Observation:subject:*": "Patient/a",
    "Observation?_id=o1,o2&_include=Observation:subject": "Patient/a",
    "Observation?_id=o1,o2&_include=Observation:has-member": "",
    "Observation?_id=o2&_include=Observation:*": "Observation/o1 Patient/a",
    "Observation?_id=o2&_include=*": "Observation/o1 Patient/a",
    "Observation?_id=o3&_include=*": "Patient/b",
    "Observation?_id=o4&_include=*": "",
    "Observation?_id=o6&_include=*": "",
    "Observation?_id=o1&_revinclude=*": "Observation/o2 Provenance/pv",
    "Observation?_id=o1&_revinclude=*&_include=*": ALL_OF_O1,
    "Observation?_id=o1&_revinclude=Provenance:target&_include=Observation:patient": (
        "Patient/a Provenance/pv"
    ),
    "Observation?_id=o1&_revinclude=Provenance:target&_include:iterate=Provenance:agent": (
        "Patient/b Provenance/pv"
    ),
    "Patient?_id=a&_include=Patient:organization": "Organization/low",
    "Patient?_id=a&_include=Patient:organization&_include:iterate=Organization:partof": (
        "Organization/low Organization/mid Organization/top"
    ),
    "Organization?_id=top&_revinclude:iterate=Organization:partof": (
        "Organization/low Organization/mid"
    ),
    "Organization?_id=ring1&_include:iterate=Organization:partof": "Organization/ring2",
    "Organization?_id=ring1&_include:iterate=*&_revinclude:iterate=*": "Organization/ring2",
    "QuestionnaireResponse?_include=QuestionnaireResponse:questionnaire": "Questionnaire/q2",
    "Questionnaire?_id=q1&_revinclude=QuestionnaireResponse:questionnaire": "",
    "Questionnaire?_id=q2&_revinclude=QuestionnaireResponse:questionnaire": (
        "QuestionnaireResponse/r2"
    ),
    "Patient?_id=a&_revinclude=Encounter:patient": "",
    "Patient?_id=a&_revinclude=Observation:patient&_summary=count": "",
    "Patient?_id=a&_revinclude=Observation:patient&_count=0": "",
}


async def test_what_comes_along(filled: Fhir) -> None:
    """Each once, never a match, nothing deleted, and marked as included."""
    for search, expected in CASES.items():
        bundle = await asked(filled, search)
        assert sorted(places(bundle, "include")) == expected.split(), search
        assert not places(bundle, "outcome"), search


async def test_a_version_that_is_referred_to_comes_as_that_version(filled: Fhir) -> None:
    """search.html: if a reference is versioned, the specified version SHOULD be provided."""
    bundle = await asked(filled, "Observation?_id=o5&_include=Observation:subject")

    assert bundle["entry"][1]["resource"]["meta"]["versionId"] == "1"


REFUSED = {
    "_include=Observation": "[type]:[reference parameter]",
    "_include=Observation:subject:Patient:x": "[type]:[reference parameter]",
    "_include=Foo:subject": "no resource type",
    "_include=:subject": "no resource type",
    "_include=Observation:sbject": "Did you mean subject",
    "_include=Observation:code": "no reference parameter",
    "_include=Observation:subject:Patent": "Did you mean Patient",
    "_include=Patient:organization": "_include:iterate",
    "_revinclude=Patient:organization": "_revinclude:iterate",
    "_include:recurse=Observation:subject": ":iterate",
}


@pytest.mark.parametrize(("query", "sentence"), REFUSED.items(), ids=REFUSED)
async def test_refusals(fhir: Fhir, query: str, sentence: str) -> None:
    """What could never include anything is 400, and says what could."""
    parameters = tuple(parse_qsl(query, keep_blank_values=True))
    answer = await fhir(Request("search-type", "Observation", parameters=parameters, base_url=BASE))

    assert answer.status == 400
    assert sentence in json_of(answer)["issue"][0]["diagnostics"]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Settings by which three come along with a page, for the tests that cut it."""
    return settings.model_copy(update={"includes_max": 3})


_UP = ("Organization:partof", "Patient:organization", "Observation:patient")
CUT = [
    "Organization?_sort=_id&_count=2&_revinclude=" + "&_revinclude=".join(_UP[:2]),
    "Patient?_count=1&_revinclude=Observation:patient",
    "Patient?_count=5&_sort=-_lastUpdated&_revinclude=Observation:patient",
    "Patient?_count=1&_sort=birthdate&_revinclude=Observation:patient",
    "Organization?_count=1&_revinclude:iterate=" + "&_revinclude:iterate=".join(_UP),
]


async def test_what_is_cut_comes_with_the_next_pages(filled: Fhir, server: Server) -> None:
    """No page has more than three; next leads to all of it, each match once, and says so."""
    for number in range(5):
        await filled(put(_observation(f"x{number}", "Patient/a")))
    wide = server.context.settings.includes_max
    assert wide == 3
    for search in CUT:
        matches: list[str] = []
        along: set[str] = set()
        url, pages = search, 0
        while url:
            bundle = await asked(filled, url)
            included = places(bundle, "include")
            assert len(included) == len(set(included)) <= wide
            links = {link["relation"]: link["url"] for link in bundle["link"]}
            matches += places(bundle, "match")
            along |= set(included)
            url = links.get("next", "")
            assert bool(places(bundle, "outcome")) == ("_rest=" in url), search
            pages += 1
            assert pages < 40, search
        assert len(matches) == len(set(matches)) == (5 if search[0] == "O" else 2), search
        assert along - set(matches) == await _whole(filled, search) - set(matches), search


async def test_the_way_back_over_what_was_cut(filled: Fhir, server: Server) -> None:
    """From the last page ``previous`` leads to every match; a page that was come to from behind
    has all that it includes on the pages that follow it."""
    for number in range(5):
        await filled(put(_observation(f"x{number}", "Patient/a")))
    for search in CUT[1:4]:
        url, bundle = search, {}
        while url:
            bundle = await asked(filled, url)
            url = {one["relation"]: one["url"] for one in bundle["link"]}.get("next", "")
        matches, visited = set(places(bundle, "match")), 0
        while True:
            links = {one["relation"]: one["url"] for one in bundle["link"]}
            if "previous" not in links:
                break
            bundle = await asked(filled, links["previous"])
            matches |= set(places(bundle, "match"))
            visited += 1
            assert visited < 40, search
        assert matches == {"Patient/a", "Patient/b"}, search
        along, url = set(places(bundle, "include")), links.get("next", "")
        while url:
            bundle = await asked(filled, url)
            along |= set(places(bundle, "include"))
            url = {one["relation"]: one["url"] for one in bundle["link"]}.get("next", "")
        assert along == await _whole(filled, search), search


async def _whole(fhir: Fhir, search: str) -> set[str]:
    """Return what comes along with the matches, one by one and in small steps."""
    type, _, query = search.partition("?")
    includes = [one for one in query.split("&") if "include" in one]
    sources = places(await asked(fhir, type), "match")
    found: set[str] = set()
    while sources:
        source, *sources = sources
        kind, _, id = source.partition("/")
        for one in includes:
            other, code = one.partition("=")[2].split(":")
            targets = {
                "patient": "Patient",
                "partof": "Organization",
                "organization": "Organization",
            }
            if targets[code] == kind:
                new = set(places(await asked(fhir, f"{other}?{code}={id}"), "match")) - found
                found |= new
                sources += sorted(new) if ":iterate" in one else []
    return found


async def test_a_link_to_the_rest_belongs_to_its_search(filled: Fhir) -> None:
    """Another search, or a changed link, is refused."""
    bundle = await asked(filled, "Patient?_count=5&_revinclude=*")
    assert not urlsplit(bundle["link"][0]["url"]).fragment
    parameters = (("_revinclude", "Observation:patient"), ("_rest", "AAAA"))
    answer = await filled(Request("search-type", "Patient", parameters=parameters, base_url=BASE))

    assert answer.status == 400


async def test_in_a_transaction(filled: Fhir) -> None:
    """Where MongoDB unites no collections; with what the same transaction has written."""
    search = "Observation?_id=o2,new&_include=Observation:patient&_include=Observation:has-member"
    assert places(await asked(filled, search), "include") == ["Observation/o1", "Patient/a"]
    done = await filled(
        bundle(
            entry("PUT", "Patient/c", patient("c")),
            entry("PUT", "Observation/new", _observation("new", "Patient/c")),
            entry("GET", search),
        )
    )
    found = json_of(done)["entry"][2]["resource"]
    assert places(found, "include") == ["Observation/o1", "Patient/a", "Patient/c"]
