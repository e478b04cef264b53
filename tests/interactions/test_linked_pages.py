# https://hl7.org/fhir/R4/search.html#chaining
"""Pages of searches by what is linked: whichever side is looked into first, each match comes once.

The bounds are as small here as the data is, so that every way is gone: one side listed, the other
side listed, the first candidates looked up, all of them looked up.
"""

from typing import Any

import pytest

from fhir_server.store import joins
from tests.conftest import Fhir
from tests.interactions.asking import BASE, patient, put
from tests.interactions.test_search_system import asked

WAYS: dict[str, dict[str, Any]] = {
    "listed": {"MANY": joins.Bounds(1000, 1000)},
    "looked up": {"MANY": joins.Bounds(-1, -1)},
    "few candidates": {"MANY": joins.Bounds(-1, -1), "CANDIDATES_MAX": 3},
    "few are looked up": {"MANY": joins.Bounds(-1, -1), "CANDIDATES_FEW": 50},
}
SMALL: dict[str, Any] = {
    "ONE_PAGE": joins.Bounds(2, 2),
    "FEW": joins.Bounds(3, 3),
    "CANDIDATES_FEW": 2,
    "CANDIDATES_MAX": 12,
}
GENDERS = ("male", "female", "male", "other", "male", "male")
SORTS = ("", "date", "-date", "_id", "-_id", "_lastUpdated", "-_lastUpdated", "status,-date")


def _subject(number: int) -> int:
    """Return whom an observation is of: in no regular order, so that matches are not either."""
    return number * number // 5 % 6


def _observation(number: int) -> dict[str, Any]:
    dated = {"effectiveDateTime": f"2020-01-{number % 4 + 1:02}"} if number % 5 else {}
    return {
        "resourceType": "Observation",
        "id": f"o{number:02}",
        "status": ("final", "amended")[number % 2],
        "code": {"coding": [{"system": "http://loinc.org", "code": f"c{number % 3}"}]},
        "subject": {"reference": f"Patient/{_subject(number)}"},
        "encounter": {"reference": f"Encounter/e{number % 8}"},
        **dated,
    }


OBSERVATIONS = [_observation(number) for number in range(30)]


def _encounter(number: int) -> dict[str, Any]:
    return {
        "resourceType": "Encounter",
        "id": f"e{number}",
        "status": ("finished", "planned")[number % 2],
        "class": {"code": "AMB"},
        "subject": {"reference": f"Patient/{number % 6}"},
    }


def _ids(meets: Any) -> list[str]:
    return [f"o{number:02}" for number in range(30) if meets(number)]


# Search -> what it finds.
SEARCHES: dict[str, list[str]] = {
    "Observation?patient.gender=male": _ids(lambda n: GENDERS[_subject(n)] == "male"),
    "Observation?patient.gender=male&code=c1": _ids(
        lambda n: GENDERS[_subject(n)] == "male" and n % 3 == 1
    ),
    # One chain is short enough to be listed; the other is looked up, perhaps of few candidates.
    "Observation?patient.gender=female&encounter.status=finished": _ids(
        lambda n: GENDERS[_subject(n)] == "female" and n % 8 % 2 == 0
    ),
    "Observation?patient.gender=other&encounter.status=planned&status=amended": _ids(
        lambda n: GENDERS[_subject(n)] == "other" and n % 8 % 2 == 1 and n % 2 == 1
    ),
    "Observation?_filter=not (patient.gender eq male)&encounter.status=finished": _ids(
        lambda n: GENDERS[_subject(n)] != "male" and n % 8 % 2 == 0
    ),
}


@pytest.fixture
async def filled(fhir: Fhir) -> Fhir:
    """The front door of a server with the resources."""
    people = [patient(str(number), gender=gender) for number, gender in enumerate(GENDERS)]
    for one in (*people, *map(_encounter, range(8)), *OBSERVATIONS):
        assert (await fhir(put(one))).status == 201
    return fhir


async def _walk(fhir: Fhir, url: str, relation: str) -> tuple[list[list[str]], str]:
    """Return the ids of the pages from ``url`` on, and the address of the last of them."""
    pages: list[list[str]] = []
    while True:
        _, bundle = await asked(fhir, url)
        assert bundle["resourceType"] == "Bundle", bundle
        pages.append([one["resource"]["id"] for one in bundle.get("entry", ())])
        assert len(pages) < 50, "the pages do not end"
        links = {one["relation"]: one["url"] for one in bundle["link"]}
        if relation not in links:
            return pages, url
        url = links[relation].removeprefix(f"{BASE}/")


@pytest.mark.parametrize("way", WAYS)
async def test_every_way_finds_the_same_pages(
    filled: Fhir, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every order, there and back."""
    bounds = SMALL | WAYS[way]
    for search, expected in SEARCHES.items():
        for sort in SORTS:
            url = f"{search}{f'&_sort={sort}' if sort else ''}"
            with monkeypatch.context() as usual:
                for name, bound in bounds.items():
                    usual.setattr(joins, name, bound)
                [whole], _ = await _walk(filled, f"{url}&_count=100", "next")
                pages, last = await _walk(filled, f"{url}&_count=2", "next")
                back, _ = await _walk(filled, last, "previous")
                _, counted = await asked(filled, f"{url}&_count=2&_total=accurate")
            assert sorted(whole) == expected, (url, way)
            assert [id for page in pages for id in page] == whole, (url, way)
            assert back[::-1] == pages, (url, way)
            assert counted["total"] == len(expected)


async def test_several_types_in_the_order_that_each_has(filled: Fhir) -> None:
    """Without ``_sort``: type by type, observations of a patient newest first; there and back."""
    url = "?_type=Encounter,Observation&patient=0"
    [whole], _ = await _walk(filled, f"{url}&_count=100", "next")
    pages, last = await _walk(filled, f"{url}&_count=2", "next")
    back, _ = await _walk(filled, last, "previous")
    [alone], _ = await _walk(filled, "Observation?patient=0&_count=100", "next")
    dates = {one["id"]: one.get("effectiveDateTime", "") for one in OBSERVATIONS}

    assert whole == ["e0", "e6", *alone]
    assert alone == sorted(sorted(alone), key=lambda id: dates[id], reverse=True)
    assert len(alone) == 9
    assert [id for page in pages for id in page] == whole
    assert back[::-1] == pages
