"""docs/conformance-hl7v2.md is true: the tests it names exist, and every check of the design is on
it, with a test or a reason."""

import re
from pathlib import Path

import pytest

from tests.repository.test_conformance_page import functions_of

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "conformance-hl7v2.md").read_text("utf-8")
NAMED = sorted(set(re.findall(r"`((?!tests/)[\w/]+\.py(?:::\w+)?)`", PAGE)))
ROWS = re.findall(r"^\| H(\d+) \| (.+) \| (.+) \| (.+) \|$", PAGE, re.MULTILINE)
CHECKS = 81
VARIABLES = set(re.findall(r"^\| `(FHIR_TEST_HL7_\w+)`", PAGE, re.MULTILINE))


@pytest.mark.parametrize("name", NAMED)
def test_what_is_named_exists(name: str) -> None:
    """A file below ``tests/``, and the function in it."""
    file, _, function = name.partition("::")
    path = ROOT / "tests" / file

    assert path.is_file()
    assert not function or function in functions_of(path)


def test_every_test_of_a_check_is_named() -> None:
    """Whoever adds one adds it here."""
    for path in sorted((ROOT / "tests" / "adapters").rglob("test_*.py")):
        file = path.relative_to(ROOT / "tests")
        own = {one for one in functions_of(path) if re.match(r"test_h\d+_", one)}
        assert own <= {one.partition("::")[2] for one in NAMED if one.startswith(f"{file}::")}, file


def test_every_check_is_there_once_and_in_order() -> None:
    """H1 to H81."""
    assert [int(number) for number, *_ in ROWS] == list(range(1, CHECKS + 1))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"H{row[0]}")
def test_each_check_is_held_or_explained(row: tuple[str, str, str, str]) -> None:
    """By tests named after it, or by a remark that says why there is none."""
    number, sentence, held, remark = row
    own = re.findall(rf"::test_h{number}_", held)

    assert sentence
    assert own or len(remark) > 20


def test_what_is_named_after_a_check_is_a_check() -> None:
    """No test has the id of a check that there is not."""
    names = {name for path in (ROOT / "tests").rglob("test_*.py") for name in functions_of(path)}
    numbers = {int(found[1]) for name in names if (found := re.match(r"test_h(\d+)_", name))}

    assert numbers <= set(range(1, CHECKS + 1))


def test_every_variable_of_the_long_forms_is_listed() -> None:
    """Those that the tests read."""
    read = {
        name
        for path in (ROOT / "tests" / "adapters").rglob("test_*.py")
        for name in re.findall(r"FHIR_TEST_HL7_[A-Z0-9]+", path.read_text("utf-8"))
    }

    assert read == VARIABLES
