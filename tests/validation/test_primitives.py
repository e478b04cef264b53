"""https://hl7.org/fhir/R4/datatypes.html#primitive"""

from calendar import monthrange
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.r4.definitions import Definitions
from fhir_server.validation.primitives import PRIMITIVES, is_kind, is_value

VALUES: dict[str, tuple[list[Any], list[Any]]] = {
    "boolean": ([True, False], [0, 1, "true", None]),
    "integer": ([0, -(2**31), 2**31 - 1], [2**31, True, Decimal("1.0"), "1", 1.0]),
    "unsignedInt": ([0, 2**31 - 1], [-1, 2**31]),
    "positiveInt": ([1], [0, -1]),
    "decimal": ([1, Decimal("1.00"), Decimal("-1E+400")], [True, "1", float("nan")]),
    "string": (["a", " ", "a\tb\r\nc", "\u00a0", "ঢাকা", "a" * 1048576], ["", "\x00", "\x0b"]),
    "markdown": (["# a\n\n* b"], ["", "\x1f"]),
    "code": (["a", "a b", "/min"], ["", " a", "a ", "a  b", "a\n"]),
    "id": (["a", "A-1.b", "a" * 64], ["", "a" * 65, "a_b", "a/b", "a\n", "ä"]),
    "uri": (["a", "urn:oid:1", "oid", "uuid", "o", "http://a/ä"], ["", "a b", "oid:1", "uuid:1"]),
    "oid": (["urn:oid:1.2.3"], ["urn:oid:3.1", "urn:oid:1.02", "1.2.3"]),
    "uuid": (["urn:uuid:c757873d-ec9a-4326-a141-556f43239520"], ["urn:uuid:c757873d", "c757873d"]),
    "date": (["2001", "2001-12", "2000-02-29", "2001-12-31"],
             ["0000", "2001-13", "2001-00", "2001-02-29", "1900-02-29", "2001-1-1", "20010101"]),
    "dateTime": (["2001", "2001-01-01", "2001-01-01T00:00:60Z", "2001-01-01T23:59:59.123+14:00"],
                 ["2001-01-01T24:00:00Z", "2001-01-01T10:00:00", "2001-01-01T10:00:00+14:30",
                  "2001-01-01 10:00:00Z", "2001-04-31"]),
    "instant": (["2001-01-01T00:00:00.000Z"], ["2001-01-01", "2001-02-30T00:00:00Z"]),
    "time": (["00:00:00", "23:59:60.5"], ["24:00:00", "10:00", "10:00:00Z"]),
    "base64Binary": (["QQ==", "QUI=", "QUJD", " QUJD\nQUJD\r\n"], ["", "Q", "QUJ", "Q===", "Q=JD",
                                                               "%%%2@()()", "QQ==QUJD"]),
}  # fmt: skip
ALLOWED = [(type, value) for type, (allowed, _) in VALUES.items() for value in allowed]
REFUSED = [(type, value) for type, (_, refused) in VALUES.items() for value in refused]


def accepts(type: str, value: Any) -> bool:
    """Return whether ``value`` is one of the primitive ``type``."""
    return is_kind(value, PRIMITIVES[type]) and is_value(value, PRIMITIVES[type])


@pytest.mark.parametrize(("type", "value"), ALLOWED)
def test_values_of_the_type(type: str, value: Any) -> None:
    """What the specification allows is accepted."""
    assert accepts(type, value)


@pytest.mark.parametrize(("type", "value"), REFUSED)
def test_values_that_are_none(type: str, value: Any) -> None:
    """What the specification does not allow is refused."""
    assert not accepts(type, value)


def test_every_primitive_of_the_definitions_has_its_rule(definitions: Definitions) -> None:
    """There is a rule for each primitive type of R4."""
    types = {t.name for t in definitions.types.values() if t.kind == "primitive-type"}

    assert types <= PRIMITIVES.keys()


@given(st.dates())
def test_every_day_of_the_calendar_is_a_date(day: date) -> None:
    """A day that the calendar has is a date, and the day after the last of its month is none."""
    last = monthrange(day.year, day.month)[1]

    assert accepts("date", day.isoformat())
    assert not accepts("date", f"{day.isoformat()[:8]}{last + 1}")


@given(st.datetimes(timezones=st.just(UTC)))
def test_every_moment_is_an_instant(moment: datetime) -> None:
    """A moment of any year from 1 to 9999 is an instant and a dateTime, but no date."""
    text = moment.isoformat()

    assert accepts("instant", text)
    assert accepts("dateTime", text)
    assert not accepts("date", text)


STRINGS = sorted(name for name, primitive in PRIMITIVES.items() if primitive.kind == "string")


@given(st.sampled_from(STRINGS), st.text(max_size=30) | st.text("0123456789-:TZ.+ urnoid=Aa/"))
def test_nothing_is_accepted_that_the_specification_refuses(
    definitions: Definitions, type: str, text: str
) -> None:
    """Our patterns are the specification's or stricter."""
    definition = definitions.types.get(type)
    if definition is None or definition.regex is None or not accepts(type, text):
        return
    assert re2.fullmatch(definition.regex, text)
