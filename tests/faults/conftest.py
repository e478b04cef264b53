"""What the tests of faults share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.members import Members, three_members


@pytest.fixture
def members(tmp_path: Path) -> Iterator[Members]:
    """Three members of a replica set."""
    with three_members(tmp_path) as found:
        yield found
