"""https://hl7.org/fhir/R4/http.html#search"""

from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
import pytest

from fhir_server.app import Server
from fhir_server.r4.json import decode
from tests.http.conftest import BASE, Exact, diagnostics_of, links_of, outcome_of, pages

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
FAMILIES = ["Ahmed", "Begum", "Chowdhury", "Das", "Eva", "Farid", "Gomes"]


@pytest.fixture(autouse=True)
async def _patients(http: httpx.AsyncClient) -> None:
    """Patients p0 to p6, of both genders in turn; Patient/gone was deleted."""
    for number, family in enumerate(FAMILIES):
        resource = {
            "resourceType": "Patient",
            "id": f"p{number}",
            "name": [{"family": family}],
            "gender": ("female", "male")[number % 2],
            "birthDate": f"19{70 + number % 3}-01-01",
        }
        assert (await http.put(f"Patient/p{number}", json=resource)).status_code == 201
    await http.put("Patient/gone", json={"resourceType": "Patient", "id": "gone"})
    await http.delete("Patient/gone")


def ids(*bundles: dict[str, Any]) -> list[str]:
    """Return the ids of the matches, in their order."""
    return [
        entry["resource"]["id"]
        for bundle in bundles
        for entry in bundle.get("entry", [])
        if entry["search"]["mode"] == "match"
    ]


async def test_a_search_returns_a_searchset(http: httpx.AsyncClient, server: Server) -> None:
    """200 and a valid Bundle of type searchset; each match with fullUrl and search.mode."""
    answer = await http.get("Patient?gender=female&_sort=_id")
    bundle = answer.json()

    assert answer.status_code == 200
    assert bundle["type"] == "searchset"
    assert ids(bundle) == ["p0", "p2", "p4", "p6"]
    assert bundle["total"] == 4
    assert bundle["entry"][0]["fullUrl"] == f"{BASE}/Patient/p0"
    assert server.context.validate(decode(answer.content)) == ()


async def test_a_search_without_matches_is_no_error(
    http: httpx.AsyncClient, server: Server
) -> None:
    """200 and an empty searchset, without an empty array."""
    answer = await http.get("Patient?family=nobody")

    assert (answer.status_code, answer.json()["total"]) == (200, 0)
    assert "entry" not in answer.json()
    assert server.context.validate(decode(answer.content)) == ()


async def test_a_search_without_parameters_finds_the_type(http: httpx.AsyncClient) -> None:
    """Everything of the type but what is deleted."""
    assert sorted(ids((await http.get("Patient")).json())) == [f"p{n}" for n in range(7)]


POSTS = {
    "all in the body": ("Patient/_search", "gender=female&family=Das,Eva"),
    "all in the URL": ("Patient/_search?gender=female&family=Das,Eva", ""),
    "in both": ("Patient/_search?gender=female", "family=Das,Eva"),
    "in both, the same twice": ("Patient/_search?gender=female&family=Eva", "family=Das,Eva"),
    "percent-encoded": ("Patient/_search", "gender=%66emale&family=Das%2CEva"),
    "with _format and _pretty": (
        "Patient/_search",
        "gender=female&family=Eva&_format=json&_pretty=true",
    ),
}


@pytest.mark.parametrize(("path", "form"), POSTS.values(), ids=POSTS)
async def test_a_search_by_post_means_the_same(
    http: httpx.AsyncClient, path: str, form: str
) -> None:
    """Parameters may be in URL and body, with the same meaning; both is the same as repeating."""
    answer = await http.post(path, content=form, headers=FORM)

    assert answer.status_code == 200, answer.text
    assert ids(answer.json()) == ["p4"]


async def test_a_search_by_post_needs_no_body(exact: Exact) -> None:
    """An empty body has no media type to be wrong."""
    answer = await exact("POST", "Patient/_search?_id=p1")

    assert ids(answer.json()) == ["p1"]


@pytest.mark.parametrize("type", ["application/json", "text/plain", "multipart/form-data", ""])
async def test_a_search_by_post_is_a_form(exact: Exact, type: str) -> None:
    """415 with the right type named."""
    answer = await exact("POST", "Patient/_search", {"content-type": type}, b"gender=female")

    assert answer.status_code == 415
    assert "application/x-www-form-urlencoded" in diagnostics_of(answer)


async def test_the_format_of_the_answer_may_stand_in_the_form(http: httpx.AsyncClient) -> None:
    """_format and _pretty have the same meaning in URL and body."""
    refused = await http.post("Patient/_search", content="_format=ttl", headers=FORM)
    xml = await http.post("Patient/_search", content="_format=xml", headers=FORM)
    pretty = await http.post("Patient/_search", content="_pretty=true", headers=FORM)

    assert refused.status_code == 406
    assert xml.headers["content-type"] == "application/fhir+xml;charset=utf-8"
    assert b"\n" in pretty.content


