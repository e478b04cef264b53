"""HL7 v2.5.1, 2.A.22; design/hl7v2.md, section 15: times (H62)."""

import re
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.hl7v2.remembering import remembered
from adapters.hl7v2.times import Zone, clock, is_unclear, moment

DHAKA, BERLIN, NEW_YORK = Zone("Asia/Dhaka"), Zone("Europe/Berlin"), Zone("America/New_York")
SYDNEY, LONDON = Zone("Australia/Sydney"), Zone("Europe/London")
UTC = Zone()


@pytest.mark.parametrize(
    ("text", "zone", "means"),
    [
        ("1984", UTC, "1984"),
        ("198407", UTC, "1984-07"),
        ("19840712", UTC, "1984-07-12"),
        ("1984071213", UTC, "1984-07-12T13:00:00+00:00"),
        ("198407121305", UTC, "1984-07-12T13:05:00+00:00"),
        ("19840712130506", DHAKA, "1984-07-12T13:05:06+06:00"),
        ("19840712130506.1234", DHAKA, "1984-07-12T13:05:06.1234+06:00"),
        ("19840712130506+0545", DHAKA, "1984-07-12T13:05:06+05:45"),
        ("19840712130506-0500", UTC, "1984-07-12T13:05:06-05:00"),
        ("19840712130506+0000", DHAKA, "1984-07-12T13:05:06+00:00"),
        ("20240115120000", BERLIN, "2024-01-15T12:00:00+01:00"),
        ("20240715120000", BERLIN, "2024-07-15T12:00:00+02:00"),
        ("20240115120000", NEW_YORK, "2024-01-15T12:00:00-05:00"),
        ("20240715120000", NEW_YORK, "2024-07-15T12:00:00-04:00"),
        ("20240115120000", SYDNEY, "2024-01-15T12:00:00+11:00"),
        ("20240715120000", SYDNEY, "2024-07-15T12:00:00+10:00"),
        ("20240115120000", LONDON, "2024-01-15T12:00:00+00:00"),
        ("20240715120000", LONDON, "2024-07-15T12:00:00+01:00"),
        # the hour that comes twice is the first, the hour that does not come is the later
        ("20241027023000", BERLIN, "2024-10-27T02:30:00+02:00"),
        ("20241103013000", NEW_YORK, "2024-11-03T01:30:00-04:00"),
        ("20240331023000", BERLIN, "2024-03-31T03:30:00+02:00"),
        ("20240310023000", NEW_YORK, "2024-03-10T03:30:00-04:00"),
        # without a zone the header's offset, else the server's zone
        ("20240115120000", Zone(header="+0600"), "2024-01-15T12:00:00+06:00"),
        ("20240115120000", Zone(server="Asia/Dhaka"), "2024-01-15T12:00:00+06:00"),
        ("20240115120000", Zone("Asia/Dhaka", "+0600"), "2024-01-15T12:00:00+06:00"),
        ("20240115120000", Zone("Asia/Dhaka", "+0100"), "2024-01-15T12:00:00+01:00"),
        ("20240115120000", Zone("No/Where", "+0100"), "2024-01-15T12:00:00+01:00"),
        ("20240229", UTC, "2024-02-29"),
        ("00010101", UTC, "0001-01-01"),
        ("20000229", UTC, "2000-02-29"),
        ("07991231235959", UTC, "0799-12-31T23:59:59+00:00"),
        ("000101010000", UTC, "0001-01-01T00:00:00+00:00"),
        ("99991231235959", UTC, "9999-12-31T23:59:59+00:00"),
        ("20240101000000", DHAKA, "2024-01-01T00:00:00+06:00"),
        ("202401010000-1200", UTC, "2024-01-01T00:00:00-12:00"),
        ("202401010000+1400", UTC, "2024-01-01T00:00:00+14:00"),
        ("20240101120000.5+0600", UTC, "2024-01-01T12:00:00.5+06:00"),
        ("20240331005900", LONDON, "2024-03-31T00:59:00+00:00"),
        ("20240331020000", LONDON, "2024-03-31T02:00:00+01:00"),
        ("20240407023000", SYDNEY, "2024-04-07T02:30:00+11:00"),
        ("20241006023000", SYDNEY, "2024-10-06T03:30:00+11:00"),
    ],
)
def test_h62_a_time_keeps_its_precision_and_offset(text: str, zone: Zone, means: str) -> None:
    """A date never gets a time; an offset is served as it was sent."""
    assert moment(text, zone) == means


