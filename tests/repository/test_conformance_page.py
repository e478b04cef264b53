"""docs/conformance-http.md is true: the tests it names exist, and those of sections are on it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "conformance-http.md").read_text("utf-8")
NAMED = sorted(set(re.findall(r"`((?!tests/)[\w/]+\.py(?:::\w+)?)`", PAGE)))
ROWS = [line for line in PAGE.splitlines() if re.match(r"\| [\w.-]+ \| (?!keyword|---)", line)]
KEYWORDS = ("SHALL", "SHALL NOT", "SHOULD", "SHOULD NOT", "\u2013")


def functions_of(path: Path) -> set[str]:
    """Return the names of the tests in ``path``."""
    tree = ast.parse(path.read_text("utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    names = {one.name for one in ast.walk(tree) if isinstance(one, functions)}
    return {name for name in names if name.startswith("test_")}


@pytest.mark.parametrize("name", NAMED)
def test_what_is_named_exists(name: str) -> None:
    """A file below ``tests/``, and the function in it."""
    file, _, function = name.partition("::")
    path = ROOT / "tests" / file

    assert path.is_file()
    assert not function or function in functions_of(path)


def test_each_row_is_held_or_explained() -> None:
    """A keyword, a sentence, and a test or a reason."""
    assert len(ROWS) > 80
    for row in ROWS:
        _, keyword, sentence, held = [cell.strip() for cell in row.strip("|").split("|")]
        assert keyword in KEYWORDS, row
        assert sentence
        assert ".py" in held or len(held) > 30, row


def test_tests_named_after_a_section_are_listed() -> None:
    """So that none is written and forgotten."""
    found = {
        f"conformance/{path.name}::{name}"
        for path in (ROOT / "tests" / "conformance").glob("test_*.py")
        for name in functions_of(path)
        if re.match(r"test_http_\w+_3_1_0_", name)
    }

    assert len(found) > 15
    assert sorted(found - set(NAMED)) == []
