"""Which times can be booked: the rules of Schedules against what is taken. Pure.

Sections 2 and 3 of design/scheduling.md. The open times of a Schedule are computed once, however
many starts there are in them; what is taken is one list of intervals for each actor.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from heapq import merge
from itertools import chain, islice
from typing import Any
from zoneinfo import ZoneInfo

from fhir_server.features.scheduling.claims import Room, has_room
from fhir_server.features.scheduling.parameters import Json, Rules
from fhir_server.features.scheduling.slots import (
    Interval,
    aligned,
    allowed,
    both,
    ceil_minute,
    floor_minute,
    is_aligned,
    moment_at,
    opened,
    reach,
    union,
)
from fhir_server.features.scheduling.wanted import ANY_TIME, Wanted
from fhir_server.outcome import FhirError, Issue

_WEEK = timedelta(days=7)
_LOOKED_AT_MAX = 200_000  # some half a second
_END = datetime(9999, 12, 31, tzinfo=UTC)


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A Schedule that could give a time, for a service or none.

    ``actors`` are those whose time it gives (``Practitioner/1``), ``participants`` who takes part,
    as references of an Appointment; ``places`` is where. ``concepts`` are further elements of the
    Appointment by name.
    """

    rules: Rules
    actors: tuple[str, ...]
    participants: tuple[Json, ...]
    places: tuple[Json, ...] = ()
    concepts: Mapping[str, Any] = field(default_factory=dict)


Combination = tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """What is taken: ``granules`` by actor, ``limits`` by id, as ``store/granules.py`` has them;
    and what is ``free`` by Schedule. ``but`` are holders that count as gone."""

    granules: Mapping[str, Sequence[Json]]
    limits: Mapping[str, Json] = field(default_factory=dict)
    free: Mapping[str, Sequence[Interval]] = field(default_factory=dict)
    but: Collection[str] = ()
    granule: int = 5


@dataclass(frozen=True, slots=True)
class Offer:
    """An appointment that can be booked, or a weekly series of them: its starts (UTC)."""

    starts: tuple[datetime, ...]
    place: int
    """Which of the combinations gives it."""


def duration_of(some: Combination) -> int:
    """Return how long an appointment with all of ``some`` is, in minutes.

    Raises ``value`` where nothing says it, or they say different things.
    """
    found = {one.rules.duration for one in some} - {None}
    names = " and ".join(
        " with ".join(filter(None, (one.rules.schedule, one.rules.service))) for one in some
    )
    if not found:
        raise FhirError(Issue("value", f"No duration is said by {names}."))
    if len(found) > 1:
        said = " and ".join(f"{one} minutes" for one in sorted(filter(None, found)))
        raise FhirError(Issue("value", f"{names} say different durations: {said}."))
    return found.pop() or 0


def last_moment(wanted: Wanted) -> datetime:
    """Return up to when something may be offered: a series goes on for weeks."""
    return wanted.end + (wanted.occurrences - 1) * _WEEK


def offers(
    combinations: Sequence[Combination], wanted: Wanted, known: Known, now: datetime
) -> tuple[list[Offer], int]:
    """Return the first offers, by start and then by preference, and how many there are in all."""
    offering = Offering(wanted, known, now)
    total, streams = 0, []
    for place, some in enumerate(combinations):
        count, found = offering.starts(some)
        total += count
        streams.append([(one[0], place, one) for one in found])
    first = islice(merge(*streams), wanted.count)
    return [Offer(tuple(map(moment_at, one)), place) for _, place, one in first], total


