"""Looks at the queues that boards are open for: one look for all boards of a place in a process.

design/scheduling.md, section 7. A look is two reads on an index, every fifteen seconds some more;
whoever listens is told of what has changed, and only of the last state: a slow board misses what is
over.
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from fhir_server.context import Context
from fhir_server.features.scheduling.queue import Expected
from fhir_server.features.scheduling.queue_board import CALLED_MAX, Board, board, fragment
from fhir_server.features.scheduling.queue_resources import expected
from fhir_server.features.scheduling.queue_settling import settled
from fhir_server.features.scheduling.queue_words import Words
from fhir_server.outcome import FhirError, Issue

_LOG = logging.getLogger("fhir_server.queue")
LOOK_EVERY_S = 0.4
_EXPECTED_EVERY_S = 15.0
_STALE_AFTER_S = 5.0
_WAITING_MAX = 1_000  # a queue is shorter


@dataclass(slots=True)
class Watch:
    """One place that boards look at: what it shows, its words by language, who listens."""

    content: Board = field(default_factory=Board)
    listeners: int = 0
    looked: float = float("-inf")
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    expected: dict[str, Expected] = field(default_factory=dict)
    expected_at: float = float("-inf")
    _said: dict[str, str] = field(default_factory=dict)

    def show(self, content: Board) -> None:
        """Show ``content``, and tell those who listen if it is another one."""
        if content != self.content:
            self.content = content
            self._said.clear()
            self.changed.set()
            self.changed = asyncio.Event()

    def fragment(self, words: Words) -> str:
        """Return what changes of the page in a language; it is made once for all boards."""
        if words.lang not in self._said:
            self._said[words.lang] = fragment(self.content, words)
        return self._said[words.lang]


class Boards:
    """The places that are watched in this process."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        self._watched: dict[str, Watch] = {}
        self._wanted = asyncio.Event()
        self.looks = 0
        """How often the database was looked at."""

    @property
    def listeners(self) -> int:
        """How many boards listen."""
        return sum(one.listeners for one in self._watched.values())

    async def run(self, context: Context) -> None:
        """Look again and again at what is watched, until the server stops."""
        while True:
            await self._wanted.wait()
            began = time.monotonic()
            for location, watch in list(self._watched.items()):
                await self._refresh(location, watch, context)
            await asyncio.sleep(max(0.05, began + LOOK_EVERY_S - time.monotonic()))

    @contextmanager
    def listening(self, location: str, most: int) -> Iterator[Watch]:
        """Have ``location`` watched meanwhile. Raises ``transient`` for more than ``most``."""
        if self.listeners >= most:
            text = "Too many boards are open on this server."
            raise FhirError(Issue("transient", text), headers=(("Retry-After", "30"),))
        watch = self._watched.setdefault(location, Watch())
        watch.listeners += 1
        self._wanted.set()
        try:
            yield watch
        finally:
            watch.listeners -= 1
            if not watch.listeners:
                self._watched.pop(location, None)
            if not self._watched:
                self._wanted.clear()

    async def current(self, location: str, context: Context) -> Board:
        """Return what the board of ``location`` shows now, by a look of a moment ago if any."""
        watch = self._watched.get(location)
        if watch is not None and time.monotonic() - watch.looked < 2 * LOOK_EVERY_S:
            return watch.content
        return await self._look(location, watch or Watch(), context)

    async def _refresh(self, location: str, watch: Watch, context: Context) -> None:
        try:
            watch.show(await self._look(location, watch, context))
            watch.looked = time.monotonic()
        except Exception as error:  # noqa: BLE001 - outermost shell: boards say so, and the next look may succeed
            if time.monotonic() - watch.looked > _STALE_AFTER_S and not watch.content.is_stale:
                _LOG.warning('"a queue board is not up to date: %s"', type(error).__name__)
                watch.show(replace(watch.content, is_stale=True))

    async def _look(self, location: str, watch: Watch, context: Context) -> Board:
        self.looks += 1
        queues, now = context.store.queues, context.now()
        waiting = await queues.waiting(location, None, now, _WAITING_MAX)
        called = await queues.called(location, None, now, CALLED_MAX)
        services = {one.service for one in waiting}
        at = time.monotonic()
        if at - watch.expected_at > _EXPECTED_EVERY_S or services - watch.expected.keys():
            waiting, _ = await settled(waiting, context)
            called, _ = await settled(called, context)
            watch.expected = {
                one: await expected(queues, location, one, context) for one in sorted(services)
            }
            watch.expected_at = at
        return board(called, waiting, watch.expected, now)
