"""The end of tasks that run until they are cancelled."""

import asyncio
from collections.abc import Iterable
from typing import Any

_AGAIN_S = 1.0


async def end_of(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel ``tasks`` until they have ended. Whoever is cancelled meanwhile still waits for them.

    Once is not enough: where what is waited for is done in that moment, ``asyncio.wait_for`` of
    Python 3.11 returns it and forgets the cancellation, and the driver sends, connects and waits
    for a connection through it.
    """
    running = set(tasks)
    cancelled: asyncio.CancelledError | None = None
    while running:
        for task in running:
            task.cancel()
        try:
            _, running = await asyncio.wait(running, timeout=_AGAIN_S)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
