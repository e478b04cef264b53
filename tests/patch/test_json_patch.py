"""https://www.rfc-editor.org/rfc/rfc6902"""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.outcome import FhirError
from fhir_server.patch.bounds import Bounds
from fhir_server.patch.json_patch import equal, operations, patched
from fhir_server.r4.json import decode, decode_value, encode
from tests.conftest import SHARED

BOUNDS = Bounds(operations_max=1000, bytes_max=100_000, depth_max=100)


def apply(resource: Any, patch: Any, bounds: Bounds = BOUNDS) -> Any:
    """Return what the JSON Patch ``patch`` makes of ``resource``."""
    return patched(resource, operations(patch, bounds), bounds)


def shared_cases() -> list[Any]:
    """Return the cases of the JSON Patch community, with readable ids."""
    files = [Path("json-patch/tests.json"), Path("json-patch/spec_tests.json")]
    files.append(Path("fhir-patch/json-patch-tests.json"))
    found = []
    for file in files if SHARED.is_dir() else []:
        for index, case in enumerate(json.loads((SHARED / file).read_text("utf-8"))):
            name = case.get("comment") or case.get("error") or ""
            found.append(pytest.param(case, id=f"{file.parent}/{file.stem}[{index}] {name}"))
    return found


# Two members `op` in one object: JSON readers keep one of them, ours refuses (see below).
TWO_MEMBERS = ("duplicate ops", "A.13 Invalid JSON Patch Document")


@pytest.mark.parametrize("case", shared_cases())
def test_shared_case(case: dict[str, Any]) -> None:
    """Every case of github.com/json-patch/json-patch-tests, those marked as disabled too."""
    if case.get("comment") in TWO_MEMBERS:
        return
    before = encode(case["doc"])
    if "error" in case:
        with pytest.raises(FhirError) as refused:
            apply(case["doc"], case["patch"])
        assert refused.value.status in (400, 422)
    else:
        assert apply(case["doc"], case["patch"]) == case.get("expected", case["doc"])
    assert encode(case["doc"]) == before


def test_two_members_of_one_name_are_refused() -> None:
    """RFC 6902, A.13: an operation with two ``op`` is no JSON Patch."""
    with pytest.raises(FhirError, match="stands twice"):
        decode_value(b'[{"op":"add","path":"/baz","value":"qux","op":"remove"}]')


MALFORMED = {
    "an object": {"op": "add"},
    "null": None,
    "an operation that is no object": [1],
    "no op": [{"path": "/a"}],
    "op of another case": [{"op": "Add", "path": "/a", "value": 1}],
    "op a list": [{"op": ["add"], "path": "/a", "value": 1}],
    "no path": [{"op": "remove"}],
    "path a number": [{"op": "remove", "path": 1}],
    "no value": [{"op": "add", "path": "/a"}],
    "no from": [{"op": "move", "path": "/a"}],
    "from null": [{"op": "copy", "path": "/a", "from": None}],
    "a bad escape": [{"op": "remove", "path": "/a~2"}],
    "an escape cut off": [{"op": "remove", "path": "/a~"}],
    "a bad escape in from": [{"op": "move", "path": "/a", "from": "/~"}],
    "a fragment": [{"op": "remove", "path": "#/a"}],
}


