"""Reads by id that arrive together go to the database together. Section 16.3 of ARCHITECTURE.md.

A read that comes while fewer than ``_AT_ONCE`` are under way goes with those that come in the same
turn of the event loop. Those that come meanwhile gather, per type, and go as one ``$in`` when a
place is free: a read costs the driver and the database some 300 µs by itself, and 5 µs as one of
fifty. No timer, no waiting for company that is not there.

Those that may see different things never go together: each has its own predicate in the question.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from fhir_server.security.plan import AccessPlan, Filter
from fhir_server.store.access import among
from fhir_server.store.client import Database
from fhir_server.store.documents import SERVED, Document
from fhir_server.store.versions import of_current

Deadline = Callable[[], AbstractAsyncContextManager[None]]
Waiting = dict[str, list[asyncio.Future[Document | None]]]

_AT_ONCE = 2  # for a type and a predicate, in one process; more of them only share the same cores
_IDS_MAX = 200  # a few MB of documents in one answer


@dataclass(slots=True)
class _Lane:
    """The reads of one type by one predicate, which has a ``name``: how many are under way, and the
    ids that wait, oldest first. ``is_gathering`` in the turn of the loop in which one has come."""

    type: str
    name: str
    predicate: Filter
    under_way: int = 0
    is_gathering: bool = False
    waiting: deque[Waiting] = field(default_factory=deque)


@dataclass(slots=True)
class Fetch:
    """Reads current documents by id. ``deadline`` bounds each command; ``projection`` is what is
    read of a document, ``None`` all of it. What is read is never older than the question."""

    database: Database
    deadline: Deadline
    projection: Document | None = field(default_factory=lambda: SERVED)
    _lanes: dict[tuple[str, str], _Lane] = field(default_factory=dict)
    _running: set[asyncio.Task[None]] = field(default_factory=set)

    async def one(self, type: str, id: str, plan: AccessPlan | None = None) -> Document | None:
        """Return the document of ``type/id``, what is served of it, or ``None``; of what ``plan``
        hides as well."""
        name = plan.name(type) if plan is not None else ""
        lane = self._lanes.get((type, name))
        if lane is None:
            predicate = of_current(plan.seen(type)) if plan is not None else {}
            lane = self._lanes[type, name] = _Lane(type, name, predicate)
        if lane.under_way >= _AT_ONCE or lane.is_gathering:
            return await self._later(lane, id)
        if await self._is_joined(lane):
            answer = self._later(lane, id)
            self._next(lane)
            return await answer
        lane.under_way += 1
        try:
            async with self.deadline():
                return await self.database[type].find_one(
                    among(lane.predicate, {"_id": id}), projection=self.projection
                )
        finally:
            lane.under_way -= 1
            self._next(lane)

    async def _is_joined(self, lane: _Lane) -> bool:
        """Return whether others came in the same turn of the loop; they wait then, and do not if
        this one is cancelled."""
        lane.is_gathering = True
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            lane.is_gathering = False
            self._next(lane)
            raise
        lane.is_gathering = False
        return bool(lane.waiting)

    def _later(self, lane: _Lane, id: str) -> asyncio.Future[Document | None]:
        answer: asyncio.Future[Document | None] = asyncio.get_running_loop().create_future()
        if not lane.waiting or len(lane.waiting[-1]) >= _IDS_MAX:
            lane.waiting.append({})
        lane.waiting[-1].setdefault(id, []).append(answer)
        return answer

    def _next(self, lane: _Lane) -> None:
        """Send those who wait, if any, in a task of its own: a client that leaves ends nothing.

        The lane of a predicate is there for as long as it is used: there may be one for each
        patient.
        """
        if lane.waiting:
            lane.under_way += 1
            task = asyncio.create_task(self._together(lane, lane.waiting.popleft()))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        elif lane.name and not lane.under_way and not lane.is_gathering:
            key = lane.type, lane.name
            if self._lanes.get(key) is lane:
                del self._lanes[key]

    async def _together(self, lane: _Lane, waiting: Waiting) -> None:
        try:
            async with self.deadline():
                filter: Document = {"_id": {"$in": list(waiting)}}
                cursor = self.database[lane.type].find(
                    among(lane.predicate, filter), projection=self.projection
                )
                found = {document["_id"]: document for document in await cursor.to_list()}
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait are told
            for answers in waiting.values():
                for answer in answers:
                    if not answer.done():
                        answer.set_exception(error)
        else:
            for id, answers in waiting.items():
                for answer in answers:
                    if not answer.done():
                        answer.set_result(found.get(id))
        finally:
            lane.under_way -= 1
            self._next(lane)
