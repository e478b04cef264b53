"""Numbers that are given once: 1, 2, 3 under a name, for all processes.

design/scheduling.md, section 7. A number is taken by one atomic step outside of any transaction.
Whoever takes it and then dies, or is refused, leaves a gap; never is a number given twice. Inside
the transaction of a write the same step made all contenders repeat each other's work.
"""

from datetime import datetime

from pymongo import IndexModel, ReturnDocument
from pymongo.errors import DuplicateKeyError

from fhir_server.store.client import Database

COUNTERS = "counters"
_TRIES = 5  # of those who begin one name at the same time all but one find it there


async def ensure_counters(database: Database) -> None:
    """Make the index that removes what is over, and with it the collection."""
    await database[COUNTERS].create_indexes([IndexModel([("until", 1)], expireAfterSeconds=0)])


async def next_number(database: Database, name: str, until: datetime | None = None) -> int:
    """Return the next number of ``name``, 1 first. A counter ends at ``until``; without it stays.

    The driver sends a step whose answer was lost again, and the database takes it once.
    """
    begun = {"$setOnInsert": {"until": until}} if until is not None else {}
    tries = 0
    while True:
        try:
            found = await database[COUNTERS].find_one_and_update(
                {"_id": name},
                {"$inc": {"n": 1}, **begun},
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
            assert found is not None  # an upsert returns what it made
            return int(found["n"])
        except DuplicateKeyError:
            tries += 1
            if tries == _TRIES:
                raise


async def current_number(database: Database, name: str) -> int:
    """Return the last number of ``name`` that was given; 0 where there was none."""
    found = await database[COUNTERS].find_one({"_id": name})
    return int(found["n"]) if found else 0
