"""Values that all server processes on one database share, made by the first that asks.

They live in the collection ``server``, so that links stay valid after a restart and everywhere.
"""

from pymongo import ReturnDocument

from fhir_server.store.client import Database


async def shared_key(database: Database, name: str, fresh: bytes) -> bytes:
    """Return the key ``name``; ``fresh`` becomes it if there is none yet."""
    found = await database["server"].find_one_and_update(
        {"_id": name},
        {"$setOnInsert": {"key": fresh}},
        upsert=True,
        return_document=ReturnDocument.AFTER,
    )
    assert found is not None  # an upsert returns what it made
    return bytes(found["key"])
