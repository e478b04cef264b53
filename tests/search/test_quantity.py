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
from fhir_server.search.quantity import compile_quantity, sortable
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


def ucum(value: str, code: str, **more: Any) -> dict[str, Any]:
    return {"value": Decimal(value), "system": UCUM, "code": code, **more}


# The value asked for, its unit, what is stored, whether it is found.
ACROSS: list[tuple[str, str, dict[str, Any], bool]] = [
    ("5.4", "mg/dL", ucum("0.054", "g/L"), True),
    ("0.054", "g/L", ucum("5.4", "mg/dL"), True),
    ("5.4", "mmol/L", ucum("5400", "umol/L"), True),
    ("5.4", "mmol/L", ucum("5.4", "mg/dL"), False),
    ("5.4", "mmol/L", ucum("5.44", "mmol/L"), True),
    ("5.4", "mmol/L", ucum("5450", "umol/L"), False),
    ("5.40", "mmol/L", ucum("5440", "umol/L"), False),
    ("ne5.4", "mmol/L", ucum("5400", "umol/L"), False),
    ("ne5.4", "mmol/L", ucum("5500", "umol/L"), True),
    ("ne5.4", "mmol/L", ucum("5500", "g"), False),
    ("gt1", "kg", ucum("1000", "g"), False),
    ("gt1", "kg", ucum("1000.1", "g"), True),
    ("ge1", "kg", ucum("1000", "g"), True),
    ("lt1", "kg", ucum("1000", "g"), False),
    ("le1", "kg", ucum("1000", "g"), True),
    ("lt1", "kg", ucum("-5", "g"), True),
    ("gt-1", "kg", ucum("-5", "g"), True),
    ("ge0", "kg", ucum("0", "mg"), True),
    ("sa1", "kg", ucum("1.5", "kg"), True),
    ("eb1", "kg", ucum("1.5", "kg"), False),
    ("ap100", "[lb_av]", ucum("45", "kg"), True),
    ("ap100", "[lb_av]", ucum("55", "kg"), False),
    ("98.6", "[degF]", ucum("37.0", "Cel"), True),
    ("gt38", "Cel", ucum("101", "[degF]"), True),
    ("gt38", "Cel", ucum("100", "[degF]"), False),
    ("gt100", "mg", ucum("1", "g", comparator=">"), True),
    ("lt100", "mg", ucum("1", "g", comparator=">"), False),
    ("lt100", "mg", ucum("1", "g", comparator="<"), True),
    ("7", "[pH]", ucum("7", "[pH]"), True),
    ("7", "[pH]", ucum("7", "1"), False),
    ("7", "tablet", ucum("7", "tablet"), True),
    ("1", "[iU]", ucum("1", "U"), False),
    ("1", "g", {"value": 1, "system": "http://other", "code": "g"}, False),
]


@pytest.mark.parametrize(("value", "code", "quantity", "expected"), ACROSS)
def test_across_units(
    table: ParameterTable, value: str, code: str, quantity: dict[str, Any], expected: bool
) -> None:
    """With a code of UCUM all units of the dimension are compared, by the same precision rules."""
    asked = f"{value}|{UCUM}|{code}"
    several = {"resourceType": "Observation", "component": [{"valueQuantity": quantity}]}

    assert found_by(table, observation(**quantity), ("value-quantity", asked)) is expected
    assert found_by(table, several, ("component-value-quantity", asked)) is expected


def test_across_units_inside_a_composite(table: ParameterTable) -> None:
    """The value of a composite is compared across units as well."""
    coded = {**observation(**ucum("5.4", "mg/dL")), "code": {"coding": [{"code": "glu"}]}}

    assert found_by(table, coded, ("code-value-quantity", f"glu$0.054|{UCUM}|g/L"))
    assert not found_by(table, coded, ("code-value-quantity", f"glu$0.055|{UCUM}|g/L"))
    assert not found_by(table, coded, ("code-value-quantity", f"ldl$0.054|{UCUM}|g/L"))


@given(st.lists(st.decimals(allow_nan=False, allow_infinity=False), min_size=2, max_size=2))
def test_the_order_of_texts_is_that_of_numbers(numbers: list[Decimal]) -> None:
    """Two numbers compare as the texts that stand for them do."""
    low, high = numbers

    assert (sortable(low) < sortable(high)) is (low < high)
    assert (sortable(low) == sortable(high)) is (low == high)


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


@given(
    value=st.integers(-(10**6), 10**6),
    units=st.sampled_from([("mg", "g", 3), ("mm", "m", 3), ("mg/dL", "g/L", 2), ("mL", "L", 3)]),
    comparator=st.sampled_from(["", "<", ">"]),
)
def test_a_quantity_is_found_in_another_unit(
    table: ParameterTable, value: int, units: tuple[str, str, int], comparator: str
) -> None:
    """What was written in one unit of UCUM is found by the same in another, not by its negation."""
    unit, larger, places = units
    stated = {"comparator": comparator} if comparator else {}
    written = observation(value=Decimal(value), system=UCUM, code=unit, **stated)
    asked = f"{Decimal(value).scaleb(-places):f}|{UCUM}|{larger}"

    assert found_by(table, written, ("value-quantity", asked)) is not bool(comparator)
    assert found_by(table, written, ("value-quantity", f"ge{asked}"))
    assert found_by(table, written, ("value-quantity", f"ne{asked}")) is bool(comparator)
    assert found_by(table, written, ("value-quantity", f"gt{asked}")) is (comparator == ">")
    assert found_by(table, written, ("value-quantity", f"lt{asked}")) is (comparator == "<")
    assert not found_by(table, written, ("value-quantity", f"ge{asked}x"))
    assert not found_by(table, written, ("value-quantity:missing", "true"))