async def test_a_search_by_post_continues_by_get(http: httpx.AsyncClient) -> None:
    """The initial request may be made via POST; the follow-up page requests are GETs."""
    first = (await http.post("Patient/_search", content="_count=3", headers=FORM)).json()
    rest = await pages(http, links_of(first)["next"])

    assert sorted(ids(first, *rest)) == [f"p{n}" for n in range(7)]


async def test_a_follow_up_may_be_made_by_post(http: httpx.AsyncClient) -> None:
    """Servers SHOULD allow a client to convert the follow-up requests to POST."""
    first = (await http.get("Patient?_count=5")).json()
    url = urlsplit(links_of(first)["next"])
    rest = await http.post("Patient/_search", content=url.query, headers=FORM)

    assert sorted(ids(first, rest.json())) == [f"p{n}" for n in range(7)]


def _long(values: int, characters: int) -> str:
    """A form that finds everybody, with as many alternatives that find nobody."""
    others = (sha256(str(n).encode()).hexdigest()[:characters] for n in range(values))
    return f"_id={','.join((*(f'p{n}' for n in range(7)), *others))}&_count=3&_sort=_id"


async def test_links_of_a_long_search_fit_into_a_url(http: httpx.AsyncClient) -> None:
    """Where the parameters are long, links lead there and back by GET all the same, and self says
    all of them."""
    form = _long(400, 32)
    assert len(form) > 13_000
    first = (await http.post("Patient/_search", content=form, headers=FORM)).json()
    rest = await pages(http, links_of(first)["next"])

    assert ids(first, *rest) == [f"p{n}" for n in range(7)]
    assert parse_qsl(urlsplit(links_of(first)["self"]).query) == parse_qsl(form)
    assert all(len(url) < 16_384 for url in links_of(first).values())
    assert list(parse_qs(urlsplit(links_of(first)["next"]).query)) == ["_page"]
    back = (await http.get(links_of(rest[-1])["previous"])).json()
    assert ids(back) == ["p3", "p4", "p5"]
    assert ids((await http.get(links_of(back)["first"])).json()) == ["p0", "p1", "p2"]
    assert not [one for one in first["entry"] if one["search"]["mode"] == "outcome"]


async def test_a_link_longer_than_a_url_can_be_sent_by_post(http: httpx.AsyncClient) -> None:
    """An OperationOutcome says so, and the query of the link as a form leads on."""
    form = _long(490, 64)
    first = (await http.post("Patient/_search", content=form, headers=FORM)).json()
    link = links_of(first)["next"]
    [outcome] = [one for one in first["entry"] if one["search"]["mode"] == "outcome"]

    assert len(link) > 16_384
    assert (await http.get(link)).status_code == 414
    assert "POST Patient/_search" in outcome["resource"]["issue"][0]["diagnostics"]
    query = urlsplit(link).query
    rest = (await http.post("Patient/_search", content=query, headers=FORM)).json()
    assert ids(rest) == ["p3", "p4", "p5"]


async def test_a_long_link_belongs_to_its_search_and_stands_alone(http: httpx.AsyncClient) -> None:
    """A changed link, one of another type, and one with further parameters are refused."""
    form = _long(100, 32)
    first = (await http.post("Patient/_search", content=form, headers=FORM)).json()
    query = urlsplit(links_of(first)["next"]).query
    changed = f"{query[:40]}{'A' if query[40] != 'A' else 'B'}{query[41:]}"
    for url in (f"Patient?{changed}", f"Person?{query}", f"Patient?{query}&gender=male"):
        assert (await http.get(url)).status_code == 400, url


SORTS = ["", "_id", "-_id", "family", "-family", "birthdate,-family", "_lastUpdated", "gender,-_id"]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("sort", SORTS)
async def test_pages_miss_and_repeat_nothing(
    http: httpx.AsyncClient, sort: str, count: int
) -> None:
    """Through next links to the end: what one page has, in its order; _count is respected."""
    query = f"_sort={sort}" if sort else "_total=none"
    whole = ids((await http.get(f"Patient?{query}")).json())
    found = await pages(http, f"Patient?{query}&_count={count}")

    assert ids(*found) == whole
    assert sorted(whole) == [f"p{n}" for n in range(7)]
    assert all(len(page.get("entry", [])) <= count for page in found)
    assert "next" not in links_of(found[-1])


async def test_the_self_link_says_what_was_understood(http: httpx.AsyncClient) -> None:
    """search.html#conformance: the parameters that were actually used, as the server read them."""
    url = "Patient?gender=female&name=A%20%26b&_count=2"
    link = links_of((await http.get(url)).json())["self"]

    assert link.startswith(f"{BASE}/Patient?")
    assert parse_qsl(urlsplit(link).query) == [
        ("gender", "female"),
        ("name", "A &b"),
        ("_count", "2"),
    ]


UNKNOWN = [
    "nonsense=1",
    "Gender=male",
    "gender:nonsense=male",
    "_nonsense=1",
    "birthdate=yesterday",
]


