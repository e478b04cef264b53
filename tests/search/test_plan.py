# https://hl7.org/fhir/R4/search.html
"""Searches as plans."""

from typing import Any

import pytest

from fhir_server.outcome import FhirError
from fhir_server.search.page import AFTER, Edge, cursor
from fhir_server.search.parameters import ParameterTable
from fhir_server.search.parse import parse
from fhir_server.search.plan import Plan, plan

KEY = b"k" * 32


def planned(table: ParameterTable, *parameters: tuple[str, str]) -> Plan:
    return plan(parse("Patient", parameters, table, count_default=10), table, page_key=KEY)


FILTERS: list[tuple[list[tuple[str, str]], dict[str, Any]]] = [
    ([], {}),
    ([("_id", "a")], {"_id": "a"}),
    (
        [("_id", "a"), ("organization", "Organization/1")],
        {"_id": "a", "keys.organization": "Organization/1"},
    ),
    ([("_id", "a"), ("_id", "b")], {"_id": "a", "$and": [{"_id": "b"}]}),
    ([("_id", "a,b,a")], {"_id": {"$in": ["a", "b"]}}),
]


@pytest.mark.parametrize(("parameters", "expected"), FILTERS)
def test_filters(
    table: ParameterTable, parameters: list[tuple[str, str]], expected: dict[str, Any]
) -> None:
    """Conditions stand side by side, and are joined by $and where they ask of one field."""
    assert planned(table, *parameters).filter == expected


@pytest.mark.parametrize("parameter", [("_summary", "count"), ("_count", "0")])
def test_a_count_has_no_page(table: ParameterTable, parameter: tuple[str, str]) -> None:
    """``_count=0`` is treated the same as ``_summary=count``: a total, and no entries."""
    wanted = planned(table, parameter)

    assert (wanted.count, wanted.total, wanted.summary) == (0, "accurate", "count")


def test_a_page_link_continues_its_own_search(table: ParameterTable) -> None:
    """A cursor gives back its values to the search it was written for, and to no other."""
    first = planned(table, ("family", "roy"), ("_sort", "-birthdate"))
    text = cursor((AFTER, None, "p1"), first.subject, KEY)
    second = planned(table, ("family", "roy"), ("_sort", "-birthdate"), ("_cursor", text))

    assert first.after is None
    assert second.after == Edge((None, "p1"))
    with pytest.raises(FhirError, match="does not belong"):
        planned(table, ("family", "ray"), ("_sort", "-birthdate"), ("_cursor", text))


def test_no_filter_is_lost(table: ParameterTable) -> None:
    """Filters that begin with an operator of their own are all met, beside repeated ones."""
    canonical = [("url", "http://x/a|1"), ("url", "http://x/b|2")]
    ranges = [("date", "ge2000"), ("date", "le2030")]
    query = parse("ActivityDefinition", canonical + ranges, table, count_default=10)

    met = str(plan(query, table).filter)

    for text in ("http://x/a", "http://x/b", "datetime.datetime(2000", "datetime.datetime(203"):
        assert text in met
