# https://hl7.org/fhir/R4/valueset.html#compositions
"""Value sets as codes: whole, or refused with the reason."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.r4.expansion import Expander, Unexpandable

ANIMALS = "http://x/animals"
CODE_SYSTEMS: dict[str, dict[str, Any]] = {
    ANIMALS: {
        "content": "complete",
        "concept": [
            {
                "code": "mammal",
                "concept": [
                    {
                        "code": "cat",
                        "display": "Cat",
                        "property": [{"code": "legs", "valueInteger": 4}],
                        "concept": [{"code": "tiger"}],
                    },
                    {"code": "whale", "property": [{"code": "swims", "valueBoolean": True}]},
                ],
            },
            {
                "code": "fish",
                "property": [
                    {"code": "swims", "valueBoolean": True},
                    {"code": "child", "valueCode": "shark"},
                ],
            },
            {"code": "shark", "property": [{"code": "status", "valueCode": "retired"}]},
            {"code": "catfish", "property": [{"code": "parent", "valueCode": "fish"}]},
            {"code": "dodo", "property": [{"code": "inactive", "valueBoolean": True}]},
        ],
    },
    "http://x/part": {"content": "fragment", "concept": [{"code": "a"}]},
    "http://x/groups": {
        "content": "complete",
        "hierarchyMeaning": "grouped-by",
        "concept": [{"code": "g", "concept": [{"code": "h"}]}],
    },
}
ALL = {"mammal", "cat", "tiger", "whale", "fish", "shark", "catfish", "dodo"}


def a_filter(property: str, operator: str, value: str) -> dict[str, Any]:
    return {"system": ANIMALS, "filter": [{"property": property, "op": operator, "value": value}]}


def concepts(*codes: str) -> dict[str, Any]:
    return {"system": ANIMALS, "concept": [{"code": code} for code in codes]}


def expanded(*include: Any, sets: Mapping[str, Any] | None = None, **more: Any) -> set[str]:
    """Return the codes of the value set that includes ``include``."""
    value_sets = {"it": {"compose": {"include": [*include]} | more}, **(sets or {})}
    kinds = {"ValueSet": value_sets, "CodeSystem": CODE_SYSTEMS}
    return {code for _, code in Expander(lambda type, name: kinds[type].get(name)).codes("it")}


FILTERS: list[tuple[str, str, str, set[str]]] = [
    ("concept", "is-a", "mammal", {"mammal", "cat", "tiger", "whale"}),
    ("code", "is-a", "fish", {"fish", "shark", "catfish"}),
    ("concept", "descendent-of", "cat", {"tiger"}),
    ("concept", "is-not-a", "mammal", {"fish", "shark", "catfish", "dodo"}),
    ("concept", "generalizes", "tiger", {"tiger", "cat", "mammal"}),
    ("concept", "in", "cat, dodo,unicorn", {"cat", "dodo"}),
    ("concept", "not-in", "cat,dodo", ALL - {"cat", "dodo"}),
    ("concept", "=", "cat", {"cat"}),
    ("concept", "regex", "cat.*", {"cat", "catfish"}),
    ("concept", "regex", "at", set()),
    ("display", "=", "Cat", {"cat"}),
    ("legs", "=", "4", {"cat"}),
    ("legs", "not-in", "4", ALL - {"cat"}),
    ("swims", "=", "true", {"whale", "fish"}),
    ("swims", "exists", "true", {"whale", "fish"}),
    ("swims", "exists", "false", ALL - {"whale", "fish"}),
    ("parent", "=", "fish", {"shark", "catfish"}),
    ("child", "=", "cat", {"mammal"}),
    ("child", "exists", "false", {"tiger", "whale", "shark", "catfish", "dodo"}),
]


@pytest.mark.parametrize(("property", "operator", "value", "expected"), FILTERS)
def test_filters(property: str, operator: str, value: str, expected: set[str]) -> None:
    """Each operator leaves what its row in the specification says."""
    assert expanded(a_filter(property, operator, value)) == expected


def test_parts() -> None:
    """Includes add up, excludes take away; a system and its value sets share what is in all."""
    cats = {"cats": {"compose": {"include": [a_filter("concept", "is-a", "cat")]}}}
    pets = {"pets": {"compose": {"include": [concepts("cat", "fish")]}}}

    assert expanded({"system": ANIMALS}) == ALL
    assert expanded(concepts("cat"), concepts("dodo")) == {"cat", "dodo"}
    assert expanded({"system": ANIMALS}, exclude=[concepts("dodo")]) == ALL - {"dodo"}
    assert expanded({"valueSet": ["cats", "pets"]}, sets=cats | pets) == {"cat"}
    assert expanded({**concepts("tiger"), "valueSet": ["cats"]}, sets=cats) == {"tiger"}
    assert expanded({"system": ANIMALS}, inactive=False) == ALL - {"dodo", "shark"}
    two = a_filter("concept", "is-a", "mammal")
    two["filter"] += a_filter("swims", "=", "true")["filter"]
    assert expanded(two) == {"whale"}
    grouped = {"system": "http://x/groups", "filter": two["filter"][:1]}
    grouped["filter"] = [{"property": "concept", "op": "is-a", "value": "g"}]
    assert expanded(grouped) == {"g"}  # what is only grouped is no kind


EXPANSION: dict[str, Any] = {
    "contains": [{"abstract": True, "contains": [{"system": "s", "code": "a"}]}]
}


def test_an_expansion_that_is_there() -> None:
    """It counts where the rest cannot be expanded, and only if it is whole."""
    unknown = {"include": [{"system": "http://snomed.info/sct"}]}

    def codes(**value_set: Any) -> Any:
        find = {"ValueSet": {"it": value_set}, "CodeSystem": CODE_SYSTEMS}
        return Expander(lambda type, name: find[type].get(name)).codes("it")

    assert codes(expansion=EXPANSION) == codes(expansion=EXPANSION, compose=unknown) == {("s", "a")}
    cut: Any = [{"url": "http://hl7.org/fhir/StructureDefinition/valueset-toocostly"}]
    parts: tuple[dict[str, Any], ...] = ({"total": 2}, {"offset": 5}, {"extension": cut})
    for part in parts:
        with pytest.raises(Unexpandable, match="not whole"):
            codes(expansion={**EXPANSION, **part})


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"system": "http://nowhere"}, "http://nowhere is not here"),
    ({"system": "http://x/part"}, "not all is here (it is fragment)"),
    ({"system": ANIMALS, "version": "7"}, "animals|7 is not here"),
    ({"valueSet": ["none"]}, "value set none is not here"),
    ({"valueSet": ["it"]}, "defined by itself"),
    (a_filter("concept", "is-a", "unicorn"), "no code of"),
    (a_filter("legs", "is-a", "cat"), "is for concepts"),
    (a_filter("wings", "=", "2"), "property wings"),
    (a_filter("concept", "like", "cat"), "filter like is not understood"),
    (a_filter("concept", "regex", "(?=x)"), "cannot be run safely"),
    (a_filter("concept", "regex", "x" * 501), "over 500 characters"),
    (a_filter("swims", "exists", "1"), "not true or false"),
]


@pytest.mark.parametrize(("include", "expected"), REFUSED, ids=[one for _, one in REFUSED])
def test_what_is_not_known_whole_is_refused(include: dict[str, Any], expected: str) -> None:
    """Nothing is left out in silence: the reason is a sentence."""
    with pytest.raises(Unexpandable) as caught:
        expanded(include)

    assert expected in str(caught.value)


def test_an_expansion_is_bounded_and_each_set_is_expanded_once() -> None:
    """Sets that take in each other many times over cost what they are, and no more than allowed."""
    asked: list[str] = []
    chain: dict[str, Any] = {
        f"s{n}": {
            "compose": {"include": [{"valueSet": [f"s{n + 1}"]}, {"valueSet": [f"s{n + 1}"]}]}
        }
        for n in range(60)
    }
    chain["s60"] = {"compose": {"include": [{"system": ANIMALS}]}}

    def find(type: str, name: str) -> Any:
        asked.append(name)
        return chain.get(name) if type == "ValueSet" else CODE_SYSTEMS.get(name)

    assert len(Expander(find).codes("s0")) == len(ALL)
    assert len(asked) == 62
    with pytest.raises(Unexpandable, match="8 codes, more than 7"):
        Expander(find, 7).codes("s60")


def test_filters_are_bounded_by_what_they_cost() -> None:
    """A test of every code costs many times as much as a set; ten thousand are refused soon."""

    def filtered(property: str, operator: str, value: str, times: int) -> int:
        part = a_filter(property, operator, value)
        sets = {"s": {"compose": {"include": [part] * times}}}
        find = {"ValueSet": sets, "CodeSystem": CODE_SYSTEMS}
        return len(Expander(lambda type, name: find[type].get(name), 200).codes("s"))

    assert filtered("concept", "is-a", "mammal", 300) == 4
    assert filtered("concept", "regex", "c.*", 20) == 2
    with pytest.raises(Unexpandable, match="too many codes"):
        filtered("concept", "regex", "c.*", 300)
    with pytest.raises(Unexpandable, match="too many codes"):
        filtered("concept", "is-a", "mammal", 10_000)


CODES = st.sampled_from(sorted(ALL))


@given(code=CODES, other=CODES)
def test_hierarchical_filters_agree(code: str, other: str) -> None:
    """What is below a code has it above, and is-not-a is the rest."""
    below = expanded(a_filter("concept", "is-a", code))

    assert (other in below) is (code in expanded(a_filter("concept", "generalizes", other)))
    assert expanded(a_filter("concept", "is-not-a", code)) == ALL - below
    assert expanded(a_filter("concept", "descendent-of", code)) == below - {code}