@pytest.mark.parametrize(
    "text",
    """20230229 20240231 20241301 20240100 00000101 0000 2024010124 202401012460 20240101236099
    202 20245 2024-01-01 x 20240101T12 20240101120000+9900 20240101120000+0560
    20240101120000.+0100""".split(),
)
def test_h62_what_is_no_time_gives_no_value(text: str) -> None:
    """A bad day is never moved."""
    assert moment(text, UTC) is None


@pytest.mark.parametrize(
    ("precision", "means"),
    [
        ("Y", "2024"),
        ("L", "2024-01"),
        ("D", "2024-01-15"),
        ("H", "2024-01-15T12:00:00+00:00"),
        ("M", "2024-01-15T12:34:00+00:00"),
        ("S", "2024-01-15T12:34:56+00:00"),
    ],
)
def test_h62_the_degree_of_precision_cuts(precision: str, means: str) -> None:
    """TS.2 of versions before 2.6."""
    assert moment("20240115123456", UTC, precision) == means


def test_hours_that_come_twice_or_never_are_noticed() -> None:
    """Both ends of summer time."""
    assert is_unclear("20241027023000", BERLIN)
    assert is_unclear("20240331023000", BERLIN)
    assert not is_unclear("20240331033000", BERLIN)
    assert not is_unclear("20240331023000+0100", BERLIN)


@pytest.mark.parametrize(
    ("text", "means"),
    [("22", "22:00:00"), ("2231", "22:31:00"), ("223145.5", "22:31:45.5"), ("2460", None)],
)
def test_a_time_of_day(text: str, means: str | None) -> None:
    """R4's time has seconds."""
    assert clock(text) == means


# https://hl7.org/fhir/R4/datatypes.html#dateTime
FHIR = re.compile(
    r"([0-9]([0-9]([0-9][1-9]|[1-9]0)|[1-9]00)|[1-9]000)(-(0[1-9]|1[0-2])(-(0[1-9]|[1-2][0-9]|3[0-1])"
    r"(T([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?"
    r"(Z|[+-]((0[0-9]|1[0-3]):[0-5][0-9]|14:00)))?)?)?"
)
ZONES = (UTC, DHAKA, BERLIN, NEW_YORK, SYDNEY, LONDON, Zone(header="-0330"))


@given(
    st.datetimes(),
    st.sampled_from([None, *range(-14 * 60, 14 * 60 + 1, 15)]),
    st.sampled_from([4, 6, 8, 10, 12, 14]),
    st.sampled_from(ZONES),
)
def test_h62_any_time_is_served_as_it_was_sent(
    wall: datetime, offset: int | None, length: int, zone: Zone
) -> None:
    """Its digits and its offset come back, and what comes is a dateTime of FHIR."""
    hours, minutes = divmod(abs(offset or 0), 60)
    sign = "-" if (offset or 0) < 0 else "+"
    mark = "" if offset is None else f"{sign}{hours:02d}{minutes:02d}"
    digits = (
        f"{wall.year:04d}{wall.month:02d}{wall.day:02d}"
        f"{wall.hour:02d}{wall.minute:02d}{wall.second:02d}"
    )[:length]
    made = moment(digits + mark, zone)

    assert made is not None
    assert FHIR.fullmatch(made), made
    if length <= 8:
        assert made.replace("-", "") == digits
    elif offset is not None or zone is UTC:
        shown = made[:19].replace("-", "").replace(":", "").replace("T", "")
        assert shown == digits.ljust(14, "0")
        assert offset is None or made[19:].replace(":", "") == mark


@given(st.text("0123456789+-.", max_size=24))
def test_any_text_is_a_time_or_none(text: str) -> None:
    """Nothing else comes out, and digits are never invented: the text begins with the year."""
    made = moment(text, NEW_YORK)
    assert made is None or made[:4] == text.strip()[:4]
    assert made is None or FHIR.fullmatch(made)
    clock(text)


def test_only_short_texts_are_remembered() -> None:
    """What a peer sends may be as long as a message; thousands of such would be remembered."""
    asked: list[str] = []

    @remembered(8)
    def length(text: str) -> int:
        asked.append(text)
        return len(text)

    assert [length("1" * count) for count in (5, 5, 500, 500)] == [5, 5, 500, 500]
    assert [len(text) for text in asked] == [5, 500, 500]
