"""Which patients are named where somebody is at work: what care relationships are made of."""

from collections.abc import AsyncIterator

from fhir_server.search.keys import Filter
from fhir_server.store.client import Database
from fhir_server.store.documents import of_present, value_at

_PREFIX = "Patient/"


async def patients_named(
    database: Database, type: str, filter: Filter, field: str, most: int
) -> AsyncIterator[str]:
    """Yield the patients (``Patient/1``) at ``field`` of the resources of ``type`` that meet
    ``filter``; ``most`` resources are looked at, whatever more there are."""
    cursor = database[type].find(of_present(filter), projection={"_id": 0, field: 1}).limit(most)
    async for one in cursor:
        found = value_at(one, field)
        for key in found if isinstance(found, list) else (found,):
            if isinstance(key, str) and key.startswith(_PREFIX):
                yield key
