# http://hl7.org/fhirpath/N1/#date
"""Dates and times: forms, order, arithmetic."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.r4.fhirpath.moments import Moment, date_time, moment, order, shifted, time

TEXTS = [
    *("2015", "2015-02", "2015-02-04", "0001-01-01", "9999-12-31"),
    *("2015-02-04T14", "2015-02-04T14:34", "2015-02-04T14:34:28", "2015-02-04T14:34:28.120"),
    *("2015-02-04T14:34:28Z", "2015-02-04T14:34:28.1+10:00", "2015-02-04T14:34:05.001-05:30"),
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_moment_is_written_as_it_was_read(text: str) -> None:
    """Precision, fraction and zone are kept."""
    assert str(date_time(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "15", "2015-13", "2015-00", "2015-02-30", "2015-2-4", "2015-02-04T24:00", "0000"),
        *("2015-02-04T14:60", "2015-02-04T14:34:61", "2015T10", "2015-02-04T14:34+15:00"),
    ],
)
def test_what_is_no_moment(text: str) -> None:
    """Days that no month has, and zones that nobody lives in."""
    assert moment(text) is None


ORDER = [
    ("2018", "2019", -1),
    ("2018", "2018-01", None),
    ("2018-02", "2018-01-31", 1),
    ("2018-03-01", "2018-03-01", 0),
    ("2018-03-01", "2018-03-01T00:00:00Z", None),
    ("2018-03-01", "2018-03-02T00:30:00+14:00", None),
    ("2018-03-01T10:30", "2018-03-01T10:30:00", None),
    ("2018-03-01T10:30:00", "2018-03-01T10:30:00.0", 0),
    ("2018-03-01T10:30:00", "2018-03-01T10:30:00.1", -1),
    ("2018-03-01T10:30:00Z", "2018-03-01T12:30:00+02:00", 0),
    ("2018-03-01T10:30:00Z", "2018-03-01T10:30:00+02:00", 1),
    ("2018-03-01T10:30:00Z", "2018-03-01T10:30:00", None),
    ("2018-03-01T10:30:00Z", "2018-03-03T10:30:00", -1),
    ("2018-03-05T10:30:00", "2018-03-03T10:30:00Z", 1),
    ("2018-01-01T00:30:00+01:00", "2017-12-31T23:30:00Z", 0),
]


@pytest.mark.parametrize(("left", "right", "expected"), ORDER)
def test_the_order(left: str, right: str, expected: int | None) -> None:
    """And the other way round."""
    one, other = date_time(left), date_time(right)
    assert one is not None
    assert other is not None

    assert order(one, other) == expected
    assert order(other, one) == (None if expected is None else -expected)


INSTANTS = st.datetimes(
    min_value=datetime(2, 1, 1),  # noqa: DTZ001
    max_value=datetime(9998, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)


@given(INSTANTS, INSTANTS, st.integers(-14 * 60, 14 * 60))
def test_instants_are_ordered_as_in_time(one: datetime, other: datetime, offset: int) -> None:
    """Whatever zone one of them is written in."""
    left = date_time(_written(one, offset))
    right = date_time(_written(other, 0))
    assert left is not None
    assert right is not None
    seconds = (one.replace(microsecond=0) > other.replace(microsecond=0)) - (
        one.replace(microsecond=0) < other.replace(microsecond=0)
    )

    assert order(left, right) == seconds


def _written(when: datetime, offset: int) -> str:
    local = when + timedelta(minutes=offset)
    sign = "-" if offset < 0 else "+"
    hours, minutes = divmod(abs(offset), 60)
    text = local.replace(microsecond=0, tzinfo=None).isoformat()
    return f"{text}{sign}{hours:02}:{minutes:02}"


SHIFTS = [
    ("2020-02-29", 1, "year", "2021-02-28"),
    ("2020-01-31", 1, "month", "2020-02-29"),
    ("2020-03-31", -1, "month", "2020-02-29"),
    ("2020", 24, "month", "2022"),
    ("2020", 25, "month", "2022"),
    ("2020-01", 1, "year", "2021-01"),
    ("2020-01", 31, "day", "2020-02"),
    ("2020-01-01", 25, "hour", "2020-01-02"),
    ("2020-01-01", 23, "hour", "2020-01-01"),
    ("2020-01-01", 2, "week", "2020-01-15"),
    ("2020-01-01T23:59:59Z", 1, "second", "2020-01-02T00:00:00Z"),
    ("2020-01-01T00:00:00", -1, "second", "2019-12-31T23:59:59"),
    ("2020-01-01T10:00:00.000", 1, "millisecond", "2020-01-01T10:00:00.001"),
    ("2020-01-01T10:00", 90, "second", "2020-01-01T10:01"),
    ("2020-01-01T10", 1, "day", "2020-01-02T10"),
]


@pytest.mark.parametrize(("text", "amount", "unit", "expected"), SHIFTS)
def test_what_is_added(text: str, amount: int, unit: str, expected: str) -> None:
    """The precision stays; the last day of a month is not passed."""
    found = date_time(text)
    assert found is not None
    assert str(shifted(found, Decimal(amount), unit)) == expected


def test_a_time_goes_round() -> None:
    """Midnight is no end."""
    late = time("23:30")
    assert isinstance(late, Moment)

    assert str(shifted(late, Decimal(1), "hour")) == "00:30"
    assert str(shifted(late, Decimal(-24), "hour")) == "23:30"


@given(st.decimals(allow_nan=False, allow_infinity=False), st.sampled_from(TEXTS))
def test_any_amount_can_be_added(amount: Decimal, text: str) -> None:
    """What is beyond the years 1 to 9999 is nothing."""
    found = date_time(text)
    assert found is not None
    for unit in ("year", "month", "week", "day", "hour", "minute", "second", "millisecond"):
        later = shifted(found, amount, unit)
        assert later is None or len(later.parts) == len(found.parts)
