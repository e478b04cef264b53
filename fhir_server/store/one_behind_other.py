"""Resources of several types, one type behind the other, each in the order of ids: one question.

A search over several types (``search_types.py``) asks for one type after the other, since each has
conditions and an order of its own. Where ids are the order, MongoDB puts them together.
"""

from collections.abc import Sequence
from itertools import pairwise

from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.search.keys import Filter
from fhir_server.store.access import united
from fhir_server.store.client import Database
from fhir_server.store.documents import SHOWN, Document, Shown, of_present, shown
from fhir_server.store.moment import remembered
from fhir_server.store.rows import rows_within

_TYPE = "type"
Part = tuple[str, Filter]
"""A type, and what is wanted of it."""


async def one_behind_other(
    database: Database,
    session: AsyncClientSession | None,
    parts: Sequence[Part],
    most: int,
    bytes_max: int,
) -> tuple[list[Shown], bool]:
    """Return what ``parts`` want, in their order: ``most`` resources and ``bytes_max`` of JSON, but
    one at least; and whether there is more."""
    if not parts or most < 1:
        return [], bool(parts)
    pipelines = [(type, _stages(type, filter, most + 1)) for type, filter in parts]
    with remembered():
        cursor = await united(database, pipelines, most + 1, session)
        try:
            rows, cut = await rows_within(cursor, bytes_max)
        finally:
            await cursor.close()
    found = [shown(row[_TYPE], row) for row in rows[:most]]
    place = {type: at for at, (type, _) in enumerate(parts)}
    order = [(place[one.type], one.id) for one in found]
    # MongoDB reads them so, and promises it nowhere.
    assert all(one < other for one, other in pairwise(order)), "out of order"
    return found, cut is not None or len(rows) > most


def _stages(type: str, filter: Filter, most: int) -> list[Document]:
    return [
        {"$match": of_present(filter)},
        {"$sort": {"_id": 1}},
        {"$limit": most},
        {"$project": {**SHOWN, _TYPE: {"$literal": type}}},
    ]
