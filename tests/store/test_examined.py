"""What a search costs does not grow with the database: what MongoDB looks at, by its own profiler.

Four thousand observations stand for a million: what looks at a page of them is told from what looks
at all. The clinic is loaded once for all tests, which only read.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from pymongo import MongoClient

from fhir_server.app import Server, opened
from fhir_server.dispatch import answer
from fhir_server.settings import Settings
from fhir_server.store import joins
from tests.bench.generate import LOINC, id_of
from tests.bench.loading import load, prepare
from tests.examined import examining
from tests.interactions.asking import json_of, search

DATABASE = "test-examined"
PATIENTS = 40
HEART = f"{LOINC}|8867-4"
SOMEBODY = id_of("pat", 7)
MRN = "https://fhir.example.org/mrn|MRN-0000007"

# Search -> rows of its first page, and how many documents may be looked at for it.
CASES: dict[str, tuple[int, int]] = {
    f"Observation?patient={SOMEBODY}&code={HEART}&_sort=-date&_count=50": (7, 8),
    f"Observation?subject=Patient/{SOMEBODY}&code={HEART}": (7, 8),
    f"Observation?subject=Patient/{SOMEBODY}&_sort=-date&_count=10": (10, 11),
    f"Observation?patient={SOMEBODY}&_count=10": (10, 11),
    f"Observation?code={HEART}&_count=10": (10, 11),
    f"Observation?code={HEART}&_sort=-date&_count=10": (10, 11),
    "Observation?code=8867-4&_sort=-date&_count=10": (10, 13),
    f"Observation?code={HEART}&date=ge2021-01-01&date=le2022-12-31&_count=10": (10, 15),
    "Observation?date=ge2021-06-01&date=le2021-06-02": (2, 4),
    "Observation?date=ge2021-06-01&date=le2021-06-02&_sort=_id": (2, 4),
    "Observation?date=le2021-06-02&_sort=-date&_count=10": (10, 11),
    "Observation?date=ge2024-06-01&_sort=date&_count=10": (10, 11),
    "Observation?date=gt2021-06-01T10:00&date=lt2021-06-01T12:00": (0, 4),
    "Encounter?date=ge2021-06-01&date=le2021-06-30": (3, 6),
    "Condition?onset-date=ge2021-06-01&onset-date=le2021-06-10": (7, 21),
    "Observation?_lastUpdated=ge2026-01-01T00:00:30Z&_sort=_lastUpdated&_count=10": (10, 11),
    f"Patient?identifier={MRN}": (1, 1),
    f"Patient?identifier={MRN}&_revinclude=Observation:patient": (101, 102),
    f"Observation?patient.identifier={MRN}&code={HEART}": (7, 9),
    f"Observation?patient.gender=male&code={HEART}&_count=10": (10, 180),
    "Observation?subject:Patient.organization.name=Clinic 0000&_count=10": (10, 180),
    f"Patient?_has:Observation:patient:code={HEART}&_count=10": (10, 150),
    f"Patient?identifier={MRN}&_has:Observation:patient:code={HEART}": (1, 104),
    f"Observation?code={HEART}&_summary=count": (0, 0),
    f"Observation?patient={SOMEBODY}&_summary=count": (0, 0),
    "Observation?_summary=count": (0, 0),
}


# What is listed is bounded whatever there is; the bounds are as small here as the clinic is.
BOUNDS = {
    "ONE_PAGE": joins.Bounds(5, 5),
    "FEW": joins.Bounds(10, 10),
    "MANY": joins.Bounds(20, 20),
    "CANDIDATES_FEW": 5,
    "CANDIDATES_MAX": 100,
}


@pytest.fixture(scope="module")
def clinic(mongodb_uri: str) -> Iterator[str]:
    """The URI of the database with the clinic in it."""
    asyncio.run(prepare(mongodb_uri, DATABASE))
    load(mongodb_uri, DATABASE, 0, PATIENTS)
    yield mongodb_uri
    with MongoClient[dict[str, object]](mongodb_uri) as client:
        client.drop_database(DATABASE)


@pytest.fixture
async def server(clinic: str) -> AsyncIterator[Server]:
    """A server on the clinic."""
    settings = Settings.model_validate({"mongodb_database": DATABASE})
    async with opened(settings, clinic) as server:
        yield server


@pytest.mark.parametrize("text", CASES)
async def test_a_search_looks_at_what_it_shows(
    server: Server, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The documents that are looked at are about those of the page."""
    for name, bounds in BOUNDS.items():
        monkeypatch.setattr(joins, name, bounds)
    rows, documents_max = CASES[text]
    async with examining(server.database) as examined:
        found = json_of(await answer(server.registry, search(text), server.context))

    assert len(found.get("entry", [])) == rows, text
    assert examined.documents <= documents_max, examined.plans
