# https://hl7.org/fhir/R4/search.html#escaping
"""Separators and escapes of search values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.outcome import FhirError
from fhir_server.search.escape import escape, split, unescape

SPLITS = {
    "a,b": ["a", "b"],
    r"a\,b": [r"a\,b"],
    r"a\\,b": [r"a\\", "b"],
    ",": ["", ""],
    "": [""],
    "a\\": ["a\\"],
}


@pytest.mark.parametrize(("value", "expected"), SPLITS.items(), ids=map(repr, SPLITS))
def test_split(value: str, expected: list[str]) -> None:
    """A separator counts unless an odd number of backslashes stands before it."""
    assert split(value, ",") == expected


@given(st.lists(st.text(alphabet=r"ab,|$\ ", max_size=6), min_size=1, max_size=4))
def test_what_is_escaped_survives(parts: list[str]) -> None:
    """Escaped texts joined by a separator come apart into what they were."""
    joined = ",".join(map(escape, parts))

    assert [unescape(part) for part in split(joined, ",")] == parts


@pytest.mark.parametrize("value", [r"a\b", "a\\", r"\x"])
def test_a_stray_backslash_is_refused(value: str) -> None:
    """Only the four escapes of the specification exist."""
    with pytest.raises(FhirError) as caught:
        unescape(value)

    assert caught.value.issues[0].code == "value"
