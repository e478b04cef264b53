"""What patients may do to their Appointments by plain writes. Pure.

Cutoffs, notice, hours and the number of holds bind a patient (section 2 of
design/scheduling.md), and operations know them. So a patient takes, moves and gives back a time by
operations alone.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from fhir_server.features.scheduling.extensions import moment
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
_TURN_TEXT = (
    "Whose turn it is on the waiting list is for the clinic: a patient gives no priority, and no "
    "time of creation that is over."
)
_WRITING = timedelta(minutes=5)


def own_fault(before: Json | None, after: Json | None, bases: Sequence[str], at: datetime) -> str:
    """Return why a patient may not make of the Appointment ``before`` that ``after``; ``""`` if it
    is allowed: to wait for a time and to stop waiting, and whatever is about no time. ``at`` is
    now."""
    was, now = (str((one or {}).get("status", "")) for one in (before, after))
    if was != now and (was, now) not in _ALLOWED:
        return _TEXT
    if subject_of(before, bases) != subject_of(after, bases):
        return _TEXT
    return _TURN_TEXT if now == "waitlist" and _jumps(before or {}, after or {}, at) else ""


def _jumps(before: Json, after: Json, at: datetime) -> bool:
    """Whether the turn of an entry is other than by who came first."""
    if after.get("priority") != before.get("priority"):
        return True
    created = moment(after.get("created"))
    is_kept = bool(before) and after.get("created") == before.get("created")
    return not is_kept and created is not None and created < at - _WRITING
