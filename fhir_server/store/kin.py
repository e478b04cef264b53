"""What lies above or below a resource that refers to others of its type, such as Location.partOf.

https://hl7.org/fhir/R4/search.html#modifiers

A level is one query. A circle ends where it began.
"""

from typing import Any

from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.outcome import FhirError, Issue
from fhir_server.search.wanted import Kin
from fhir_server.store.client import Database
from fhir_server.store.documents import PRESENT, Document
from fhir_server.store.joins import values_at

KIN_MAX = 10_000
LEVELS_MAX = 50


async def kin(database: Database, session: AsyncClientSession | None, wanted: Kin) -> list[str]:
    """Return the ids of what is above or below ``wanted``, its own first.

    Raises ``too-costly`` for more than :data:`KIN_MAX`, and for more than :data:`LEVELS_MAX`
    levels.
    """
    found = {wanted.id: None}
    level = [wanted.id]
    for _ in range(LEVELS_MAX):
        rows = await _next(database[wanted.type], session, wanted, level, KIN_MAX + 1 - len(found))
        level = [id for id in dict.fromkeys(_ids(wanted, rows)) if id not in found]
        found |= dict.fromkeys(level)
        if not level:
            return list(found)
        if len(found) > KIN_MAX:
            break
    where = "above" if wanted.above else "below"
    text = f"More lies {where} {wanted.type}/{wanted.id} than a search can ask for."
    raise FhirError(Issue("too-costly", text), status=400)


async def _next(
    collection: Any, session: AsyncClientSession | None, wanted: Kin, level: list[str], room: int
) -> list[Document]:
    """Return the rows that say what is one level further on."""
    if wanted.above:
        filter: Document = {"_id": {"$in": level}, **PRESENT}
        cursor = collection.find(filter, projection={wanted.field: 1}, session=session)
    else:
        filter = {wanted.field: {"$in": [f"{wanted.type}/{id}" for id in level]}, **PRESENT}
        # What is in a circle is found again: there is room for it beside what is new.
        cursor = collection.find(filter, projection={"_id": 1}, session=session)
        cursor = cursor.limit(room + KIN_MAX)
    rows: list[Document] = await cursor.to_list()
    return rows


def _ids(wanted: Kin, rows: list[Document]) -> list[str]:
    if not wanted.above:
        return [row["_id"] for row in rows]
    prefix = f"{wanted.type}/"
    keys = (key for row in rows for key in values_at(row, wanted.field))
    return [key.removeprefix(prefix) for key in keys if key.startswith(prefix)]
