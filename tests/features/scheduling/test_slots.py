"""Section 2 of design/scheduling.md, "What is offered"; check S9.

``tests/cases/scheduling/slots.json`` was made by a program that walks minutes; what the cases hold
is said beside :func:`walked`, which does the same here for whatever hypothesis thinks of.
"""

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fhir_server.features.scheduling.parameters import Rules
from fhir_server.features.scheduling.slots import (
    aligned,
    both,
    ceil_minute,
    floor_minute,
    is_aligned,
    moment_at,
    starts,
    union,
    without,
)
from fhir_server.features.scheduling.windows import DAYS, Window

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "cases" / "scheduling" / "slots.json").read_text("utf-8")
)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
FAR = timedelta(days=36_500)


def minutes(text: str) -> int:
    """Return the minutes of ``09:30``."""
    return int(text[:2]) * 60 + int(text[3:])


def rules_of(case: dict[str, Any]) -> Rules:
    """Return the rules of a case."""
    windows = []
    for one in case["windows"]:
        start, end = minutes(one["start"]), minutes(one["end"])
        days = frozenset(map(DAYS.index, one["days"]))
        windows.append(Window(days, start, end if end > start else end + 1440))
    zone = ZoneInfo(case["timezone"])
    return Rules(
        *("Schedule/1", "", zone, case["duration"], tuple(windows)),
        interval=case["step"],
        alignment_zone=zone,
        horizon=FAR,
    )


@pytest.mark.parametrize("case", CASES, ids=[one["name"] for one in CASES])
def test_s9_the_starts_are_those_of_the_vectors(case: dict[str, Any]) -> None:
    """S9: equal, and in order."""
    rules = rules_of(case)
    low, high = (
        datetime.fromisoformat(case[name]).replace(tzinfo=rules.zone).astimezone(UTC)
        for name in ("fromDate", "toDate")
    )

    found = starts(rules, (low, high), LONG_AGO)

    assert [one.strftime("%Y-%m-%dT%H:%M:%SZ") for one in found] == case["startsUtc"]


def is_open(rules: Rules, minute: int, free: Sequence[tuple[int, int]]) -> bool:
    """Whether a minute is open."""
    at = moment_at(minute)
    if not rules.planning[0] <= at < rules.planning[1]:
        return False
    if any(low <= minute < high for low, high in free):
        return True
    return is_in_hours(rules, at) and not any(low <= at < high for low, high in rules.not_available)


def is_in_hours(rules: Rules, at: datetime) -> bool:
    """Whether the wall time lies in a window of the same or of the previous local date."""
    local = at.astimezone(rules.zone)
    wall = local.hour * 60 + local.minute
    for back in (0, 1):
        day = local.date() - timedelta(days=back)
        if day not in rules.holidays and any(
            day.weekday() in one.days and one.start <= wall + back * 1440 < one.end
            for one in rules.windows
        ):
            return True
    return False


def walked(
    rules: Rules,
    span: tuple[datetime, datetime],
    now: datetime,
    taken: Sequence[tuple[int, int]],
    free: Sequence[tuple[int, int]],
) -> list[datetime]:
    """Return the starts, by asking every minute: the words of the page, one after the other."""
    duration, interval = rules.duration or 0, rules.interval or 0

    def is_offered(minute: int) -> bool:
        local = moment_at(minute).astimezone(rules.alignment_zone)
        wall = local.hour * 60 + local.minute
        first = rules.offset % interval
        if wall < first or (wall - first) % interval:
            return False
        if not all(opens[one - low] for one in range(minute, minute + duration)):
            return False
        begin, end = minute - rules.before, minute + duration + rules.after
        if any(one < end and begin < other for one, other in taken):
            return False
        return now + rules.notice <= moment_at(minute) <= now + rules.horizon

    low, high = ceil_minute(span[0]), floor_minute(span[1])
    opens = [is_open(rules, one, free) for one in range(low, high)]
    return [moment_at(one) for one in range(low, high - duration + 1) if is_offered(one)]


ZONES = (
    *("UTC", "Asia/Dhaka", "Asia/Kathmandu", "America/New_York", "Australia/Lord_Howe"),
    *("Europe/London", "Pacific/Apia", "America/St_Johns", "Africa/Casablanca"),
)
# About changes of the offset; Apia left out a whole day, Casablanca changes around Ramadan.
DAYS_OF_NOTE = (
    *(date(2026, 3, 7), date(2026, 10, 31), date(2026, 4, 4), date(2026, 3, 28)),
    *(date(2011, 12, 29), date(2026, 2, 14), date(2026, 12, 1)),
)
zones = st.sampled_from(ZONES).map(ZoneInfo)
windows = st.builds(
    lambda days, start, length: Window(frozenset(days), start, start + length),
    st.one_of(st.just(set(range(7))), st.sets(st.integers(0, 6), min_size=1)),
    st.integers(0, 1439),
    st.one_of(st.integers(1, 1440), st.integers(400, 900)),
)


