# https://hl7.org/fhir/R4/search.html
"""Query strings as searches."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.outcome import FhirError
from fhir_server.search.parameters import ParameterTable
from fhir_server.search.parse import NOT_SERVED, Given, Limits, SearchQuery, parse
from tests.search.matching import found_by

LIMITS = Limits(
    parameters_max=4, values_max=3, value_characters_max=200, conditions_max=300, count_max=100
)


def parsed(table: ParameterTable, *parameters: tuple[str, str], **options: Any) -> SearchQuery:
    return parse("Patient", parameters, table, count_default=50, limits=LIMITS, **options)


REFUSED = {
    ("famly", "x"): ("not-supported", "Did you mean family"),
    ("family:phonetic", "x"): ("not-supported", ":exact, :contains"),
    ("gender:text", "x"): ("not-supported", ":not"),
    ("gender:below", "male"): ("value", "system|code"),
    ("birthdate:exact", "2020"): ("not-supported", ":missing"),
    ("birthdate", "today"): ("value", "2024-02-29"),
    ("gender:missing", "yes"): ("value", "true or false"),
    ("gender:missing", "true,false"): ("value", "true or false"),
    ("family", "a,,b"): ("value", "at least one character"),
    ("_id", ","): ("value", "a logical id"),
    ("_count", "-1"): ("value", "whole number"),
    ("_count", "1" * 10): ("value", "whole number"),
    ("_count", "٣"): ("value", "whole number"),
    ("_total", "yes"): ("value", "accurate"),
    ("_summary", "yes"): ("value", "count"),
    ("_elements", "a;b"): ("value", "names of elements"),
    ("_sort", "famly"): ("not-supported", "Did you mean family"),
    ("_sort", "_id,,family"): ("not-supported", "no search parameter"),
    ("family", "\ud800"): ("value", "UTF-8"),
    ("family", "x" * 201): ("too-costly", "200 characters"),
    ("gender", "a,b,c,d"): ("too-costly", "3 alternatives"),
    ("_filter", " or ".join(["name co a"] * 8)): ("too-costly", "300 conditions"),
}


@pytest.mark.parametrize(("parameter", "expected"), REFUSED.items(), ids=map(ascii, REFUSED))
def test_refusals(
    table: ParameterTable, parameter: tuple[str, str], expected: tuple[str, str]
) -> None:
    """What is unknown, not served, malformed or too much is refused with a way out."""
    with pytest.raises(FhirError) as caught:
        parsed(table, parameter)

    issue = caught.value.issues[0]
    assert issue.code == expected[0]
    assert expected[1] in issue.diagnostics


def test_what_costs_more_counts_more(table: ParameterTable) -> None:
    """Five hundred bare ids, of any type, are one search; as many patterns are one as well."""
    ids = ",".join(map(str, range(500)))

    for name in ("general-practitioner", "name:contains"):
        assert parse("Patient", [(name, ids)], table, count_default=1).filters
        with pytest.raises(FhirError, match="20,000 conditions"):
            parse("Patient", [(name, ids), (name, f"x{ids[1:]}")], table, count_default=1)


@pytest.mark.parametrize("name", NOT_SERVED)
def test_what_is_not_served_says_so(table: ParameterTable, name: str) -> None:
    """No parameter of the specification is taken for a spelling mistake."""
    with pytest.raises(FhirError, match="not served yet"):
        parsed(table, (name, "x"))


def test_lenient_reports_what_it_leaves_out(table: ParameterTable) -> None:
    """With ``handling=lenient`` the rest is answered, and every omission is a warning."""
    query = parsed(table, ("famly", "x"), ("gender", "male"), ("_sort", "z"), lenient=True)

    assert query.understood == (("gender", "male"),)
    assert [issue.severity for issue in query.ignored] == ["warning", "warning"]
    assert query.filters == ({"keys.gender": {"$gte": "male\x1f", "$lt": "male "}},)


@pytest.mark.parametrize("parameter", [("birthdate", "x"), ("gender:foo", "male"), ("_count", "x")])
def test_lenient_never_widens_a_search(table: ParameterTable, parameter: tuple[str, str]) -> None:
    """A modifier or a value that is not understood is refused, however lenient the client asks."""
    with pytest.raises(FhirError):
        parsed(table, ("gender", "male"), parameter, lenient=True)


def test_empty_parameters_are_left_out(table: ParameterTable) -> None:
    """What has no value is ignored, and is not in the self link."""
    query = parsed(table, ("family", ""), ("gender", "male"))

    assert query.understood == (("gender", "male"),)
    assert query.ignored == ()


def test_lenient_has_limits_too(table: ParameterTable) -> None:
    """A search that costs too much is refused, however lenient the client asks to be."""
    with pytest.raises(FhirError, match="at most 4 parameters"):
        parsed(table, *[("gender", "male")] * 5, lenient=True)


def test_result_parameters(table: ParameterTable) -> None:
    """Result parameters are read once each, and a page is not longer than allowed."""
    query = parsed(table, ("_count", "5000"), ("_sort", "-birthdate,_id"), ("_total", "accurate"))

    assert (query.count, query.sort, query.total) == (100, ("-birthdate", "_id"), "accurate")
    assert parsed(table).count == 50
    with pytest.raises(FhirError, match="stands once"):
        parsed(table, ("_count", "1"), ("_count", "2"))


PATIENT = {"resourceType": "Patient", "id": "p1", "gender": "male", "name": [{"family": "Roy"}]}
COMBINED: list[tuple[list[tuple[str, str]], bool]] = [
    ([("family", "roy"), ("gender", "male")], True),
    ([("family", "roy"), ("gender", "female")], False),
    ([("gender", "female,male")], True),
    ([("gender:not", "female,male")], False),
    ([("gender:not", "female"), ("gender:not", "other")], True),
    ([("gender:not", "female"), ("gender:not", "male")], False),
    ([("gender:missing", "true")], False),
    ([("gender:missing", "false"), ("birthdate:missing", "true")], True),
    ([("_id", "p1")], True),
    ([("_id", "P1")], False),
    ([("_id", "a,p1")], True),
    ([("_id:not", "p1")], False),
    ([("family", "a,b"), ("family", "roy")], False),
    ([], True),
]


@pytest.mark.parametrize(("parameters", "expected"), COMBINED)
def test_and_and_or(
    table: ParameterTable, parameters: list[tuple[str, str]], expected: bool
) -> None:
    """Repeated parameters must all be met, alternatives behind commas only one."""
    assert found_by(table, PATIENT, *parameters) is expected


VALUES = st.text(st.characters(exclude_categories=["Cs"]), max_size=15)


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for one in value.values() for leaf in leaves(one)]
    return [leaf for one in value for leaf in leaves(one)] if isinstance(value, list) else [value]


def names(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(names, value.values()))
    return set().union(*map(names, value)) if isinstance(value, list) else set()


NAMES = (
    "family",
    "gender",
    "birthdate",
    "_id",
    "link",
    "_profile",
    "name:contains",
    "_lastUpdated",
)


@given(name=st.sampled_from(NAMES) | VALUES, value=VALUES)
def test_any_parameter_is_a_filter_or_a_refusal(
    table: ParameterTable, name: str, value: str
) -> None:
    """What the client writes is never a field name or an operator, only a scalar value."""
    try:
        query = parsed(table, (name, value))
    except FhirError:
        return
    fields = {
        f"{one.field}{suffix}"
        for one in table.of("Patient").values()
        for suffix in ("", ".l", ".h", ":system", ":version", ":part", ":identifier")
    }
    operators = {
        "$or",
        "$and",
        "$nor",
        "$in",
        "$elemMatch",
        "$gte",
        "$gt",
        "$lt",
        "$lte",
        "$regex",
        "$exists",
        "l",
        "h",
    }
    for filter in query.filters:
        assert names(filter) <= fields | operators
        assert not any(isinstance(leaf, (dict, list)) for leaf in leaves(filter))


def test_what_is_asked_again_is_not_compiled_again(table: ParameterTable) -> None:
    """The same values of a parameter are the same filter, until other keys are written; what
    depends on the time is made anew. All of it counts as conditions again."""
    now = datetime(2024, 2, 29, tzinfo=UTC)
    codes = ("gender", "male,other")
    first, again = (parsed(table, codes).filters[0] for _ in range(2))
    assert again is first
    assert parsed(table.without({}), codes).filters[0] == first
    assert parsed(table, ("gender:not", "male,other")).filters[0] == {"$nor": [first]}
    assert parse("Practitioner", [codes], table, count_default=1).filters[0] == first

    early, late = (
        parsed(table, ("birthdate", "ap2000"), given=Given(when)).filters[0]
        for when in (now - timedelta(days=9000), now)
    )
    assert early != late

    limits = Limits(conditions_max=3)
    for _ in range(2):
        parse("Patient", [("_tag", "a|b")] * 3, table, count_default=1, limits=limits)
        with pytest.raises(FhirError, match="conditions"):
            parse("Patient", [("_tag", "a|b")] * 4, table, count_default=1, limits=limits)
