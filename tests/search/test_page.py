# https://hl7.org/fhir/R4/http.html#paging
"""Page links."""

import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.outcome import FhirError
from fhir_server.search.page import (
    PACKED_BYTES_MAX,
    _sealed,
    bound_key,
    cursor,
    digest,
    packed,
    unpacked,
    values_of,
)

KEY = b"k" * 32
VALUES = st.one_of(
    st.none(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.integers(),
    st.floats(allow_nan=False),
    st.decimals(allow_nan=False),
    st.datetimes(timezones=st.just(UTC)),
)


@given(values=st.lists(VALUES, max_size=4).map(tuple))
def test_values_come_back_as_they_were(values: tuple[object, ...]) -> None:
    """Every kind of value survives, with its type and its digits."""
    back = values_of(cursor(values, "s", KEY), "s", KEY)

    assert back == values
    assert list(map(str, back)) == list(map(str, values))
    assert list(map(type, back)) == list(map(type, values))


@given(at=st.integers(0, 200), bit=st.integers(0, 7))
def test_a_changed_link_is_refused(at: int, bit: int) -> None:
    """Whichever bit is changed, the link is no longer ours."""
    text = cursor(("x", Decimal("1.0"), datetime(2020, 1, 1, tzinfo=UTC), "id"), "s", KEY)
    raw = bytearray(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    raw[at % len(raw)] ^= 1 << bit

    with pytest.raises(FhirError):
        values_of(urlsafe_b64encode(raw).decode().rstrip("="), "s", KEY)


@pytest.mark.parametrize("text", ["", "x", "====", "é", "A" * 20_000, "a b", "[]"])
def test_other_texts_are_refused(text: str) -> None:
    """What we did not write is refused with value, and nothing else happens."""
    with pytest.raises(FhirError) as caught:
        values_of(text, "s", KEY)

    assert caught.value.issues[0].code == "value"


def test_a_link_belongs_to_one_question_and_one_server() -> None:
    """Another search, another key and no key at all refuse it."""
    one = digest("Patient", [("family", "a")])
    other = digest("Patient", [("family", "b")])
    text = cursor(("id",), one, KEY)

    assert values_of(text, one, KEY) == ("id",)
    for subject, key in ((other, KEY), (one, b"other"), (one, b"")):
        with pytest.raises(FhirError):
            values_of(text, subject, key)


PARAMETERS = st.lists(
    st.tuples(*[st.text(st.characters(exclude_categories=["Cs"]), max_size=30)] * 2), max_size=9
)


@given(parameters=PARAMETERS)
def test_parameters_come_back_as_they_were(parameters: list[tuple[str, str]]) -> None:
    """Names, values and their order survive."""
    assert unpacked(packed(parameters, "Patient", KEY), "Patient", KEY) == tuple(parameters)


@given(at=st.integers(0, 200), bit=st.integers(0, 7))
def test_changed_parameters_are_refused(at: int, bit: int) -> None:
    """Whichever bit is changed, nothing is unpacked."""
    text = packed([("name", "a" * 50), ("_count", "7")], "Patient", KEY)
    raw = bytearray(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    raw[at % len(raw)] ^= 1 << bit

    with pytest.raises(FhirError):
        unpacked(urlsafe_b64encode(raw).decode().rstrip("="), "Patient", KEY)


def test_parameters_belong_to_one_place_and_one_server() -> None:
    """Another type, another key and no key refuse them; nothing is packed without a key."""
    text = packed([("name", "a")], "Patient", KEY)

    for place, key in (("Person", KEY), ("Patient", b"other"), ("Patient", b"")):
        with pytest.raises(FhirError):
            unpacked(text, place, key)
    assert packed([("name", "a")], "Patient", b"") == ""
    assert packed([("name", "a" * PACKED_BYTES_MAX)], "Patient", KEY) == ""


def test_no_more_is_unpacked_than_was_ever_packed() -> None:
    """Even what is signed with our key is not unpacked without end."""
    bomb = zlib.compress(b" " * 50_000_000)
    text = _sealed(bomb, "Patient parameters", KEY)

    with pytest.raises(FhirError):
        unpacked(text, "Patient", KEY)


def test_a_link_is_read_by_nobody_and_used_by_its_owner_alone() -> None:
    """The values are not in the link, the same place has the same link, and another asker's key
    does not open it."""
    mine, theirs = bound_key(KEY, "user/a/app/1"), bound_key(KEY, "user/b/app/2")
    text = cursor(("Abraham", "id"), "s", mine)

    assert text == cursor(("Abraham", "id"), "s", mine)
    assert b"Abraham" not in urlsafe_b64decode(text + "=" * (-len(text) % 4))
    assert values_of(text, "s", mine) == ("Abraham", "id")
    for key in (theirs, KEY):
        with pytest.raises(FhirError):
            values_of(text, "s", key)
    assert bound_key(KEY, "") == KEY
    assert bound_key(b"", "user/a/app/1") == b""
