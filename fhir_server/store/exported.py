"""What exports read of resources, as far as the database shows them: which there are, to whom they
belong, what was deleted, and the versions that a file lists."""

from collections.abc import Sequence

from pymongo import ASCENDING

from fhir_server.store.client import Database, deadline
from fhir_server.store.documents import HISTORY_SUFFIX, PRESENT, Document, milliseconds
from fhir_server.store.exports import Version

_READ_ADVICE = "Try again."
_AT_ONCE = 100  # of those that were replaced, whose present version may be larger
_LISTED = {"version": 1, "last_updated": 1, "json": 1, "compartments": 1}


async def versions(
    database: Database, type: str, wanted: dict[str, Version], seconds: float
) -> list[Document]:
    """Return ``json`` and ``compartments`` of those of ``wanted``, id -> version, whose resource
    ``database`` shows now, in the order of ``wanted``.

    A version that was replaced is in the history. One that was expunged is nowhere, also where its
    id and number were given again.
    """
    found: dict[str, Document] = {}
    replaced: list[Document] = []
    async with deadline(seconds, _READ_ADVICE):
        of_these: Document = {"_id": {"$in": list(wanted)}}
        cursor = database[type].find(of_these, projection=_LISTED).batch_size(len(wanted))
        while batch := await cursor.to_list(_AT_ONCE):
            for row in batch:
                version = wanted[row["_id"]]
                if row["version"] != version.number:
                    replaced.append({"id": row["_id"], "version": version.number})
                elif _is_of(version, row):
                    found[row["_id"]] = row
        for start in range(0, len(replaced), _AT_ONCE):
            of_those: Document = {"_id": {"$in": replaced[start : start + _AT_ONCE]}}
            older = database[type + HISTORY_SUFFIX].find(of_those, projection=_LISTED)
            for row in await older.to_list():
                if _is_of(wanted[id := row["_id"]["id"]], row):
                    found[id] = row
    return [found[id] for id in wanted if id in found]


def _is_of(version: Version, row: Document) -> bool:
    """Whether ``row``, whose number is that of ``version``, was written at its moment."""
    return version.moment in (0, milliseconds(row["last_updated"]))


async def tombstones(
    database: Database, type: str, wanted: Document, most: int, seconds: float
) -> list[str]:
    """Return the ids of what was deleted of ``type`` and meets ``wanted``, in their order, ``most``
    at most. ``database`` shows what may be seen."""
    async with deadline(seconds, _READ_ADVICE):
        cursor = database[type].find({"deleted": True, **wanted}, projection={"_id": 1})
        rows = await cursor.sort("_id", ASCENDING).limit(most).to_list()
    return [row["_id"] for row in rows]


async def present(database: Database, type: str, ids: Sequence[str], seconds: float) -> set[str]:
    """Return those of ``ids`` of ``type`` that ``database`` shows, and that are not deleted."""
    wanted: Document = {"_id": {"$in": list(ids)}, **PRESENT}
    async with deadline(seconds, _READ_ADVICE):
        rows = await database[type].find(wanted, projection={"_id": 1}).to_list()
    return {row["_id"] for row in rows}


async def compartments(
    database: Database, type: str, ids: Sequence[str], seconds: float
) -> dict[str, list[str]]:
    """Return id -> compartments (``Patient/1``) of those of ``ids`` of ``type`` that ``database``
    shows, deleted ones among them."""
    async with deadline(seconds, _READ_ADVICE):
        cursor = database[type].find({"_id": {"$in": list(ids)}}, projection={"compartments": 1})
        rows = await cursor.to_list()
    return {row["_id"]: row.get("compartments", []) for row in rows}
