# https://hl7.org/fhir/R4/search.html#string
"""String parameters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.outcome import FhirError
from fhir_server.search.escape import escape
from fhir_server.search.keys import TEXT_MAX
from fhir_server.search.parameters import ParameterTable
from fhir_server.search.string import compile_string, fold
from tests.search.matching import found_by

FOLDS = {
    "Müller": "muller",
    "MU\u0308LLER": "muller",
    "Ångström": "angstrom",
    "Straße": "strasse",
    "O'Brien-Smith": "obrien smith",
    "Stratford\u2010upon\u2013Avon": "stratford upon avon",
    "-a -- b-": "a b",
    "  two \t words\n": "two words",
    "Ελλάς": "ελλασ",
    "Андрей": "андреи",  # its breve is a mark like any other
    "\uff46\uff55\uff4c\uff4c\u3000\uff37\uff29\uff24\uff25": "full wide",
    "مُحَمَّد": "محمد",
    "أحمد": "احمد",
    "محـــمد": "محمد",
    "张无忌": "张无忌",
    "ガ": "ガ",  # the voicing mark makes another letter
    "한국": "한국",
    "-": "-",
    "...": "...",
}


@pytest.mark.parametrize(("text", "expected"), FOLDS.items(), ids=map(ascii, FOLDS))
def test_fold(text: str, expected: str) -> None:
    """Case, accents, punctuation and needless space go; letters stay."""
    assert fold(text) == expected


# Vowel signs, virama and nukta are marks to Unicode and letters to the reader.
BANGLA = ("কামাল", "কিমাল", "মোহাম্মদ", "ক্ষ", "ড়", "রাবেয়া", "চাঁদ")


@pytest.mark.parametrize("text", BANGLA, ids=map(ascii, BANGLA))
def test_fold_keeps_bangla_signs(text: str) -> None:
    """Different Bangla words stay different: nothing but the form of encoding changes."""
    assert len({fold(word) for word in BANGLA}) == len(BANGLA)
    assert fold(text)[0] == text[0] or text.startswith("ড়")


def test_the_two_encodings_of_a_bangla_vowel_are_one() -> None:
    """O-kar is one character or two, depending on the keyboard; joiners are not seen at all."""
    assert fold("\u0995\u09cb") == fold("\u0995\u09c7\u09be")
    assert fold("\u0995\u09cd\u200c\u09b7") == fold("\u0995\u09cd\u09b7")


@given(st.text(max_size=30))
def test_folding_twice_is_folding_once(text: str) -> None:
    """What was folded is already folded, for any text."""
    assert fold(fold(text)) == fold(text)


NAMES = {"Eve": 1, "Evelyn": 2, "Severine": 3, "eve": 4, "Ève": 5}
CASES = {
    ("given", "eve"): {1, 2, 4, 5},
    ("given", "EVE"): {1, 2, 4, 5},
    ("given", "Ève"): {1, 2, 4, 5},
    ("given:contains", "eve"): {1, 2, 3, 4, 5},
    ("given:contains", "ER"): {3},
    ("given:exact", "Eve"): {1},
    ("given:exact", "Ev"): set(),
    ("given", "ver"): set(),
    ("given", "evel,sev"): {2, 3},
    ("given:contains", ".*"): set(),
    ("name", "eve"): {1, 2, 4, 5},
    ("phonetic", "eve"): {1, 2, 4, 5},
}


@pytest.mark.parametrize(("parameter", "expected"), CASES.items(), ids=map(str, CASES))
def test_matching(table: ParameterTable, parameter: tuple[str, str], expected: set[int]) -> None:
    """The examples of the specification: prefix, ``:contains`` and ``:exact``."""
    patients = {
        number: {"resourceType": "Patient", "name": [{"given": [name]}]}
        for name, number in NAMES.items()
    }
    found = {number for number, one in patients.items() if found_by(table, one, parameter)}

    assert found == expected


def test_either_part_of_a_family_name_finds_it(table: ParameterTable) -> None:
    """The parts of a family name are searched on their own, but are not the exact name."""
    patient = {"resourceType": "Patient", "name": [{"family": "Carreno Quinones"}]}

    for code in ("family", "name"):
        for text in ("Carreno", "Quinones", "carreno quin"):
            assert found_by(table, patient, (code, text))
        assert not found_by(table, patient, (code, "reno"))
        assert not found_by(table, patient, (f"{code}:exact", "Quinones"))


HYPHENS = {
    "anne-marie": True,
    "anne marie": True,
    "annemarie": True,
    "ANNE": True,
    "marie": True,
    "mar": True,
    "nne": False,
    "rie": False,
    "marie anne": False,
}


@pytest.mark.parametrize(("text", "expected"), HYPHENS.items(), ids=HYPHENS)
def test_a_hyphen_stands_between_words(table: ParameterTable, text: str, expected: bool) -> None:
    """A name with a hyphen is found by it, by a space, by neither, and by either word."""
    given = {"resourceType": "Patient", "name": [{"given": ["Eve", "Anne-Marie"]}]}
    family = {"resourceType": "Patient", "name": [{"family": "Anne\u2010Marie"}]}

    for patient, codes in ((given, ("given", "name")), (family, ("family", "name"))):
        for code in codes:
            assert found_by(table, patient, (code, text)) is expected
            assert not found_by(table, patient, (f"{code}:exact", "Marie"))


def test_an_address_is_searched_in_its_texts_only(table: ParameterTable) -> None:
    """Lines and places are searched, the kind of address is not."""
    patient = {
        "resourceType": "Patient",
        "address": [{"use": "home", "line": ["12 Lake Rd"], "city": "Dhaka", "country": "BD"}],
    }
    assert found_by(table, patient, ("address", "12 lake"), ("address", "DHAKA"))
    assert not found_by(table, patient, ("address", "home"))


def test_long_texts_agree(table: ParameterTable) -> None:
    """A text longer than a key is found by its beginning and, exactly, by the whole of it."""
    text = "ä b " * 1000
    questionnaire = {"resourceType": "Questionnaire", "description": text}

    assert found_by(table, questionnaire, ("description", "a b a b"))
    folded = compile_string("keys.x", text, "exact")["keys.x"]
    assert folded != compile_string("keys.x", f"{text}c", "exact")["keys.x"]
    assert len(folded) < TEXT_MAX + 100


@pytest.mark.parametrize(
    ("value", "modifier"), [("", ""), (" ", "exact"), ("x" * 1001, "contains")]
)
def test_what_cannot_be_looked_for_is_refused(value: str, modifier: str) -> None:
    """An empty text would find everything, and one longer than the keys nothing for certain."""
    with pytest.raises(FhirError):
        compile_string("keys.name", value, modifier)


TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=30).filter(
    lambda text: fold(text) != ""
)


@given(text=TEXTS, cut=st.integers(1, 30))
def test_a_string_finds_what_was_indexed_from_it(
    table: ParameterTable, text: str, cut: int
) -> None:
    """A text is found by itself, by its folded beginnings, by its middle, and exactly."""
    patient = {"resourceType": "Patient", "name": [{"given": [text]}]}

    assert found_by(table, patient, ("given", escape(text)))
    assert found_by(table, patient, ("given:exact", escape(text)))
    assert found_by(table, patient, ("given:contains", escape(text)))
    assert not found_by(table, patient, ("given:exact", escape(f"{text}x")))
    assert not found_by(table, patient, ("given", escape(f"{text}x")))
