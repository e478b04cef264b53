"""The closure tables that clients keep here by name. https://hl7.org/fhir/R4/terminology-service.html#closure

==============  ==================================================================================
``_id``         the name of the table
``version``     how often something was added
``concepts``    ``[system, version, code, since]`` of each concept
``entries``     ``[system, low, high, since]``: ``low`` is a kind of ``high``; known since a version
==============  ==================================================================================
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pymongo.errors import DuplicateKeyError

from fhir_server.store.client import Database, deadline

CLOSURES = "closures"
Row = list[Any]


@dataclass(frozen=True, slots=True)
class Table:
    """A closure table as it is at one version."""

    name: str
    version: int
    concepts: tuple[Row, ...]
    entries: tuple[Row, ...]


async def begun(database: Database, name: str, timeout_s: float) -> None:
    """Make the table ``name``, or empty it."""
    async with deadline(timeout_s, "Try again."):
        empty = {"version": 0, "concepts": [], "entries": []}
        await database[CLOSURES].replace_one({"_id": name}, empty, upsert=True)


async def table(database: Database, name: str, timeout_s: float) -> Table | None:
    """Return the table ``name``, if there is one."""
    async with deadline(timeout_s, "Try again."):
        found = await database[CLOSURES].find_one({"_id": name})
    if found is None:
        return None
    return Table(name, found["version"], tuple(found["concepts"]), tuple(found["entries"]))


async def extended(
    database: Database,
    before: Table,
    concepts: Sequence[Row],
    entries: Sequence[Row],
    timeout_s: float,
) -> bool:
    """Add rows to the table. Return whether it was still at the version of ``before``."""
    async with deadline(timeout_s, "Try again."):
        try:
            done = await database[CLOSURES].update_one(
                {"_id": before.name, "version": before.version},
                {
                    "$inc": {"version": 1},
                    "$push": {"concepts": {"$each": concepts}, "entries": {"$each": entries}},
                },
            )
        except DuplicateKeyError:
            return False
    return done.matched_count == 1
