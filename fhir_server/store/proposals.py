"""What was proposed to somebody, for some minutes: times that could be booked. Never resources.

Section 3 of design/scheduling.md. One document of ``proposals`` has all that one question found:
``_id`` is that of the question, ``by`` who asked, ``until`` when it goes, and the rest is what the
feature says.
"""

from dataclasses import dataclass
from datetime import datetime

from pymongo import IndexModel

from fhir_server.store.client import Database, Document, deadline

PROPOSALS = "proposals"
_ADVICE = "Try again."


@dataclass(frozen=True, slots=True)
class Proposals:
    """The proposals of ``database``."""

    database: Database
    timeout_s: float

    async def ensure(self) -> None:
        """Make the index, and with it the collection; what is over is removed by it."""
        expiry = IndexModel([("until", 1)], expireAfterSeconds=0)
        await self.database[PROPOSALS].create_indexes([expiry])

    async def keep(self, id: str, by: str, until: datetime, found: Document) -> None:
        """Keep what a question ``found``, for whoever asked it."""
        async with deadline(self.timeout_s, _ADVICE):
            await self.database[PROPOSALS].insert_one(
                {**found, "_id": id, "by": by, "until": until}
            )

    async def found(self, id: str, by: str, now: datetime) -> Document | None:
        """Return what the question ``id`` of ``by`` found, unless that is over."""
        async with deadline(self.timeout_s, _ADVICE):
            return await self.database[PROPOSALS].find_one(
                {"_id": id, "by": by, "until": {"$gt": now}}
            )
