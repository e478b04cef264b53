"""Writes that arrive together are committed together, each judged alone.

Sections 16.3 of ARCHITECTURE.md; https://www.mongodb.com/docs/manual/core/journaling/

A write that comes alone goes at once. Those that come while others are under way gather and go as
one transaction with one flush of the journal; there are ``_AT_ONCE`` places for such batches. Who
was answered just now is about to write again: a place is taken when as many have gathered as share
the places evenly, by how many there were lately. If they do not come within ``_COMPANY_S``, there
are fewer now. Two of the same resource, or with the same Idempotency-Key or claim, are never under
way at once in this process.

A refused change leaves the others alone. A batch that meets another write is made again, and then
in two halves, one after the other; so are those, until what was met stands alone. That one is then
made beside the batches, as often as it takes: it may have to wait for somebody who holds its key.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pymongo.errors import PyMongoError

from fhir_server.messages import Response
from fhir_server.outcome import FhirError, Issue
from fhir_server.store.answers import KeyTaken
from fhir_server.store.changes import Change
from fhir_server.store.claims import ClaimTaken
from fhir_server.store.client import NOTHING_WRITTEN, OutcomeUnknownError, deadline
from fhir_server.store.documents import Stored
from fhir_server.store.transactions import StaleRead, met_another, repeated
from fhir_server.store.writer import NotTogether, Outcome, Writer

_AT_ONCE = 2
_COMPANY_S = 0.005  # a quarter of what a batch takes
_TRIES_AT_ONCE = 4  # of those that are made beside the batches
_PAUSE_S = 0.01  # longer than most transactions
_SECONDS_LEFT_MIN = 0.05
_CHANGES_MAX = 128  # a batch of ordinary resources is then below a megabyte
_OF_ALL = ("timeout", "transient")  # what a batch is refused with, whoever is in it

Mark = tuple[str, str]
"""``(type, id)`` of a resource, ``("key", key)``, ``("claim", name)``."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A change that waits for its batch; ``end``, on the monotonic clock, is how long it may.

    Of those that have a mark in common one at a time is under way.
    """

    change: Change
    now: datetime
    end: float
    marks: frozenset[Mark]
    answer: asyncio.Future[Stored | Response]


@dataclass(slots=True)
class Commit:
    """Makes single changes."""

    writer: Writer
    _under_way: int = 0
    _made: int = 0  # writes in the batches under way
    _crowd: int = 0  # how many were under way or waiting at once, until some did not come back
    _late: asyncio.TimerHandle | None = None
    _busy: set[Mark] = field(default_factory=set)
    _waiting: deque[_Waiting] = field(default_factory=deque)
    _running: set[asyncio.Task[None]] = field(default_factory=set)
    _beside: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_TRIES_AT_ONCE))

    async def one(self, change: Change, now: datetime, seconds: float) -> Stored | Response:
        """Make ``change`` within ``seconds``, and return what it came to.

        Raises what its judgement does, ``transient`` or ``timeout`` when it could not be made. It
        is a response where the change has a key that was used before.
        """
        answer: asyncio.Future[Stored | Response] = asyncio.get_running_loop().create_future()
        one = _Waiting(change, now, time.monotonic() + seconds, _marks(change), answer)
        if self.writer.rules.refuse(change.type):
            return _told(await self._tried(one))
        self._crowd = max(self._crowd, self._made + len(self._waiting) + 1)
        if self._crowd >= 2 * _AT_ONCE or self._under_way or not self._busy.isdisjoint(one.marks):
            self._waiting.append(one)
            self._next()
            return await answer
        self._busy |= one.marks
        try:
            outcome = await self._first_try(one)
            return _told(await self._tried(one) if outcome is None else outcome)
        finally:
            self._freed(one)

    async def _first_try(self, one: _Waiting) -> Outcome | None:
        """Make ``one`` in one of the places for batches; ``None`` where another was in its way."""
        self._began(1)
        try:
            async with deadline(
                max(one.end - time.monotonic(), _SECONDS_LEFT_MIN), NOTHING_WRITTEN
            ):
                return await self._attempt(one)
        finally:
            self._ended(1)

    async def _attempt(self, one: _Waiting) -> Outcome | None:
        try:
            [outcome] = await self.writer.each([one.change], one.now, one.end)
        except (StaleRead, PyMongoError) as error:
            if not met_another(error):
                raise
            return None
        return outcome

    async def _tried(self, one: _Waiting) -> Outcome:
        """Make ``one`` beside the batches, as often as it takes."""

        async def attempt() -> list[Outcome]:
            async with self._beside:
                return await self.writer.each([one.change], one.now, one.end)

        async with deadline(max(one.end - time.monotonic(), _SECONDS_LEFT_MIN), NOTHING_WRITTEN):
            [outcome] = await repeated(attempt, one.end)
            return outcome

    def _next(self) -> None:
        """Send those who wait, if any, in a task of its own: a client that leaves ends nothing."""
        while self._waiting and self._under_way < _AT_ONCE:
            if len(self._waiting) < min(self._crowd // _AT_ONCE, _CHANGES_MAX):
                if self._late is None:
                    loop = asyncio.get_running_loop()
                    self._late = loop.call_later(_COMPANY_S, self._waited)
                return
            if not self._go():
                return

    def _waited(self) -> None:
        """Send those who wait, for whom no more have come: there are not as many as there were."""
        self._late = None
        if self._under_way < _AT_ONCE:
            self._crowd = self._made + len(self._waiting)
            self._go()

    def _go(self) -> bool:
        """Send those who wait; return whether any could go."""
        if self._late is not None:
            self._late.cancel()
            self._late = None
        batch = self._gathered()
        if batch:
            self._began(len(batch))
            self._start(self._batch(batch))
        return bool(batch)

    def _began(self, writes: int) -> None:
        self._under_way += 1
        self._made += writes

    def _ended(self, writes: int) -> None:
        self._under_way -= 1
        self._made -= writes
        self._next()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def _gathered(self) -> list[_Waiting]:
        """Return those who go next: the oldest whose marks nobody has, which are theirs now."""
        batch: list[_Waiting] = []
        later: list[_Waiting] = []
        while self._waiting and len(batch) < _CHANGES_MAX:
            one = self._waiting.popleft()
            if one.answer.cancelled():
                continue  # its client has left before anything was done
            if one.end < time.monotonic():
                _tell(one, _waited_too_long())
            elif self._busy.isdisjoint(one.marks):
                self._busy |= one.marks
                batch.append(one)
            else:
                later.append(one)
        self._waiting.extendleft(reversed(later))
        return batch

    async def _batch(self, batch: list[_Waiting]) -> None:
        try:
            alone = await self._settled(batch)
        finally:
            self._ended(len(batch))
        for one in alone:
            self._start(self._alone(one))

    async def _settled(self, batch: Sequence[_Waiting], pause: float = _PAUSE_S) -> list[_Waiting]:
        """Make ``batch`` and tell each of it what came of it; return those to be made alone.

        With a ``pause`` it is tried again as it is, so many seconds after it met another write.
        """
        if not batch:
            return []
        at_fault: frozenset[int] = frozenset()
        try:
            self._end_all(batch, await self._together(batch))
        except NotTogether as error:
            at_fault = error.places
        except Exception as error:  # noqa: BLE001 - nothing was written, or it shows when it is tried alone
            if _is_of_all(error):
                self._end_all(batch, [error] * len(batch))
            elif len(batch) == 1:
                return list(batch)
            elif pause and met_another(error) and not isinstance(error, KeyTaken | ClaimTaken):
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                return await self._settled(batch, pause=0)
            else:  # a key or a claim may be taken for long
                half = len(batch) // 2
                return await self._settled(batch[:half]) + await self._settled(batch[half:])
        alone = [one for place, one in enumerate(batch) if place in at_fault]
        rest = [one for place, one in enumerate(batch) if place not in at_fault] if alone else []
        return alone + await self._settled(rest)

    async def _together(self, batch: Sequence[_Waiting]) -> list[Outcome]:
        end = max(one.end for one in batch)
        seconds = max(end - time.monotonic(), _SECONDS_LEFT_MIN)
        changes = [one.change for one in batch]
        async with deadline(seconds, NOTHING_WRITTEN):
            return await self.writer.each(changes, max(one.now for one in batch), end)

    async def _alone(self, one: _Waiting) -> None:
        try:
            self._end(one, await self._tried(one))
        except Exception as error:  # noqa: BLE001 - whatever it is, the one who waits is told
            self._end(one, error)

    def _end_all(self, batch: Sequence[_Waiting], outcomes: Sequence[Outcome | Exception]) -> None:
        for one, outcome in zip(batch, outcomes, strict=True):
            self._end(one, outcome)

    def _end(self, one: _Waiting, outcome: Outcome | Exception) -> None:
        _tell(one, outcome)
        self._freed(one)

    def _freed(self, one: _Waiting) -> None:
        """Let others have the marks of ``one``."""
        self._busy -= one.marks
        self._next()


def _marks(change: Change) -> frozenset[Mark]:
    marks = [(change.type, change.id), *(("claim", name) for name in change.claims)]
    return frozenset([*marks, ("key", change.once.asked.id)] if change.once else marks)


def _is_of_all(error: Exception) -> bool:
    """Whether everyone in a batch is told ``error``.

    Of an unknown outcome: to judge again what may be there already would refuse it. Out of time: to
    try the parts would take longer.
    """
    if not isinstance(error, FhirError):
        return False
    return isinstance(error, OutcomeUnknownError) or error.issues[0].code in _OF_ALL


def _waited_too_long() -> FhirError:
    text = f"Too many writes wait before this one. {NOTHING_WRITTEN}"
    return FhirError(Issue("timeout", text), headers=(("Retry-After", "2"),))


def _told(outcome: Outcome) -> Stored | Response:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _tell(one: _Waiting, outcome: Outcome | Exception) -> None:
    if one.answer.done():
        return  # its client has left; the change is made all the same
    if isinstance(outcome, Exception):
        one.answer.set_exception(outcome)
    else:
        one.answer.set_result(outcome)
