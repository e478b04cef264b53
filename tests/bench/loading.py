"""Loads what ``generate.py`` makes straight into MongoDB, as the documents that the server writes.

The documents and their keys come from the server's own functions; what is left out is the front
door: validation, transactions and history. A load of a million resources is then a matter of
minutes. ``python -m tests.bench.loading URI DATABASE PATIENTS`` does it by hand.
"""

import asyncio
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from fhir_server.app import specification
from fhir_server.search.index import index
from fhir_server.search.parameters import ParameterTable
from fhir_server.store.client import CODEC, connect, database_of
from fhir_server.store.documents import Document, document, stamped
from fhir_server.store.indexes import Indexes
from fhir_server.store.keys import SearchKeys
from tests.bench.generate import PATIENTS_A_CLINIC, records

ROOT = Path(__file__).resolve().parents[2]
WRITTEN = datetime(2026, 1, 1, tzinfo=UTC)
TYPES = (
    "AllergyIntolerance",
    "Appointment",
    "Condition",
    "Encounter",
    "MedicationRequest",
    "Observation",
    "Organization",
    "Patient",
    "Practitioner",
)
_BATCH = 1000
_BYTES_MAX = 1_000_000


def documents(first: int, last: int, table: ParameterTable) -> Iterator[tuple[str, Document]]:
    """Yield type and document of all resources of the patients from ``first`` up to ``last``."""
    for number, record in enumerate(records(first, last), start=first):
        moment = WRITTEN + timedelta(seconds=number)  # a patient a second
        for resource in record:
            written = stamped(resource, resource["id"], 1, moment)
            one = document(
                written, index(written, table), interaction="create", bytes_max=_BYTES_MAX
            )
            yield resource["resourceType"], one


def load(uri: str, name: str, first: int, last: int) -> int:
    """Write the patients from ``first`` up to ``last``; return the number of resources."""
    client: MongoClient[Document] = MongoClient(uri)
    database = client.get_database(name, codec_options=CODEC)
    waiting: dict[str, list[Document]] = {}
    count = 0
    for type, one in documents(first, last, specification(ROOT, ()).parameters):
        waiting.setdefault(type, []).append(one)
        count += 1
        if len(waiting[type]) == _BATCH:
            database[type].insert_many(waiting.pop(type), ordered=False)
    for type, some in waiting.items():
        database[type].insert_many(some, ordered=False)
    client.close()
    return count


async def prepare(uri: str, name: str) -> None:
    """Make the collections and indexes of the types in the empty database ``name``."""
    client = connect(uri, connections_max=10)
    await client.drop_database(name)
    table = specification(ROOT, ()).parameters
    database = database_of(client, name)
    keys = SearchKeys(database, table, "loading", write_s=60.0)
    await keys.beat()
    await Indexes(database, table, keys.began).ensure(TYPES)
    await keys.leave()
    await client.close()


def load_all(uri: str, name: str, patients: int, processes: int = 2) -> int:
    """Make the database ``name`` anew with ``patients`` patients; return the number of resources.

    A clinic is written by one process: parts begin at a patient with whom a clinic begins.
    """
    asyncio.run(prepare(uri, name))
    clinics = -(-patients // PATIENTS_A_CLINIC)
    cuts = [clinics * part // processes * PATIENTS_A_CLINIC for part in range(processes)]
    parts = list(zip(cuts, [*cuts[1:], patients], strict=True))
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        done: list[Any] = [pool.submit(load, uri, name, *part) for part in parts]
        return sum(one.result() for one in done)


if __name__ == "__main__":
    print(load_all(sys.argv[1], sys.argv[2], int(sys.argv[3])))