@st.composite
def questions(draw: st.DrawFn) -> tuple[Rules, tuple[datetime, datetime], datetime, Any, Any]:
    """A rule, a time of a day or two, now, what is taken and what is free."""
    zone = draw(zones)
    noon = datetime.combine(draw(st.sampled_from(DAYS_OF_NOTE)), datetime.min.time(), UTC)
    low = noon + timedelta(minutes=draw(st.integers(-600, 600)))
    high = low + timedelta(minutes=draw(st.integers(1, 2200)))

    def intervals(most: int) -> list[tuple[int, int]]:
        begins = st.integers(-120, 2300).map(lambda one: floor_minute(low) + one)
        pairs = st.tuples(begins, st.integers(1, 200)).map(lambda one: (one[0], sum(one)))
        return union(draw(st.lists(pairs, max_size=most)))

    rules = Rules(
        *("Schedule/1", "", zone, draw(st.sampled_from((1, 20, 30, 90)))),
        windows=tuple(draw(st.lists(windows, min_size=1, max_size=2))),
        holidays=frozenset(draw(st.sampled_from(((), (), DAYS_OF_NOTE[:4])))),
        not_available=tuple((moment_at(one), moment_at(two)) for one, two in intervals(1)),
        before=draw(st.sampled_from((0, 5, 17))),
        after=draw(st.sampled_from((0, 5, 23))),
        interval=draw(st.sampled_from((7, 15, 20, 45, 60, 500))),
        offset=draw(st.sampled_from((0, 5, 61))),
        alignment_zone=draw(st.one_of(st.just(zone), zones)),
        notice=timedelta(minutes=draw(st.sampled_from((0, 0, 90, 400)))),
        horizon=timedelta(minutes=draw(st.sampled_from((1000, 5000, 5000)))),
    )
    now = low + timedelta(seconds=draw(st.integers(-9_000, 9_000)))
    return rules, (low, high), now, intervals(4), intervals(1)


@given(questions())
@settings(max_examples=150)
def test_the_starts_are_those_that_walking_every_minute_finds(question: Any) -> None:
    """Windows, holidays, closed and free times, buffers, alignment, notice and horizon, across
    changes of the clock."""
    rules, span, now, taken, free = question

    assert starts(rules, span, now, taken, free) == walked(rules, span, now, taken, free)


numbers = st.integers(0, 30)
intervals = st.lists(st.tuples(numbers, numbers), max_size=6)


@given(intervals, intervals)
def test_intervals_are_sets_of_minutes(some: list[Any], others: list[Any]) -> None:
    """Union, difference and intersection are those of the sets."""

    def minutes_of(found: Any) -> set[int]:
        return {one for low, high in found for one in range(low, high)}

    one, two = union(some), union(others)
    assert minutes_of(one) == minutes_of(some)
    assert all(low[1] < high[0] for low, high in pairwise(one))
    assert minutes_of(without(one, two)) == minutes_of(one) - minutes_of(two)
    assert minutes_of(both(one, two)) == minutes_of(one) & minutes_of(two)


@given(zones, st.sampled_from((7, 20, 45, 1440)), st.sampled_from((0, 5, 61)))
@example(ZoneInfo("America/New_York"), 7, 5)
def test_one_minute_is_aligned_as_all_are(zone: ZoneInfo, interval: int, offset: int) -> None:
    """What is asked of a single minute is what is listed of many."""
    rules = Rules("Schedule/1", "", zone, 1, offset=offset, alignment_zone=zone)
    low = floor_minute(datetime(2026, 10, 31, 12, tzinfo=UTC))
    listed = {one for some in aligned([(low, low + 2000)], rules, interval) for one in some}

    assert listed == {one for one in range(low, low + 2000) if is_aligned(one, rules, interval)}


def test_what_lies_in_the_repeated_hour_is_offered_twice() -> None:
    """And the appointment is its length of real time, not of wall time."""
    zone = ZoneInfo("America/New_York")
    rules = Rules(
        *("Schedule/1", "", zone, 60, (Window(frozenset(range(7)), 60, 120),)),
        interval=60,
        alignment_zone=zone,
        horizon=FAR,
    )
    span = (datetime(2026, 11, 1, 4, tzinfo=UTC), datetime(2026, 11, 2, 4, tzinfo=UTC))

    found = starts(rules, span, LONG_AGO)

    assert [one.astimezone(zone).isoformat() for one in found] == [
        "2026-11-01T01:00:00-04:00",
        "2026-11-01T01:00:00-05:00",
    ]
