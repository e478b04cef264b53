"""Which starts a rule offers: arithmetic on intervals of minutes, no list of slots. Pure.

Section 2 of design/scheduling.md. A time is a whole number of minutes since 1970 in UTC, an
interval is ``[low, high)`` of them, and a list of intervals is sorted and none touches the next.

An instant is open when its local wall time lies in a window. The line of time is cut where the
offset of the zone changes; on each piece wall time is UTC plus the offset, so windows become
intervals by one addition: a skipped hour has no instants, and a repeated one has them twice.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from fhir_server.features.scheduling.parameters import Rules, Span
from fhir_server.features.scheduling.windows import DAY

Interval = tuple[int, int]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_DAY = _EPOCH.toordinal()
_MINUTE = timedelta(minutes=1)
# Offsets change months apart; no zone changes twice within this.
_LOOK = 6 * 60


def floor_minute(moment: datetime) -> int:
    """Return the last whole minute up to ``moment``."""
    return (moment - _EPOCH) // _MINUTE


def ceil_minute(moment: datetime) -> int:
    """Return the first whole minute from ``moment`` on."""
    return -((_EPOCH - moment) // _MINUTE)


def moment_at(minute: int) -> datetime:
    """Return the time ``minute``, in UTC."""
    return _EPOCH + minute * _MINUTE


@lru_cache(maxsize=4096)
def _offset(zone: ZoneInfo, minute: int) -> int:
    found = moment_at(minute).astimezone(zone).utcoffset()
    assert found is not None
    return found // _MINUTE


@lru_cache(maxsize=256)
def pieces(zone: ZoneInfo, low: int, high: int) -> tuple[tuple[int, int, int], ...]:
    """Return ``[low, high)`` cut where the offset of ``zone`` changes: begin, end, offset each."""
    found = []
    begin, offset = low, _offset(zone, low)
    at = low
    while at < high:
        following = min(at + _LOOK, high)
        if _offset(zone, following) != offset:
            change = _change(zone, at, following)
            found.append((begin, change, offset))
            begin, offset = change, _offset(zone, change)
        at = following
    found.append((begin, high, offset))
    return tuple(one for one in found if one[0] < one[1])


def _change(zone: ZoneInfo, low: int, high: int) -> int:
    """Return the first minute in ``(low, high]`` with another offset than ``low``."""
    before = _offset(zone, low)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(zone, middle) == before:
            low = middle
        else:
            high = middle
    return high


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """Return ``intervals`` joined where they overlap or touch.

    >>> union([(5, 9), (0, 3), (3, 6)])
    [(0, 9)]
    """
    found: list[Interval] = []
    for low, high in sorted(one for one in intervals if one[0] < one[1]):
        if found and low <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], high))
        else:
            found.append((low, high))
    return found


def without(intervals: Sequence[Interval], gone: Sequence[Interval]) -> list[Interval]:
    """Return what is in ``intervals`` and not in ``gone``.

    >>> without([(0, 9)], [(2, 3), (8, 12)])
    [(0, 2), (3, 8)]
    """
    found, place = [], 0
    for low, high in intervals:
        while place < len(gone) and gone[place][1] <= low:
            place += 1
        at = place
        while at < len(gone) and gone[at][0] < high:
            if low < gone[at][0]:
                found.append((low, gone[at][0]))
            low = max(low, gone[at][1])
            at += 1
        if low < high:
            found.append((low, high))
    return found


def both(some: Sequence[Interval], others: Sequence[Interval]) -> list[Interval]:
    """Return what is in ``some`` and in ``others``.

    >>> both([(0, 5), (7, 9)], [(3, 8)])
    [(3, 5), (7, 8)]
    """
    found, one, two = [], 0, 0
    while one < len(some) and two < len(others):
        low, high = max(some[one][0], others[two][0]), min(some[one][1], others[two][1])
        if low < high:
            found.append((low, high))
        if some[one][1] < others[two][1]:
            one += 1
        else:
            two += 1
    return found


def opened(rules: Rules, low: int, high: int, free: Sequence[Interval] = ()) -> list[Interval]:
    """Return when ``rules`` are open in ``[low, high)``; ``free`` is open whatever they say."""
    hours = union(_hours(rules, low, high))
    closed = [(floor_minute(one[0]), ceil_minute(one[1])) for one in rules.not_available]
    found = union([*without(hours, union(closed)), *free])
    planned = (ceil_minute(rules.planning[0]), floor_minute(rules.planning[1]))
    return both(found, [(max(low, planned[0]), min(high, planned[1]))])


def _hours(rules: Rules, low: int, high: int) -> Iterator[Interval]:
    """Yield the windows of all local dates as intervals, cut where the offset changes."""
    if not rules.windows or low >= high:
        return
    for begin, end, offset in pieces(rules.zone, low, high):
        # A window of the day before may reach into this piece.
        for day in range((begin + offset) // DAY - 1, (end + offset) // DAY + 1):
            midnight = day * DAY - offset
            weekday = (day + 3) % 7  # 1970 began on a Thursday
            if rules.holidays and date.fromordinal(day + _FIRST_DAY) in rules.holidays:
                continue
            for window in rules.windows:
                if weekday in window.days:
                    yield (
                        max(begin, midnight + window.start),
                        min(end, midnight + window.end),
                    )


def allowed(
    open: Sequence[Interval], taken: Sequence[Interval], rules: Rules, duration: int
) -> list[Interval]:
    """Return the starts, not yet aligned, at which an appointment of ``duration`` minutes is open
    throughout, and free of what is ``taken`` from its buffer before to its buffer after."""
    fitting = [(low, high - duration + 1) for low, high in open if high - low >= duration]
    before, after = rules.before, rules.after
    blocked = union((low - duration - after + 1, high + before) for low, high in taken)
    return without(fitting, blocked)


def aligned(starts: Sequence[Interval], rules: Rules, interval: int) -> Iterator[range]:
    """Yield the aligned minutes among ``starts``: each ``interval`` from the offset after midnight
    on, by the clock of the alignment zone, which begins anew every day."""
    if not starts:
        return
    offset_within = rules.offset % interval
    cut = pieces(rules.alignment_zone, _day(starts[0][0]) - DAY, _day(starts[-1][1]) + 2 * DAY)
    ends = [end for _, end, _ in cut]
    for low, high in starts:
        at = bisect_right(ends, low)
        while at < len(cut) and cut[at][0] < high:
            begin, end, offset = cut[at]
            first, last = max(low, begin), min(high, end)
            for day in range((first + offset) // DAY, (last - 1 + offset) // DAY + 1):
                midnight = day * DAY - offset
                behind = midnight + offset_within
                steps = max(0, -((behind - first) // interval))
                yield range(behind + steps * interval, min(last, midnight + DAY), interval)
            at += 1


def _day(minute: int) -> int:
    return minute // DAY * DAY


def is_aligned(minute: int, rules: Rules, interval: int) -> bool:
    """Whether ``minute`` is one of :func:`aligned`."""
    wall = minute + _offset(rules.alignment_zone, minute)
    return (wall % DAY - rules.offset % interval) % interval == 0 and (
        wall % DAY >= rules.offset % interval
    )


def reach(rules: Rules, low: int, high: int, now: datetime) -> Interval:
    """Return from when to before when a start may lie in ``[low, high)``: not sooner than the
    notice, not later than the horizon."""
    earliest = ceil_minute(now + rules.notice)
    latest = floor_minute(now + rules.horizon) + 1
    return max(low, earliest), min(high, latest)


def starts(
    rules: Rules,
    span: Span,
    now: datetime,
    taken: Sequence[Interval] = (),
    free: Sequence[Interval] = (),
) -> list[datetime]:
    """Return the starts that ``rules`` offer for appointments that lie within ``span``, in order.

    ``taken`` is when there is no room, ``free`` when it is open whatever the hours say. The rules
    say a duration.
    """
    assert rules.duration, "what has no duration offers nothing"
    assert rules.interval, "by default it is the duration"
    low, high = ceil_minute(span[0]), floor_minute(span[1])
    possible = allowed(opened(rules, low, high, free), taken, rules, rules.duration)
    within = both(possible, [reach(rules, low, high, now)])
    return [moment_at(one) for some in aligned(within, rules, rules.interval) for one in some]
