# https://hl7.org/fhir/R4/search.html#escaping, ARCHITECTURE.md, section 5
"""What a client writes becomes values of a filter: never its keys, operators or patterns."""

import re
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_server.outcome import FhirError
from fhir_server.search.escape import escape
from fhir_server.search.keys import SEPARATOR, conditions_in
from fhir_server.search.parameter import Parameter
from fhir_server.search.parameters import ParameterTable
from fhir_server.search.parse import Limits, SearchQuery, parse
from tests.badinput.hostile import FILTERS, NAMES, VALUES, WORDS

LIMITS = Limits()
# Every form that a value of a type can have, written harmlessly: they are what shapes there are.
_PREFIXES = ("", "eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap")
_UNITS = (
    "",
    "|http://unitsofmeasure.org|kg",
    "|http://unitsofmeasure.org|[pH]",
    "|http://s|c",
    "|http://s|",
    "||kg",
)
FORMS: dict[str, tuple[str, ...]] = {
    "token": ("a", "A", "|a", "s|a", "s|", "http://s|a|v"),
    "string": ("a",),
    "date": tuple(f"{prefix}{date}" for prefix in _PREFIXES for date in ("2020", "9999", "0001")),
    "number": tuple(f"{prefix}1" for prefix in _PREFIXES),
    "quantity": tuple(f"{prefix}1{unit}" for prefix in _PREFIXES for unit in _UNITS),
    "uri": ("http://a", "a|1", "urn:a"),
    "reference": (
        "a",
        "Patient/a",
        "http://a",
        "Patient/a/_history/1",
        "http://a/Patient/a",
        "a|b",
        "a|",
        "|b",
    ),
    "special": ("1|1", "1|1|1", "1|1|1|km"),
}
MODIFIERS = {
    "token": ("", "not", "text", "of-type", "in", "above", "below", "missing"),
    "string": ("", "exact", "contains", "missing"),
    "uri": ("", "above", "below", "missing"),
    "reference": ("", "identifier", "Patient", "below", "missing"),
}
EXTRA = {
    "text": ("a",),
    "of-type": ("s|c|v",),
    "missing": ("true", "false"),
    "identifier": FORMS["token"],
}
# What a pattern may have around the text of a client.
_FRAMES = ((f"^[^{SEPARATOR}]*", ""), (SEPARATOR, "$"))
_PLAIN = re.compile(r"(?:[^\\.^$*+?{}\[\]()|]|\\x00|\\[^0-9A-Za-z])*", re.DOTALL)


def shape(filter: Any, name: str = "") -> Any:
    """Return ``filter`` with the type of each value instead of the value."""
    if isinstance(filter, dict):
        return tuple(sorted((name, shape(value, name)) for name, value in filter.items()))
    if name == "$in":
        assert all(type(one) is str for one in filter)
        return "several"
    if isinstance(filter, list):
        return tuple(shape(one) for one in filter)
    if name == "$regex":
        text = next(
            filter.removeprefix(before).removesuffix(after)
            for before, after in _FRAMES
            if filter.startswith(before) and filter.endswith(after)
        )
        assert _PLAIN.fullmatch(text), f"a pattern: {filter!r}"
    assert type(filter) in (str, bool, int, float, Decimal, datetime, type(None)), filter
    # One alternative or several of the same field are an equality or $in.
    return type(filter).__name__


def merged(shape: Any) -> Any:
    """Return ``shape`` with one text and several as the same: a bare id has one for each type."""
    if isinstance(shape, tuple):
        if len(shape) == 1 and shape[0] == ("$in", "several"):
            return "str"
        return tuple(merged(one) for one in shape)
    return shape


def asked(table: ParameterTable, type: str, pairs: list[tuple[str, str]]) -> SearchQuery | None:
    """Return the search, or nothing if it is refused as the client's fault."""
    refusal: FhirError | None = None
    try:
        return parse(type, pairs, table, count_default=10, limits=LIMITS)
    except FhirError as error:
        refusal = error
    assert 400 <= refusal.status < 500
    return None


def compiled(table: ParameterTable, type: str, name: str, value: str) -> Any:
    """Return the shape of the search ``name=value``, or nothing if it is refused."""
    query = asked(table, type, [(name, value)])
    if query is None:
        return None
    assert sum(map(conditions_in, query.filters)) <= LIMITS.conditions_max
    return tuple(merged(shape(one)) for one in query.filters)


def kinds(table: ParameterTable) -> Iterator[Parameter]:
    """Yield a parameter of each kind: search type, types of its elements, one key or several."""
    seen = set()
    for type in table.types:
        for one in table.of(type).values():
            types = frozenset(path.type for path in one.paths)
            parts = tuple(part.type for part in one.components)
            kind = (one.type, types, one.single, parts, one.key is None, bool(one.value_sets))
            if kind not in seen:
                seen.add(kind)
                yield one


