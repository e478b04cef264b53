"""The database as it was at one moment, so that the pages of one answer belong together.

https://www.mongodb.com/docs/manual/reference/read-concern-snapshot/

What is written later is not seen, however many pages are still to come. MongoDB keeps what it needs
for that for some minutes (``minSnapshotHistoryWindowInSeconds``, five by default).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bson.timestamp import Timestamp
from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern

from fhir_server.outcome import FhirError, Issue
from fhir_server.store.client import Database, deadline

_UNKNOWN = {72, 239, 246}  # InvalidOptions (ahead of it), SnapshotTooOld, SnapshotUnavailable
_ADVICE = "Try again."


class _At(ReadConcern):
    """Reads by a majority's data of exactly one time."""

    def __init__(self, time: Timestamp) -> None:
        super().__init__("snapshot")
        self._time = time

    @property
    def document(self) -> dict[str, Any]:
        """What goes along with each command."""
        return {**super().document, "atClusterTime": self._time}


Moment = tuple[int, int]
"""Seconds, and a count inside the second."""
NO_MOMENT: Moment = (0, 0)
"""What stands for that of a transaction, which nobody else can read at."""


def forgotten() -> FhirError:
    """Return the refusal of a moment that is not known any more."""
    text = "The database does not know any more what was there at that time. Start again."
    return FhirError(Issue("processing", text), status=410)


async def latest(database: Database, seconds: float) -> Moment:
    """Return a moment at which everything is there that was answered before."""
    async with deadline(seconds, _ADVICE):
        said = await database.command("ping")
    time: Timestamp = said["operationTime"]
    return time.time, time.inc


@contextmanager
def remembered() -> Iterator[None]:
    """Refuse with 410 where MongoDB does not know the moment that is read at: any more, or yet, as
    after it was restored."""
    try:
        yield
    except OperationFailure as error:
        if error.code in _UNKNOWN:
            raise forgotten() from error
        raise


def at(database: Database, moment: Moment) -> Database:
    """Return ``database`` as it was at ``moment``; it is read only."""
    return database.with_options(read_concern=_At(Timestamp(*moment)))
