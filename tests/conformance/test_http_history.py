"""https://hl7.org/fhir/R4/http.html#history"""

from typing import Any
from urllib.parse import quote

import httpx
import pytest

from fhir_server.app import Server
from fhir_server.r4.json import decode
from tests.http.conftest import BASE, diagnostics_of, links_of, outcome_of, pages

Entries = list[dict[str, Any]]
SCOPES = ["Patient/p/_history", "Patient/_history", "_history"]


def patient(id: str, number: int) -> dict[str, Any]:
    """Return a Patient whose ``number`` tells versions apart."""
    return {"resourceType": "Patient", "id": id, "multipleBirthInteger": number}


async def lived(http: httpx.AsyncClient, id: str = "p") -> list[str]:
    """Write, change, delete and revive Patient/``id``: four versions; return their times."""
    answers = [
        await http.put(f"Patient/{id}", json=patient(id, 1)),
        await http.put(f"Patient/{id}", json=patient(id, 2)),
        await http.delete(f"Patient/{id}"),
        await http.put(f"Patient/{id}", json=patient(id, 4)),
    ]
    assert [one.status_code for one in answers] == [201, 200, 204, 201]
    history = (await http.get(f"Patient/{id}/_history")).json()
    return [one["response"]["lastModified"] for one in reversed(history["entry"])]


def versions(entries: Entries) -> list[tuple[str, str]]:
    """Return (type/id, version) of each entry."""
    return [
        (one["fullUrl"].removeprefix(f"{BASE}/"), one["response"]["etag"][3:-1]) for one in entries
    ]


@pytest.mark.parametrize("path", SCOPES)
async def test_a_history_has_every_version_newest_first(http: httpx.AsyncClient, path: str) -> None:
    """A Bundle of type history, oldest versions last, deleted resources included."""
    await lived(http)
    bundle = (await http.get(path)).json()

    assert (bundle["resourceType"], bundle["type"]) == ("Bundle", "history")
    assert versions(bundle["entry"]) == [("Patient/p", v) for v in ("4", "3", "2", "1")]
    assert links_of(bundle)["self"] == f"{BASE}/{path}"


@pytest.mark.parametrize("path", SCOPES)
async def test_a_history_is_a_valid_bundle(
    http: httpx.AsyncClient, server: Server, path: str
) -> None:
    """https://hl7.org/fhir/R4/bundle.html#bdl-1 and those that follow, by our own validator."""
    await http.post("Patient", json=patient("x", 1))
    await lived(http)
    text = (await http.get(path)).content

    assert server.context.validate(decode(text)) == ()


async def test_an_entry_says_what_happened(http: httpx.AsyncClient) -> None:
    """request.method and url; a PUT or POST entry SHALL contain a resource, a DELETE has none."""
    await lived(http)
    created = await http.post("Patient", json=patient("x", 1))
    entries = (await http.get("_history")).json()["entry"]

    assert [one["request"] for one in entries] == [
        {"method": "POST", "url": "Patient"},
        *({"method": one, "url": "Patient/p"} for one in ("PUT", "DELETE", "PUT", "PUT")),
    ]
    assert ["resource" in one for one in entries] == [True, True, False, True, True]
    assert entries[0]["resource"] == created.json()
    assert all("lastModified" in one["response"] for one in entries)
    # "Servers may choose to only use 200 OK instead of other more specific success codes".
    assert [one["response"]["status"][:3] for one in entries][2] == "204"
    assert all(one["response"]["status"][:3] in ("200", "201", "204") for one in entries)


async def test_the_resource_of_an_entry_is_that_version(http: httpx.AsyncClient) -> None:
    """The resource is as it was at the end of that interaction: what a vread returns."""
    await lived(http)
    for entry in (await http.get("Patient/p/_history")).json()["entry"]:
        vread = await http.get(f"Patient/p/_history/{entry['response']['etag'][3:-1]}")
        assert vread.status_code == (200 if "resource" in entry else 410)
        if "resource" in entry:
            assert vread.json() == entry["resource"]


