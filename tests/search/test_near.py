# https://hl7.org/fhir/R4/location.html#positional
"""``near``: places within a distance."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.outcome import FhirError
from fhir_server.search.parameters import ParameterTable
from tests.search.matching import found_by


def place(latitude: float, longitude: float) -> dict[str, Any]:
    position = {"latitude": Decimal(str(latitude)), "longitude": Decimal(str(longitude))}
    return {"resourceType": "Location", "position": position}


DHAKA = place(23.8103, 90.4125)
CASES: list[tuple[dict[str, Any], str, bool]] = [
    (DHAKA, "23.8103|90.4125", True),
    (DHAKA, "23.70|90.40", True),
    (DHAKA, "22.3569|91.7832", False),  # Chattogram, 214 km
    (DHAKA, "22.3569|91.7832|215|km", True),
    (DHAKA, "22.3569|91.7832|210|km", False),
    (DHAKA, "22.3569|91.7832|210", False),
    (DHAKA, "22.3569|91.7832|134|mi", True),
    (DHAKA, "22.3569|91.7832|134|[mi_i]", True),
    (DHAKA, "22.3569|91.7832|130|mi", False),
    (DHAKA, "23.8103|90.4125|1|m", True),
    (DHAKA, "23.8113|90.4125|100|m", False),
    (DHAKA, "23.8113|90.4125|120|m", True),
    (DHAKA, "23.8103|90.4125|0", True),
    (DHAKA, "-23.8|-89.6|99999999", True),
    (place(0, 179.9), "0|-179.9|30", True),
    (place(0, 179.9), "0|-179.9|20", False),
    (place(89.9, 0), "89.9|180|25", True),
    (place(91, 0), "90|0|20000", False),
    ({"resourceType": "Location"}, "0|0|20000", False),
]


@pytest.mark.parametrize(("location", "value", "expected"), CASES)
def test_distances(
    table: ParameterTable, location: dict[str, Any], value: str, expected: bool
) -> None:
    """Great circles, over the date line and the poles; km unless the unit says otherwise."""
    assert found_by(table, location, ("near", value)) is expected


REFUSED = ("1", "a|b", "91|0", "0|181", "0|0|-1", "0|0|1|kg", "0|0|1|mg|x", "0|0|1|Km", "1|2|x")


@pytest.mark.parametrize("value", REFUSED)
def test_refusals(table: ParameterTable, value: str) -> None:
    """What is no place, no distance or no length is refused with value."""
    with pytest.raises(FhirError) as caught:
        found_by(table, DHAKA, ("near", value))

    assert caught.value.issues[0].code == "value"


def test_order(table: ParameterTable) -> None:
    """A distance is no order that pages could follow: _sort=near is refused."""
    with pytest.raises(FhirError, match="cannot order"):
        found_by(table, DHAKA, ("_sort", "near"))


COORDINATES = st.tuples(st.integers(-9000, 9000), st.integers(-18000, 18000))


@given(COORDINATES)
def test_a_place_is_near_itself(table: ParameterTable, hundredths: tuple[int, int]) -> None:
    """The search written from a place finds it, one from the other side of the earth does not."""
    latitude, longitude = (number / 100 for number in hundredths)
    location = place(latitude, longitude)
    opposite = longitude - 180 if longitude > 0 else longitude + 180

    assert found_by(table, location, ("near", f"{latitude:f}|{longitude:f}|1|m"))
    assert not found_by(table, location, ("near", f"{-latitude:f}|{opposite:f}|15000"))
