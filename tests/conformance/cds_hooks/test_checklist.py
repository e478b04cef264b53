"""design/cds.md, section 16: the checklist of a CDS service, each line with a test of its id."""

import re
from pathlib import Path

HERE = Path(__file__).parent
IDS = (*range(1, 9), *range(10, 17), *range(20, 31), *range(40, 43), *range(50, 59))


def test_each_line_has_a_test() -> None:
    """S-01 to S-58: a test is named with each id, and says it in its docstring."""
    found: set[int] = set()
    for path in HERE.glob("test_*.py"):
        text = path.read_text("utf-8")
        tests = re.findall(r'def test_s(\d\d)_\w+\((?:.|\n)*?"""(.*)', text)
        for id, said in tests:
            assert said.startswith(f"S-{id}: "), f"{path.name}: {said}"
            found.add(int(id))

    assert found == set(IDS)
