"""What somebody is to be told, until it was told: the outbox. design/security.md, section 2.3.

A row is written by who notices; what carries it out of here (mail, webhook) takes it from the
collection, and the pages of the one it is for show it as well. Old rows are removed.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from pymongo import IndexModel

from fhir_server.store.client import Database, deadline

OUTBOX = "outbox"
KEPT = timedelta(days=90)
_LISTED_MAX = 50


@dataclass(frozen=True, slots=True)
class Notice:
    """``text`` for the user ``to``, of a ``kind`` such as ``sign-in-slowed``, from ``at``."""

    to: str
    kind: str
    text: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Notices:
    """The notices of ``database``."""

    database: Database
    timeout_s: float

    async def ensure(self) -> None:
        """Make the indexes, and with them the collection."""
        expiry = IndexModel([("at", 1)], expireAfterSeconds=int(KEPT.total_seconds()))
        await self.database[OUTBOX].create_indexes([expiry, IndexModel([("to", 1), ("at", -1)])])

    async def add(self, notice: Notice, once_in: timedelta = timedelta(0)) -> None:
        """Add ``notice``, unless one of its kind was added within ``once_in``."""
        async with deadline(self.timeout_s, "Try again."):
            same = {"to": notice.to, "kind": notice.kind, "at": {"$gt": notice.at - once_in}}
            if await self.database[OUTBOX].find_one(same, {"_id": 1}) is None:
                row = {"to": notice.to, "kind": notice.kind, "text": notice.text, "at": notice.at}
                await self.database[OUTBOX].insert_one({**row, "sent": None})

    async def to(self, name: str, since: datetime) -> list[Notice]:
        """Return the notices to ``name`` since then, newest first."""
        async with deadline(self.timeout_s, "Try again."):
            cursor = self.database[OUTBOX].find({"to": name, "at": {"$gte": since}})
            rows = await cursor.sort("at", -1).limit(_LISTED_MAX).to_list()
        return [Notice(row["to"], row["kind"], row["text"], row["at"]) for row in rows]
