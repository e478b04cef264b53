"""Tasks end, also those that forget that they were cancelled."""

import asyncio

import pytest

from fhir_server.ending import end_of


async def _forgetting(times: int, told: asyncio.Event) -> None:
    """Run until cancelled once more than ``times``."""
    for _ in range(times):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            told.set()
    await asyncio.Event().wait()


async def test_a_task_that_forgets_its_cancellation_ends() -> None:
    """As one does whose answer came in that moment, through ``asyncio.wait_for``."""
    tasks = [asyncio.create_task(_forgetting(times, asyncio.Event())) for times in (0, 1)]
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await end_of(tasks)

    assert all(one.cancelled() for one in tasks)


async def test_who_is_cancelled_while_it_waits_leaves_no_task_behind() -> None:
    """It passes the cancellation on, and is cancelled itself in the end."""
    told = asyncio.Event()
    task = asyncio.create_task(_forgetting(2, told))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(end_of([task]))
    await told.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert task.cancelled()


async def test_no_task_is_ended_at_once() -> None:
    """Nothing is waited for."""
    await end_of([])
