"""The settings in the README are those of ``fhir_server/settings.py``."""

import re
from pathlib import Path

from fhir_server.settings import Settings
from scripts.settings_table import rows

ROOT = Path(__file__).resolve().parents[2]
MEND = (
    "Run `python scripts/settings_table.py` and put what it prints between "
    "<!-- settings --> and <!-- /settings --> in README.md."
)


def test_the_readme_lists_every_setting_with_its_default() -> None:
    """Names and defaults agree, in the same order; the wording of the meaning is free."""
    assert readme_rows() == [(name, default) for name, default, _ in rows()], MEND


def test_every_setting_says_what_it_is_for() -> None:
    """Each field of ``Settings`` has a description."""
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_every_setting_begins_with_the_same_prefix() -> None:
    """A name in the environment tells whose it is."""
    assert [name for name, *_ in rows() if not name.startswith("FHIR_")] == []


def readme_rows() -> list[tuple[str, str]]:
    """Return name and default of each row of the README's table."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    between = re.search(r"<!-- settings -->(.*)<!-- /settings -->", text, re.DOTALL)
    assert between, MEND
    lines = [line for line in between[1].splitlines() if line.startswith("|")]
    cells = [re.split(r"(?<!\\)\|", line) for line in lines[2:]]  # without the heading
    return [(name.strip().strip("`"), default.strip()) for _, name, default, *_ in cells]
