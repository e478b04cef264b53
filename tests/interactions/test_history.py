"""https://hl7.org/fhir/R4/http.html#history"""

from datetime import UTC, datetime, timedelta
from itertools import pairwise, product
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from fhir_server.app import Server
from fhir_server.messages import Request
from tests.conftest import Fhir
from tests.interactions.asking import (
    BASE,
    bundle,
    entry,
    issues_of,
    json_of,
    patient,
    put,
    with_clock,
)

DAY = datetime(2024, 2, 29, tzinfo=UTC)


def history(place: str = "", *parameters: tuple[str, str]) -> Request:
    """Return the history of ``place``: ``""``, ``Type`` or ``Type/id``."""
    type, _, id = place.partition("/")
    kind = "instance" if id else "type" if type else "system"
    return Request(f"history-{kind}", type, id, parameters=parameters, base_url=BASE)


def links_of(page: Any) -> dict[str, str]:
    """Return the links of a Bundle by their relation."""
    return {link["relation"]: link["url"] for link in page.get("link", ())}


async def pages(fhir: Fhir, first: Request) -> list[list[Any]]:
    """Follow the links from ``first`` on; return the entries of each page."""
    found = []
    request: Request | None = first
    while request is not None:
        response = await fhir(request)
        assert response.status == 200, response.body
        page = json_of(response)
        assert page["type"] == "history"
        found.append(page.get("entry", []))
        following = links_of(page).get("next")
        parts = urlsplit(following or "")
        path = parts.path.removeprefix("/fhir/").removesuffix("_history").strip("/")
        request = history(path, *parse_qsl(parts.query)) if following else None
        assert len(found) < 100
    return found


def labels(entries: list[Any]) -> list[str]:
    """Return ``Type/id:version`` of each entry."""
    return [
        f"{e['fullUrl'].removeprefix(f'{BASE}/')}:{e['response']['etag'][3:-1]}" for e in entries
    ]


@pytest.fixture
async def written(server: Server, fhir: Fhir) -> Fhir:
    """The front door to a server on which eight versions were written, one a day at noon."""
    day = 0
    clock = with_clock(server, lambda: DAY + timedelta(days=day, hours=12))
    written = (
        put(patient("a")),
        put(patient("b")),
        put(patient("a", active=True)),
        put({"resourceType": "Basic", "id": "a", "code": {"text": "x"}}),
        Request("delete", "Patient", "a"),
        put(patient("a", active=False)),
        put(patient("b", active=True)),
        Request("delete", "Basic", "a"),
    )
    for day, one in enumerate(written):  # noqa: B007 - the clock reads it
        await clock(one)
    return fhir


ALL = [
    *("Basic/a:2", "Patient/b:2", "Patient/a:4", "Patient/a:3"),
    *("Basic/a:1", "Patient/a:2", "Patient/b:1", "Patient/a:1"),
]
PLACES = {
    "": ALL,
    "Patient": [one for one in ALL if one.startswith("Patient")],
    "Basic": [one for one in ALL if one.startswith("Basic")],
    "Patient/a": [one for one in ALL if one.startswith("Patient/a")],
    "Basic/a": ["Basic/a:2", "Basic/a:1"],
}


async def test_pages_hold_every_version_once_newest_first(written: Fhir) -> None:
    """Following the links gives every version once; no page is longer than asked for or empty."""
    for place, count in product(PLACES, ("1", "2", "3", "8", "1000")):
        found = await pages(written, history(place, ("_count", count)))

        assert [label for page in found for label in labels(page)] == PLACES[place], place
        assert all(0 < len(page) <= int(count) for page in found)


async def test_an_entry_says_how_its_version_came_about(written: Fhir) -> None:
    """Request and response of each entry are those of the write; a deletion has no resource."""
    await written(bundle(entry("POST", "Flag", FLAG)))
    [[*entries]] = await pages(written, history("", ("_count", "50")))
    shown = [
        (e["request"]["method"], e["response"]["status"][:3], "resource" in e) for e in entries
    ]

    assert shown == [
        ("POST", "201", True),
        ("DELETE", "204", False),
        ("PUT", "200", True),
        ("PUT", "201", True),  # revived
        ("DELETE", "204", False),
        ("PUT", "201", True),
        ("PUT", "200", True),
        ("PUT", "201", True),
        ("PUT", "201", True),
    ]
    for one in entries:
        if "resource" in one:
            assert one["resource"]["meta"]["lastUpdated"] == one["response"]["lastModified"]
            assert f"{one['resource']['resourceType']}/{one['resource']['id']}" in one["fullUrl"]


FLAG = {
    "resourceType": "Flag",
    "status": "active",
    "code": {"text": "x"},
    "subject": {"display": "x"},
}

