"""Who asks for the same time in this process takes turns. It saves work, and protects nothing.

Of those who write at once the database lets one through, and the others begin again: each does the
same work several times, only to be refused. One after the other, each does it once.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

_WAIT_S = 2.0


@dataclass(slots=True)
class Turns:
    """The times that are being asked for, by name."""

    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)
    _waiting: Counter[str] = field(default_factory=Counter)

    @asynccontextmanager
    async def of(self, names: Iterable[str]) -> AsyncIterator[None]:
        """Wait until nobody else is at one of ``names``, or long enough. Not to be called inside a
        transaction, for which others may be waiting in their turn."""
        wanted = sorted(set(names))
        self._waiting.update(wanted)
        try:
            async with AsyncExitStack() as held:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_WAIT_S):
                        for one in wanted:  # in one order: no two wait in a circle
                            lock = self._locks.setdefault(one, asyncio.Lock())
                            await held.enter_async_context(lock)
                yield
        finally:
            self._waiting.subtract(wanted)
            for one in wanted:
                if self._waiting[one] <= 0:
                    self._locks.pop(one, None)
                    del self._waiting[one]