@dataclass(slots=True)
class Offering:
    """One question under way; what is computed of a Schedule is kept, for the next combination."""

    wanted: Wanted
    known: Known
    now: datetime
    _looked_at: int = 0
    _allowed: dict[tuple[int, int], list[Interval]] = field(default_factory=dict)
    _taken: dict[tuple[str, str, int], list[Interval]] = field(default_factory=dict)

    def starts(self, some: Combination) -> tuple[int, list[tuple[int, ...]]]:
        """Return how many offers there are of ``some``, which say a duration, and the starts of the
        first of them in minutes.

        Raises ``too-costly`` where more would have to be looked at than is reasonable.
        """
        duration = duration_of(some)
        possible = self._possible(some, duration)
        first = (ceil_minute(self.wanted.start), floor_minute(self.wanted.end) - duration + 1)
        steps = [(one.rules, one.rules.interval or duration) for one in some]
        ranges = list(aligned(both(possible, [first]), *steps[0]))
        minutes = chain.from_iterable(ranges)
        limited = [one.rules for one in some if one.rules.limits]
        is_plain = self.wanted.occurrences == 1 and self.wanted.timing == ANY_TIME
        if is_plain and not limited and len(some) == 1:
            few = islice(minutes, self.wanted.count)
            return sum(map(len, ranges)), [(one,) for one in few]
        self._looked_at += sum(map(len, ranges)) * self.wanted.occurrences
        if self._looked_at > _LOOKED_AT_MAX:
            text = "More times would have to be looked at than is reasonable; ask for less at once."
            raise FhirError(Issue("too-costly", text))
        every = (self._series(one, some[0].rules) for one in minutes)
        fitting = [
            series
            for series in every
            if series
            and all(
                _is_in(one, possible)
                and all(is_aligned(one, *step) for step in steps)
                and self._is_within(one, limited)
                for one in series
            )
        ]
        return len(fitting), fitting[: self.wanted.count]

    def _possible(self, some: Combination, duration: int) -> list[Interval]:
        """Return when an appointment of so many minutes may start that all of ``some`` have room
        for, and the patients."""
        found = self._of_candidate(some[0], duration)
        for one in some[1:]:
            found = both(found, self._of_candidate(one, duration))
        return both(found, self._of_patients(duration)) if self.wanted.patients else found

    def _of_patients(self, duration: int) -> list[Interval]:
        """Return when an appointment of so many minutes may start that all patients are free for:
        the same of all combinations."""
        key = (0, duration)  # no candidate's
        if key not in self._allowed:
            each = (self.taken(one, "", 1) for one in self.wanted.patients)
            taken = union(chain.from_iterable(each))
            alone = Rules("", "", ZoneInfo("UTC"))
            self._allowed[key] = allowed([self._span], taken, alone, duration)
        return self._allowed[key]

    @property
    def _span(self) -> Interval:
        return ceil_minute(self.wanted.start), floor_minute(last_moment(self.wanted))

    def _of_candidate(self, one: Candidate, duration: int) -> list[Interval]:
        key = (id(one), duration)
        if key not in self._allowed:
            rules, (low, high) = one.rules, self._span
            open = opened(rules, low, high, self.known.free.get(rules.schedule, ()))
            taken = union(
                chain.from_iterable(
                    self.taken(actor, rules.schedule, rules.capacity) for actor in one.actors
                )
            )
            found = allowed(open, taken, rules, duration)
            self._allowed[key] = both(found, [reach(rules, low, high, self.now)])
        return self._allowed[key]

    def taken(self, actor: str, schedule: str, capacity: int) -> list[Interval]:
        """Return when ``actor`` has no room for one more of ``schedule``."""
        key = (actor, schedule, capacity)
        if key not in self._taken:
            room = Room(schedule, capacity, _END)
            found: list[Interval] = []
            begin = end = 0
            for one in self.known.granules.get(actor, ()):
                if self._is_full(one, room):
                    minute = minute_of(one["_id"])
                    if minute != end:  # most follow the one before
                        found.append((begin, end))
                        begin = minute
                    end = minute + self.known.granule
            self._taken[key] = union([*found, (begin, end)])
        return self._taken[key]

    def _is_full(self, one: Json, room: Room) -> bool:
        here = one["h"]
        if room.count == 1 and len(here) == 1 and here[0]["x"] is None and not self.known.but:
            return True  # as nearly all are, at a third of the time
        return not has_room(one, room, self.now, self.known.but)

    def _is_within(self, minute: int, limited: Sequence[Rules]) -> bool:
        """Whether the day and the week of ``minute`` have not as many as they may."""
        start = moment_at(minute)
        return all(
            has_room(
                self.known.limits.get(id),
                Room(rules.schedule, most, _END),
                self.now,
                self.known.but,
            )
            for rules in limited
            for id, most in rules.limits_at(start).items()
        )

    def _series(self, minute: int, rules: Rules) -> tuple[int, ...]:
        """Return the starts of a series from ``minute`` on, at the same local time each week; empty
        where that does not suit, or a week has no such time."""
        moment, zone = moment_at(minute), rules.zone
        if self.wanted.timing != ANY_TIME and not self.wanted.timing.suits(moment, zone):
            return ()
        if self.wanted.occurrences == 1:
            return (minute,)
        first = moment.astimezone(zone)
        found = []
        for week in range(self.wanted.occurrences):
            # Of a time that comes twice it is the one that the first occurrence is, else the first.
            local = first + week * _WEEK
            moment = local.astimezone(UTC)
            if moment.astimezone(zone).replace(tzinfo=None) != local.replace(tzinfo=None):
                return ()
            found.append(floor_minute(moment))
        return tuple(found)


def limit_ids(combinations: Iterable[Combination], wanted: Wanted) -> set[str]:
    """Return the ids under which appointments are counted in all the time that is asked about."""
    found: set[str] = set()
    rules = {id(one.rules): one.rules for some in combinations for one in some if one.rules.limits}
    for one in rules.values():
        day = wanted.start - timedelta(days=1)
        while day < last_moment(wanted) + timedelta(days=1):
            found.update(one.limits_at(day))
            day += timedelta(days=1)
    return found


def minute_of(granule: str) -> int:
    """Return when the granule with this id begins.

    >>> minute_of("Practitioner/p1|1970-01-02T00:05Z")
    1445
    """
    return _midnight(granule[-17:-7]) + int(granule[-6:-4]) * 60 + int(granule[-3:-1])


@lru_cache(maxsize=1000)
def _midnight(day: str) -> int:
    return (date.fromisoformat(day).toordinal() - date(1970, 1, 1).toordinal()) * 1440


def _is_in(minute: int, intervals: Sequence[Interval]) -> bool:
    place = bisect_right(intervals, (minute, float("inf"))) - 1
    return place >= 0 and intervals[place][0] <= minute < intervals[place][1]
