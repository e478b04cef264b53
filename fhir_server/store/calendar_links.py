"""Secret addresses of calendars: whoever has one may read the calendar of one practitioner.

A document of ``calendar_links`` has the id of the practitioner as its ``_id``, so that there is one
address, and as ``secret`` the hash of what is in it: who reads the database cannot read calendars
with that. Another address takes its place.
"""

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from pymongo import IndexModel

from fhir_server.store.client import Database, deadline

LINKS = "calendar_links"
_ADVICE = "Try again."


def hash_of(secret: str) -> str:
    """Return what an address is kept by."""
    return sha256(secret.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class CalendarLinks:
    """The addresses in ``database``."""

    database: Database
    seconds: float = 10.0

    async def ensure(self) -> None:
        """Make the index, and with it the collection."""
        await self.database[LINKS].create_indexes([IndexModel([("secret", 1)])])

    async def make(self, practitioner: str, secret: str, by: str, now: datetime) -> None:
        """Have ``secret`` be the address of the calendar of ``practitioner`` (an id), alone."""
        async with deadline(self.seconds, _ADVICE):
            one = {"_id": practitioner}
            row = {**one, "secret": hash_of(secret), "by": by, "at": now}
            await self.database[LINKS].replace_one(one, row, upsert=True)

    async def revoke(self, practitioner: str) -> bool:
        """Remove the address of ``practitioner``; return whether there was one."""
        async with deadline(self.seconds, _ADVICE):
            gone = await self.database[LINKS].delete_one({"_id": practitioner})
        return bool(gone.deleted_count)

    async def practitioner(self, secret: str) -> str:
        """Return whose calendar has this address; ``""`` for nobody's."""
        async with deadline(self.seconds, _ADVICE):
            found = await self.database[LINKS].find_one({"secret": hash_of(secret)})
        return str(found["_id"]) if found else ""
