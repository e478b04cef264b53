"""Writes that arrive together are committed together, each judged alone.

Sections 16.3 of ARCHITECTURE.md; https://www.mongodb.com/docs/manual/core/journaling/

A write that comes while fewer than ``_AT_ONCE`` are under way goes at once, alone. Those that come
meanwhile gather and go as one transaction with one flush of the journal when a place is free. A
refused change leaves the others alone; a batch that meets another write is made again one by one.
"""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

from fhir_server.outcome import FhirError
from fhir_server.store.changes import Change
from fhir_server.store.client import NOTHING_WRITTEN, OutcomeUnknownError, deadline
from fhir_server.store.documents import Stored
from fhir_server.store.transactions import repeated
from fhir_server.store.writer import Writer

_AT_ONCE = 2
_CHANGES_MAX = 128  # a batch of ordinary resources is then below a megabyte


@dataclass(slots=True)
class _Waiting:
    """A change that waits for its batch; ``seconds`` is how long it may take then."""

    change: Change
    now: datetime
    seconds: float
    answer: asyncio.Future[Stored]


@dataclass(slots=True)
class Commit:
    """Makes single changes."""

    writer: Writer
    _under_way: int = 0
    _waiting: deque[_Waiting] = field(default_factory=deque)
    _running: set[asyncio.Task[None]] = field(default_factory=set)

    async def one(self, change: Change, now: datetime, seconds: float) -> Stored:
        """Make ``change``, within ``seconds`` once it is its turn, and return what it came to.

        Raises what its judgement does, ``transient`` or ``timeout`` when it could not be made.
        """
        if self._under_way >= _AT_ONCE:
            answer: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
            self._waiting.append(_Waiting(change, now, seconds, answer))
            return await answer
        self._under_way += 1
        try:
            return await self._alone(change, now, seconds)
        finally:
            self._under_way -= 1
            self._next()

    async def _alone(self, change: Change, now: datetime, seconds: float) -> Stored:
        end = time.monotonic() + seconds
        async with deadline(seconds, NOTHING_WRITTEN):
            [stored] = await repeated(lambda: self.writer.all([change], now, end), end)
            return stored

    def _next(self) -> None:
        """Send those who wait, if any, in a task of its own: a client that leaves ends nothing."""
        if self._waiting:
            self._under_way += 1
            task = asyncio.create_task(self._batch(self._gathered()))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def _gathered(self) -> list[_Waiting]:
        """Return those who go next: the oldest, and no two that write the same resource."""
        batch: dict[tuple[str, str], _Waiting] = {}
        later: list[_Waiting] = []
        while self._waiting and len(batch) < _CHANGES_MAX:
            one = self._waiting.popleft()
            place = (one.change.type, one.change.id)
            if place in batch:
                later.append(one)
            else:
                batch[place] = one
        self._waiting.extendleft(reversed(later))
        return list(batch.values())

    async def _batch(self, batch: list[_Waiting]) -> None:
        try:
            outcomes = await self._together(batch)
        except OutcomeUnknownError as error:
            for one in batch:  # to judge again what may be there already would refuse it
                _tell(one, error)
        except Exception:  # noqa: BLE001 - nothing was written, or it shows when each is judged again
            await asyncio.gather(*map(self._again, batch))
        else:
            for one, outcome in zip(batch, outcomes, strict=True):
                _tell(one, outcome)
        finally:
            self._under_way -= 1
            self._next()

    async def _together(self, batch: list[_Waiting]) -> list[Stored | FhirError]:
        seconds = max(one.seconds for one in batch)
        end = time.monotonic() + seconds
        changes = [one.change for one in batch]
        async with deadline(seconds, NOTHING_WRITTEN):
            return await self.writer.each(changes, max(one.now for one in batch), end)

    async def _again(self, one: _Waiting) -> None:
        try:
            _tell(one, await self._alone(one.change, one.now, one.seconds))
        except Exception as error:  # noqa: BLE001 - whatever it is, the one who waits is told
            _tell(one, error)


def _tell(one: _Waiting, outcome: Stored | Exception) -> None:
    if one.answer.done():
        return  # its client has left; the change is made all the same
    if isinstance(outcome, Exception):
        one.answer.set_exception(outcome)
    else:
        one.answer.set_result(outcome)