@pytest.mark.parametrize("patch", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_json_patch_is_400(patch: Any) -> None:
    """Whatever the resource is; it is not looked at."""
    with pytest.raises(FhirError) as refused:
        operations(patch, BOUNDS)
    assert refused.value.status == 400


DOCUMENT = {"a": [1, 2], "b": {"c": "x"}, "t": True, "n": None, "0": "zero", "d": Decimal("6.30")}

# RFC 6901, 4 for places in arrays; RFC 6902, 4 for the rest.
INAPPLICABLE = {
    "zeros in front": {"op": "test", "path": "/a/01", "value": 2},
    "a sign": {"op": "remove", "path": "/a/-1"},
    "a plus": {"op": "remove", "path": "/a/+1"},
    "a space": {"op": "remove", "path": "/a/ 1"},
    "a line end": {"op": "remove", "path": "/a/1\n"},
    "digits of another script": {"op": "remove", "path": "/a/\u0661"},
    "a number of many digits": {"op": "remove", "path": "/a/" + "9" * 5000},
    "an exponent": {"op": "remove", "path": "/a/1e0"},
    "the end is nothing to remove": {"op": "remove", "path": "/a/-"},
    "the end is nothing to replace": {"op": "replace", "path": "/a/-", "value": 1},
    "the end is nothing to test": {"op": "test", "path": "/a/-", "value": 1},
    "the end is nothing to copy": {"op": "copy", "from": "/a/-", "path": "/x"},
    "behind the end": {"op": "add", "path": "/a/3", "value": 1},
    "below a string": {"op": "add", "path": "/b/c/0", "value": 1},
    "a character of a string": {"op": "test", "path": "/b/c/0", "value": "x"},
    "below null": {"op": "add", "path": "/n/x", "value": 1},
    "replace of what is not there": {"op": "replace", "path": "/x", "value": 1},
    "remove of everything": {"op": "remove", "path": ""},
    "move of everything": {"op": "move", "from": "", "path": "/x"},
    "move into itself": {"op": "move", "from": "/b", "path": "/b/d"},
    "move of what is not there": {"op": "move", "from": "/x", "path": "/x"},
    "true is not 1": {"op": "test", "path": "/t", "value": 1},
    "a string is no number": {"op": "test", "path": "/a/0", "value": "1"},
    "null is not absent": {"op": "test", "path": "/x", "value": None},
    "an array is no object": {"op": "test", "path": "/a", "value": {}},
    "a shorter array": {"op": "test", "path": "/a", "value": [1]},
}


@pytest.mark.parametrize("operation", INAPPLICABLE.values(), ids=INAPPLICABLE)
def test_what_does_not_fit_is_422_and_named(operation: dict[str, Any]) -> None:
    """The refusal names the operation by its place, and the resource is as it was."""
    before = encode(DOCUMENT)
    first = {"op": "add", "path": "/a/-", "value": 3}
    with pytest.raises(FhirError) as refused:
        apply(DOCUMENT, [{"op": "test", "path": "/b/c", "value": "x"}, operation])
    assert refused.value.status == 422
    assert f"Operation [1] of the patch ({operation['op']} " in str(refused.value)
    with pytest.raises(FhirError):
        apply(DOCUMENT, [first, {"op": "remove", "path": "/a/2"}, operation])
    assert encode(DOCUMENT) == before


def test_numbers_are_equal_by_value_and_kept_as_written() -> None:
    """6.30 passes a test for 6.3, and stays 6.30; so do 1e2 and -0 (RFC 6902, 4.6)."""
    resource = decode(b'{"a":6.30,"b":1e2,"c":-0,"d":100}')
    patch = decode_value(
        b'[{"op":"test","path":"/a","value":6.3},{"op":"test","path":"/b","value":100},'
        b'{"op":"test","path":"/c","value":0},{"op":"test","path":"/d","value":1E2},'
        b'{"op":"copy","from":"/b","path":"/e"},{"op":"add","path":"/f","value":0.10}]'
    )

    assert encode(apply(resource, patch)) == (b'{"a":6.30,"b":1e2,"c":-0,"d":100,"e":1e2,"f":0.10}')


def test_what_is_added_twice_is_two_things() -> None:
    """A copy and its source, and a value of the patch, are changed apart from each other."""
    patch = [
        {"op": "add", "path": "/a", "value": {"x": []}},
        {"op": "copy", "from": "/a", "path": "/b"},
        {"op": "add", "path": "/a/x/-", "value": 1},
        {"op": "add", "path": "/b/x/-", "value": 2},
    ]
    once = operations(patch, BOUNDS)

    for _ in range(2):
        assert patched({}, once, BOUNDS) == {"a": {"x": [1]}, "b": {"x": [2]}}


def test_a_copy_that_doubles_ends_early() -> None:
    """40 doublings would be a terabyte; what is copied is counted (413)."""
    patch = [{"op": "copy", "from": "/a", "path": "/a/-"}] * 40
    with pytest.raises(FhirError) as refused:
        apply({"a": ["x" * 100]}, patch)
    assert refused.value.status == 413


def test_copies_that_are_removed_again_are_counted() -> None:
    """A patch costs what it does, not what is left of it."""
    pair = [{"op": "copy", "from": "/a", "path": "/b"}, {"op": "remove", "path": "/b"}]
    with pytest.raises(FhirError) as refused:
        apply({"a": "x" * 1000}, pair * 400)
    assert refused.value.status == 413


def _deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


def test_what_would_be_too_deep_is_refused() -> None:
    """By copies into themselves and by moves below each other; 422 or 413, never a crash."""
    copies = [{"op": "copy", "from": "/a", "path": "/a" * (n + 2)} for n in range(0, 700, 1)]
    with pytest.raises(FhirError):
        apply({"a": {}}, copies, Bounds(1000, 10**9, 100))
    wide = {name: _deep(60) for name in "abcde"}
    moves = [
        {"op": "move", "from": "/b", "path": "/a" * 61 + "/b"},
        {"op": "move", "from": "/c", "path": "/a" * 61 + "/b" + "/a" * 60 + "/c"},
    ]
    with pytest.raises(FhirError, match="levels deep"):
        apply(wide, moves)


def test_too_many_operations_are_413() -> None:
    """The refusal says the number and the limit."""
    with pytest.raises(FhirError, match="1,001 operations; the limit is 1,000") as refused:
        operations([{"op": "remove", "path": "/a"}] * 1001, BOUNDS)
    assert refused.value.status == 413


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([Decimal("1.0"), Decimal("1.00"), Decimal("-0.5")])
    | st.text("ab/~01-é", max_size=3)
)
NAMES = st.text("ab/~01-é", max_size=3)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)
OBJECTS = st.dictionaries(NAMES, TREES, max_size=4)


