"""The uses of break-glass: who opened whose record, why, until when. Section 3.3 of
design/security.md.

A use is a document in ``break_glass``, kept for a year. What is to be told of it is a row in
``outbox``, written in the same transaction, for whoever sends such rows on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pymongo import IndexModel
from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.store.client import Database
from fhir_server.store.denials import raise_number
from fhir_server.store.documents import Document

OUTBOX = "outbox"
_USES = "break_glass"
_KEPT = timedelta(days=366)


@dataclass(frozen=True, slots=True)
class Use:
    """One use. ``account`` is who, as ``user/1``; ``patient`` is an id; ``until`` is when it ends,
    the same as ``at`` for one that opened nothing. Times are UTC."""

    id: str
    account: str
    fhir_user: str
    patient: str
    reason: str
    at: datetime
    until: datetime


async def ensure_break_glass(database: Database) -> None:
    """Make the indexes, and with them the collections."""
    await database[_USES].create_indexes(
        [
            IndexModel([("account", 1), ("at", 1)]),
            IndexModel([("at", 1)], expireAfterSeconds=int(_KEPT.total_seconds())),
        ]
    )
    await database[OUTBOX].create_indexes([IndexModel([("state", 1), ("due", 1)])])


async def uses_since(
    database: Database, account: str, since: datetime, session: AsyncClientSession
) -> list[datetime]:
    """Return when ``account`` made use of it after ``since``."""
    wanted = {"account": account, "at": {"$gt": since}}
    found = await database[_USES].find(wanted, {"at": 1}, session=session).to_list()
    return [one["at"] for one in found]


async def add_use(
    database: Database, use: Use, tells: Sequence[str], session: AsyncClientSession
) -> None:
    """Write ``use``, and for each of those it ``tells`` a row of the outbox, in the transaction of
    ``session``. Of two uses at once one is repeated, and counts the other."""
    row: Document = {
        "account": use.account,
        "fhir_user": use.fhir_user,
        "patient": use.patient,
        "reason": use.reason,
        "at": use.at,
        "until": use.until,
    }
    await raise_number(database, session)
    await database[_USES].insert_one({"_id": use.id, **row}, session=session)
    rows: list[Document] = [
        {
            "_id": f"break-glass/{use.id}/{place}",
            "kind": "break-glass",
            "to": to,
            "state": "waiting",
            "due": use.at,
            "tried": 0,
            "content": row,
        }
        for place, to in enumerate(tells)
    ]
    if rows:
        await database[OUTBOX].insert_many(rows, session=session)


async def open_uses(
    database: Database, account: str, now: datetime, lasts: timedelta
) -> dict[str, datetime]:
    """Return the ids of the patients whose record is open to ``account`` now, and until when; a use
    ``lasts`` so long at most."""
    wanted = {"account": account, "at": {"$gt": now - lasts}, "until": {"$gt": now}}
    found = await database[_USES].find(wanted, {"patient": 1, "until": 1}).to_list()
    opened: dict[str, datetime] = {}
    for one in found:
        opened[one["patient"]] = max(one["until"], opened.get(one["patient"], one["until"]))
    return opened
