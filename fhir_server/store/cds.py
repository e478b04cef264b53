"""What was shown to clinicians, and what became of it: for statistics, never resources.

design/cds.md, section 11. No resource, no text of a draft and no token is kept.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from pymongo import IndexModel, InsertOne, UpdateOne
from pymongo.errors import BulkWriteError

from fhir_server.store.client import Database

CALLS = "cds_calls"
FEEDBACK = "cds_feedback"
TOKENS = "cds_tokens"
SERVER = "cds_server"
_DAY_S = 86_400
_DUPLICATE_KEY = 11000
REPORTED_MAX = 1_000

Row = Mapping[str, Any]


async def ensure_cds(database: Database, keep_days: int) -> None:
    """Make the indexes, and with them the collections; what is old is removed by them."""
    old = {"expireAfterSeconds": keep_days * _DAY_S}
    await database[CALLS].create_indexes(
        [
            IndexModel([("at", 1)], **old),
            IndexModel([("cards.uuid", 1)]),
            IndexModel([("patient", 1), ("user", 1), ("at", -1)]),
        ]
    )
    await database[FEEDBACK].create_indexes(
        [IndexModel([("at", 1)], **old), IndexModel([("card", 1)])]
    )
    await database[TOKENS].create_indexes([IndexModel([("until", 1)], expireAfterSeconds=0)])


async def keep_calls(database: Database, calls: Iterable[Row]) -> None:
    """Keep what was answered to some calls."""
    await database[CALLS].bulk_write([InsertOne(dict(one)) for one in calls], ordered=False)


async def keep_feedback(database: Database, items: Iterable[Row]) -> int:
    """Keep what became of cards, each once; return how many of the cards are not known.

    Identity is card, outcome and time: the same again changes nothing.
    """
    rows = list(items)
    writes = [
        UpdateOne(
            {"_id": f"{one['card']}|{one['outcome']}|{one['outcomeAt']}"},
            {"$setOnInsert": dict(one)},
            upsert=True,
        )
        for one in rows
    ]
    await database[FEEDBACK].bulk_write(writes, ordered=False)
    cards = {one["card"] for one in rows}
    known = await database[CALLS].distinct("cards.uuid", {"cards.uuid": {"$in": [*cards]}})
    return len(cards.difference(known))


async def seen_keys(
    database: Database, patient: str, user: str, keys: Iterable[str], since: datetime
) -> set[str]:
    """Return which findings were shown to ``user`` for ``patient`` since then."""
    asked = {"patient": patient, "user": user, "at": {"$gte": since}}
    found = await database[CALLS].distinct("cards.key", asked)
    return set(keys) & {str(one) for one in found}


async def claim_token(database: Database, name: str, now: datetime, seconds: float) -> bool:
    """Take the id of a token; return whether nobody has before."""
    try:
        await database[TOKENS].bulk_write(
            [InsertOne({"_id": name, "until": now + timedelta(seconds=seconds)})]
        )
    except BulkWriteError as error:
        codes = {one.get("code") for one in error.details.get("writeErrors", ())}
        if _DUPLICATE_KEY in codes:
            return False
        raise
    return True


async def ask_to_reload(database: Database) -> None:
    """Have every process of this server read its knowledge again."""
    await database[SERVER].update_one({"_id": "knowledge"}, {"$inc": {"asked": 1}}, upsert=True)


async def reloads_asked(database: Database) -> int:
    """Return how often that was asked for."""
    found = await database[SERVER].find_one({"_id": "knowledge"})
    return int(found["asked"]) if found else 0


async def report(database: Database) -> list[dict[str, Any]]:
    """Return for each rule how often it was shown, accepted and overridden, most shown first."""
    cursor = await database[CALLS].aggregate(
        [
            {"$unwind": "$cards"},
            {
                "$lookup": {
                    "from": FEEDBACK,
                    "localField": "cards.uuid",
                    "foreignField": "card",
                    "as": "said",
                }
            },
            {"$unwind": "$cards.rules"},
            {
                "$group": {
                    "_id": {"rule": "$cards.rules", "kind": "$cards.kind"},
                    "shown": {"$sum": 1},
                    "accepted": {"$sum": _said("accepted")},
                    "overridden": {"$sum": _said("overridden")},
                }
            },
            {"$sort": {"shown": -1, "_id.rule": 1}},
            {"$limit": REPORTED_MAX},
        ]
    )
    return [{**one.pop("_id"), **one} async for one in cursor]


def _said(outcome: str) -> dict[str, Any]:
    return {"$cond": [{"$in": [outcome, "$said.outcome"]}, 1, 0]}
