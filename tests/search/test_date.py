# https://hl7.org/fhir/R4/search.html#date
"""Date parameters."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.outcome import FhirError
from fhir_server.r4.dates import LATEST, date_range
from fhir_server.search.date import PREFIXES, compile_date
from fhir_server.search.parameters import ParameterTable
from tests.search.matching import found_by

FROM_15_MARCH = {"effectivePeriod": {"start": "2013-03-15"}}
FROM_21_JANUARY = {"effectivePeriod": {"start": "2013-01-21"}}
UNTIL_21_JANUARY = {"effectivePeriod": {"end": "2013-01-21"}}


def day(text: str) -> dict[str, Any]:
    return {"effectiveDateTime": text}


# The rows of the specification's table, and boundaries beside them.
CASES: list[tuple[str, dict[str, Any], bool]] = [
    ("eq2013-01-14", day("2013-01-14T00:00:00Z"), True),
    ("2013-01-14", day("2013-01-14T10:00:00Z"), True),
    ("2013-01-14", day("2013-01-15T00:00:00Z"), False),
    ("2013-01-14", day("2013-01"), False),
    ("2013", day("2013-01-14"), True),
    ("2013-01-14", day("2013-01-14T23:30:00-03:00"), False),
    ("2013-01-15", day("2013-01-14T23:30:00-03:00"), True),
    ("ne2013-01-14", day("2013-01-15T00:00:00Z"), True),
    ("ne2013-01-14", day("2013-01-14T00:00:00Z"), False),
    ("ne2013-01-14", day("2013-01-14T10:00:00Z"), False),
    ("ne2013-01-14", day("2013-01"), True),
    ("lt2013-01-14T10:00", day("2013-01-14"), True),
    ("lt2013-01-14T10:00", day("2013-01-14T10:00:00Z"), False),
    ("gt2013-01-14T10:00", day("2013-01-14"), True),
    ("gt2013-01-14T10:00", day("2013-01-14T10:00:59Z"), False),
    ("gt2013-01-14T10:00", day("2013-01-14T10:01:00Z"), True),
    ("ge2013-03-14", FROM_21_JANUARY, True),
    ("ge2013-03-14", UNTIL_21_JANUARY, False),
    ("ge2013-03-14", day("2013-03-14"), True),
    ("ge2013-03-14", day("2013-03-13T23:59:59Z"), False),
    ("le2013-03-14", FROM_21_JANUARY, True),
    ("le2013-03-14", FROM_15_MARCH, False),
    ("le2013-03-14", day("2013-03-14T23:59:59Z"), True),
    ("le2013-03-14", day("2013-03-15"), False),
    ("sa2013-03-14", FROM_15_MARCH, True),
    ("sa2013-03-14", FROM_21_JANUARY, False),
    ("sa2013-03-14", UNTIL_21_JANUARY, False),
    ("eb2013-03-14", FROM_15_MARCH, False),
    ("eb2013-03-14", FROM_21_JANUARY, False),
    ("eb2013-03-14", UNTIL_21_JANUARY, True),
    ("gt9999-12-31", FROM_15_MARCH, True),
    ("9999-12-31", {"effectivePeriod": {"start": "9999-12-31"}}, False),
    ("sa9999", FROM_15_MARCH, False),
    ("gt9999-12-31", {"effectivePeriod": {"end": "9999-12-31"}}, False),
    ("lt0001-01-01", UNTIL_21_JANUARY, True),
    ("lt0001-01-01", {"effectivePeriod": {"start": "0001"}}, False),
    ("ap2013-03-14", day("2013-03-14"), True),
    ("ap2013-03-14", day("2013-04-14"), True),  # now is 2026: a tenth is more than a year
    ("ap2013-03-14", day("2015-06-15"), False),
    ("2013-03", {"effectiveTiming": {"event": ["2013-03-02", "2013-03-20"]}}, True),
    ("2013-03", {"effectiveTiming": {"event": ["2013-03-02", "2013-04-20"]}}, False),
    ("ge2013-03-10", {"effectiveTiming": {"event": ["2013-03-02", "2013-04-20"]}}, True),
    (
        "2013-03",
        {"effectiveTiming": {"repeat": {"boundsPeriod": {"start": "2013-03", "end": "2013-03"}}}},
        True,
    ),
    ("2013", {"effectiveTiming": {"repeat": {"frequency": 1}}}, False),
    ("2013", {"effectiveInstant": "2013-01-14T10:00:00.123Z"}, True),
    ("2013-01-14T10:00:00.123Z", {"effectiveInstant": "2013-01-14T10:00:00.123Z"}, True),
    ("2013-01-14T10:00:00 06:00", day("2013-01-14T10:00:00+06:00"), True),  # a bare plus sign
    ("2013,2014-05", day("2014-05-02"), True),
]


@pytest.mark.parametrize(("value", "effective", "expected"), CASES)
def test_prefixes(
    table: ParameterTable, value: str, effective: dict[str, Any], expected: bool
) -> None:
    """Ranges are compared as the specification's two tables of prefixes say."""
    observation = {"resourceType": "Observation", **effective}

    assert found_by(table, observation, ("date", value)) is expected


def test_last_updated_is_a_point_in_time(table: ParameterTable) -> None:
    """``_lastUpdated`` is asked of the document, to the millisecond."""
    patient = {"resourceType": "Patient"}  # last updated at 2026-01-01T12:00:00.000Z
    yes = ("2026-01-01", "2026-01-01T12:00:00.000Z", "ge2026-01-01T12:00:00Z", "lt2026-01-01T12:01")
    no = ("gt2026-01-01T12:00:00.000Z", "lt2026-01-01T12:00:00Z", "sa2026-01-01", "eb2026-01-01")

    for value in (*yes, "le2026-01-01T12:00:00Z", "ne2025", "ap2026-01-01"):
        assert found_by(table, patient, ("_lastUpdated", value))
    for value in (*no, "ne2026", "2025", "gt2026-01-01"):
        assert not found_by(table, patient, ("_lastUpdated", value))


