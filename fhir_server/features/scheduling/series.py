"""The times of a series: weekly, at the same local time. Pure.

Section 3 of design/scheduling.md.
"""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from fhir_server.outcome import FhirError, Issue


def weekly(start: datetime, count: int, zone: ZoneInfo) -> list[datetime]:
    """Return the ``count`` starts from ``start`` on, a week apart on the clocks of ``zone``.

    A local time that comes twice is the first of the two. Raises ``business-rule`` (409) where the
    clocks skip the local time in one of the weeks: a series is whole or not at all.

    >>> first = datetime(2026, 10, 31, 13, tzinfo=UTC)
    >>> weekly(first, 2, ZoneInfo("America/New_York"))[1].isoformat()
    '2026-11-07T09:00:00-05:00'
    """
    first = start.astimezone(zone)
    found = [first]
    for number in range(1, count):
        wall = first.replace(tzinfo=None, fold=0) + timedelta(weeks=number)
        local = wall.replace(tzinfo=zone)
        there = local.astimezone(UTC).astimezone(zone)
        if there.replace(tzinfo=None, fold=0) != wall:
            text = (
                f"Appointment {number + 1} of the series would be on {wall:%Y-%m-%d} at "
                f"{wall:%H:%M}, a time that the clocks of {zone.key} skip on that day; nothing was "
                "booked."
            )
            raise FhirError(Issue("business-rule", text), status=409)
        found.append(there)
    return found
