"""design/scheduling.md, section 7: numbers, ranks and waits, without a database."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.features.scheduling import queue
from fhir_server.features.scheduling.queue import PREFIX_EXTENSION, Expected
from fhir_server.store.documents import instant
from fhir_server.store.queues import ABSENT, WAITING, Entry

NOON = datetime(2026, 12, 1, 12, tzinfo=UTC)
DHAKA = ZoneInfo("Asia/Dhaka")


def entry(number: int = 1, rank: int = 5, minutes: float = 0, **more: Any) -> Entry:
    """Return somebody who came so many minutes after noon."""
    at = NOON + timedelta(minutes=minutes)
    place = (f"e{number}", "l", "s", "2026-12-01", number, queue.token("CARD", number), rank)
    return Entry(*place, at, at, NOON + timedelta(days=1), **more)


@pytest.mark.parametrize(
    ("service", "location", "expected"),
    [
        ({"extension": [{"url": PREFIX_EXTENSION, "valueString": "HD2"}]}, {"name": "A"}, "HD2"),
        ({"name": "Cardiology"}, {"name": "Building A"}, "CARD"),
        (
            {"name": "Cardiology"},
            {"extension": [{"url": PREFIX_EXTENSION, "valueString": "A"}]},
            "A",
        ),
        ({}, {"name": "2nd floor"}, "ND"),
        ({"name": "হৃদরোগ"}, {"name": "Building"}, "BUIL"),
        ({"name": "হৃদরোগ"}, {"name": "ভবন"}, "Q"),
        ({"extension": [{"url": PREFIX_EXTENSION, "valueString": "<b>"}]}, {}, "Q"),
        ({}, {}, "Q"),
    ],
)
def test_what_stands_before_a_number(
    service: dict[str, Any], location: dict[str, Any], expected: str
) -> None:
    """The extension of the service, that of the place, else the letters of a name."""
    assert queue.prefix(service, location) == expected


@pytest.mark.parametrize(
    ("instant", "zone", "expected"),
    [
        ("2026-12-01T17:59:59Z", "Asia/Dhaka", "2026-12-01"),
        ("2026-12-01T18:00:00Z", "Asia/Dhaka", "2026-12-02"),
        ("2026-12-01T23:59:59Z", "UTC", "2026-12-01"),
        ("2026-12-01T04:59:59Z", "America/New_York", "2026-11-30"),
    ],
)
def test_the_day_of_a_number_is_that_of_its_place(instant: str, zone: str, expected: str) -> None:
    """Q5: midnight in Dhaka begins a new day on the same UTC date."""
    day = queue.local_day(datetime.fromisoformat(instant), ZoneInfo(zone))
    assert day.isoformat() == expected


@pytest.mark.parametrize("said", ["Mars/Base", "../../etc/passwd", "", None, 7])
def test_a_zone_that_is_none_is_not_used(said: Any) -> None:
    """What a Location says instead of a time zone leaves Schedules and the setting to say it."""
    location = {"extension": [{"url": queue.TIMEZONE_EXTENSION, "valueCode": said}]}
    assert queue.zone_of(location) is None
    location["extension"][0]["valueCode"] = "Asia/Dhaka"
    assert queue.zone_of(location) == DHAKA


def test_who_waits_at_midnight_is_called_after_it() -> None:
    """A number stands for the hours behind midnight that the setting says, whenever it was taken:
    who has waited since the afternoon is not dropped before who came at eleven."""
    midnight = datetime(2026, 12, 1, 18, tzinfo=UTC)  # in Dhaka
    for before in (timedelta(minutes=2), timedelta(hours=8), timedelta(hours=24)):
        until = queue.stands_until(midnight - before, DHAKA, timedelta(hours=4))
        assert until == midnight + timedelta(hours=4)


STATUSES = st.sampled_from(("arrived", "triaged", "in-progress", "onleave", "finished"))


@given(st.lists(st.tuples(STATUSES, st.integers(0, 500)), max_size=8))
def test_the_history_of_statuses_has_no_gap(steps: list[tuple[str, int]]) -> None:
    """Each status but the last is in the history, its periods one behind the other."""
    moment = NOON
    encounter: dict[str, Any] = {"status": "arrived", "period": {"start": instant(NOON)}}
    expected = []
    for status, seconds in steps:
        moment += timedelta(seconds=seconds)
        if status != encounter["status"]:
            expected.append(encounter["status"])
        encounter = queue.with_status(encounter, status, moment)
    history = encounter.get("statusHistory", [])
    assert [one["status"] for one in history] == expected
    ends = [instant(NOON), *(one["period"]["end"] for one in history)]
    assert [one["period"]["start"] for one in history] == ends[:-1]
    assert ends == sorted(ends)


def test_a_start_that_is_to_come_is_left_out() -> None:
    """Another clock may be ahead; a period that ends before it begins would be refused."""
    encounter = {"status": "arrived", "period": {"start": "2036-01-01T00:00:00Z"}}
    after = queue.with_status(encounter, "in-progress", NOON)
    assert after["statusHistory"] == [{"status": "arrived", "period": {"end": instant(NOON)}}]
    assert queue.finished(encounter, NOON)["period"] == encounter["period"]


def test_who_is_skipped_goes_behind_and_out_the_third_time() -> None:
    """Behind those who are present, whatever the rank was; absent after three."""
    one, states = entry(rank=1), []
    for minute in range(3):
        now = NOON + timedelta(minutes=minute + 1)
        changes = queue.skipped(one, now)
        one = entry(rank=changes["rank"], skips=changes["skips"])
        states.append(changes["state"])
        assert (changes["rank"], changes["at"], changes["call"]) == (queue.LAST_RANK, now, "")
    assert states == [WAITING, WAITING, ABSENT]


def test_a_transfer_keeps_the_number_and_if_wanted_the_place() -> None:
    """With the priority rank and arrival stay; without it goes behind everybody."""
    one, now = entry(rank=3), NOON + timedelta(hours=1)
    kept = queue.transferred(one, "l", "x", now, keeps_priority=True)
    assert (kept["rank"], kept["at"], kept["service"]) == (3, NOON, "x")
    behind = queue.transferred(one, "l", "x", now, keeps_priority=False)
    assert (behind["rank"], behind["at"]) == (queue.LAST_RANK, now)
    assert not {"token", "number", "arrived"} & kept.keys()


@pytest.mark.parametrize(
    ("services", "counters", "ahead", "expected"),
    [
        ((), 2, 5, None),
        ((600.0,), 1, 0, 0.0),
        ((600.0, 300.0, 900.0), 1, 4, 2400.0),
        ((600.0, 300.0, 900.0), 3, 4, 800.0),
        ((600.0,), 0, 2, 1200.0),
    ],
)
def test_the_predicted_wait(
    services: tuple[float, ...], counters: int, ahead: int, expected: float | None
) -> None:
    """People ahead x median of the service times / counters at work; unknown without a time."""
    assert Expected(services, counters).wait_s(ahead) == expected


def test_the_measures_of_a_day() -> None:
    """Wait is first in-progress minus arrived, service time finish minus in-progress."""
    found = [
        entry(
            number,
            first=NOON + timedelta(minutes=number),
            started=NOON + timedelta(minutes=number + 5),
            finished=NOON + timedelta(minutes=2 * number + 5),
        )
        for number in range(1, 11)
    ]
    assert queue.measured(found) == queue.Measured(10, 330.0, 540.0, 330.0)
    assert queue.measured([entry()]) == queue.Measured(0, None, None, None)


@given(st.permutations([(1, 9), (3, 8), (5, 1), (5, 2), (5, 3)]))
def test_the_order_is_rank_then_age(shuffled: list[tuple[int, int]]) -> None:
    """Q3: an emergency that came last is first."""
    waiting = [entry(minutes, rank, minutes) for rank, minutes in shuffled]
    assert [one.number for one in queue.in_order(waiting)] == [9, 8, 1, 2, 3]
