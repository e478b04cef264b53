"""Indexes that are made at the end of a load, and who may be there before. Section 16.2 of
ARCHITECTURE.md.

To keep seven indexes of a collection while it is filled is two thirds of what MongoDB does in a
load; to make them once everything is there is a scan and a sort. Until then a search would look at
everything, so nobody may ask: the document ``indexes`` in the collection ``server`` says that they
are missing, and which process is loading (``by``). Who opens the database meanwhile is refused. A
process that was killed is not heard of any more; whoever comes next then makes what is missing
before it does anything else but end the transaction that it had begun (``abandoned.py``).

The processes that help such a load may go on for a while when it was killed. Each looks for the
document once it has made a collection, and makes the indexes itself where it is gone; who deletes
it looks afterwards for what was made before. So no collection is left without.
"""

import asyncio
import time

from pymongo.errors import DuplicateKeyError

from fhir_server.store.client import Database, UnfitDatabaseError
from fhir_server.store.indexes import DEFERRED, Indexes
from fhir_server.store.keys import FENCE_S, SERVER, SearchKeys

_PATIENCE_S = FENCE_S + 2.0
_LOOK_S = 0.5
_UNDER_WAY = (
    "A load is under way that makes the indexes of this database at its end (--defer-indexes). "
    "Wait until it has ended."
)
_HOLDS_RESOURCES = (
    "Indexes are deferred only while the database holds no resources, and this one does: it would "
    "be searched without them. Load without --defer-indexes."
)
_OTHERS = (
    "Indexes are deferred only while nobody else is on the database: a server would search "
    "without them. Stop it, or load without --defer-indexes. One that was killed, or could "
    "not say that it ended, is forgotten after ten seconds."
)


async def begin(keys: SearchKeys, indexes: Indexes) -> None:
    """Have ``indexes`` make none before :func:`end`.

    Raises :class:`UnfitDatabaseError` where a resource is stored or another process is there.
    """
    # Noted first, asked then: of this process and a server that starts now, which looks for the
    # note once it can be seen, one sees the other.
    try:
        await indexes.database[SERVER].insert_one({"_id": DEFERRED, "by": keys.id})
    except DuplicateKeyError:
        raise UnfitDatabaseError(_UNDER_WAY) from None
    holds = await _holds_resources(indexes)
    if holds or await keys.hears(""):
        await _forget(indexes.database, keys.id)
        raise UnfitDatabaseError(_HOLDS_RESOURCES if holds else _OTHERS)
    indexes.deferred = True


async def end(keys: SearchKeys, indexes: Indexes) -> None:
    """Make what was deferred, of several types at a time."""
    await indexes.complete()
    await _forget(indexes.database, keys.id)


async def settled(keys: SearchKeys, indexes: Indexes) -> tuple[str, ...]:
    """Make every index that is missing, before anybody asks; return the types in use. Where
    ``indexes`` are of such a load themselves, it will.

    Raises :class:`UnfitDatabaseError` while a load goes on that has deferred them.
    """
    if indexes.deferred:
        return await indexes.ensure_existing()
    noted = await indexes.database[SERVER].find_one({"_id": DEFERRED})
    until = time.monotonic() + _PATIENCE_S
    while noted is not None and await keys.hears(noted["by"]):
        if time.monotonic() > until:
            raise UnfitDatabaseError(_UNDER_WAY)
        await asyncio.sleep(_LOOK_S)
        noted = await indexes.database[SERVER].find_one({"_id": DEFERRED})
    types = await indexes.ensure_existing()
    if noted is not None:
        await _forget(indexes.database, noted["by"])
        types = await indexes.ensure_existing()  # with those that were made meanwhile
    return types


async def _holds_resources(indexes: Indexes) -> bool:
    for type in await indexes.existing():
        if await indexes.database[type].find_one({}, projection={"_id": 1}) is not None:
            return True
    return False


async def _forget(database: Database, by: str) -> None:
    await database[SERVER].delete_one({"_id": DEFERRED, "by": by})
