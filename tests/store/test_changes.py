"""https://hl7.org/fhir/R4/http.html#concurrency and ARCHITECTURE.md, section 16.3."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.outcome import FhirError, Issue
from fhir_server.search.index import Indexed
from fhir_server.store.changes import Change, Judge, Judged
from fhir_server.store.documents import Document, document, stamped

NOW = datetime(2024, 2, 29, 12, 0, 0, 500000, tzinfo=UTC)
PATIENT: dict[str, Any] = {"resourceType": "Patient", "id": "p", "active": True}
OTHER: dict[str, Any] = {"resourceType": "Patient", "id": "p", "active": False}
NOTHING = Indexed({}, (), ())
JUDGE = Judge(lambda _: NOTHING, resource_bytes_max=10_000)


def change(resource: dict[str, Any] | None = PATIENT, **members: Any) -> Change:
    """Return an update of Patient/p, or its deletion."""
    return Change("update" if resource else "delete", "Patient", "p", resource, **members)


def judged(change: Change, before: Document | None) -> Judged:
    """Judge ``change`` now."""
    return JUDGE.judged(change, before, NOW)


def at(version: int, resource: dict[str, Any] | None = PATIENT) -> Document:
    """Return the current document at ``version``; without a resource it is a deletion."""
    earlier = NOW - timedelta(days=1)
    if resource is None:
        before = judged_at(version - 1, PATIENT, earlier)
        return JUDGE.judged(change(None), before, earlier).after or {}
    return judged_at(version, resource, earlier)


def judged_at(version: int, resource: dict[str, Any], moment: datetime) -> Document:
    """Return the document of ``resource`` as ``version``."""
    whole = stamped(resource, "p", version, moment)
    return document(whole, NOTHING, interaction="update", bytes_max=10_000)


def tags(text: str | None) -> frozenset[str] | None:
    """Return ``text`` as the set of its words; ``None`` is no header."""
    return None if text is None else frozenset(text.split())


STATES: dict[str, Document | None] = {"none": None, "at 2": at(2), "deleted at 2": at(2, None)}

# If-Match -> in which states the change may be made (RFC 9110, 13.1.1).
IF_MATCH = {
    None: {"none", "at 2", "deleted at 2"},
    "*": {"at 2"},
    "2": {"at 2"},
    "1 2": {"at 2"},
    "* 9": {"at 2"},
    "1": set(),
    "3": set(),
    "0": set(),
    "": set(),
    "02": set(),
    "-2": set(),
    "2.0": set(),
    "abc": set(),
    "\u00b2": set(),
    "\u0662": set(),
}
# If-None-Match (RFC 9110, 13.1.2).
IF_NONE_MATCH = {
    None: {"none", "at 2", "deleted at 2"},
    "*": {"none", "deleted at 2"},
    "2": {"none", "deleted at 2"},
    "1": {"none", "at 2", "deleted at 2"},
    "1 2": {"none", "deleted at 2"},
    "": {"none", "at 2", "deleted at 2"},
}


@pytest.mark.parametrize("kind", [OTHER, None], ids=["update", "delete"])
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("text", IF_MATCH, ids=str)
def test_if_match(text: str | None, state: str, kind: dict[str, Any] | None) -> None:
    """A change is made only over a version that the client names.

    A tag of the tombstone itself (``2`` over a deletion in version 2) is left open: RFC 9110 says
    no, but clients that know of the deletion mean it.
    """
    asked = change(kind, if_match=tags(text))
    if state == "deleted at 2" and text in ("2", "1 2", "* 9"):
        return
    if state in IF_MATCH[text]:
        judged(asked, STATES[state])
        return
    with pytest.raises(FhirError) as refused:
        judged(asked, STATES[state])
    assert refused.value.status == 412
    assert "Patient/p" in str(refused.value)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("text", IF_NONE_MATCH, ids=str)
def test_if_none_match(text: str | None, state: str) -> None:
    """A change is not made over a version that the client excludes."""
    asked = change(OTHER, if_none_match=tags(text))
    if state in IF_NONE_MATCH[text]:
        judged(asked, STATES[state])
        return
    with pytest.raises(FhirError) as refused:
        judged(asked, STATES[state])
    assert refused.value.status == 412


# State, what is sent -> version, created, changed, deleted.
OUTCOMES = {
    "new": ("none", PATIENT, (1, True, True, False)),
    "other content": ("at 2", OTHER, (3, False, True, False)),
    "the same content": ("at 2", PATIENT, (2, False, False, False)),
    "after a deletion": ("deleted at 2", PATIENT, (3, True, True, False)),
    "deletion": ("at 2", None, (3, False, True, True)),
    "deletion of nothing": ("none", None, (0, False, False, True)),
    "deletion again": ("deleted at 2", None, (2, False, False, True)),
}


@pytest.mark.parametrize(("state", "resource", "expected"), OUTCOMES.values(), ids=OUTCOMES)
def test_what_a_change_comes_to(
    state: str, resource: dict[str, Any] | None, expected: tuple[int, bool, bool, bool]
) -> None:
    """The version follows the one before; what changes nothing is not written."""
    result = judged(change(resource), STATES[state])
    stored = result.stored

    assert (stored.version, stored.created, stored.changed, stored.deleted) == expected
    assert (result.after is not None) == stored.changed
    if result.after:
        assert result.after["version"] == stored.version
        assert result.after["last_updated"] == stored.last_updated
        assert result.after.get("deleted", False) == stored.deleted


def shuffled(value: Any) -> Any:
    """Return ``value`` with the members of every object in reverse order."""
    if isinstance(value, dict):
        return {name: shuffled(member) for name, member in reversed(value.items())}
    return [shuffled(one) for one in value] if isinstance(value, list) else value


LEAVES = (
    st.text(max_size=5)
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from([Decimal("1.0"), Decimal("1.00"), Decimal("0.1")])
)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(TREES, TREES)
def test_what_differs_is_a_change_and_what_is_equal_is_none(one: Any, other: Any) -> None:
    """Order of members never makes a version; anything else that differs does."""
    first, second = {**PATIENT, "x": one}, {**PATIENT, "x": other}
    before = judged_at(1, first, NOW)

    assert judged(change(shuffled(first)), before).after is None
    differs = repr(shuffled(one)) != repr(shuffled(other)) and not same(one, other)
    assert (judged(change(second), before).after is not None) == differs


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values say the same: members in any order, decimals by their digits."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return str(one) == str(other)


def test_a_deep_resource_can_be_written_again() -> None:
    """At the deepest nesting that the settings allow, an equal update is seen as equal."""
    value: Any = "x"
    for _ in range(130):
        value = {"b": value, "a": 1}
    resource = {**PATIENT, "x": value}
    before = judged_at(1, resource, NOW)

    assert judged(change(shuffled(resource)), before).after is None


def test_the_index_is_made_from_what_is_stored() -> None:
    """Keys, compartments and labels come from the stamped resource."""
    seen: list[dict[str, Any]] = []

    def index(resource: dict[str, Any]) -> Indexed:
        seen.append(resource)
        return Indexed({"k": 1}, ("Patient/p",), ("s|c",))

    after = Judge(index, 10_000).judged(change(), None, NOW).after or {}

    assert seen == [stamped(PATIENT, "p", 1, NOW)]
    assert (after["keys"], after["compartments"], after["labels"]) == (
        {"k": 1},
        ["Patient/p"],
        ["s|c"],
    )


# ------------------------------------------------------------------------------------- revising


def revision(revise: Any = dict, **members: Any) -> Change:
    """Return a patch of Patient/p that makes of it what ``revise`` returns."""
    return Change("patch", "Patient", "p", revise=revise, **members)


def test_a_revision_is_of_what_is_there() -> None:
    """It gets the resource as stored, with its version and time, and makes the next version."""
    seen: list[dict[str, Any]] = []

    def revise(before: dict[str, Any]) -> dict[str, Any]:
        seen.append(before)
        return {**before, "active": False}

    result = judged(revision(revise), at(2))

    assert seen == [stamped(PATIENT, "p", 2, NOW - timedelta(days=1))]
    assert (result.stored.version, result.stored.interaction) == (3, "patch")
    assert result.stored.created is False
    assert b'"active":false' in result.stored.json


def test_a_revision_that_changes_nothing_writes_nothing() -> None:
    """Members in any order; the time and version are not its own to change."""
    result = judged(revision(lambda before: shuffled({**before, "meta": {}})), at(2))

    assert (result.after, result.stored.version, result.stored.changed) == (None, 2, False)


@pytest.mark.parametrize(("state", "status"), [("none", 404), ("deleted at 2", 410)])
@pytest.mark.parametrize("headers", [{}, {"if_match": tags("2")}, {"if_none_match": tags("*")}])
def test_there_must_be_something_to_revise(
    state: str, status: int, headers: dict[str, Any]
) -> None:
    """What fails without the preconditions fails with them (RFC 9110, 13.2.1)."""
    with pytest.raises(FhirError) as refused:
        judged(revision(**headers), STATES[state])
    assert refused.value.status == status


def test_preconditions_come_before_the_revision() -> None:
    """A version that the client does not mean is not looked into."""

    def never(_: dict[str, Any]) -> dict[str, Any]:
        raise AssertionError

    for headers in ({"if_match": tags("1")}, {"if_none_match": tags("*")}):
        with pytest.raises(FhirError) as refused:
            judged(revision(never, **headers), at(2))
        assert refused.value.status == 412


def test_what_a_revision_makes_is_checked() -> None:
    """Before anything else is done with it: it may be no resource of any kind."""
    seen: list[Any] = []

    def check(after: dict[str, Any]) -> None:
        seen.append(after)
        raise FhirError(Issue("value", "no"))

    with pytest.raises(FhirError, match="no"):
        judged(revision(lambda _: {"meta": "x"}, check=check), at(2))
    assert seen == [{"meta": "x"}]


def test_what_relies_on_a_version() -> None:
    """A guarded change and a revision are right only over what they were judged against."""
    assert not change().relies_on_version
    assert change(if_match=tags("2")).relies_on_version
    assert revision().relies_on_version
