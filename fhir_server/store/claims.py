"""Documents that stand for a rule, so that the database sees when two writers meet at it.

Section 16.3 of ARCHITECTURE.md. A snapshot transaction that searched and found nothing is not in
the way of another that did the same: inserts of different documents never conflict. Each of them
also writes the claim; then one has to begin again, and sees what the other has written.
"""

from collections.abc import Iterable

from pymongo import IndexModel
from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.store.client import Database

CLAIMS = "claims"
# Nobody needs a claim after the transaction that wrote it; what it stood for is then to be seen.
_KEPT_S = 3600


async def ensure_claims(database: Database) -> None:
    """Make the index that removes old claims, and with it the collection."""
    index = IndexModel([("at", 1)], expireAfterSeconds=_KEPT_S)
    await database[CLAIMS].create_indexes([index])


async def claim(database: Database, names: Iterable[str], session: AsyncClientSession) -> None:
    """Write the claims ``names``, in their order, in the transaction of ``session``.

    Of two transactions that claim one name, one fails as transient and is to be repeated.
    """
    for name in sorted(names):
        await database[CLAIMS].update_one(
            {"_id": name},
            [{"$set": {"at": "$$NOW", "times": {"$add": [{"$ifNull": ["$times", 0]}, 1]}}}],
            upsert=True,
            session=session,
        )