def diff(one: Any, other: Any, path: str = "") -> list[dict[str, Any]]:
    """Return a JSON Patch that makes ``other`` of ``one``."""
    if isinstance(one, dict) and isinstance(other, dict):
        below = {
            name: path + "/" + name.replace("~", "~0").replace("/", "~1") for name in one | other
        }
        return [
            *({"op": "remove", "path": below[n]} for n in one if n not in other),
            *({"op": "add", "path": below[n], "value": other[n]} for n in other if n not in one),
            *(step for n in one if n in other for step in diff(one[n], other[n], below[n])),
        ]
    if isinstance(one, list) and isinstance(other, list):
        common = min(len(one), len(other))
        return [
            *(step for n in range(common) for step in diff(one[n], other[n], f"{path}/{n}")),
            *({"op": "remove", "path": f"{path}/{common}"} for _ in one[common:]),
            *({"op": "add", "path": f"{path}/-", "value": value} for value in other[common:]),
        ]
    if encode([one]) == encode([other]):
        return [{"op": "test", "path": path, "value": one}]
    return [{"op": "replace", "path": path, "value": other}]


@given(OBJECTS, OBJECTS)
def test_a_difference_makes_the_one_of_the_other(one: Any, other: Any) -> None:
    """What differs, as a patch, leads from the one to the other and back, digit for digit."""
    there, back = diff(one, other), diff(other, one)
    kept = encode(one)

    assert _sorted(apply(one, there)) == _sorted(other)
    assert _sorted(apply(apply(one, there), back)) == _sorted(one)
    assert encode(one) == kept


def _sorted(value: Any) -> str:
    return repr(_ordered(value))


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _ordered(value[name]) for name in sorted(value)}
    return [_ordered(one) for one in value] if isinstance(value, list) else value


OPERATIONS = st.fixed_dictionaries(
    {
        "op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]),
        "path": st.lists(st.sampled_from(["a", "b", "0", "1", "-", "~0", ""]), max_size=3).map(
            lambda steps: "".join(f"/{step}" for step in steps)
        ),
        "from": st.sampled_from(["", "/a", "/b", "/a/0", "/b/a"]),
        "value": TREES,
    }
)


@given(OBJECTS, st.lists(OPERATIONS, max_size=6))
def test_any_patch_is_applied_whole_or_refused(resource: Any, patch: list[Any]) -> None:
    """Whatever it is: a result, or a refusal; the resource and the patch stay as they were."""
    kept = encode([resource, patch])
    try:
        result = apply(resource, patch)
    except FhirError as refused:
        status = refused.status
    else:
        status = 200
        assert equal(result, apply(resource, patch))
    assert status in (200, 400, 413, 422)
    assert encode([resource, patch]) == kept


@given(st.recursive(LEAVES, lambda x: st.lists(x) | st.dictionaries(NAMES, x), max_leaves=5))
def test_any_json_is_a_patch_or_400(document: Any) -> None:
    """Nothing that is no JSON Patch goes through, and nothing breaks."""
    try:
        operations(document, BOUNDS)
        status = 400
    except FhirError as refused:
        status = refused.status
    assert status == 400
