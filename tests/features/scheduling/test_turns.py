"""Turns: who asks for the same waits, who asks for another does not, and nobody for ever."""

import asyncio
import random

import pytest

from fhir_server.features.scheduling import turns as module
from fhir_server.features.scheduling.turns import Turns


async def test_nobody_else_is_there_meanwhile() -> None:
    """Of several names in any order; and nothing is kept when all have gone."""
    turns, there, most = Turns(), set[str](), 0
    chance = random.Random(1)

    async def visit(names: list[str]) -> None:
        nonlocal most
        async with turns.of(names):
            assert not there & set(names)
            there.update(names)
            most = max(most, len(there))
            await asyncio.sleep(0)
            there.difference_update(names)

    async with asyncio.timeout(10):
        await asyncio.gather(*(visit(chance.sample("abcdefgh", 2)) for _ in range(200)))
    assert most > 2
    assert turns == Turns()


async def test_who_gives_up_is_not_waited_for() -> None:
    """Cancelled in the queue, or failed in its turn: the next one comes."""
    turns = Turns()

    async def fail() -> None:
        async with turns.of("a"):
            await asyncio.sleep(0.01)
            raise ValueError

    async def wait() -> None:
        async with turns.of("a"):
            pass

    first = asyncio.create_task(fail())
    await asyncio.sleep(0)
    second = asyncio.create_task(wait())
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(ValueError):  # noqa: PT011
        await first
    async with asyncio.timeout(1):
        await wait()
    assert turns == Turns()


async def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn saves work; after a while one goes ahead without."""
    monkeypatch.setattr(module, "_WAIT_S", 0.01)
    turns = Turns()
    async with turns.of("a"), asyncio.timeout(1), turns.of("a"):
        pass
    assert turns == Turns()
