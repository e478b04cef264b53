"""Reads the rows of a page within a bound of bytes, whatever the size of the resources.

A thousand resources of six megabytes are not held in memory to be cut afterwards: the cursor is
read batch by batch, and MongoDB sends at most 16 MB a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.search.keys import Filter
from fhir_server.store.access import united
from fhir_server.store.client import Database
from fhir_server.store.documents import Document

TYPE = "type"
"""The type of a row, where rows of several types come together."""

_BATCH_ROWS = 100


@dataclass(frozen=True, slots=True)
class Section:
    """What is wanted of a type: the first ``most`` by id that meet ``filter``, and ``fields``."""

    type: str
    filter: Filter
    fields: Document
    most: int


async def rows_of(
    database: Database,
    session: AsyncClientSession | None,
    sections: Sequence[Section],
    most: int,
    bytes_max: int,
) -> tuple[list[Document], Document | None]:
    """Return what ``sections`` want, one behind the other, each row with its ``TYPE``: ``most`` of
    them and ``bytes_max`` of JSON, but one at least; and the first left out for its size.

    One command for all: it costs the driver more than the rows that it brings.
    """
    if len(sections) == 1:
        return await _of_one(database, session, sections[0], bytes_max)
    pipelines = [(one.type, _stages(one)) for one in sections]
    cursor = await united(database, pipelines, most, session)
    try:
        rows, cut = await rows_within(cursor, bytes_max)
    finally:
        await cursor.close()
    place = {one.type: at for at, one in enumerate(sections)}
    order = [(place[row[TYPE]], row["_id"]) for row in rows]
    # MongoDB reads them so, and promises it nowhere.
    assert all(one < other for one, other in pairwise(order)), "out of order"
    return rows, cut


async def _of_one(
    database: Database, session: AsyncClientSession | None, only: Section, bytes_max: int
) -> tuple[list[Document], Document | None]:
    """Return the same of one type, which needs no pipeline."""
    cursor = database[only.type].find(only.filter, projection=only.fields, session=session)
    rows, cut = await rows_within(cursor.sort("_id", 1).limit(only.most), bytes_max)
    for row in (*rows, *([] if cut is None else [cut])):
        row[TYPE] = only.type
    return rows, cut


def _stages(one: Section) -> list[Document]:
    return [
        {"$match": one.filter},
        {"$sort": {"_id": 1}},
        {"$limit": one.most},
        {"$project": {**one.fields, TYPE: {"$literal": one.type}}},
    ]


async def rows_within(cursor: Any, bytes_max: int) -> tuple[list[Document], Document | None]:
    """Return the rows of ``cursor`` up to ``bytes_max`` of JSON, but one at least; and the first of
    those that were left out, if there is one."""
    rows: list[Document] = []
    size = 0
    while batch := await cursor.to_list(_BATCH_ROWS):
        for place, row in enumerate(batch):
            size += len(row.get("json", b""))
            if size > bytes_max and (rows or place):
                await cursor.close()
                return rows + batch[:place], row
        rows += batch
        if len(batch) < _BATCH_ROWS:
            break
    return rows, None
