"""Which of the resources that others contain meet a search.

https://hl7.org/fhir/R4/search.html#contained
"""

from collections import defaultdict
from collections.abc import Sequence

from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.search.contained import CONTAINED
from fhir_server.search.keys import Filter
from fhir_server.store.client import Database
from fhir_server.store.documents import Document


async def contained_ids(
    database: Database,
    session: AsyncClientSession | None,
    place: tuple[str, Sequence[str]],
    type: str,
    filter: Filter,
) -> dict[str, list[str]]:
    """Return, for the containers at ``place`` (their type and ids), the ids of the resources of
    ``type`` in each that meet ``filter``, in their order."""
    container, ids = place
    parted: Document = {"$mergeObjects": [f"${CONTAINED}", {"container": "$_id"}]}
    stages: list[Document] = [
        {"$match": {"_id": {"$in": list(ids)}}},
        {"$project": {CONTAINED: 1}},
        {"$unwind": f"${CONTAINED}"},
        {"$replaceRoot": {"newRoot": parted}},
        {"$match": {"type": type, **filter}},
        {"$project": {"container": 1}},
    ]
    cursor = await database[container].aggregate(stages, session=session)
    found: dict[str, list[str]] = defaultdict(list)
    for row in await cursor.to_list():
        found[row["container"]].append(row["_id"])
    return found


async def own_ids(
    database: Database,
    session: AsyncClientSession | None,
    place: tuple[str, Sequence[str]],
    filter: Filter,
) -> set[str]:
    """Return the ids of those resources at ``place`` that themselves meet ``filter``."""
    type, ids = place
    wanted: Document = {"$and": [{"_id": {"$in": list(ids)}}, filter]}
    cursor = database[type].find(wanted, projection={"_id": 1}, session=session)
    return {row["_id"] for row in await cursor.to_list()}