@pytest.mark.parametrize("query", UNKNOWN)
async def test_what_is_not_understood_is_refused(http: httpx.AsyncClient, query: str) -> None:
    """400 with an OperationOutcome that names it; it is never dropped in silence."""
    for headers in ({}, {"Prefer": "handling=strict"}):
        answer = await http.get(f"Patient?{query}", headers=headers)
        assert answer.status_code == 400
        assert query.partition("=")[0].partition(":")[0] in diagnostics_of(answer)


# Without a modifier or a value that is not understood the search would find more than was asked.
WIDENING = ("gender:nonsense=male", "birthdate=yesterday")


@pytest.mark.parametrize("query", WIDENING)
async def test_a_lenient_client_gets_no_wider_search(http: httpx.AsyncClient, query: str) -> None:
    """http.html#lenient is about unknown parameters; a wrong modifier or value stays 400."""
    headers = {"Prefer": "handling=lenient"}
    answer = await http.get(f"Patient?gender=male&{query}", headers=headers)

    assert answer.status_code == 400


@pytest.mark.parametrize("query", [one for one in UNKNOWN if one not in WIDENING])
async def test_a_lenient_client_is_told_what_was_left_out(
    http: httpx.AsyncClient, server: Server, query: str
) -> None:
    """An OperationOutcome of mode outcome without errors; the self link is without the rest."""
    headers = {"Prefer": "handling=lenient"}
    answer = await http.get(f"Patient?gender=male&{query}", headers=headers)
    bundle = answer.json()
    [outcome] = [one for one in bundle["entry"] if one["search"]["mode"] == "outcome"]

    assert answer.status_code == 200
    assert sorted(ids(bundle)) == ["p1", "p3", "p5"]
    assert outcome["resource"]["resourceType"] == "OperationOutcome"
    assert {one["severity"] for one in outcome["resource"]["issue"]} <= {"warning", "information"}
    assert urlsplit(links_of(bundle)["self"]).query == "gender=male"
    assert server.context.validate(decode(answer.content)) == ()


async def test_what_is_left_out_is_left_out_on_every_page(http: httpx.AsyncClient) -> None:
    """A next link leads on with what was understood, also for a client that is now strict."""
    first = await http.get(
        "Patient?gender=female&nonsense=1&_count=2", headers={"Prefer": "handling=lenient"}
    )
    rest = await pages(http, links_of(first.json())["next"])

    assert sorted(ids(first.json(), *rest)) == ["p0", "p2", "p4", "p6"]


# Another search, a changed text, another type: 400, and never the rows of another question.
@pytest.mark.parametrize("path", ["Patient?gender=male&", "Patient?_sort=family&", "Person?"])
async def test_a_page_link_belongs_to_its_search(http: httpx.AsyncClient, path: str) -> None:
    """A cursor that was made for another search is refused, with the way out."""
    link = links_of((await http.get("Patient?gender=female&_count=1")).json())["next"]
    cursor = dict(parse_qsl(urlsplit(link).query))["_cursor"]
    forged = cursor[:-3] + ("AAA" if cursor[-3:] != "AAA" else "BBB")
    for query in (f"{path}_cursor={cursor}", f"Patient?gender=female&_cursor={forged}"):
        answer = await http.get(query)
        assert answer.status_code == 400, query
        assert "first page" in diagnostics_of(answer)


async def test_count_zero_is_a_count(http: httpx.AsyncClient) -> None:
    """search.html#count: _count=0 is treated the same as _summary=count."""
    for query in ("_count=0", "_summary=count"):
        bundle = (await http.get(f"Patient?gender=female&{query}")).json()
        assert bundle["total"] == 4, query
        assert "entry" not in bundle
        assert "next" not in links_of(bundle)


async def test_a_total_is_there_when_it_is_asked_for(http: httpx.AsyncClient) -> None:
    """search.html#total: accurate is the number of all matches, not of the page."""
    bundle = (await http.get("Patient?_total=accurate&_count=2")).json()

    assert (bundle["total"], len(bundle["entry"])) == (7, 2)


@pytest.mark.parametrize(
    "query", ["_elements=gender", "_summary=true", "_summary=text", "_summary=data"]
)
async def test_a_subset_is_marked(http: httpx.AsyncClient, query: str) -> None:
    """Each resource that is not whole has the tag SUBSETTED."""
    bundle = (await http.get(f"Patient?_id=p1&{query}")).json()
    [tag] = bundle["entry"][0]["resource"]["meta"]["tag"]

    assert tag["code"] == "SUBSETTED"


async def test_a_failed_search_has_an_outcome(http: httpx.AsyncClient) -> None:
    """If the search fails, a 4xx with an OperationOutcome; 404 for a type that is none."""
    answer = await http.get("Patiens?name=x")

    assert answer.status_code == 404
    outcome_of(answer)
