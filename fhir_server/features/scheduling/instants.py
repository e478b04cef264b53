"""Times of bookings: told in the offset in which they were said, and such as can be counted with.
Pure.

https://hl7.org/fhir/R4/datatypes.html#instant
"""

from datetime import UTC, datetime, timedelta

from fhir_server.features.scheduling.extensions import moment
from fhir_server.features.scheduling.parts import YEARS

LONGEST = timedelta(days=31)
"""How long an appointment or a block may be: each piece of its time is a document."""
EARLIEST, LATEST = (datetime(year, 1, 1, tzinfo=UTC) for year in (YEARS.start, YEARS.stop))
"""What lies between can be told in every zone, and a series or a buffer be added to it."""


def instant_of(text: object) -> datetime | None:
    """Return the instant ``text`` in its own offset; ``None`` for what is none, has no zone, or is
    not between :data:`EARLIEST` and :data:`LATEST`. A second of 60 is the one after 59.

    >>> instant_of("2026-12-01T09:00:00+06:00").isoformat()
    '2026-12-01T09:00:00+06:00'
    """
    if not isinstance(text, str):
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        leap = moment(text) if ":60" in text else None
        if leap is None:
            return None
        found = leap
    if found.tzinfo is None or not EARLIEST <= found < LATEST:
        return None
    return found
