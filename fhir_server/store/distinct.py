"""Which keys a search field has, each once: a look into the index for each of them.

However many resources have a key, they are passed over together: the next look begins behind it.
"""

from typing import Any

from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.store.access import narrows
from fhir_server.store.client import Database
from fhir_server.store.documents import Document, value_at
from fhir_server.store.indexes import WILDCARD

Keyed = tuple[str, Document]
"""A key, and the ``meta`` of a resource that has it."""


async def distinct(
    database: Database, session: AsyncClientSession | None, type: str, field: str, most: int
) -> tuple[list[Keyed], bool]:
    """Return the keys at ``field`` in ascending order, ``most`` at most, and whether that is all.

    ``field`` holds arrays of strings (``keys._tag``).
    """
    if narrows(database, type):
        return await _among_visible(database[type], session, field, most)
    found: list[Keyed] = []
    last = ""
    while True:
        # By the index, so in its order: the first that is found has the next key.
        row = await database[type].find_one(
            {field: {"$elemMatch": {"$gt": last}}},
            projection={field: 1, "resource.meta": 1},
            hint=WILDCARD,
            session=session,
        )
        if row is None:
            return found, True
        if len(found) >= most:
            return found, False
        last = min(key for key in value_at(row, field) if key > last)
        found.append((last, row["resource"]["meta"]))


async def _among_visible(
    collection: Any, session: AsyncClientSession | None, field: str, most: int
) -> tuple[list[Keyed], bool]:
    """Return the same of what may be seen, which is looked at resource by resource: the index has
    the keys of all."""
    stages: list[Document] = [
        {"$match": {field: {"$gt": ""}}},
        {"$project": {field: 1, "resource.meta": 1}},
        {"$sort": {"_id": 1}},
        {"$unwind": f"${field}"},
        {"$group": {"_id": f"${field}", "meta": {"$first": "$resource.meta"}}},
        {"$sort": {"_id": 1}},
        {"$limit": most + 1},
    ]
    cursor = await collection.aggregate(stages, session=session)
    found = [(row["_id"], row["meta"]) for row in await cursor.to_list()]
    return found[:most], len(found) <= most
