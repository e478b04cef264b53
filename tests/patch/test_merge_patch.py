"""https://www.rfc-editor.org/rfc/rfc7396"""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.patch.merge_patch import merged
from fhir_server.r4.json import decode, encode

# RFC 7396, appendix A: the original, the patch, the result.
APPENDIX: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("resource", "patch", "expected"), APPENDIX, ids=map(str, range(1, 16)))
def test_appendix_a(resource: Any, patch: Any, expected: Any) -> None:
    """The table of the RFC; what went in stays as it was."""
    before = encode([resource, patch])

    assert merged(resource, patch) == expected
    assert encode([resource, patch]) == before


def test_decimals_are_kept_as_written() -> None:
    """Those of the resource and those of the patch."""
    result = merged(decode(b'{"a":6.30,"b":1e2,"c":-0}'), decode(b'{"d":0.10}'))

    assert encode(result) == b'{"a":6.30,"b":1e2,"c":-0,"d":0.10}'


LEAVES = st.booleans() | st.integers(-2, 2) | st.just(Decimal("1.0")) | st.text("ab", max_size=2)
TREES = st.recursive(
    LEAVES,
    lambda x: st.lists(x, max_size=2) | st.dictionaries(st.text("ab", max_size=2), x, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text("ab", max_size=2), TREES, max_size=3)


def difference(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return the merge patch that makes ``other``, which has no null, of ``one``."""
    found: dict[str, Any] = {name: None for name in one if name not in other}
    for name, value in other.items():
        before = one.get(name)
        if isinstance(value, dict):
            found[name] = difference(before, value) if isinstance(before, dict) else value
        elif name not in one or encode([before]) != encode([value]):
            found[name] = value
    return found


@given(OBJECTS, OBJECTS)
def test_a_difference_makes_the_one_of_the_other(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    """What differs, as a patch, leads from the one to the other; twice is once."""
    patch = difference(one, other)

    assert merged(one, patch) == other
    assert merged(merged(one, patch), patch) == merged(one, patch)
