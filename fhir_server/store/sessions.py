"""Who is signed in: a session for each login, by the hash of its cookie's value.

design/security.md, section 2.3: idle 15 min for staff, 12 h in all. What has ended is removed by
MongoDB itself; that it has ended is judged by the clock of the server before that.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pymongo import IndexModel

from fhir_server.store.client import Database, Document, deadline

SESSIONS = "sessions"
IDLE_STAFF = timedelta(minutes=15)
WHOLE = timedelta(hours=12)
HALFWAY = timedelta(minutes=10)
"""So long somebody may take between password and second factor."""
OF_USER_MAX = 20
"""Sessions of one user; the oldest goes when another begins."""
_SEEN_EVERY = timedelta(seconds=20)  # not every page is worth a write
_ADVICE = "Try again."


@dataclass(frozen=True, slots=True)
class Session:
    """A login. ``id`` is the hash of what the cookie holds; ``began`` when the password was typed.
    ``is_whole`` once all factors were given: before that it is good for the second one only."""

    id: str
    user: str
    began: datetime
    seen: datetime
    until: datetime
    is_staff: bool
    is_whole: bool

    @property
    def ends(self) -> datetime:
        """When it ends if nothing more happens."""
        if not self.is_whole:
            return min(self.until, self.began + HALFWAY)
        return min(self.until, self.seen + IDLE_STAFF) if self.is_staff else self.until


@dataclass(frozen=True, slots=True)
class Sessions:
    """The sessions of ``database``."""

    database: Database
    timeout_s: float

    async def ensure(self) -> None:
        """Make the indexes, and with them the collection."""
        indexes = [
            IndexModel([("ends", 1)], expireAfterSeconds=0),
            IndexModel([("user", 1), ("began", 1)]),
        ]
        await self.database[SESSIONS].create_indexes(indexes)

    async def begin(
        self, id: str, user: str, now: datetime, *, is_staff: bool, is_whole: bool
    ) -> Session:
        """Begin a session whose cookie has the hash ``id``."""
        made = Session(id, user, now, now, now + WHOLE, is_staff, is_whole)
        async with deadline(self.timeout_s, _ADVICE):
            await self.database[SESSIONS].insert_one(_document(made))
            cursor = self.database[SESSIONS].find({"user": user}, {"_id": 1}, sort=[("began", -1)])
            old = [row["_id"] async for row in cursor.skip(OF_USER_MAX).limit(100)]
            if old:
                await self.database[SESSIONS].delete_many({"_id": {"$in": old}})
        return made

    async def current(self, id: str, now: datetime) -> Session | None:
        """Return the session ``id`` unless it has ended; it is seen by this."""
        async with deadline(self.timeout_s, _ADVICE):
            found = _session(await self.database[SESSIONS].find_one({"_id": id}))
            if found is None or now >= found.ends:
                return None
            if found.is_whole and now - found.seen >= _SEEN_EVERY:
                seen = replace(found, seen=now)
                await self.database[SESSIONS].update_one(
                    {"_id": id}, {"$set": {"seen": now, "ends": seen.ends}}
                )
                return seen
        return found

    async def end(self, id: str) -> bool:
        """End a session; return whether it was there."""
        async with deadline(self.timeout_s, _ADVICE):
            done = await self.database[SESSIONS].delete_one({"_id": id})
        return done.deleted_count == 1

    async def end_all(self, user: str) -> list[str]:
        """End every session of ``user``; return the ids of those that there were."""
        async with deadline(self.timeout_s, _ADVICE):
            cursor = self.database[SESSIONS].find({"user": user}, {"_id": 1}, limit=1_000)
            ids = [row["_id"] async for row in cursor]
            await self.database[SESSIONS].delete_many({"user": user})
        return ids


def _document(session: Session) -> Document:
    return {
        "_id": session.id,
        "user": session.user,
        "began": session.began,
        "seen": session.seen,
        "until": session.until,
        "is_staff": session.is_staff,
        "is_whole": session.is_whole,
        "ends": session.ends,
    }


def _session(row: Document | None) -> Session | None:
    if row is None:
        return None
    return Session(
        *(row["_id"], row["user"], row["began"], row["seen"]),
        *(row["until"], row["is_staff"], row["is_whole"]),
    )
