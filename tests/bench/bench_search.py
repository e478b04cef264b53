"""What searches cost as the database grows: time, and what MongoDB looks at for each result.

Run by ``make bench``, on 1,000 patients (112,649 resources). By hand, with more of them and on a
database that is kept for another run::

    FHIR_BENCH_PATIENTS=1000,10000 FHIR_BENCH_DATA=/tmp/bench make bench ARGS="-k search_costs"

The server runs in the process of the bench, without HTTP, and shares the machine's cores with its
MongoDB (2 GB of cache). Each search is asked with values drawn by rule; documents and keys are
counted in runs of their own, by MongoDB's profiler, which costs time.
"""

import asyncio
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from pymongo import AsyncMongoClient, MongoClient

from fhir_server.app import Server, opened
from fhir_server.dispatch import answer
from fhir_server.messages import Request
from fhir_server.settings import Settings
from fhir_server.store import embedded
from fhir_server.store.client import Document
from tests.bench.generate import LOINC, RARE_CODE, id_of, patient_record
from tests.bench.loading import TYPES, load_all
from tests.examined import examining
from tests.interactions.asking import json_of, search

SIZES = [int(one) for one in os.environ.get("FHIR_BENCH_PATIENTS", "1000").split(",")]
TIMED, COUNTED = 40, 5
MRN = "https://fhir.example.org/mrn"
HEART, GLUCOSE, RARE = f"{LOINC}|8867-4", f"{LOINC}|2339-0", f"{LOINC}|{RARE_CODE}"
VITAL = ",".join(f"{LOINC}|{code}" for code in ("8867-4", "8480-6", "8462-4", "29463-7", "8302-2"))

Draw = Callable[[Random, int], str]


def _patient(chance: Random, patients: int) -> str:
    return id_of("pat", chance.randrange(patients))


def _mrn(chance: Random, patients: int) -> str:
    return f"{MRN}|MRN-{chance.randrange(patients):07}"


def _named(number: int) -> str:
    patient = patient_record(number)[0]
    given, born = patient["name"][0]["given"][0], patient["birthDate"]
    return f"Patient?name={given[:3]}&birthdate={born}"


def _same(text: str) -> Draw:
    return lambda chance, patients: text


# What the clinic asks all day, and what costs most elsewhere.
SEARCHES: dict[str, Draw] = {
    "patient + code + date, sorted": lambda chance, patients: (
        f"Observation?patient={_patient(chance, patients)}&code={VITAL}"
        "&date=ge2020-06-01&_sort=-date&_count=50"
    ),
    "identifier": lambda chance, patients: f"Patient?identifier={_mrn(chance, patients)}",
    "name prefix + birthdate": lambda chance, patients: _named(chance.randrange(patients)),
    "_include": lambda chance, patients: (
        f"Observation?patient={_patient(chance, patients)}&_count=50"
        "&_include=Observation:patient&_include=Observation:encounter"
    ),
    "_revinclude": lambda chance, patients: (
        f"Patient?identifier={_mrn(chance, patients)}&_revinclude=Observation:patient"
    ),
    "one-hop chain": lambda chance, patients: (
        f"Observation?patient.identifier={_mrn(chance, patients)}&code={HEART}"
    ),
    "chain, many patients": _same(f"Observation?patient.name=Rah&code={HEART}&_count=50"),
    "chain, half of all": _same(f"Observation?patient.gender=male&code={GLUCOSE}&_count=50"),
    "chain, rare code": _same(f"Observation?patient.gender=male&code={RARE}&_count=20"),
    "chain of two": lambda chance, patients: (
        "Observation?subject:Patient.organization.name="
        f"Clinic {chance.randrange(patients // 50):04}&_count=50"
    ),
    "_has, common code": _same(f"Patient?_has:Observation:patient:code={HEART}&_count=20"),
    "_has, rare code": _same(f"Patient?_has:Observation:patient:code={RARE}&_count=20"),
    "_has, one patient": lambda chance, patients: (
        f"Patient?identifier={_mrn(chance, patients)}&_has:Observation:patient:code={HEART}"
    ),
    "subject=Patient/x + date": lambda chance, patients: (
        f"Observation?subject=Patient/{_patient(chance, patients)}"
        "&date=ge2022&_sort=-date&_count=50"
    ),
    "code, unsorted": _same(f"Observation?code={GLUCOSE}&_count=50"),
    "code without system, newest first": _same("Observation?code=2339-0&_sort=-date&_count=50"),
    "code + date range, newest first": lambda chance, patients: (
        f"Observation?code={GLUCOSE}&date=ge2022-0{chance.randrange(1, 10)}-01"
        "&date=le2022-12-31&_sort=-date&_count=50"
    ),
    "date range, ge + le": lambda chance, patients: (
        f"Observation?date=ge2022-03-0{chance.randrange(1, 9)}&date=le2022-03-09&_count=50"
    ),
    "date=ge, oldest first": lambda chance, patients: (
        f"Observation?date=ge2022-03-0{chance.randrange(1, 9)}&_sort=date&_count=50"
    ),
    "periods, ge + le": lambda chance, patients: (
        f"Encounter?date=ge2022-03-0{chance.randrange(1, 9)}&date=le2022-03-09&_count=50"
    ),
    "_lastUpdated, polled": lambda chance, patients: (
        f"Observation?_lastUpdated=ge2026-01-01T00:{chance.randrange(10, 15)}:00Z"
        "&_sort=_lastUpdated&_count=50"
    ),
    ":not, common rest": _same(f"Observation?code:not={HEART}&_count=50"),
    ":not, rare rest": _same("Observation?status:not=final&_count=50"),
    ":missing=true, common": _same("Observation?device:missing=true&_count=50"),
    "_total=accurate, a code": _same(f"Observation?code={GLUCOSE}&_total=accurate&_count=10"),
    "_summary=count, everything": _same("Observation?_summary=count"),
    # Looks at everything: MongoDB's wildcard index knows nothing of what is not there.
    ":missing=true, nothing": _same("Observation?encounter:missing=true&_count=50"),
}


