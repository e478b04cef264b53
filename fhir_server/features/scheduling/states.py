"""What an Appointment may become. Pure. Section 5 of design/scheduling.md.

http://hl7.org/fhir/R4/valueset-appointmentstatus.html
"""

from datetime import datetime

LIVE = frozenset(("pending", "booked", "arrived", "checked-in"))
"""The states that take a time."""
FINAL = frozenset(("cancelled", "fulfilled", "entered-in-error"))
HOLDING = ("booked", "arrived", "checked-in")
"""Those in which it is settled that the time is taken."""

# One that is cancelled was made and given up elsewhere, such as in the system that sends messages.
_NEW = frozenset(("proposed", "pending", "booked", "waitlist", "cancelled"))
_BECOMES = {
    "proposed": frozenset(("pending", "booked", "cancelled")),
    "pending": frozenset(("booked", "cancelled", "waitlist")),
    "waitlist": frozenset(("pending", "booked", "cancelled")),
    "booked": frozenset(("arrived", "checked-in", "cancelled", "noshow")),
    "arrived": frozenset(("checked-in", "fulfilled", "noshow", "cancelled")),
    "checked-in": frozenset(("fulfilled", "cancelled")),
    "noshow": frozenset(("arrived",)),
    "cancelled": frozenset[str](),
    "fulfilled": frozenset[str](),
    "entered-in-error": frozenset[str](),
}
# Of an appointment that is over it may be found out later what came of it.
_FOUND_OUT = {
    "booked": frozenset(("fulfilled",)),
    "pending": frozenset(("noshow",)),
}


def fault(before: str, after: str, end: datetime | None, now: datetime) -> str:
    """Return why an Appointment may not go from ``before`` (``""``: it is new) to ``after``; ``""``
    if it may. ``end`` is when it is over; what is past was imported.

    >>> fault("cancelled", "booked", None, datetime(2026, 1, 1))
    'An appointment that is cancelled stays so.'
    """
    if after == before or after == "entered-in-error":
        return ""
    is_past = end is not None and end <= now
    if not before:
        if is_past or after in _NEW:
            return ""
        return f"A new appointment is {_or(_NEW)}, not {after}, unless it is past."
    if before in FINAL:
        return f"An appointment that is {before} stays so."
    allowed = _BECOMES.get(before, frozenset())
    if is_past:
        allowed |= _FOUND_OUT.get(before, frozenset())
    if after in allowed:
        return ""
    return f"An appointment that is {before} becomes {_or(allowed)}, not {after}."


def is_of_today(start: str, now: datetime) -> bool:
    """Whether ``now`` is still the day of ``start``, on the clock that it is written by.

    >>> is_of_today("2026-12-01T23:00:00+06:00", datetime.fromisoformat("2026-12-01T18:00:00Z"))
    False
    """
    there = datetime.fromisoformat(start) if start else None
    return there is not None and now.astimezone(there.tzinfo).date() == there.date()


def _or(states: frozenset[str]) -> str:
    return " or ".join(sorted(states))
