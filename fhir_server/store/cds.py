"""What was shown to clinicians, and what became of it: for statistics, never resources.

design/cds.md, section 11. No resource, no text of a draft and no token is kept.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from pymongo import IndexModel, InsertOne, UpdateOne
from pymongo.errors import BulkWriteError, OperationFailure

from fhir_server.store.client import Database, deadline

CALLS = "cds_calls"
FEEDBACK = "cds_feedback"
TOKENS = "cds_tokens"
SERVER = "cds_server"
_DAY_S = 86_400
_DUPLICATE_KEY = 11000
REPORTED_MAX = 1_000
_GROUPS_MAX = 100_000
_OPTIONS_CONFLICT = 85

Row = Mapping[str, Any]


async def ensure_cds(database: Database, keep_days: int) -> None:
    """Make the indexes, and with them the collections; what is old is removed by them."""
    for name in (CALLS, FEEDBACK):
        await _kept_for(database, name, keep_days * _DAY_S)
    await database[CALLS].create_indexes(
        [
            IndexModel([("cards.uuid", 1)]),
            IndexModel([("patient", 1), ("user", 1), ("at", -1)]),
        ]
    )
    await database[FEEDBACK].create_indexes([IndexModel([("card", 1)])])
    await database[TOKENS].create_indexes([IndexModel([("until", 1)], expireAfterSeconds=0)])


async def _kept_for(database: Database, name: str, seconds: int) -> None:
    """Have documents of a collection removed after so long, also where it was another time."""
    try:
        index = IndexModel([("at", 1)], expireAfterSeconds=seconds)
        await database[name].create_indexes([index])
    except OperationFailure as error:
        if error.code != _OPTIONS_CONFLICT:
            raise
        changed = {"keyPattern": {"at": 1}, "expireAfterSeconds": seconds}
        await database.command("collMod", name, index=changed)


async def keep_calls(database: Database, calls: Iterable[Row]) -> None:
    """Keep what was answered to some calls; those that are kept already stay as they are."""
    try:
        await database[CALLS].bulk_write([InsertOne(dict(one)) for one in calls], ordered=False)
    except BulkWriteError as error:
        if {one.get("code") for one in error.details.get("writeErrors", ())} != {_DUPLICATE_KEY}:
            raise


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


async def report(
    database: Database, since: datetime, seconds: float, count: int, offset: int
) -> tuple[int, list[dict[str, Any]]]:
    """Return how many rules were shown since then, and ``count`` of them from ``offset`` on: how
    often each was shown, accepted and overridden, most shown first.

    A card counts once for each of its rules, however often it is said what became of it. Raises
    ``timeout`` where that takes longer than ``seconds``.
    """
    async with deadline(seconds, "Ask for fewer days."):
        found: dict[str, dict[str, int]] = {}
        for row in await _rows(database, CALLS, _shown_since(since)):
            found.setdefault(row["_id"], {"shown": 0})["shown"] = row["cards"]
        for row in await _rows(database, FEEDBACK, _said_since(since)):
            # A card is shown before anything is said of it, but written down a moment after.
            counted = found.setdefault(row["_id"]["rule"], {"shown": 0})
            counted[row["_id"]["outcome"]] = row["cards"]
    rules = sorted(found, key=lambda rule: (-found[rule]["shown"], rule))
    return len(rules), [
        {
            "kind": rule.partition("/")[0],
            "rule": rule.partition("/")[2],
            **{name: found[rule].get(name, 0) for name in ("shown", "accepted", "overridden")},
        }
        for rule in rules[offset : offset + count]
    ]


async def _rows(database: Database, name: str, pipeline: list[dict[str, Any]]) -> list[Any]:
    cursor = await database[name].aggregate([*pipeline, {"$limit": _GROUPS_MAX}])
    return [one async for one in cursor]


def _shown_since(since: datetime) -> list[dict[str, Any]]:
    return [
        {"$match": {"at": {"$gte": since}}},
        {"$project": {"cards.rules": 1}},
        {"$unwind": "$cards"},
        {"$unwind": "$cards.rules"},
        {"$group": {"_id": "$cards.rules", "cards": {"$sum": 1}}},
    ]


def _said_since(since: datetime) -> list[dict[str, Any]]:
    """Of each card and outcome one, of the cards that were shown since then."""
    return [
        {"$match": {"at": {"$gte": since}}},
        {"$group": {"_id": {"card": "$card", "outcome": "$outcome"}}},
        {
            "$lookup": {
                "from": CALLS,
                "localField": "_id.card",
                "foreignField": "cards.uuid",
                "pipeline": [{"$match": {"at": {"$gte": since}}}, {"$project": {"cards": 1}}],
                "as": "call",
            }
        },
        {"$unwind": "$call"},
        {"$unwind": "$call.cards"},
        {"$match": {"$expr": {"$eq": ["$call.cards.uuid", "$_id.card"]}}},
        {"$unwind": "$call.cards.rules"},
        {
            "$group": {
                "_id": {"rule": "$call.cards.rules", "outcome": "$_id.outcome"},
                "cards": {"$sum": 1},
            }
        },
    ]
