"""Resources of several types, one type behind the other, each in the order of ids: one question.

A search over several types (``search_types.py``) asks for one type after the other, since each has
conditions and an order of its own. Where ids are the order, MongoDB puts them together.
"""

from collections.abc import Sequence

from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.search.keys import Filter
from fhir_server.store.client import Database
from fhir_server.store.documents import SHOWN, Shown, of_present, shown
from fhir_server.store.moment import remembered
from fhir_server.store.rows import TYPE, Section, rows_of

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
    sections = [Section(type, of_present(filter), SHOWN, most + 1) for type, filter in parts]
    with remembered():
        rows, cut = await rows_of(database, session, sections, most + 1, bytes_max)
    found = [shown(row[TYPE], row) for row in rows[:most]]
    return found, cut is not None or len(rows) > most
