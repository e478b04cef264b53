# https://hl7.org/fhir/R4/search.html#sort
"""The order of results."""

from dataclasses import replace
from urllib.parse import parse_qsl

import pytest

from fhir_server.outcome import FhirError
from fhir_server.search.page import cursor, digest
from fhir_server.search.parameters import ParameterTable
from fhir_server.search.parse import parse
from fhir_server.search.plan import plan
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


# Search of Observations -> the order that it has without asking for one, and whether the range of
# its code is asked key by key.
UNASKED: list[tuple[str, str, str, str]] = [
    ("Observation", "patient=1", "-date", ""),
    ("Observation", "subject=Patient/1", "-date", ""),
    ("Observation", "code=8867-4", "-date", "keys.code"),
    ("Observation", "code=http://loinc.org|8867-4", "-date", ""),
    ("Observation", "code=8867-4&patient=1", "-date", ""),
    ("Observation", "date=ge2020&status=final", "-date", ""),
    ("Observation", "_lastUpdated=ge2020", "-_lastUpdated", ""),
    ("Observation", "status=final", "", ""),
    ("Observation", "date:missing=true", "", ""),
    ("Observation", "code:not=8867-4", "", ""),
    ("Patient", "name=x", "", ""),
    ("MedicationRequest", "code=1", "", ""),  # has dates in plenty: no index is in their order
]


@pytest.mark.parametrize(("type", "asked", "order", "ranged"), UNASKED)
def test_an_order_that_nobody_asked_for(
    table: ParameterTable, type: str, asked: str, order: str, ranged: str
) -> None:
    """What is asked of a patient, a code or a date comes newest first; all else by id."""
    query = parse(type, parse_qsl(asked), table, count_default=10)
    wanted = plan(query, table)
    within = plan(query, table, within="Patient/1")

    assert [("-" if key.descending else "") + key.code for key in wanted.sort] == order.split()
    assert wanted.ranged == ranged
    assert (within.sort, within.ranged) == ((), "")


def test_what_is_still_being_indexed_orders_and_narrows_nothing(table: ParameterTable) -> None:
    """A search by what is complete is answered meanwhile: by id, and by the wider field."""
    indexing = table.without({"Observation": {"date", "patient"}})
    query = parse("Observation", [("subject", "Patient/1")], indexing, count_default=10)
    wanted = plan(query, indexing)

    assert (wanted.sort, wanted.filter) == ((), {"keys.subject": "Patient/1"})
    query = parse("Observation", [("subject", "Patient/1")], table, count_default=10)
    assert plan(query, table).filter == {"keys.patient": "Patient/1"}


def test_a_link_of_another_order_is_refused(table: ParameterTable) -> None:
    """A page link written when the order was another does not lead into the middle of this one."""
    query = parse("Observation", [("code", "a")], table, count_default=10)
    old = cursor(("id",), digest("Observation", query.understood), b"k" * 32)
    with pytest.raises(FhirError, match="does not belong here"):
        plan(replace(query, cursor=old), table, page_key=b"k" * 32)