# Parameters -> versions of Patient. `_since`: at or after that instant; `_at`: current at some
# point of that time.
TIMES = {
    ("_since", "2024-02-29"): ["b:2", "a:4", "a:3", "a:2", "b:1", "a:1"],
    ("_since", "2024-03-02T12:00:00Z"): ["b:2", "a:4", "a:3", "a:2"],
    ("_since", "2024-03-02T12:00:00.001Z"): ["b:2", "a:4", "a:3"],
    ("_since", "2024-03-02T18:00:00+06:00"): ["b:2", "a:4", "a:3", "a:2"],
    ("_since", "2025-01-01T00:00:00Z"): [],
    ("_at", "2024-02-28"): [],
    ("_at", "2024-02-29"): ["a:1"],
    ("_at", "2024-03-01T11:00:00Z"): ["a:1"],
    ("_at", "2024-03-01"): ["b:1", "a:1"],
    ("_at", "2024-03-02"): ["a:2", "b:1", "a:1"],
    ("_at", "2024-03-03"): ["a:2", "b:1"],
    ("_at", "2024-03"): ["b:2", "a:4", "a:3", "a:2", "b:1", "a:1"],
    ("_at", "2030"): ["b:2", "a:4"],
}


async def test_a_history_of_some_time(written: Fhir) -> None:
    """_since and _at choose versions by their time, on every page."""
    for (parameter, expected), count in product(TIMES.items(), ("1", "50")):
        found = await pages(written, history("Patient", parameter, ("_count", count)))
        got = [one.removeprefix("Patient/") for page in found for one in labels(page)]

        assert got == expected, (parameter, count)


async def test_an_instance_history_knows_its_total(written: Fhir) -> None:
    """The number of versions is said where it is known, and is the same on a page of one."""
    page = json_of(await written(history("Patient/a", ("_count", "1"))))
    empty = json_of(await written(history("Patient/a", ("_count", "0"))))

    assert (page["total"], len(page["entry"])) == (4, 1)
    assert (empty["total"], "entry" in empty) == (4, False)


async def test_a_page_link_belongs_to_its_question(written: Fhir) -> None:
    """A cursor of one history is refused by another, and so is one that was changed."""
    page = json_of(await written(history("Patient", ("_count", "2"))))
    cursor = dict(parse_qsl(urlsplit(links_of(page)["next"]).query))["_cursor"]
    wrong = [
        history("Basic", ("_cursor", cursor)),
        history("", ("_cursor", cursor)),
        history("Patient/a", ("_cursor", cursor)),
        history("Patient", ("_cursor", cursor), ("_since", "2024")),
        history("Patient", ("_cursor", cursor[:-2])),
        history("Patient", ("_cursor", "x" + cursor)),
        history("Patient", ("_cursor", "é")),
    ]

    assert [(await written(one)).status for one in wrong] == [400] * len(wrong)
    assert (await written(history("Patient", ("_cursor", cursor)))).status == 200


REFUSED = {
    "no number": ("_count", "many"),
    "a negative number": ("_count", "-1"),
    "no date": ("_since", "yesterday"),
    "an unknown parameter": ("_sort", "-_lastUpdated"),
}


@pytest.mark.parametrize("parameter", REFUSED.values(), ids=REFUSED)
async def test_parameters_that_mean_nothing_are_refused(
    fhir: Fhir, parameter: tuple[str, str]
) -> None:
    """The answer is 400 and names the parameter."""
    await fhir(put(patient("a")))
    response = await fhir(history("Patient/a", parameter))

    assert response.status == 400
    assert issues_of(response)
    assert parameter[0] in json_of(response)["issue"][0]["diagnostics"] or "date" in str(
        json_of(response)
    )


async def test_a_history_of_nothing(fhir: Fhir) -> None:
    """An instance that never was is 404; a type and a system without anything are empty."""
    assert (await fhir(history("Patient/nobody"))).status == 404
    assert "entry" not in json_of(await fhir(history("Patient")))
    assert "entry" not in json_of(await fhir(history()))


async def test_a_version_that_is_replaced_between_pages_is_seen_once(written: Fhir) -> None:
    """What is written while a client turns pages moves nothing that it has not read yet."""
    first = json_of(await written(history("", ("_count", "3"))))
    await written(put(patient("a", active=True)))
    await written(put(patient("b", active=False)))
    query = parse_qsl(urlsplit(links_of(first)["next"]).query)
    rest = await pages(written, history("", *query))

    assert labels(first["entry"]) + [one for page in rest for one in labels(page)] == ALL


async def test_times_fall(written: Fhir) -> None:
    """lastModified never rises along a history of the system."""
    [[*entries]] = await pages(written, history("", ("_count", "50")))
    times = [datetime.fromisoformat(one["response"]["lastModified"]) for one in entries]

    assert all(later >= earlier for later, earlier in pairwise(times))
