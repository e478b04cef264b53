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

from fhir_server.outcome import FhirError, Issue
from fhir_server.store.changes import Change
from fhir_server.store.client import NOTHING_WRITTEN, OutcomeUnknownError, deadline
from fhir_server.store.documents import Stored
from fhir_server.store.transactions import repeated
from fhir_server.store.writer import Writer

_AT_ONCE = 2
_SECONDS_LEFT_MIN = 0.05
_CHANGES_MAX = 128  # a batch of ordinary resources is then below a megabyte


@dataclass(slots=True)
class _Waiting:
    """A change that waits for its batch; ``end``, on the monotonic clock, is how long it may."""

    change: Change
    now: datetime
    end: float
    answer: asyncio.Future[Stored]


@dataclass(slots=True)
class Commit:
    """Makes single changes."""

    writer: Writer
    _under_way: int = 0
    _waiting: deque[_Waiting] = field(default_factory=deque)
    _running: set[asyncio.Task[None]] = field(default_factory=set)

    async def one(self, change: Change, now: datetime, seconds: float) -> Stored:
        """Make ``change`` within ``seconds``, and return what it came to.

        Raises what its judgement does, ``transient`` or ``timeout`` when it could not be made.
        """
        if self._under_way >= _AT_ONCE:
            answer: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
            self._waiting.append(_Waiting(change, now, time.monotonic() + seconds, answer))
            return await answer
        self._under_way += 1
        try:
            return await self._alone(change, now, seconds)
        finally:
            self._under_way -= 1
            self._next()

    async def _alone(self, change: Change, now: datetime, seconds: float) -> Stored:
        end = time.monotonic() + seconds
        async with deadline(max(seconds, _SECONDS_LEFT_MIN), NOTHING_WRITTEN):
            [stored] = await repeated(lambda: self.writer.all([change], now, end), end)
            return stored

    def _next(self) -> None:
        """Send those who wait, if any, in a task of its own: a client that leaves ends nothing."""
        if self._waiting:
            self._under_way += 1
            batch = self._gathered()
            task = asyncio.create_task(self._batch(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def _gathered(self) -> list[_Waiting]:
        """Return those who go next: the oldest, and no two that write the same resource."""
        batch: dict[tuple[str, str], _Waiting] = {}
        later: list[_Waiting] = []
        while self._waiting and len(batch) < _CHANGES_MAX:
            one = self._waiting.popleft()
            if one.end < time.monotonic():
                _tell(one, _waited_too_long())
                continue
            place = (one.change.type, one.change.id)
            if place in batch:
                later.append(one)
            else:
                batch[place] = one
        self._waiting.extendleft(reversed(later))
        return list(batch.values())

    async def _batch(self, batch: list[_Waiting]) -> None:
        try:
            outcomes = await self._together(batch) if batch else []
        except OutcomeUnknownError as error:
            for one in batch:  # to judge again what may be there already would refuse it
                _tell(one, error)
        except FhirError as error:
            for one in batch:  # out of time: to try a hundred of them one by one would take longer
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
        end = max(one.end for one in batch)
        seconds = max(end - time.monotonic(), _SECONDS_LEFT_MIN)
        changes = [one.change for one in batch]
        async with deadline(seconds, NOTHING_WRITTEN):
            return await self.writer.each(changes, max(one.now for one in batch), end)

    async def _again(self, one: _Waiting) -> None:
        try:
            _tell(one, await self._alone(one.change, one.now, one.end - time.monotonic()))
        except Exception as error:  # noqa: BLE001 - whatever it is, the one who waits is told
            _tell(one, error)


def _waited_too_long() -> FhirError:
    text = f"Too many writes wait before this one. {NOTHING_WRITTEN}"
    return FhirError(Issue("timeout", text), headers=(("Retry-After", "2"),))


def _tell(one: _Waiting, outcome: Stored | Exception) -> None:
    if one.answer.done():
        return  # its client has left; the change is made all the same
    if isinstance(outcome, Exception):
        one.answer.set_exception(outcome)
    else:
        one.answer.set_result(outcome)
