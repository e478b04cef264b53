"""https://hl7.org/fhir/R4/http.html: sentences that no other test of this folder holds.

docs/conformance-http.md lists every sentence with SHALL or SHOULD about a server, and its test.
"""

import json
from typing import Any

import httpx
import pytest

from tests.http.conftest import BASE, HOST, Exact, links_of, outcome_of

PATIENT: dict[str, Any] = {"resourceType": "Patient", "id": "p", "active": True}
TAGGED = {
    **PATIENT,
    "meta": {
        "versionId": "99",
        "lastUpdated": "2001-01-01T00:00:00Z",
        "profile": ["http://example.org/p"],
        "tag": [{"system": "http://example.org/t", "code": "a"}],
        "security": [{"system": "http://example.org/s", "code": "R"}],
    },
}


async def test_http_intro_3_1_0_1_a_url_is_utf_8(exact: Exact, http: httpx.AsyncClient) -> None:
    """SHOULD: URLs are decoded as UTF-8; what is not is refused, and not guessed."""
    await http.put("Patient/p", json={**PATIENT, "name": [{"text": "রহিমা"}]})
    found = await exact("GET", "Patient?name=%E0%A6%B0%E0%A6%B9%E0%A6%BF%E0%A6%AE%E0%A6%BE")
    latin = await exact("GET", "Patient?name=%E9")

    assert [one["resource"]["id"] for one in found.json()["entry"]] == ["p"]
    assert latin.status_code == 400


async def test_http_intro_3_1_0_1_urls_that_are_made_are_encoded(http: httpx.AsyncClient) -> None:
    """SHOULD: URLs conform to RFC 3986: links hold ASCII only, and lead back here."""
    for id in "abc":
        await http.put(f"Patient/{id}", json={**PATIENT, "id": id, "name": [{"text": "é |"}]})
    bundle = (await http.get("Patient", params={"name": "é |", "_count": "1"})).json()
    for url in links_of(bundle).values():
        assert url.isascii()
        assert not set(url) & set(' "<>\\^`{|}')
        assert (await http.get(url)).status_code == 200


async def test_http_root_3_1_0_1_http_and_https_are_one(http: httpx.AsyncClient) -> None:
    """SHALL NOT: http: and https: do not name different things."""
    await http.put("Patient/p", json=PATIENT)
    plain, safe = [
        await http.get(f"{scheme}://{HOST}/fhir/Patient/p") for scheme in ("http", "https")
    ]

    assert plain.json() == safe.json()
    assert plain.headers["etag"] == safe.headers["etag"]


async def test_http_mime_type_3_1_0_1_utf_8_is_said(http: httpx.AsyncClient) -> None:
    """SHALL: every answer with a body sets charset to UTF-8, refusals and bundles too."""
    await http.put("Patient/p", json=PATIENT)
    for path in ("Patient/p", "Patient", "Patient/p/_history", "metadata", "Patient/none", "x?y"):
        for accept in ("application/fhir+json", "application/fhir+xml"):
            answer = await http.get(path, headers={"Accept": accept})
            assert answer.headers["content-type"] == f"{accept};charset=utf-8", path
            answer.content.decode("utf-8")


@pytest.mark.parametrize("format", ["ttl", "text/turtle"])
async def test_http_mime_type_3_1_0_1_turtle_is_not_another_format(
    http: httpx.AsyncClient, format: str
) -> None:
    """SHALL mean Turtle: which is not served, and nothing else is sent in its place."""
    await http.put("Patient/p", json=PATIENT)
    answer = await http.get("Patient/p", params={"_format": format})

    assert answer.status_code == 406
    outcome_of(answer)


@pytest.mark.parametrize("interaction", ["create", "update"])
async def test_http_update_3_1_0_4_meta_is_kept_but_for_two(
    http: httpx.AsyncClient, interaction: str
) -> None:
    """SHALL ignore versionId and lastUpdated and set its own; SHOULD leave the rest of meta."""
    if interaction == "create":
        answer = await http.post("Patient", json=TAGGED)
    else:
        answer = await http.put("Patient/p", json=TAGGED)
    meta = answer.json()["meta"]

    assert answer.status_code == 201
    assert meta["versionId"] == "1"
    assert meta["lastUpdated"] > "2020"
    kept = ("profile", "tag", "security")
    assert {name: meta[name] for name in kept} == {name: TAGGED["meta"][name] for name in kept}


