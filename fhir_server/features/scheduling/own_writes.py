"""What patients may do to their Appointments by plain writes. Pure.

Cutoffs, notice, hours and the number of holds bind a patient (section 2 of
design/scheduling.md), and operations know them. So a patient takes, moves and gives back a time by
operations alone.
"""

from collections.abc import Sequence

from fhir_server.features.scheduling.subjects import Json, subject_of

_ALLOWED = frozenset(
    (
        ("", "proposed"),
        ("", "waitlist"),
        ("proposed", "cancelled"),
        ("waitlist", "cancelled"),
    )
)
_TEXT = (
    "A patient books by $book or $hold, moves by $reschedule and cancels by $cancel; a plain write "
    "takes and frees no time."
)


def own_fault(before: Json | None, after: Json | None, bases: Sequence[str]) -> str:
    """Return why a patient may not make of the Appointment ``before`` that ``after``; ``""`` if it
    is allowed: to wait for a time and to stop waiting, and whatever is about no time."""
    was, now = (str((one or {}).get("status", "")) for one in (before, after))
    if was != now and (was, now) not in _ALLOWED:
        return _TEXT
    return _TEXT if subject_of(before, bases) != subject_of(after, bases) else ""
