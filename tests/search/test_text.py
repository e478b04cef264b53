# https://hl7.org/fhir/R4/search.html#content
"""``_text`` and ``_content``: words of the narrative and of the whole resource."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.artifacts import artifacts_root
from fhir_server.outcome import FhirError
from fhir_server.r4.definitions import load_definitions
from fhir_server.search.escape import escape
from fhir_server.search.parameters import ParameterTable, parameter_table
from fhir_server.search.text import WORDS_MAX, text_keys, words
from tests.search.matching import found_by

REPORT: dict[str, Any] = {
    "resourceType": "DiagnosticReport",
    "id": "r1",
    "text": {
        "status": "generated",
        "div": "<div>Bone &amp; <b>Liver</b> &lt;spot&gt;: metástasis. রোগীর জ্বর।</div>",
    },
    "conclusion": "No fracture; X-ray of the wrist",
    "effectiveDateTime": "2020-05-06",
    "code": {"coding": [{"system": "http://loinc.org", "code": "24627-2", "display": "Chest CT"}]},
    "subject": {"reference": "Patient/secret", "display": "O'Neil"},
}

# value -> found by _text, found by _content
CASES: dict[str, tuple[bool, bool]] = {
    "bone": (True, True),
    "BONE liver": (True, True),
    "bone AND spleen": (False, False),
    "bone OR spleen": (True, True),
    "spleen OR (bone and metastasis)": (True, True),
    "(spleen OR bone) NOT liver": (False, False),
    "bone,spleen": (True, True),
    "not spleen": (True, True),
    "metast*": (True, True),
    "etasta*": (False, False),
    "জ্বর": (True, True),
    "জ": (False, False),
    "spot": (True, True),
    "fracture": (False, True),
    "bone fracture": (False, True),
    '"x-ray" wrist': (False, True),
    "24627-2": (False, True),
    "chest - ct": (False, True),
    "o'neil": (False, True),
    "secret": (False, False),
    "2020": (False, False),
    "loinc": (False, False),
    "div": (False, False),
    "generated": (False, False),
}


@pytest.mark.parametrize(("value", "expected"), CASES.items(), ids=map(ascii, CASES))
def test_words(table: ParameterTable, value: str, expected: tuple[bool, bool]) -> None:
    """Words are compared whole and folded; AND, OR, NOT and parentheses join them."""
    found = [found_by(table, REPORT, (code, value)) for code in ("_text", "_content")]

    assert tuple(found) == expected


REFUSED = ("-", "()", "(a", "a)", "a OR", "NOT", "a AND", "(" * 50 + "a", "a " * 200, "$where(")


@pytest.mark.parametrize("value", REFUSED)
def test_what_cannot_be_read_is_refused(table: ParameterTable, value: str) -> None:
    """No word, a parenthesis alone, or more than anybody asks for: 400."""
    with pytest.raises(FhirError) as caught:
        found_by(table, REPORT, ("_content", value))

    assert (caught.value.status, caught.value.issues[0].code) == (400, "value")


def test_switched_off() -> None:
    """Without the setting nothing is written, and a search is refused with its name."""
    table = parameter_table(load_definitions(artifacts_root()), text_search=False)

    with pytest.raises(FhirError, match="FHIR_TEXT_SEARCH"):
        found_by(table, REPORT, ("_text", "bone"))


def test_keys_are_bounded() -> None:
    """However long a resource is, its words are bounded in number and length."""
    many = " ".join(f"w{number}" for number in range(3 * WORDS_MAX)) + " " + "x" * 1000
    keys = text_keys({"text": {"div": many}, "note": many, "more": ["y" * 500]})

    assert all(len(found) <= WORDS_MAX for found in keys.values())
    assert all(len(word) <= 64 for found in keys.values() for word in found)


@given(st.text(min_size=1, max_size=40), st.text(max_size=40))
def test_a_text_is_found_by_its_words(table: ParameterTable, text: str, other: str) -> None:
    """Every word of a text finds it; a word that it lacks does not."""
    resource = {"resourceType": "Observation", "note": [{"text": f"a {text}"}]}
    there = set(words(f"a {text}"))

    for word in {*there, *words(other)} - {"and", "or", "not"}:
        try:
            found = found_by(table, resource, ("_content", escape(word)))
        except FhirError:  # such as a surrogate, which is no text in UTF-8
            continue
        assert found is (word in there)


@given(st.lists(st.text(st.characters(max_codepoint=127), max_size=80), max_size=4))
def test_words_are_the_same_beside_other_scripts(texts: list[str]) -> None:
    """A text of ASCII has the words that it has where a letter of another script stands behind."""
    alone = words("\n".join(texts))
    assert alone == words("\n".join([*texts, "বিলকিস"]))[: len(alone)]
    found = text_keys({"resourceType": "Basic", "note": [{"text": text} for text in texts]})
    bounded = [word for text in texts if text[:1] not in "0123456789hu" for word in words(text)]
    assert set(bounded) <= set(found.get("_content", ()))
