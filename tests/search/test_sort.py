# https://hl7.org/fhir/R4/search.html#sort
"""The order of results."""

import pytest

from fhir_server.outcome import FhirError
from fhir_server.search.parameters import ParameterTable
from fhir_server.search.sort import KEYS_MAX, SortKey, sort_keys

KEYS = {
    "-date": SortKey("date", "keys.date.l", descending=True, single=True, present=False),
    "status": SortKey("status", "keys.status", descending=False, single=True, present=False),
    "code": SortKey("code", "keys.code", descending=False, single=False, present=False),
    "_id": SortKey("_id", "_id", descending=False, single=True, present=True),
    "-_lastUpdated": SortKey(
        "_lastUpdated", "last_updated", descending=True, single=True, present=True
    ),
    "value-quantity": SortKey(
        "value-quantity", "keys.value-quantity.l", descending=False, single=True, present=False
    ),
}


@pytest.mark.parametrize(("name", "expected"), KEYS.items(), ids=KEYS)
def test_sort_keys(table: ParameterTable, name: str, expected: SortKey) -> None:
    """A minus sign turns the order round; ranges are ordered by where they begin."""
    assert sort_keys([name], table.of("Observation")) == (expected,)


@pytest.mark.parametrize("name", ["nothing", "--date", "", "code-value-quantity"])
def test_what_has_no_order_is_refused(table: ParameterTable, name: str) -> None:
    """Unknown parameters and composites cannot be ordered by."""
    with pytest.raises(FhirError) as caught:
        sort_keys([name], table.of("Observation"))

    assert caught.value.issues[0].code == "not-supported"


def test_the_number_of_keys_is_limited(table: ParameterTable) -> None:
    """Every key is carried by each page link."""
    with pytest.raises(FhirError, match=f"at most {KEYS_MAX}"):
        sort_keys(["date"] * (KEYS_MAX + 1), table.of("Observation"))