@pytest.fixture(scope="module")
def mongodb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of a mongod of the bench's own, with databases ``bench-[patients]``."""
    kept = os.environ.get("FHIR_BENCH_DATA")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("bench")
    own = asyncio.run(embedded.start(folder, cache_mb=2048))
    with MongoClient[Document](own.uri) as client:
        for patients in SIZES:
            if _name(patients) not in client.list_database_names():
                began = time.monotonic()
                count = load_all(own.uri, _name(patients), patients)
                print(f"\n{count:,} resources loaded in {time.monotonic() - began:.0f} s")
    yield own.uri
    asyncio.run(own.stop())


def _name(patients: int) -> str:
    return f"bench-{patients}"


def _resident() -> float:
    """Return the memory of this process, in MB; 0 where the system does not say."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if "VmRSS" in line), 0.0)


async def _asked(server: Server, request: Request) -> int:
    """Return the number of results, or of what was counted."""
    response = await answer(server.registry, request, server.context)
    found = json_of(response)
    assert response.status == 200, found
    return len(found.get("entry", ()))


async def _row(server: Server, draw: Draw, patients: int) -> list[str]:
    """Return p50 and p95 in ms, results, and documents and keys examined for each."""
    chance = Random(1)
    for _ in range(3):
        await _asked(server, search(draw(chance, patients)))
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < TIMED and (len(times) < COUNTED or time.perf_counter() - began < 10):
        request = search(draw(chance, patients))
        start = time.perf_counter()
        await _asked(server, request)
        times.append((time.perf_counter() - start) * 1000)
    rows = 0
    async with examining(server.database) as examined:
        for _ in range(COUNTED):
            rows += await _asked(server, search(draw(chance, patients)))
    each = [f"{number / max(rows, 1):.1f}" for number in (examined.documents, examined.keys)]
    p95 = statistics.quantiles(times, n=20)[-1]
    return [f"{statistics.median(times):.1f}", f"{p95:.1f}", f"{rows / COUNTED:.0f}", *each]


async def _deep(server: Server) -> list[str]:
    """Return the same for page 1,000 of a code, newest first."""
    request = search(f"Observation?code={HEART}&_sort=-date&_count=5")
    following = request
    for _ in range(999):
        found = json_of(await answer(server.registry, following, server.context))
        link = {one["relation"]: one["url"] for one in found["link"]}.get("next")
        if link is None:
            break  # fewer patients have fewer pages
        following = search(link.partition("/fhir/")[2])
    times: list[float] = []
    for _ in range(TIMED):
        start = time.perf_counter()
        await _asked(server, following)
        times.append((time.perf_counter() - start) * 1000)
    async with examining(server.database) as examined:
        rows = await _asked(server, following)
    each = [f"{number / max(rows, 1):.1f}" for number in (examined.documents, examined.keys)]
    p95 = statistics.quantiles(times, n=20)[-1]
    return [f"{statistics.median(times):.1f}", f"{p95:.1f}", f"{rows}", *each]


@pytest.mark.parametrize("patients", SIZES)
async def test_search_costs(mongodb: str, patients: int) -> None:
    """A table: search, p50, p95, results of a page, documents and keys examined per result."""
    settings = Settings.model_validate(
        {"mongodb_database": _name(patients), "search_timeout_s": 120, "request_timeout_s": 120}
    )
    print(f"\n{patients:,} patients | p50 ms | p95 ms | results | documents | keys")
    async with opened(settings, mongodb) as server:
        before = _resident()
        for name, draw in SEARCHES.items():
            print(" | ".join([name, *await _row(server, draw, patients)]), flush=True)
        print(" | ".join(["page 1,000", *await _deep(server)]))
        print(f"memory: {before:.0f} MB before, {_resident():.0f} MB after")


@pytest.mark.parametrize("patients", SIZES)
async def test_storage(mongodb: str, patients: int) -> None:
    """Bytes of data and of indexes, and entries of indexes, for each resource."""
    client: AsyncMongoClient[Document] = AsyncMongoClient(mongodb)
    database = client[_name(patients)]
    print(f"\n{patients:,} patients | resources | bytes stored | bytes of indexes | entries")
    for type in TYPES:
        stats = await database.command("collstats", type)
        validated = await database.command("validate", type)
        entries = sum(validated["keysPerIndex"].values())
        count = stats["count"]
        figures = (stats["storageSize"] / count, stats["totalIndexSize"] / count, entries / count)
        print(" | ".join([type, f"{count:,}", *(f"{one:,.1f}" for one in figures)]))
    await client.close()
