"""The roles in docs/security.md are those of ``fhir_server/security/roles.py``."""

import re
from pathlib import Path

from scripts.roles_table import table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "security.md"


def test_the_page_has_the_roles_as_they_are() -> None:
    """Groups, letters, reach and labels; who changes one reads the other."""
    between = re.search(r"<!-- roles -->\n(.*)<!-- /roles -->", PAGE.read_text("utf-8"), re.DOTALL)

    assert between
    assert between[1] == table(), "Put what `python scripts/roles_table.py` prints there."
