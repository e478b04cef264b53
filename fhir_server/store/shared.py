"""What all server processes on one database share: keys, made by the first that asks, and marks.

They live in the collection ``server``, so that links stay valid after a restart and everywhere.
"""

from pymongo import ReturnDocument

from fhir_server.store.client import Database


async def shared_key(database: Database, name: str, fresh: bytes) -> bytes:
    """Return the key ``name``; ``fresh`` becomes it if there is none yet. Without one nothing is
    written, and the key is empty where there is none."""
    if not fresh:
        there = await database["server"].find_one({"_id": name})
        return bytes(there["key"]) if there else b""
    found = await database["server"].find_one_and_update(
        {"_id": name},
        {"$setOnInsert": {"key": fresh}},
        upsert=True,
        return_document=ReturnDocument.AFTER,
    )
    assert found is not None  # an upsert returns what it made
    return bytes(found["key"])


async def under_way(database: Database, name: str) -> bool:
    """Return whether the work ``name`` was begun and has not ended, as after a crash."""
    return await database["server"].find_one({"_id": name}) is not None


async def begin(database: Database, name: str) -> None:
    """Write down that the work ``name`` has begun; that of an earlier time may be."""
    await database["server"].update_one({"_id": name}, {"$set": {"begun": True}}, upsert=True)


async def end(database: Database, name: str) -> None:
    """Write down that the work ``name`` is done."""
    await database["server"].delete_one({"_id": name})