def test_several_dates_are_compared_one_by_one(table: ParameterTable) -> None:
    """A date before and one after the range asked for do not add up to one inside it."""
    events = [{"detail": {"scheduledPeriod": {"start": at, "end": at}}} for at in ("2012", "2015")]
    plan = {"resourceType": "CarePlan", "activity": events}

    assert found_by(table, plan, ("activity-date", "2012"))
    assert not found_by(table, plan, ("activity-date", "2013"))


@pytest.mark.parametrize("value", ["", "yesterday", "xx2013", "ge", "2013-13", "gege2013"])
def test_what_is_no_date_is_refused(value: str) -> None:
    """An unknown prefix is part of what is then no date."""
    with pytest.raises(FhirError) as caught:
        compile_date("keys.date", value)

    assert caught.value.issues[0].code == "value"


MOMENT = datetime(2015, 1, 1)  # noqa: DTZ001 - a day


# What each prefix means, of a stored range [begin, end) and an asked one [low, high).
MEANS: dict[str, Callable[[datetime, datetime, datetime, datetime], bool]] = {
    "eq": lambda begin, end, low, high: low <= begin and end <= high,
    "ne": lambda begin, end, low, high: begin < low or end > high,
    "gt": lambda begin, end, low, high: end > high,
    "lt": lambda begin, end, low, high: begin < low,
    "ge": lambda begin, end, low, high: begin >= low or end > high,
    "le": lambda begin, end, low, high: begin < low or end <= high,
    "sa": lambda begin, end, low, high: begin >= high,
    "eb": lambda begin, end, low, high: end <= low,
}
NEAR = st.datetimes(*(at.replace(tzinfo=None) for at in date_range("2021")))
LENGTHS = st.sampled_from((4, 7, 10, 19))


@given(
    begin=NEAR,
    days=st.sampled_from((0.0, 0.01, 0.9, 1.0, 1.1, 20.0, 31.9, 33.0, 366.0, 368.0, 900.0, None)),
    asked=NEAR,
    length=LENGTHS,
)
def test_a_period_of_any_length_is_found_by_what_it_means(
    table: ParameterTable, begin: datetime, days: float | None, asked: datetime, length: int
) -> None:
    """The bounds that keep a search short leave out nothing, be a range short, long or endless."""
    period = {"start": f"{begin:%Y-%m-%dT%H:%M:%S}Z"}
    if days is not None:
        period["end"] = f"{begin + timedelta(days=days):%Y-%m-%dT%H:%M:%S}Z"
    text = f"{asked:%Y-%m-%dT%H:%M:%S}"[:length] + ("Z" if length == 19 else "")
    low, high = date_range(text)
    covered = (
        date_range(period["start"])[0],
        date_range(period["end"])[1] if "end" in period else LATEST,
    )
    single = {"resourceType": "Observation", "effectivePeriod": period}
    several = {
        "resourceType": "CarePlan",
        "activity": [{"detail": {"scheduledPeriod": period}}],
    }
    for prefix, means in MEANS.items():
        expected = means(*covered, low, high)
        assert found_by(table, single, ("date", prefix + text)) is expected, prefix
        assert found_by(table, several, ("activity-date", prefix + text)) is expected, prefix


MOMENTS = st.datetimes(*(at.replace(tzinfo=None) for at in date_range("1900")))
# What each prefix says of a value asked about itself.
OF_ITSELF = {**dict.fromkeys(("eq", "ge", "le", "ap", ""), True)}


@given(moment=MOMENTS, length=st.sampled_from((4, 7, 10, 19)))
def test_a_date_finds_what_was_indexed_from_it(
    table: ParameterTable, moment: datetime, length: int
) -> None:
    """A date equals itself and is neither before nor after itself, whatever its precision."""
    text = moment.replace(microsecond=0).isoformat()[:length] + ("Z" if length == 19 else "")
    observation = {"resourceType": "Observation", "effectiveDateTime": text}

    for prefix in ("", *PREFIXES):
        found = found_by(table, observation, ("date", prefix + text))
        assert found is OF_ITSELF.get(prefix, False)


@given(days=st.lists(st.integers(0, 4000), min_size=2, max_size=2), open_at=st.integers(0, 2))
def test_a_period_finds_what_was_indexed_from_it(
    table: ParameterTable, days: list[int], open_at: int
) -> None:
    """A period is around its own ends, and neither outside of them nor missing."""
    first, last = (MOMENT + timedelta(days=day) for day in sorted(days))
    ends = {"start": f"{first:%Y-%m-%d}", "end": f"{last:%Y-%m-%d}"}
    period = {name: day for place, (name, day) in enumerate(ends.items()) if place + 1 != open_at}
    written = {"resourceType": "Observation", "effectivePeriod": period}
    start, end = ends["start"], ends["end"]

    assert found_by(table, written, ("date", start)) is (start == end and not open_at)
    assert found_by(table, written, ("date", f"lt{start}")) is ("start" not in period)
    assert found_by(table, written, ("date", f"gt{end}")) is ("end" not in period)
    assert found_by(table, written, ("date", f"ap{start}"), ("date", f"ap{end}"))
    assert not found_by(table, written, ("date", f"sa{end}"))
    assert not found_by(table, written, ("date", f"eb{start}"))
    assert not found_by(table, written, ("date:missing", "true"))