# What matches, the id in the body -> status: the table of http.html#cond-update.
CONDITIONAL_UPDATES = [
    (0, None, 201),
    (0, "new", 201),
    (1, None, 200),
    (1, "m0", 200),
    (1, "other", 400),
    (2, None, 412),
    (2, "m0", 412),
]


@pytest.mark.parametrize(("there", "id", "status"), CONDITIONAL_UPDATES)
async def test_http_cond_update_3_1_0_4_3_the_table(
    http: httpx.AsyncClient, there: int, id: str | None, status: int
) -> None:
    """No match creates, under the id if one is given; one is updated unless the id differs."""
    for number in range(there):
        one = {**PATIENT, "id": f"m{number}", "identifier": [{"value": "x"}]}
        await http.put(f"Patient/m{number}", json=one)
    body = {"resourceType": "Patient", "identifier": [{"value": "x"}], **({"id": id} if id else {})}
    answer = await http.put("Patient?identifier=x", json=body)

    assert answer.status_code == status, answer.text
    if status == 201 and id:
        assert answer.json()["id"] == id
    if status >= 400:
        outcome_of(answer)


async def test_http_concurrency_3_1_0_5_the_etag_is_the_version(http: httpx.AsyncClient) -> None:
    """SHOULD be on each resource, SHALL match its version id; in a bundle meta has it."""
    await http.put("Patient/p", json=PATIENT)
    await http.put("Patient/p", json={**PATIENT, "active": False})
    for answer in (
        await http.get("Patient/p"),
        await http.get("Patient/p/_history/2"),
        await http.put("Patient/p", json={**PATIENT, "active": False}),
    ):
        assert answer.headers["etag"] == f'W/"{answer.json()["meta"]["versionId"]}"' == 'W/"2"'
    for path in ("Patient", "Patient/p/_history"):
        first = (await http.get(path)).json()["entry"][0]
        assert first["resource"]["meta"]["versionId"] == "2"


async def test_http_patch_3_1_0_6_it_is_an_update(http: httpx.AsyncClient) -> None:
    """SHALL: versions, errors and Prefer are those of an update."""
    await http.put("Patient/p", json=PATIENT)
    headers = {"Content-Type": "application/merge-patch+json"}
    minimal = await http.patch(
        "Patient/p", content='{"active":false}', headers={**headers, "Prefer": "return=minimal"}
    )
    outcome = await http.patch(
        "Patient/p",
        content='{"gender":"male"}',
        headers={**headers, "Prefer": "return=OperationOutcome"},
    )

    assert (minimal.status_code, minimal.content) == (200, b"")
    assert minimal.headers["etag"] == 'W/"2"'
    assert outcome_of(outcome)["issue"][0]["severity"] == "information"
    assert (await http.get("Patient/p")).json()["meta"]["versionId"] == "3"


async def test_http_search_3_1_0_9_a_parameter_that_a_type_has_not(http: httpx.AsyncClient) -> None:
    """SHOULD: 400 where a type of _type has not one of the parameters."""
    answer = await http.get("?_type=Patient,Observation&birthdate=2000")

    assert answer.status_code == 400
    outcome_of(answer)


async def test_http_capabilities_3_1_0_10_the_etag_changes_with_it(
    http: httpx.AsyncClient, exact: Exact
) -> None:
    """SHALL: another statement has another ETag; here that of another base."""
    here = await exact("GET", "metadata")
    there = await exact("GET", "metadata", {"host": "other.example.org"})

    assert here.json()["implementation"] != there.json()["implementation"]
    assert here.headers["etag"] != there.headers["etag"]


async def test_http_transaction_3_1_0_11_an_entry_without_its_parts(
    http: httpx.AsyncClient,
) -> None:
    """SHALL: each entry has a request, and a PUT or POST a resource."""
    entries = [
        {"resource": PATIENT},
        {"request": {"method": "PUT", "url": "Patient/p"}},
        {"request": {"method": "POST", "url": "Patient"}},
    ]
    for type in ("batch", "transaction"):
        for entry in entries:
            bundle = {"resourceType": "Bundle", "type": type, "entry": [entry]}
            answer = await http.post("", json=bundle)
            status = answer.status_code
            if status == 200:
                status = int(answer.json()["entry"][0]["response"]["status"][:3])
            assert status == 400, answer.text


