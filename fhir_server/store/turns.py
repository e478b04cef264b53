"""How many bundles are worked on at a time: what one needs is in memory until it is written.

Sixteen transactions of 250 entries at once took 65 MB more than one after the other, and were no
sooner done: they share the same cores.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fhir_server.outcome import FhirError, Issue

_ENTRIES_MAX = 1000  # some 15 MB, with keys and documents
_BUNDLES_MIN = 4  # of any size: while one is in the database, another is judged


@dataclass(slots=True)
class Turns:
    """The bundles of one process that are worked on, and those that wait, oldest first."""

    _bundles: int = 0
    _entries: int = 0
    _waiting: deque[tuple[asyncio.Future[None], int]] = field(default_factory=deque)

    @asynccontextmanager
    async def turn(self, entries: int, seconds: float) -> AsyncIterator[None]:
        """Wait until there is room for a bundle of so many ``entries``, and take it.

        Raises ``transient`` (503) where there is none within ``seconds``.
        """
        if self._waiting or not self._has_room(entries):
            await self._waited(entries, seconds)
        else:
            self._take(entries)
        try:
            yield
        finally:
            self._leave(entries)

    async def _waited(self, entries: int, seconds: float) -> None:
        place = asyncio.get_running_loop().create_future(), entries
        self._waiting.append(place)
        try:
            async with asyncio.timeout(seconds):
                await place[0]
        except BaseException as error:
            if place in self._waiting:
                self._waiting.remove(place)
                self._next()
            elif not place[0].cancelled():  # its turn came in that moment
                self._leave(entries)
            if isinstance(error, TimeoutError):
                text = "The server is busy with other bundles; nothing was written. Try again."
                after = (("Retry-After", "2"),)
                raise FhirError(Issue("transient", text), headers=after) from error
            raise

    def _has_room(self, entries: int) -> bool:
        return self._bundles < _BUNDLES_MIN or self._entries + entries <= _ENTRIES_MAX

    def _take(self, entries: int) -> None:
        self._bundles += 1
        self._entries += entries

    def _leave(self, entries: int) -> None:
        self._bundles -= 1
        self._entries -= entries
        self._next()

    def _next(self) -> None:
        while self._waiting and self._has_room(self._waiting[0][1]):
            waiter, entries = self._waiting.popleft()
            if not waiter.done():
                self._take(entries)
                waiter.set_result(None)
