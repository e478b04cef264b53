"""https://hl7.org/fhir/R4/json.html"""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.outcome import FhirError
from fhir_server.r4.json import canonical, decode, decode_stored, decode_value, encode, pretty

DECIMALS = [
    *(
        "1.00",
        "6.30",
        "0.000000001",
        "-0.0",
        "-0",
        "1e2",
        "1.0E+3",
        "1E-7",
        "12345678901234567890.5",
    ),
    "0.1234567890123456789012345678901234",
]


@pytest.mark.parametrize("text", DECIMALS)
def test_a_decimal_keeps_its_text(text: str) -> None:
    """Whatever Python would write, the client gets back the digits that it sent."""
    body = f'{{"value":{text},"list":[{text},{text}]}}'.encode()

    assert encode(decode(body)) == body
    assert encode(decode_stored(body)) == body


def test_a_decimal_is_a_number() -> None:
    """What is compared and computed with is a Decimal, also where its text is unusual."""
    assert decode(b'{"a":1e2}')["a"] + 1 == Decimal(101)
    assert isinstance(decode(b'{"a":1.0}')["a"], Decimal)
    assert type(decode(b'{"a":1}')["a"]) is int


REFUSED = {
    "nothing": (b"", "empty"),
    "an array": (b"[]", "not a JSON object"),
    "a text": (b'"x"', "not a JSON object"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "byte order mark"),
    "a comma too many": (b'{"a":1,\n}', "line 2, column 1"),
    "bytes that are no UTF-8": (b'{"a":"\xff"}', "not UTF-8"),
    "half a surrogate pair": (b'{"a":"\\ud800"}', "not JSON"),
    "UTF-16": ('{"a":1}'.encode("utf-16"), "not JSON"),
    "NaN": (b'{"a":NaN}', "not JSON"),
    "infinity": (b'{"a":-Infinity}', "not JSON"),
    "a leading zero": (b'{"a":01}', "not JSON"),
    "a comment": (b'{"a":1/*x*/}', "not JSON"),
    "something behind": (b'{"a":1}x', "not JSON"),
    "a member twice": (b'{"a":1,"a":2}', "'a' stands twice"),
    "a member twice, one escaped": (b'{"a":1,"\\u0061":2}', "'a' stands twice"),
    "a member twice, colons hidden": (b'{"a":":","a":"\\u003a\\u003a"}', "'a' stands twice"),
    "a member twice, deep down": (b'{"x":[{"y":{"b":null,"c":1,"b":null}}]}', "'b' stands twice"),
    "too deep in objects": (b'{"a":' * 101 + b"1" + b"}" * 101, "100 levels"),
    "too deep in arrays": (b'{"a":' + b"[" * 101 + b"]" * 101 + b"}", "100 levels"),
    "far too deep": (b'{"a":' + b"[" * 100_000, "100 levels"),
    "35 digits": (b'{"a":1.2345678901234567890123456789012345}', "34 digits"),
    "an exponent too large": (b'{"a":1e9999}', "34 digits"),
    "an integer too large": (b'{"a":9223372036854775808}', "64 bits"),
}


@pytest.mark.parametrize(("text", "word"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_resource_is_refused(text: bytes, word: str) -> None:
    """The sentence says what is wrong and, as far as the reader knows, where."""
    with pytest.raises(FhirError, match=word) as refused:
        decode(text)
    assert refused.value.status == 400


@pytest.mark.parametrize("text", DECIMALS)
def test_what_is_stored_keeps_its_text(text: str) -> None:
    """A patch reads what is stored, and writes the numbers that it leaves alone as they were."""
    stored = f'{{"a":[{text},{{"b":{text}}}]}}'.encode()

    assert encode(decode_stored(stored)) == stored


# A JSON value of any kind -> what it is; the limits and refusals are those of objects.
VALUES = {b"[]": [], b"[1,2]": [1, 2], b'"x"': "x", b"null": None, b"1": 1, b" true ": True}


@pytest.mark.parametrize("text", VALUES)
def test_any_json_value_can_be_read(text: bytes) -> None:
    """Patches are arrays; a resource is an object."""
    assert decode_value(text) == VALUES[text]
    with pytest.raises(FhirError, match="not a JSON object"):
        decode(text)


@pytest.mark.parametrize(
    "text",
    [b"", b"[", b"[1,]", b'[{"a":1,"a":2}]', b"[" * 101 + b"]" * 101, b"9" * 40, b"[1e9999]"],
)
def test_what_is_no_json_value_is_refused(text: bytes) -> None:
    """As in an object: duplicates, depth and numbers that cannot be kept."""
    with pytest.raises(FhirError) as refused:
        decode_value(text)
    assert refused.value.status == 400


def test_a_hundred_levels_are_allowed() -> None:
    """The limit itself is not refused."""
    assert decode_value(b"[" * 100 + b"]" * 100)
    assert decode(b'{"a":' * 100 + b"1" + b"}" * 100)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(st.characters(codec="utf-8"))
    | st.decimals(
        allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9
    ),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), JSON, max_size=5))
def test_what_is_encoded_is_decoded(value: dict[str, Any]) -> None:
    """Every JSON object comes back equal, compact or indented, and is not taken for a duplicate."""
    assert decode(encode(value)) == value
    assert decode(pretty(encode(value))) == value


@given(st.dictionaries(st.sampled_from("abcd"), JSON, min_size=1), st.sampled_from("abcd"))
def test_a_repeated_member_is_always_seen(value: dict[str, Any], name: str) -> None:
    """However the rest looks, and however the members are written, the second one is refused."""
    value = {name: None, **value}
    text = encode(value)
    for again in (f'"{name}":null', f'"\\u00{ord(name):02x}" : [":"]'):
        with pytest.raises(FhirError, match="stands twice"):
            decode(text[:-1] + b"," + again.encode() + b"}")


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 9), max_size=6))
def test_the_order_of_members_does_not_count_for_equality(value: dict[str, int]) -> None:
    """The canonical text is the same for the same members in another order."""
    assert canonical(value) == canonical(dict(reversed(value.items())))
    assert json.loads(canonical(value)) == value
