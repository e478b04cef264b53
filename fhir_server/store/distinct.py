"""Which keys a search field has, each once: a look into the index for each of them.

However many resources have a key, they are passed over together: the next look begins behind it.
"""

from pymongo.asynchronous.client_session import AsyncClientSession

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
