"""docs/conformance-smart.md is true: the tests it names exist, and every row of the lists of SMART
and of ONC (g)(10) is on it, with a test or a reason."""

import csv
import re
from pathlib import Path

import pytest

from tests.repository.test_conformance_page import functions_of

ROOT = Path(__file__).resolve().parents[2]
LISTS = ROOT.parent / "shared" / "data" / "smart"
PAGE = (ROOT / "docs" / "conformance-smart.md").read_text("utf-8")
NAMED = sorted(set(re.findall(r"`((?!tests/)[\w/]+\.py(?:::\w+)?)`", PAGE)))
ROWS = re.findall(r"^\| ([A-Z\d-]*\d) \| (.+) \| (.+) \| (.+) \|$", PAGE, re.MULTILINE)
OWN = ("conformance/smart/test_requirements.py", "conformance/smart/test_g10.py")
SMART = 167 + 5
ONC = 77


def _ids(name: str) -> set[str]:
    path = LISTS / name
    if not path.is_file():
        pytest.skip("the shared lists of SMART are not there (../shared/data/smart)")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["Actors"] == "Server"]
    return {row["ID"] for row in rows if row["Conformance"] in ("SHALL", "SHALL NOT")}


@pytest.mark.parametrize("name", NAMED)
def test_what_is_named_exists(name: str) -> None:
    """A file below ``tests/``, and the function in it."""
    file, _, function = name.partition("::")
    path = ROOT / "tests" / file

    assert path.is_file()
    assert not function or function in functions_of(path)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_each_row_is_held_or_explained(row: tuple[str, str, str, str]) -> None:
    """By tests, or by a remark that says why there is none."""
    _, what, held, remark = row

    assert what
    assert "::test_" in held or len(remark) > 40


def test_there_are_as_many_rows_as_in_the_lists() -> None:
    """Each once; known here, so that it holds without the lists."""
    ids = [id for id, *_ in ROWS]

    assert len(set(ids)) == len(ids)
    assert sum(id.isdigit() for id in ids) == SMART
    assert sum(not id.isdigit() for id in ids) == ONC


def test_no_row_of_smart_is_missing() -> None:
    """The SHALL and SHALL NOT of servers in SMART App Launch 2.2.0."""
    listed = _ids("smart_stu2_2_requirements_coverage.csv")

    assert {id for id, *_ in ROWS if id.isdigit()} == listed


def test_no_row_of_onc_is_missing() -> None:
    """The sequence of (g)(10)."""
    listed = _ids("onc_certification_g10_test_kit_requirements.csv")

    assert {id for id, *_ in ROWS if not id.isdigit()} == listed


def test_what_was_written_for_the_lists_is_on_the_page() -> None:
    """So that no test is written and forgotten."""
    written = {f"{file}::{one}" for file in OWN for one in functions_of(ROOT / "tests" / file)}

    assert sorted(written - set(NAMED)) == []