def forms(parameter: Parameter, modifier: str) -> tuple[str, ...]:
    """Return the harmless values of ``parameter``."""
    if parameter.type != "composite":
        return EXTRA.get(modifier, FORMS[parameter.type])
    found: tuple[str, ...] = ("",)
    for place, part in enumerate(parameter.components):
        found = tuple(
            f"{before}{'$' if place else ''}{one}" for before in found for one in FORMS[part.type]
        )
    return found


def test_no_value_changes_the_shape_of_a_filter(table: ParameterTable) -> None:
    """Of each kind of parameter with each modifier: no shape that harmless values do not have."""
    faults = []
    tried = accepted = 0
    for one in kinds(table):
        for modifier in MODIFIERS.get(one.type, ("", "missing")):
            name = f"{one.code}:{modifier}" if modifier else one.code
            known = {
                compiled(table, one.resource_type, name, value) for value in forms(one, modifier)
            }
            for value in VALUES:
                for written in {value, escape(value)}:
                    found = compiled(table, one.resource_type, name, written)
                    single = "," not in written.replace("\\\\", "").replace("\\,", "")
                    tried += 1
                    accepted += found is not None
                    if single and found not in (*known, None, ()):
                        faults.append((one.resource_type, name, written[:60], found))

    assert faults == []
    assert tried > 50_000
    assert accepted > 5_000


@settings(max_examples=300)
@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30),
    name=st.sampled_from(
        "family family:exact family:contains identifier identifier:text gender:not birthdate _id "
        "general-practitioner general-practitioner:identifier _profile".split()
    ),
)
def test_no_text_changes_the_shape_of_a_filter(table: ParameterTable, name: str, text: str) -> None:
    """The same for any text at all, escaped: a value among the forms, or refused."""
    code, _, modifier = name.partition(":")
    parameter = table.of("Patient")[code]
    known = {compiled(table, "Patient", name, value) for value in forms(parameter, modifier)}

    assert compiled(table, "Patient", name, escape(text)) in (*known, None)


def test_alternatives_add_branches_and_nothing_else(table: ParameterTable) -> None:
    """The keys and operators of ``a,b`` are those of ``a`` with ``$or`` or ``$in``."""
    for name in ("family", "family:contains", "identifier", "birthdate", "general-practitioner"):
        values = ("2020", "2021") if name == "birthdate" else ("a", "b")
        one = words(parse("Patient", [(name, values[0])], table, count_default=1).filters)
        two = words(parse("Patient", [(name, ",".join(values))], table, count_default=1).filters)

        assert two - one <= {"$or", "$in"}


def words(filter: Any) -> set[str]:
    """Return all keys and operators of ``filter``."""
    if isinstance(filter, dict):
        return {*filter, *(word for value in filter.values() for word in words(value))}
    if isinstance(filter, list | tuple):
        return {word for value in filter for word in words(value)}
    return set()


@pytest.mark.parametrize(
    ("name", "value"),
    [("_filter", value) for value in FILTERS]
    + [(name, value) for name in ("_text", "_content") for value in (*WORDS, *VALUES)]
    + [(name, "a") for name in NAMES],
    ids=lambda text: ascii(text[:30]),
)
def test_hostile_syntax_is_refused_or_bounded(table: ParameterTable, name: str, value: str) -> None:
    """Filters, words and names of every depth and length: 4xx, or operators of the compiler."""
    query = asked(table, "Patient", [(name, value)])
    if query is None:
        return
    used = {word for word in words(query.filters) if word.startswith("$")}
    assert used <= {"$and", "$or", "$nor", "$in", "$regex", "$elemMatch", "$exists", "$gte", "$lt"}
    assert sum(map(conditions_in, query.filters)) <= LIMITS.conditions_max
    assert len(query.joins) <= LIMITS.chain_types_max


def test_many_parameters_and_many_values_are_bounded(table: ParameterTable) -> None:
    """Thousands of parameters, alternatives or ids: refused before anything is compiled."""
    hostile = (
        [("name", "a")] * 5000,
        [("name", ",".join(f"a{number}" for number in range(5000)))],
        [("general-practitioner", ",".join(f"a{number}" for number in range(500)))] * 64,
        [("_id:not", ",".join(["a"] * 100_000))],
        [("name", "a" * 1_000_000)],
    )
    for pairs in hostile:
        query = asked(table, "Patient", pairs)
        assert query is None or sum(map(conditions_in, query.filters)) <= 1