async def test_a_history_stays_in_its_scope(http: httpx.AsyncClient) -> None:
    """An instance's history has that instance, a type's that type, the system's everything."""
    await http.put("Patient/p", json=patient("p", 1))
    await http.put("Patient/p.x", json=patient("p.x", 1))
    await http.put(
        "Group/p", json={"resourceType": "Group", "id": "p", "type": "person", "actual": True}
    )
    found = [versions((await http.get(path)).json()["entry"]) for path in SCOPES]

    assert [len(one) for one in found] == [1, 2, 3]
    assert [name for name, _ in found[0]] == ["Patient/p"]


async def test_a_history_survives_the_deletion(http: httpx.AsyncClient) -> None:
    """The delete interaction does not remove a resource's version history."""
    await http.put("Patient/p", json=patient("p", 1))
    await http.delete("Patient/p")
    entries = (await http.get("Patient/p/_history")).json()["entry"]

    assert [one["request"]["method"] for one in entries] == ["DELETE", "PUT"]


async def test_the_history_of_nothing(http: httpx.AsyncClient) -> None:
    """404 for a resource that never was; an empty Bundle for a type and a system without any."""
    unknown = await http.get("Patient/nobody/_history")

    assert unknown.status_code == 404
    outcome_of(unknown)
    for path in ("Patient/_history", "_history"):
        answer = await http.get(path)
        assert (answer.status_code, "entry" in answer.json()) == (200, False)


# -------------------------------------------------------------------------------------- paging


