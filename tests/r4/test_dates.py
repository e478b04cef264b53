# https://hl7.org/fhir/R4/datatypes.html#dateTime
"""Partial dates as half-open UTC ranges."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.outcome import FhirError
from fhir_server.r4.dates import EARLIEST, LATEST, date_range


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc, arg-type]


RANGES = {
    "2013": (at(2013, 1, 1), at(2014, 1, 1)),
    "2013-02": (at(2013, 2, 1), at(2013, 3, 1)),
    "2013-12": (at(2013, 12, 1), at(2014, 1, 1)),
    "2024-02-29": (at(2024, 2, 29), at(2024, 3, 1)),
    "2013-01-14T10:00": (at(2013, 1, 14, 10), at(2013, 1, 14, 10, 1)),
    "2013-01-14T10:00Z": (at(2013, 1, 14, 10), at(2013, 1, 14, 10, 1)),
    "2013-01-14T10:00:05Z": (at(2013, 1, 14, 10, 0, 5), at(2013, 1, 14, 10, 0, 6)),
    "2013-01-14T00:30:00+06:00": (at(2013, 1, 13, 18, 30), at(2013, 1, 13, 18, 30, 1)),
    "2013-01-14T23:30:00-03:30": (at(2013, 1, 15, 3), at(2013, 1, 15, 3, 0, 1)),
    "2016-12-31T23:59:60Z": (at(2017, 1, 1), at(2017, 1, 1, 0, 0, 1)),
    "2013-01-14T10:00:00.5Z": (
        at(2013, 1, 14, 10, 0, 0, 500_000),
        at(2013, 1, 14, 10, 0, 0, 600_000),
    ),
    "2013-01-14T10:00:00.123Z": (
        at(2013, 1, 14, 10, 0, 0, 123_000),
        at(2013, 1, 14, 10, 0, 0, 124_000),
    ),
    "2013-01-14T10:00:00.123456Z": (
        at(2013, 1, 14, 10, 0, 0, 123_000),
        at(2013, 1, 14, 10, 0, 0, 124_000),
    ),
    "9999": (at(9999, 1, 1), LATEST),
    "9999-12-31": (at(9999, 12, 31), LATEST),
    "0001": (EARLIEST, at(2, 1, 1)),
    "0001-01": (EARLIEST, at(1, 2, 1)),
    "0001-01-01": (EARLIEST, at(1, 1, 2)),
    "0001-01-01T00:00:00Z": (EARLIEST, at(1, 1, 1, 0, 0, 1)),
    "9999-12-31T23:59:59-14:00": (LATEST, LATEST),
}


@pytest.mark.parametrize(("text", "expected"), RANGES.items(), ids=RANGES)
def test_ranges(text: str, expected: tuple[datetime, datetime]) -> None:
    """A date covers the time until the next one of the same precision, in UTC."""
    assert date_range(text) == expected


NO_DATES = (
    *("", "13", "2013-", "2013-13", "2013-02-30", "0000", "2013-1-1", "20130114", "2013-01-14T10"),
    *("2013-01-14T24:00:00Z", "2013-01-14T10:60:00Z", "2013-01-14T10:00:61Z", "2013Z"),
    *("2013-01-14T10:00:00+15:00", "2013-01-14T10:00:00+05:60", "2013-01-14 10:00:00Z", "٢٠١٣"),
    "2013-01-14T10:00:00.Z",
)


@pytest.mark.parametrize("text", NO_DATES)
def test_what_is_no_date_is_refused(text: str) -> None:
    """Anything else is refused with the issue code value."""
    with pytest.raises(FhirError) as caught:
        date_range(text)

    assert caught.value.issues[0].code == "value"


# Hypothesis wants its bounds without a zone.
FIRST, LAST = (one.replace(tzinfo=None) for one in (EARLIEST, LATEST - timedelta(seconds=1)))


@given(st.datetimes(FIRST, LAST))
def test_a_range_holds_what_it_was_written_from(moment: datetime) -> None:
    """Whatever the precision a moment is written with, the range of the text holds it."""
    precise = moment.replace(tzinfo=UTC)
    text = precise.isoformat().replace("+00:00", "Z")
    for length in (4, 7, 10):
        low, high = date_range(text[:length])
        assert low <= precise < high
    low, high = date_range(text)
    assert low <= precise < high
    assert low.microsecond % 1000 == high.microsecond % 1000 == 0


@given(st.text(max_size=30))
def test_any_text_is_a_range_or_a_refusal(text: str) -> None:
    """No text makes it fail in another way, and no range is turned round."""
    try:
        low, high = date_range(text)
    except FhirError:
        return
    assert low <= high
