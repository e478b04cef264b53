"""Documents that stand for a rule, so that the database sees when two writers meet at it.

Section 16.3 of ARCHITECTURE.md. A snapshot transaction that searched and found nothing is not in
the way of another that did the same: inserts of different documents never conflict. Each of them
also writes the claim; then one has to begin again, and sees what the other has written.

Who searches before the transaction reads the claims before that (:func:`seen_claims`), and writes
them only as they were then (:func:`claim_as_seen`): if nobody has written one since, nobody has
created what was not found.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from pymongo import IndexModel, UpdateOne
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import PyMongoError

from fhir_server.store.client import Database
from fhir_server.store.transactions import StaleRead, met_another

CLAIMS = "claims"
# Nobody needs a claim after the transaction that wrote it; what it stood for is then to be seen.
_KEPT_S = 3600
_TAKEN = [{"$set": {"at": "$$NOW", "times": {"$add": [{"$ifNull": ["$times", 0]}, 1]}}}]

Seen = Mapping[str, Any]
"""Name of a claim -> what it was, or ``None`` where it was not there."""


class ClaimTaken(StaleRead):
    """A claim is not as it was seen, or somebody is writing it."""


async def ensure_claims(database: Database) -> None:
    """Make the index that removes old claims, and with it the collection."""
    index = IndexModel([("at", 1)], expireAfterSeconds=_KEPT_S)
    await database[CLAIMS].create_indexes([index])


async def claim(database: Database, names: Iterable[str], session: AsyncClientSession) -> None:
    """Write the claims ``names``, in their order, in the transaction of ``session``.

    Of two transactions that claim one name, one fails as transient and is to be repeated.
    """
    updates = [UpdateOne({"_id": name}, _TAKEN, upsert=True) for name in sorted(set(names))]
    if updates:
        await database[CLAIMS].bulk_write(updates, session=session)


async def seen_claims(database: Database, names: Iterable[str]) -> Seen:
    """Return what the claims ``names`` are now."""
    wanted = list(names)
    found = await database[CLAIMS].find({"_id": {"$in": wanted}}).to_list()
    return dict.fromkeys(wanted) | {one["_id"]: one for one in found}


async def claim_as_seen(database: Database, seen: Seen, session: AsyncClientSession) -> None:
    """Write the claims ``seen`` in the transaction of ``session``, if they still are so.

    Raises :class:`ClaimTaken` where one is not, or is being written by another transaction.
    """
    updates = [
        # One that has come meanwhile is not met by the filter; then its name is there twice.
        UpdateOne({"_id": name, "times": {"$exists": False}}, _TAKEN, upsert=True)
        if was is None
        else UpdateOne({"_id": name, "times": was["times"], "at": was["at"]}, _TAKEN)
        for name, was in sorted(seen.items())
    ]
    try:
        done = await database[CLAIMS].bulk_write(updates, session=session)
    except PyMongoError as error:
        if met_another(error):
            raise ClaimTaken from error
        raise
    if done.matched_count + done.upserted_count != len(updates):
        raise ClaimTaken
