# design/security.md, section 8, A1: two worlds
"""Nobody learns from what is answered whether another patient is there.

Some hundred requests here, page links followed; ``make bench ARGS="-k two_worlds"`` asks 6,000,
about all types.
"""

from collections.abc import AsyncIterator

import pytest

from tests.security.two_worlds.calls import ROWS, calls
from tests.security.two_worlds.comparing import Worlds, differences, two_worlds
from tests.security.two_worlds.mutants import MUTANTS
from tests.security.two_worlds.resources import types_of


@pytest.fixture(scope="module")
async def worlds(mongodb_uri: str) -> AsyncIterator[Worlds]:
    """Two worlds with few types: A alone, and A beside B."""
    async with two_worlds(mongodb_uri, few=True) as made:
        yield made


async def test_what_is_answered_does_not_depend_on_another_patient(worlds: Worlds) -> None:
    """The same requests get the same bytes, whether or not B is there."""
    types = types_of(worlds[0].server.context.parameters, few=True)
    assert await differences(worlds, calls(1, 250, types), "plain") == []


async def test_a_predicate_that_is_forgotten_is_seen(worlds: Worlds) -> None:
    """Wherever one place forgets the predicate, the two worlds answer differently; and only then do
    those requests show a difference."""
    asked = [call for one in MUTANTS.values() for call in one.calls]
    assert await differences(worlds, asked, "sound") == []

    unseen = []
    for name, mutant in MUTANTS.items():
        with pytest.MonkeyPatch.context() as patch:
            mutant.apply(patch)
            if not await differences(worlds, mutant.calls, "mutant"):
                unseen.append(name)
    assert ", ".join(unseen) == ""


def test_each_row_has_a_mutant() -> None:
    """Every row that requests are made for has a mutant that is caught there."""
    assert {one.row for one in MUTANTS.values()} == set(ROWS)
