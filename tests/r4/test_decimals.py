# https://hl7.org/fhir/R4/search.html#number
"""Numbers and their implicit ranges."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.outcome import FhirError
from fhir_server.r4.decimals import DIGITS_MAX, implicit_range, number

# The rows of the specification, and some beside them.
RANGES = {
    "100": ("99.5", "100.5"),
    "100.00": ("99.995", "100.005"),
    "1e2": ("95", "105"),
    "1.00e2": ("99.5", "100.5"),
    "5.4": ("5.35", "5.45"),
    "5.40e-3": ("0.005395", "0.005405"),
    "2.0": ("1.95", "2.05"),
    "-3": ("-3.5", "-2.5"),
    "0": ("-0.5", "0.5"),
    "+1.5": ("1.45", "1.55"),
}


@pytest.mark.parametrize(("text", "expected"), RANGES.items(), ids=RANGES)
def test_implicit_ranges(text: str, expected: tuple[str, str]) -> None:
    """The last digit written is taken as rounded."""
    assert implicit_range(text) == tuple(map(Decimal, expected))


NO_NUMBERS = (
    "",
    "NaN",
    "Infinity",
    "1,5",
    "1.",
    ".5",
    "0x10",
    "1e",
    "1_000",
    "--1",
    "1e99999",
    "\u0661",
)


@pytest.mark.parametrize("text", [*NO_NUMBERS, "9" * (DIGITS_MAX + 1), "1e6001"])
def test_what_is_no_number_is_refused(text: str) -> None:
    """Other texts, and numbers that the database cannot hold, are refused with value."""
    with pytest.raises(FhirError) as caught:
        implicit_range(text)

    assert caught.value.issues[0].code == "value"


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9))
def test_the_range_of_a_number_holds_it(value: Decimal) -> None:
    """A number lies strictly inside its own implicit range, and is read as it was written."""
    text = str(value)
    if len(value.as_tuple().digits) > DIGITS_MAX or len(text) > DIGITS_MAX:
        return
    low, high = implicit_range(text)

    assert low < value < high
    assert str(number(text)) == text
