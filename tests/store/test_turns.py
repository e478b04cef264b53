"""ARCHITECTURE.md, section 16.3, bundles in turn"""

import asyncio
from contextlib import suppress

import pytest

from fhir_server.outcome import FhirError
from fhir_server.store.turns import Turns


async def test_large_bundles_take_turns() -> None:
    """Of many bundles four are worked on at once, or more where all are small; each has its turn,
    in the order in which they came, also when some that wait give up."""
    turns, ended = Turns(), asyncio.Event()
    begun: list[tuple[str, int]] = []

    async def work(name: str, number: int, entries: int) -> None:
        async with turns.turn(entries, 60.0):
            begun.append((name, number))
            await ended.wait()

    large = [asyncio.create_task(work("large", n, 400)) for n in range(12)]
    await asyncio.sleep(0)
    assert begun == [("large", n) for n in range(4)]

    for one in (large[1], large[5], large[6]):  # one that works, two that wait
        one.cancel()
    ended.set()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*large, return_exceptions=True)
    assert begun == [("large", n) for n in range(12) if n not in (5, 6)]

    begun.clear()
    ended.clear()
    small = [asyncio.create_task(work("small", n, 10)) for n in range(120)]
    await asyncio.sleep(0)
    assert len(begun) == 100
    ended.set()
    await asyncio.gather(*small)
    assert len(begun) == 120


async def test_who_waits_too_long_is_told() -> None:
    """A bundle whose turn does not come is refused with 503, and takes no place."""
    turns = Turns()
    async with turns.turn(1, 1), turns.turn(1, 1), turns.turn(1, 1), turns.turn(1000, 1):
        with pytest.raises(FhirError) as refusal:
            async with turns.turn(1000, 0.01):
                pass
        assert refusal.value.status == 503
    async with turns.turn(5000, 0.01):
        pass
