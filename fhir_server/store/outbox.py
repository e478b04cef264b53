"""What is to leave this server, until it has left: rows that are written with their cause, taken by
one process at a time, and settled with what came of them.

A row is in the collection ``outbox``, beside the notices of ``notices.py``, which have no state and
are shown, not sent, and the rows of ``break_glass.py``, which are sent like any.

=============  =========================================================================
``kind``       ``plan``: what a write has made necessary is to be worked out; ``message``: it is
               to be sent; ``break-glass``
``state``      ``waiting`` -> ``sending`` -> ``sent``, ``not-done``, ``dead``; ``withdrawn``
``due``        when it may be taken; of one that is being sent, when its lease ends
``by``         who has taken it: a name of that one time
``tried``      how often
``subject``    what it is about, such as ``Appointment/1``; ``watched``: what withdraws it
``to``         of a message that was sent: what an answer to it is found by
``at``         when it was settled; 90 days later it goes
=============  =========================================================================
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pymongo import ASCENDING, IndexModel, ReplaceOne, ReturnDocument
from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.store.client import Database, Document, deadline
from fhir_server.store.notices import OUTBOX

WAITING, SENDING = "waiting", "sending"
SENT, NOT_DONE, DEAD, WITHDRAWN = "sent", "not-done", "dead", "withdrawn"
SETTLED = (SENT, NOT_DONE, DEAD, WITHDRAWN)
_ADVICE = "Try again."
_LISTED_MAX = 1000
_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Row:
    """One row. Times are UTC. ``content`` has what its kind needs: plain members."""

    id: str
    kind: str
    due: datetime
    subject: str = ""
    watched: tuple[str, ...] = ()
    state: str = WAITING
    by: str = ""
    tried: int = 0
    to: str = ""
    reason: str = ""
    at: datetime | None = None
    content: Mapping[str, Any] = field(default_factory=dict)


def as_document(row: Row) -> Document:
    """Return ``row`` as it is stored: what is empty is absent."""
    found: Document = {
        "_id": row.id,
        "kind": row.kind,
        "state": row.state,
        "due": row.due,
        "tried": row.tried,
        "content": dict(row.content),
    }
    for name in ("subject", "by", "to", "reason", "at"):
        if value := getattr(row, name):
            found[name] = value
    if row.watched:
        found["watched"] = list(row.watched)
    return found


def as_row(found: Mapping[str, Any]) -> Row:
    """Return the row that a document is."""
    return Row(
        id=str(found["_id"]),
        kind=found["kind"],
        due=found["due"],
        subject=found.get("subject", ""),
        watched=tuple(found.get("watched", ())),
        state=found["state"],
        by=found.get("by", ""),
        tried=found.get("tried", 0),
        to=found.get("to", ""),
        reason=found.get("reason", ""),
        at=found.get("at"),
        content=found.get("content", {}),
    )


async def ensure_outbox(database: Database) -> None:
    """Make the indexes, and with them the collection: a transaction makes none."""
    some = {"watched": {"$exists": True}}
    await database[OUTBOX].create_indexes(
        [
            IndexModel([("state", ASCENDING), ("due", ASCENDING)]),
            IndexModel([("watched", ASCENDING)], partialFilterExpression=some),
        ]
    )


@dataclass(frozen=True, slots=True)
class Outbox:
    """The rows in MongoDB, bound to a session inside a transaction, else to none."""

    database: Database
    session: AsyncClientSession | None = None
    seconds: float = _SECONDS

    async def put(self, rows: Sequence[Row]) -> None:
        """Write ``rows``, each in the place of one with its id."""
        if rows:
            writes = [ReplaceOne({"_id": one.id}, as_document(one), upsert=True) for one in rows]
            await self.database[OUTBOX].bulk_write(writes, session=self.session)

    async def withdraw(self, watched: Sequence[str], now: datetime) -> int:
        """Take back the messages that wait and are about one of ``watched``; return how many. What
        is being sent is not taken back."""
        wanted: Document = {
            "watched": {"$in": list(watched)},
            "state": WAITING,
            "kind": "message",
        }
        done = await self.database[OUTBOX].update_many(
            wanted, {"$set": {"state": WITHDRAWN, "at": now}}, session=self.session
        )
        return int(done.modified_count)

    async def revoke(self, ids: Sequence[str], now: datetime) -> None:
        """Take back those of the messages ``ids`` that wait."""
        if ids:
            await self.database[OUTBOX].update_many(
                {"_id": {"$in": list(ids)}, "state": WAITING},
                {"$set": {"state": WITHDRAWN, "at": now}},
                session=self.session,
            )

    async def about(self, watched: str) -> list[Row]:
        """Return the messages about ``watched``, whatever became of them, the last ones first."""
        async with deadline(self.seconds, _ADVICE):
            wanted = {"watched": watched, "kind": "message"}
            cursor = self.database[OUTBOX].find(wanted, session=self.session)
            cursor = cursor.sort("due", -1).limit(_LISTED_MAX)
            return [as_row(one) for one in await cursor.to_list()]

    async def take(
        self, by: str, now: datetime, until: datetime, kinds: Sequence[str]
    ) -> Row | None:
        """Take the row of ``kinds`` that is due longest, until ``until``; ``None`` where none is.

        One step: whoever asks at the same time takes another. ``by`` is a new name each time.
        """
        async with deadline(self.seconds, _ADVICE):
            found = await self.database[OUTBOX].find_one_and_update(
                {
                    "state": {"$in": [WAITING, SENDING]},
                    "due": {"$lte": now},
                    "kind": {"$in": list(kinds)},
                },
                {"$set": {"state": SENDING, "by": by, "due": until}, "$inc": {"tried": 1}},
                sort=[("due", ASCENDING)],
                return_document=ReturnDocument.AFTER,
            )
        return as_row(found) if found else None

    async def settle(
        self, row: Row, state: str, now: datetime, *, to: str = "", reason: str = ""
    ) -> bool:
        """Write what came of ``row``; return whether it was still taken by who says so."""
        said: Document = {"state": state, "at": now}
        said |= {name: value for name, value in (("to", to), ("reason", reason)) if value}
        return await self._mine(row, {"$set": said})

    async def again(
        self, row: Row, due: datetime, reason: str, *, tried: int | None = None
    ) -> bool:
        """Let ``row`` be taken again from ``due`` on; return whether it was still taken."""
        said: Document = {"state": WAITING, "due": due, "reason": reason}
        if tried is not None:
            said["tried"] = tried
        return await self._mine(row, {"$set": said, "$unset": {"by": ""}})

    async def drop(self, row: Row) -> bool:
        """Remove ``row``; return whether it was still taken by who says so."""
        gone = await self.database[OUTBOX].delete_one(self._taken(row), session=self.session)
        return bool(gone.deleted_count)

    async def _mine(self, row: Row, update: Document) -> bool:
        done = await self.database[OUTBOX].update_one(
            self._taken(row), update, session=self.session
        )
        return bool(done.matched_count)

    @staticmethod
    def _taken(row: Row) -> Document:
        return {"_id": row.id, "state": SENDING, "by": row.by}

    async def listed(self, state: str, after: str, most: int) -> list[Row]:
        """Return rows in ``state`` with ids behind ``after``, in their order."""
        async with deadline(self.seconds, _ADVICE):
            wanted = {"state": state, "_id": {"$gt": after}}
            cursor = self.database[OUTBOX].find(wanted).sort("_id", ASCENDING)
            return [as_row(one) for one in await cursor.limit(min(most, _LISTED_MAX)).to_list()]

    async def repeat(self, ids: Sequence[str], now: datetime) -> int:
        """Let the dead rows ``ids`` be tried again from the beginning; return how many. Their
        ``content`` says so: ``repeated``."""
        async with deadline(self.seconds, _ADVICE):
            done = await self.database[OUTBOX].update_many(
                {"_id": {"$in": list(ids)}, "state": DEAD},
                {
                    "$set": {"state": WAITING, "due": now, "tried": 0, "content.repeated": True},
                    "$unset": {"at": "", "by": "", "reason": ""},
                },
            )
        return int(done.modified_count)

    async def sent_to(self, to: str, since: datetime) -> list[Row]:
        """Return the messages that were settled as sent with ``to`` since then, newest first."""
        async with deadline(self.seconds, _ADVICE):
            wanted = {"to": to, "at": {"$gte": since}, "kind": "message", "state": SENT}
            cursor = self.database[OUTBOX].find(wanted).sort("at", -1)
            return [as_row(one) for one in await cursor.limit(50).to_list()]