@pytest.mark.parametrize("count", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("path", SCOPES)
async def test_pages_miss_and_repeat_nothing(
    http: httpx.AsyncClient, path: str, count: int
) -> None:
    """Through next links to the end: what one large page has, in its order; _count is respected."""
    for id in ("a", "p", "z"):
        await lived(http, id)
    whole = versions((await http.get(path)).json()["entry"])
    found = await pages(http, f"{path}?_count={count}")

    assert [one for page in found for one in versions(page.get("entry", []))] == whole
    assert all(len(page.get("entry", [])) <= count for page in found)
    assert "next" not in links_of(found[-1])


@pytest.mark.parametrize("count", [1, 4, 10])
async def test_pages_hold_where_many_versions_have_one_time(
    http: httpx.AsyncClient, count: int
) -> None:
    """What one transaction wrote has one time, over several types, and is paged all the same."""
    places = [f"{type}/{id}" for type in ("Basic", "Patient", "Person") for id in "abcde"]
    for _ in range(2):
        entries = [
            {
                "resource": {
                    "resourceType": place.partition("/")[0],
                    "id": place[-1],
                    **({"code": {"text": "x"}} if place[0] == "B" else {}),
                    "language": "en" if _ else "bn",
                },
                "request": {"method": "PUT", "url": place},
            }
            for place in places
        ]
        answer = await http.post(
            "", json={"resourceType": "Bundle", "type": "transaction", "entry": entries}
        )
        assert answer.status_code == 200, answer.text
    found = await pages(http, f"_history?_count={count}")
    listed = [one for page in found for one in versions(page.get("entry", []))]

    assert sorted(listed) == sorted((place, v) for place in places for v in ("1", "2"))
    assert [v for _, v in listed] == ["2"] * 15 + ["1"] * 15


async def test_pages_hold_while_others_write(http: httpx.AsyncClient) -> None:
    """Versions written meanwhile shift nothing: what was there is seen once each."""
    for id in "abcdef":
        await http.put(f"Patient/{id}", json=patient(id, 1))
    url, listed = "Patient/_history?_count=2", []
    for number in range(2, 12):
        bundle = (await http.get(url)).json()
        listed += versions(bundle["entry"])
        url = links_of(bundle).get("next", "")
        if not url:
            break
        await http.put("Patient/a", json=patient("a", number))
        await http.delete("Patient/b" if number == 3 else "Patient/zzz")

    assert len(listed) == len(set(listed))
    assert {(f"Patient/{id}", "1") for id in "abcdef"} <= set(listed)


async def test_a_page_link_of_another_question_is_refused(http: httpx.AsyncClient) -> None:
    """A cursor belongs to its scope and its parameters; elsewhere it is 400, never nonsense."""
    await lived(http)
    link = links_of((await http.get("Patient/p/_history?_count=1")).json())["next"]
    cursor = httpx.URL(link).params["_cursor"]
    for path in ("Patient/_history", "_history", "Patient/p/_history?_since=2020-01-01"):
        answer = await http.get(path, params={"_cursor": cursor} if "?" not in path else None)
        if "?" in path:
            answer = await http.get(f"{path}&_cursor={quote(cursor)}")
        assert answer.status_code == 400, path
        assert "first page" in diagnostics_of(answer)


# ---------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize("path", SCOPES)
async def test_since_is_at_or_after(http: httpx.AsyncClient, path: str) -> None:
    """Only versions that were created at or after the given instant."""
    times = await lived(http)
    counts = [
        len((await http.get(path, params={"_since": time})).json().get("entry", []))
        for time in (*times, "2100-01-01T00:00:00Z", "2000-01-01T00:00:00+06:00")
    ]

    assert counts == [4, 3, 2, 1, 0, 4]


@pytest.mark.parametrize("path", SCOPES)
async def test_at_is_what_was_current_then(http: httpx.AsyncClient, path: str) -> None:
    """Only versions that were current at some point during the period of the date."""
    times = await lived(http)
    found = [
        [v for _, v in versions((await http.get(path, params={"_at": t})).json().get("entry", []))]
        for t in (*times, times[0][:4], "2000", "2100")
    ]

    assert found == [["1"], ["2"], ["3"], ["4"], ["4", "3", "2", "1"], [], ["4"]]


@pytest.mark.parametrize("name", ["_since", "_at", "_count"])
async def test_a_parameter_stands_once(http: httpx.AsyncClient, name: str) -> None:
    """Each of these parameters SHALL NOT appear more than once."""
    await lived(http)
    value = "1" if name == "_count" else "2024-01-01T00:00:00Z"
    answer = await http.get(f"Patient/_history?{name}={value}&{name}={value}")

    assert answer.status_code == 400
    assert name in diagnostics_of(answer)


BAD = {
    "_since": ["x", "2024-13-01", "2024-02-30T00:00:00Z", "0000", "99999", "2024-01-01T25:00:00Z"],
    "_at": ["x", "2024-99", "-1"],
    "_count": ["x", "-1", "1.5", "1e3", "٣", "99999999999999999999", "0x10"],
    "_cursor": ["x", "%00", "AAAA", "A" * 16_000, "é"],
    "_summary": ["nonsense", "TRUE"],
    "nonsense": ["1"],
    "_sort": ["date"],
    "_list": ["1"],
}


@pytest.mark.parametrize("name", BAD)
async def test_a_parameter_that_cannot_be_obeyed_is_refused(
    http: httpx.AsyncClient, name: str
) -> None:
    """400 that names the parameter; none is dropped in silence."""
    await lived(http)
    word = "page link" if name == "_cursor" else name
    for value in BAD[name]:
        answer = await http.get(f"Patient/p/_history?{name}={quote(value, safe='%')}")
        assert answer.status_code == 400, (value, answer.text)
        assert word in diagnostics_of(answer), (value, diagnostics_of(answer))


async def test_a_history_takes_a_subset_of_each_version(http: httpx.AsyncClient) -> None:
    """_summary and _elements are general parameters; each resource says that it is a part."""
    await lived(http)
    for query in ("_elements=gender", "_summary=text"):
        entries = (await http.get(f"Patient/p/_history?{query}")).json()["entry"]
        resources = [one["resource"] for one in entries if "resource" in one]
        assert len(resources) == 3
        assert all("multipleBirthInteger" not in one for one in resources)
        assert all(one["meta"]["tag"][0]["code"] == "SUBSETTED" for one in resources)