async def test_http_transaction_3_1_0_11_each_entry_has_a_response(http: httpx.AsyncClient) -> None:
    """SHALL: one entry for each, with status, and location and ETag where there is a version."""
    entries = [
        {"resource": PATIENT, "request": {"method": "PUT", "url": "Patient/p"}},
        {"resource": PATIENT, "request": {"method": "POST", "url": "Patient"}},
        {"request": {"method": "GET", "url": "Patient/p"}},
    ]
    for type in ("batch", "transaction"):
        bundle = {"resourceType": "Bundle", "type": type, "entry": entries}
        answer = (await http.post("", json=bundle)).json()
        assert answer["type"] == f"{type}-response"
        responses = [one["response"] for one in answer["entry"]]
        assert len(responses) == len(entries)
        assert all({"status", "etag", "lastModified"} <= one.keys() for one in responses)
        assert all("location" in one for one in responses[:2])


async def test_http_transaction_3_1_0_11_links_everywhere(http: httpx.AsyncClient) -> None:
    """SHALL replace all matching links: references, urls, and those in the narrative."""
    urn = "urn:uuid:0a4f5f0e-4bd5-4b13-9e0b-6ee2f1b6b1aa"
    div = f'<div xmlns="http://www.w3.org/1999/xhtml"><a href="{urn}">x</a><img src="{urn}"/></div>'
    basic = {
        "resourceType": "Basic",
        "text": {"status": "additional", "div": div},
        "extension": [{"url": "http://example.org/e", "valueUrl": urn}],
        "code": {"text": "x"},
        "subject": {"reference": urn},
    }
    entries = [
        {"resource": basic, "request": {"method": "POST", "url": "Basic"}},
        {"fullUrl": urn, "resource": PATIENT, "request": {"method": "POST", "url": "Patient"}},
    ]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    answer = (await http.post("", json=bundle, headers={"Prefer": "return=representation"})).json()
    first, second = [one["resource"] for one in answer["entry"]]

    assert urn not in json.dumps(first)
    assert json.dumps(first).count(f"Patient/{second['id']}") == 4


async def test_http_transaction_3_1_0_11_the_full_url_of_an_update(http: httpx.AsyncClient) -> None:
    """The base of a fullUrl is ignored: the same bundle can be sent to several servers."""
    entry = {
        "fullUrl": "http://elsewhere.example.org/fhir/Patient/p",
        "resource": PATIENT,
        "request": {"method": "PUT", "url": "Patient/p"},
    }
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}

    assert (await http.post("", json=bundle)).status_code == 200
    assert (await http.get("Patient/p")).status_code == 200


async def test_http_integrity_3_1_0_13_it_is_documented(http: httpx.AsyncClient) -> None:
    """SHOULD: how integrity is kept is said, in the CapabilityStatement."""
    [rest] = (await http.get("metadata")).json()["rest"]

    assert "atomic" in rest["documentation"]
    assert "never rewritten" in rest["documentation"]


async def test_http_paging_3_1_0_14_self_and_next(http: httpx.AsyncClient) -> None:
    """SHALL: pages are led on by links; every search has self, the last page no next."""
    for id in "abc":
        await http.put(f"Patient/{id}", json={**PATIENT, "id": id})
    for path in ("Patient?_count=2", "_history?_count=2"):
        url, seen = f"{BASE}/{path}", 0
        while url:
            bundle = (await http.get(url)).json()
            links = links_of(bundle)
            assert "self" in links
            assert len(bundle["entry"]) <= 2
            seen += len(bundle["entry"])
            url = links.get("next", "")
        assert seen == 3


async def test_http_intermediaries_3_1_0_15_stamps_have_no_effect(http: httpx.AsyncClient) -> None:
    """SHALL NOT: what an intermediary stamps a request with is used for nothing."""
    await http.put("Patient/p", json=PATIENT)
    plain = await http.get("Patient/p")
    stamps = {"request-modified-engine": "If-None-Match: *", "response-modified-engine": "x"}
    stamped = await http.get("Patient/p", headers=stamps)

    assert (stamped.status_code, stamped.content) == (plain.status_code, plain.content)
    assert "modified-engine" not in str(stamped.headers)
