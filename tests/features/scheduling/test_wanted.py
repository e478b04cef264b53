"""https://hl7.org/fhir/R4/datatypes.html#Timing: when it suits, as ``$find`` reads it."""

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from fhir_server.features.scheduling.wanted import Wanted, wanted
from fhir_server.operations.asked import Given
from fhir_server.outcome import FhirError

DHAKA = ZoneInfo("Asia/Dhaka")


def asked(**values: Any) -> Wanted:
    """Return what ``$find`` is asked for on the first days of December."""
    named = {name.replace("_", "-"): [value] for name, value in values.items()}
    given = {"start": ["2026-12-01"], "end": ["2026-12-07"], **named}
    return wanted(Given("$find", given), DHAKA, 31, ("http://here/fhir",))


def test_dates_are_local_days() -> None:
    """The last one is part of it; an instant is itself."""
    found = asked()
    assert (found.start, found.end) == (
        datetime(2026, 11, 30, 18, tzinfo=UTC),
        datetime(2026, 12, 7, 18, tzinfo=UTC),
    )
    assert asked(end="2026-12-07T10:00:00+06:00").end == datetime(2026, 12, 7, 4, tzinfo=UTC)


TIMINGS: dict[str, tuple[dict[str, Any], str, bool]] = {
    "a day": ({"dayOfWeek": ["tue"]}, "2026-12-01T09:00", True),
    "another day": ({"dayOfWeek": ["wed", "thu"]}, "2026-12-01T09:00", False),
    "a time": ({"timeOfDay": ["09:00:00", "10:30:00"]}, "2026-12-01T10:30", True),
    "another time": ({"timeOfDay": ["09:00:00"]}, "2026-12-01T09:15", False),
    "the morning": ({"when": ["MORN"]}, "2026-12-01T11:59", True),
    "after the morning": ({"when": ["MORN"]}, "2026-12-01T12:00", False),
    "the night, before midnight": ({"when": ["NIGHT"]}, "2026-12-01T23:00", True),
    "the night, after midnight": ({"when": ["NIGHT"]}, "2026-12-01T04:59", True),
    "after the night": ({"when": ["NIGHT"]}, "2026-12-01T05:00", False),
    "a day and a time": ({"dayOfWeek": ["tue"], "when": ["EVE"]}, "2026-12-01T18:00", True),
    "within bounds": (
        {"boundsPeriod": {"start": "2026-12-01", "end": "2026-12-01"}},
        "2026-12-01T23:59",
        True,
    ),
    "beyond them": (
        {"boundsPeriod": {"start": "2026-12-01", "end": "2026-12-01"}},
        "2026-12-02T00:00",
        False,
    ),
}


@pytest.mark.parametrize("case", TIMINGS)
def test_when_it_suits(case: str) -> None:
    """By the clock of the Schedule."""
    repeat, local, expected = TIMINGS[case]
    start = datetime.fromisoformat(local).replace(tzinfo=DHAKA).astimezone(UTC)

    assert asked(timing={"repeat": repeat}).timing.suits(start, DHAKA) is expected


@pytest.mark.parametrize(
    "timing",
    [
        {"event": ["2026-12-01"]},
        {"repeat": {"frequency": 2}},
        {"repeat": {"when": ["PCM"]}},
        {"repeat": {"timeOfDay": ["9 o'clock"]}},
    ],
)
def test_what_the_clock_cannot_judge_is_refused(timing: dict[str, Any]) -> None:
    """It would be passed over otherwise."""
    with pytest.raises(FhirError) as refused:
        asked(timing=timing)
    assert refused.value.status == 400


def test_references() -> None:
    """Relative, absolute on this server, and an id alone; nobody else's server."""
    for said in ("Schedule/1", "http://here/fhir/Schedule/1", "1"):
        assert [one.key for one in asked(schedule={"reference": said}).schedules] == ["Schedule/1"]
    for wrong in ("http://there/fhir/Schedule/1", "Patient/1", "#a", "a,b", "../1"):
        with pytest.raises(FhirError):
            asked(schedule={"reference": wrong})
