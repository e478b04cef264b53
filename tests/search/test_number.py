# https://hl7.org/fhir/R4/search.html#number
"""Number parameters."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.outcome import FhirError
from fhir_server.search.number import PREFIXES, compile_number
from fhir_server.search.parameters import ParameterTable
from tests.search.matching import found_by


def risk(probability: Any) -> dict[str, Any]:
    name = "probabilityRange" if isinstance(probability, dict) else "probabilityDecimal"
    return {"resourceType": "RiskAssessment", "prediction": [{name: probability}]}


TENTHS = {"low": {"value": Decimal("0.1")}, "high": {"value": Decimal("0.3")}}
CASES: list[tuple[str, Any, bool]] = [
    ("100", Decimal("99.5"), True),
    ("100", Decimal("100.5"), False),
    ("100.00", Decimal("99.99"), False),
    ("1e2", Decimal("95"), True),
    ("1e2", Decimal("105"), False),
    ("lt100", Decimal("99.999"), True),
    ("lt100", 100, False),
    ("le100", 100, True),
    ("gt100", 100, False),
    ("gt100", Decimal("100.001"), True),
    ("ge100", 100, True),
    ("ge100", Decimal("99.999"), False),
    ("ne100", Decimal("100.4"), False),
    ("ne100", Decimal("100.5"), True),
    ("sa100", 101, True),
    ("sa100", 100, False),
    ("eb100", 99, True),
    ("eb100", 100, False),
    ("ap100", 110, True),
    ("ap100", 89, False),
    ("ap-100", -110, True),
    ("-3", -3, True),
    ("0.2", TENTHS, False),
    ("gt0.2", TENTHS, True),
    ("sa0.2", TENTHS, False),
    ("sa0.05", TENTHS, True),
    ("eb0.4", TENTHS, True),
    ("ge0.9", {"low": {"value": 1}}, True),
    ("lt0", {"high": {"value": 1}}, True),
    ("5", {"low": {}}, False),
]


@pytest.mark.parametrize(("value", "probability", "expected"), CASES)
def test_prefixes(table: ParameterTable, value: str, probability: Any, expected: bool) -> None:
    """A number asked for has a range with eq and ne only; a stored one is exactly itself."""
    assert found_by(table, risk(probability), ("probability", value)) is expected


@pytest.mark.parametrize("value", ["", "x", "gt", "1..2", "gt1|x", "NaN"])
def test_what_is_no_number_is_refused(value: str) -> None:
    """Any other text is refused with value."""
    with pytest.raises(FhirError) as caught:
        compile_number("keys.x", value)

    assert caught.value.issues[0].code == "value"


OF_ITSELF = {**dict.fromkeys(("", "eq", "ge", "le", "ap"), True)}
NUMBERS = st.decimals(-1000, 1000, places=3) | st.integers(-(10**9), 10**9)


@given(value=NUMBERS)
def test_a_number_finds_what_was_indexed_from_it(
    table: ParameterTable, value: Decimal | int
) -> None:
    """A number equals itself, and is neither above nor below itself."""
    for prefix in ("", *PREFIXES):
        found = found_by(table, risk(value), ("probability", f"{prefix}{value}"))
        assert found is OF_ITSELF.get(prefix, False)


@given(ends=st.lists(st.decimals(-100, 100, places=2), min_size=2, max_size=2))
def test_a_range_finds_what_was_indexed_from_it(table: ParameterTable, ends: list[Decimal]) -> None:
    """A Range reaches from its low to its high, and not beyond."""
    low, high = sorted(ends)
    written = risk({"low": {"value": low}, "high": {"value": high}})

    assert found_by(table, written, ("probability", f"ge{high}"), ("probability", f"le{low}"))
    assert found_by(table, written, ("probability", f"ap{low}"))
    assert found_by(table, written, ("probability", f"gt{low}")) is (low < high)
    assert found_by(table, written, ("probability", f"lt{high}")) is (low < high)
    for wrong in (f"gt{high}", f"lt{low}", f"sa{low}", f"eb{high}"):
        assert not found_by(table, written, ("probability", wrong))
    assert not found_by(table, written, ("probability:missing", "true"))
