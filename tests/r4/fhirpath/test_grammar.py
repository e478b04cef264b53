# http://hl7.org/fhirpath/N1/#grammar
"""What is an expression, and where the fault of another is."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.r4.fhirpath.engine import compiled
from fhir_server.r4.fhirpath.faults import FhirPathError
from fhir_server.r4.fhirpath.grammar import CHARACTERS_MAX, NESTING_MAX, expression

SAME = {
    "1 + 2 * 3": "1 + (2 * 3)",
    "-1.abs()": "-(1.abs())",
    "a and b or c": "(a and b) or c",
    "a or b and c": "a or (b and c)",
    "a implies b or c": "a implies (b or c)",
    "a = b in c": "(a = b) in c",
    "a | b = c": "(a | b) = c",
    "a is B = c": "(a is B) = c",
    "1 < 2 is Boolean": "1 < (2 is Boolean)",
    "a.b[0].c": "((a.b)[0]).c",
    "a & b + c": "(a & b) + c",
    "a.`b`": "a.b",
    "a /* one */ . // two\n b": "a.b",
    "a.as(Quantity)": "a as Quantity",
    "a.ofType(FHIR.Quantity)": "a as FHIR.Quantity",
    "%`vs-x`": "%'vs-x'",
    "'\\u0061\\''": "'a\\''",
    "4 days": "4 day",
    "contains.in.is.as.div": "contains.`in`.`is`.`as`.`div`",
    "@2015-02-04T14:34:28.123+10:00.x": "(@2015-02-04T14:34:28.123+10:00).x",
    "@T14.hour": "(@T14).hour",
    "{}.count()": "({}).count()",
    " a ": "a",
}


@pytest.mark.parametrize(("text", "other"), SAME.items(), ids=SAME)
def test_precedence_and_lexical_forms(text: str, other: str) -> None:
    """Two ways to write the same have the same tree."""
    assert expression(text) == expression(other)


FAULTS = {
    "": 0,
    "a.": 2,
    "a..b": 2,
    "a[": 2,
    "a b": 2,
    "(a": 2,
    "a)": 1,
    "f(a,)": 4,
    "'open": 0,
    "`open": 0,
    "a /* open": 2,
    "'\\q'": 1,
    "a # b": 2,
    "and": 0,
    "a and": 5,
    "1 is": 4,
    "%": 1,
    "@x": 0,
    "@2015-13": 1,
    "@2015-02-30": 1,
    "@T25": 1,
    "a.nosuch()": 2,
    "a.where()": 2,
    "a.first(1)": 2,
    "1 2": 2,
}


@pytest.mark.parametrize(("text", "position"), FAULTS.items(), ids=FAULTS)
def test_a_fault_has_a_position(text: str, position: int) -> None:
    """The sentence says at which character."""
    with pytest.raises(FhirPathError, match=f"at character {position + 1}"):
        compiled(text)


def test_a_likely_function_is_named() -> None:
    """A typing error is found by its neighbour."""
    with pytest.raises(FhirPathError, match=r"Did you mean .*startsWith"):
        compiled("a.startWith('b')")


@pytest.mark.parametrize(
    "text",
    [
        "(" * (NESTING_MAX + 1) + "a" + ")" * (NESTING_MAX + 1),
        "f(" * (NESTING_MAX + 1) + ")" * (NESTING_MAX + 1),
        "a.where(" * (NESTING_MAX + 1) + "a" + ")" * (NESTING_MAX + 1),
        "-" * (NESTING_MAX + 1) + "1",
        "a" * (CHARACTERS_MAX + 1),
        "9" * 50,
        "/*" * (CHARACTERS_MAX // 2),
        " " * CHARACTERS_MAX,
        "'" + "\\" * (CHARACTERS_MAX - 1),
    ],
)
def test_what_is_too_much_is_refused(text: str) -> None:
    """Too deep, too long, and what other readers go back over."""
    with pytest.raises(FhirPathError):
        compiled(text)


@pytest.mark.parametrize(
    "text",
    [
        ".".join(["a"] * 9000),
        " and ".join(["a"] * 3000),
        " = ".join(["1"] * 4000),
        " and 1 = ".join(["a"] * 2000),
        " + ".join(["1"] * 4000),
        " | ".join(["a"] * 4000),
        "a" + "[0]" * 6000,
        "a" + ".first()" * 2000,
        "a" + " is A" * 3000,
        " or a xor ".join(["a"] * 1500),
    ],
    ids=lambda text: text[:12],
)
def test_what_is_long_is_not_deep(text: str) -> None:
    """A chain of thousands is compiled without a deep stack."""
    assert compiled(text).text == text


WORDS = st.sampled_from(
    "a B $this $index %resource 1 2.5 'x' `y` @2015 @T10 4 days . ( ) [ ] { } , | & + - * / = != ~"
    " < >= is as in and or xor implies div where first exists ofType iif // /* */"
    " \\ ' @ % #".split()
)


@given(st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=25).map(" ".join)))
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    """Nothing but the one error ever comes out."""
    with suppress(FhirPathError):
        compiled(text)
