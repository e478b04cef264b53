# https://hl7.org/fhir/R4/search.html#quantity
"""Quantity parameters."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.outcome import FhirError
from fhir_server.search.escape import escape
from fhir_server.search.parameters import ParameterTable
from fhir_server.search.quantity import compile_quantity
from tests.search.matching import found_by

UCUM = "http://unitsofmeasure.org"
MG = {"value": Decimal("5.4"), "unit": "milligram", "system": UCUM, "code": "mg"}


def observation(**quantity: Any) -> dict[str, Any]:
    return {"resourceType": "Observation", "valueQuantity": quantity}


CASES: list[tuple[str, dict[str, Any], bool]] = [
    (f"5.4|{UCUM}|mg", MG, True),
    (f"5.4|{UCUM}|g", MG, False),
    ("5.4|http://other|mg", MG, False),
    (f"5.4|{UCUM}|", MG, True),
    ("5.4||mg", MG, True),
    ("5.4||milligram", MG, True),
    ("5.4||g", MG, False),
    ("5.4", MG, True),
    ("5.4||", MG, True),
    ("5", MG, True),
    ("5.40", MG, True),
    ("5.41", MG, False),
    (f"le5.4|{UCUM}|mg", MG, True),
    (f"lt5.4|{UCUM}|mg", MG, False),
    ("ne5||mg", MG, False),
    ("ne7||mg", MG, True),
    ("ne7||g", MG, False),
    ("ap5||mg", MG, True),
    ("gt10", {"value": 60, "comparator": ">"}, True),
    ("gt100", {"value": 60, "comparator": ">"}, True),
    ("lt60", {"value": 60, "comparator": ">"}, False),
    ("lt10", {"value": 60, "comparator": "<="}, True),
    ("60", {"value": 60, "comparator": "<"}, False),
    ("5", {"unit": "mg"}, False),
]


@pytest.mark.parametrize(("value", "quantity", "expected"), CASES)
def test_value_forms(
    table: ParameterTable, value: str, quantity: dict[str, Any], expected: bool
) -> None:
    """Number, system and code, or number and unit; a comparator makes a stored value a range."""
    assert found_by(table, observation(**quantity), ("value-quantity", value)) is expected


def test_number_and_unit_are_of_one_quantity(table: ParameterTable) -> None:
    """The number of one component and the unit of another do not add up to a match."""
    components = [{"valueQuantity": {"value": 1, "unit": "a"}}, {"valueQuantity": {"value": 2}}]
    both = {"resourceType": "Observation", "component": components}

    assert found_by(table, both, ("combo-value-quantity", "1||a"))
    assert not found_by(table, both, ("combo-value-quantity", "2||a"))


def test_money_and_ranges(table: ParameterTable) -> None:
    """Money has the currency as its code; a Range has the limits and the unit it states."""
    invoice = {"resourceType": "Invoice", "totalNet": {"value": 40, "currency": "BDT"}}
    onset = {"low": {"value": 30, "code": "a", "system": UCUM}, "high": {"value": 40}}
    condition = {"resourceType": "Condition", "onsetRange": onset}

    assert found_by(table, invoice, ("totalnet", "40|urn:iso:std:iso:4217|BDT"))
    assert found_by(table, condition, ("onset-age", "gt35||a"))
    assert not found_by(table, condition, ("onset-age", "35"))


@pytest.mark.parametrize("value", ["", "|x|y", "5|mg", "5|a|b|c", "x||mg"])
def test_what_is_no_quantity_is_refused(value: str) -> None:
    """Two parts, four parts or no number are refused with value."""
    with pytest.raises(FhirError) as caught:
        compile_quantity("keys.x", value)

    assert caught.value.issues[0].code == "value"


TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12)


@given(value=st.decimals(-100, 100, places=2), system=TEXTS, code=TEXTS)
def test_a_quantity_finds_what_was_indexed_from_it(
    table: ParameterTable, value: Decimal, system: str, code: str
) -> None:
    """The query written from a quantity finds it; with another code it does not."""
    written = observation(value=value, system=system, code=code)
    unit = f"{escape(system)}|{escape(code)}"

    assert found_by(table, written, ("value-quantity", f"{value}|{unit}"))
    assert found_by(table, written, ("value-quantity", f"ge{value}||{escape(code)}"))
    assert not found_by(table, written, ("value-quantity", f"{value}|{unit}x"))
    assert not found_by(table, written, ("value-quantity", f"ne{value}|{unit}"))
