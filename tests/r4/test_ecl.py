# https://confluence.ihtsdotools.org/display/DOCECL
"""Expression constraints as codes, or refused with what is not understood."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.r4.ecl import NotEcl, ecl_codes
from fhir_server.r4.selections import holds

# 100000 over 200000 and 300000; 400000 under both; 300000 and 400000 in the set 900000.
CONCEPTS = {
    "100000": {"ancestors": ["100000"], "keys": []},
    "200000": {"ancestors": ["200000", "100000"], "keys": ["parent\x1f100000"]},
    "300000": {
        "ancestors": ["300000", "100000"],
        "keys": ["parent\x1f100000", "refset\x1f900000"],
    },
    "400000": {
        "ancestors": ["400000", "300000", "200000", "100000"],
        "keys": ["parent\x1f200000", "parent\x1f300000", "refset\x1f900000"],
    },
}
CASES = [
    ("*", "100000 200000 300000 400000"),
    ("200000 |Two (thing)|", "200000"),
    ("<< 200000", "200000 400000"),
    ("<200000|Two|", "400000"),
    ("<! 100000", "200000 300000"),
    ("^ 900000", "300000 400000"),
    ("<< 200000 AND ^900000", "400000"),
    ("<< 200000, ^900000", "400000"),
    ("200000 OR 300000 OR 400000", "200000 300000 400000"),
    ("<< 100000 MINUS << 200000", "100000 300000"),
    ("(<< 100000 MINUS << 200000) AND (^ 900000)", "300000"),
    ("<< 700000", ""),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_constraints(text: str, expected: str) -> None:
    """Each operator takes what the language says."""
    codes = ecl_codes(text)
    found = [one for one, more in CONCEPTS.items() if holds(codes, {"code": one, **more})]

    assert found == expected.split()


REFUSED = [
    ("", "concept is expected"),
    ("<< 100000 : 363698007 = 39057004", "goes on with ':'"),
    ('<< 100000 {{ term = "x" }}', "goes on with '{'"),
    ("100000 AND 200000 OR 300000", "need parentheses"),
    ("100000 MINUS 200000 MINUS 300000", "need parentheses"),
    ("(100000", "not closed"),
    ("<< (100000)", "concept is expected"),
    ("(" * 30 + "100000" + ")" * 30, "20 levels"),
    ("100000 OR " * 500 + "100000", "4,000 characters"),
]


@pytest.mark.parametrize(("text", "words"), REFUSED)
def test_refusals(text: str, words: str) -> None:
    """What is not understood is named."""
    with pytest.raises(NotEcl, match=words.replace("{", r"\{")):
        ecl_codes(text)


@given(st.text(st.sampled_from("<>^!()*|,:{} ANDORMINUS0123456"), max_size=60))
def test_any_text_is_codes_or_a_refusal(text: str) -> None:
    """Nothing else comes of it."""
    with suppress(NotEcl):
        ecl_codes(text)
