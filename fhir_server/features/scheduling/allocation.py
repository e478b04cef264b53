"""Which of several free times suits somebody best: the lowest cost. Pure.

Section 3 of design/scheduling.md: 10 for each place that the practitioner is down in the
preferences, 5 for each of the location, 1 for each day of waiting, 3 where it leaves a gap that is
too short for anything, 5 where the language is not spoken.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from fhir_server.messages import Resource

TRIED_MAX = 50
"""How many candidates are tried, one after the other."""

Spans = Sequence[tuple[datetime, datetime]]

_PRACTITIONER, _LOCATION, _DAY, _GAP, _LANGUAGE = 10, 5, 1, 3, 5


@dataclass(frozen=True, slots=True)
class Candidate:
    """A free time: ``proposal`` is the Appointment that says it, ``schedule`` the first of its
    Schedules (``Schedule/1``). ``practitioner`` and ``location`` are references, ``""`` where the
    proposal has none, ``languages`` what the practitioner speaks (``bn``), ``short_gap`` whether
    it leaves a time that is too short for anything."""

    start: datetime
    schedule: str
    practitioner: str
    location: str
    languages: frozenset[str]
    short_gap: bool
    proposal: Resource


@dataclass(frozen=True, slots=True)
class Wishes:
    """What somebody prefers: practitioners and locations in their order, a language; ``""`` and
    nothing are no wish."""

    practitioners: Sequence[str] = ()
    locations: Sequence[str] = ()
    language: str = ""


def cost(one: Candidate, wishes: Wishes, now: datetime) -> int:
    """Return what ``one`` costs; the lower the better. Who is not among those preferred counts as
    one place after the last."""
    found = _PRACTITIONER * _place(one.practitioner, wishes.practitioners)
    found += _LOCATION * _place(one.location, wishes.locations)
    found += _DAY * max(0, (one.start - now) // timedelta(days=1))
    if one.short_gap:
        found += _GAP
    if wishes.language and wishes.language.lower() not in one.languages:
        found += _LANGUAGE
    return found


def best(candidates: Iterable[Candidate], wishes: Wishes, now: datetime) -> list[Candidate]:
    """Return those to try, the best first; of equal cost the earliest, then by Schedule."""
    ordered = sorted(candidates, key=lambda one: (cost(one, wishes, now), one.start, one.schedule))
    return ordered[:TRIED_MAX]


def leaves_gap(start: datetime, end: datetime, taken: Spans, shortest: timedelta) -> bool:
    """Whether between the time from ``start`` to ``end`` and the nearest that is ``taken``, before
    or after, something is left that is shorter than ``shortest``. ``taken`` is in order, and no two
    of it overlap."""
    nothing = timedelta(0)
    before = bisect_right(taken, start, key=lambda one: one[1])
    after = bisect_left(taken, end, key=lambda one: one[0])
    gaps = [start - taken[before - 1][1]] if before else []
    gaps += [taken[after][0] - end] if after < len(taken) else []
    return any(nothing < gap < shortest for gap in gaps)


def _place(one: str, preferred: Sequence[str]) -> int:
    if not preferred:
        return 0
    return preferred.index(one) if one in preferred else len(preferred)
