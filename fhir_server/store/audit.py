"""Audit rows in the database: those of changes in the change's own transaction, the others by a
queue. Section 4 of the design page.

Rows lie in the collection ``audit``, in the order of their chains; ``security/chain.py`` says how
they hang together. Signed heads of the chains, and markers of what was dropped, are in
``audit_heads``.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pymongo
from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import PyMongoError

from fhir_server.outcome import FhirError, Issue
from fhir_server.security.audit import Document, Draft, Row, row_document
from fhir_server.security.chain import BLOCK, Head, Key, block, block_hash, place, placed
from fhir_server.store.client import Database
from fhir_server.store.transactions import transacted

AUDIT = "audit"
HEADS = "audit_heads"

FLUSH_S = 0.05
"""How long a row of a read waits in memory at most: what a process that is killed may lose."""
NOT_WRITTEN = (PyMongoError,)
"""What the driver raises where something could not be written."""
FAILING_S_MAX = 5.0
_RETRY_S = 0.25
_CLOSE_S = 5.0
_NEWEST = 1000  # rows that are looked at for chains of others
_AT = [("at", DESCENDING), ("_id", DESCENDING)]
_INDEXES = (
    IndexModel(_AT),
    IndexModel([("patients", ASCENDING), *_AT], sparse=True),
    IndexModel([("agents", ASCENDING), *_AT]),
    IndexModel([("id", ASCENDING), *_AT], partialFilterExpression={"id": {"$exists": True}}),
    IndexModel([("action", ASCENDING), *_AT]),
    # Nearly all succeed: what did not is what is looked for.
    IndexModel(
        [("status", ASCENDING), *_AT],
        name="refused",
        partialFilterExpression={"status": {"$gte": 400}},
    ),
)


@dataclass(slots=True)
class Recording:
    """One request under way: what is known of its row, and what of it is written.

    ``written`` are the places of entries, ``NO_ENTRY`` for the request itself. ``concerns`` are
    compartments of what was read for it on the way. ``together`` is its own row where that is to
    be written with its changes.
    """

    draft: Draft
    together: Row | None = None
    written: set[int] = field(default_factory=set)
    concerns: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Lane:
    """A chain, and where it ends. One transaction at a time appends to it."""

    head: Head
    key: Key
    database: Database
    seen: Sequence[Head] = ()
    pending: Head | None = None

    async def append(self, rows: Sequence[Row], session: AsyncClientSession) -> None:
        """Write ``rows`` as the next block, in the transaction of ``session``."""
        if not rows:
            return
        documents = [row_document(one) for one in rows]
        written, self.pending = block(documents, self.head, self.key, self.seen)
        await self.database[AUDIT].insert_many(written, session=session)


@dataclass(slots=True)
class Audit:
    """What this process records. ``queue_max`` rows wait at most; with ``strict`` the answer to a
    read waits until its row is written."""

    database: Database
    key: Key
    new_id: Callable[[], str]
    queue_max: int
    strict: bool = False
    _queue: list[Row] = field(default_factory=list)
    _waiting: list[asyncio.Future[None]] = field(default_factory=list)
    _timer: asyncio.TimerHandle | None = None
    _flushing: asyncio.Task[None] | None = None
    _failing_since: float | None = None
    _free: deque[Lane] = field(default_factory=deque)
    _lanes: list[Lane] = field(default_factory=list)
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def ensure(self) -> None:
        """Make the collection and its indexes; a collection cannot be made in a transaction."""
        await self.database[AUDIT].create_indexes(list(_INDEXES))

    def check(self) -> None:
        """Raise ``transient`` (503) where nothing can be recorded: what is not recorded is not
        answered."""
        since = self._failing_since
        if len(self._queue) < self.queue_max and (
            since is None or time.monotonic() - since < FAILING_S_MAX
        ):
            return
        raise unrecorded()

    def add(self, row: Row) -> None:
        """Have ``row`` written within :data:`FLUSH_S`."""
        self._queue.append(row)
        if self._timer is None and self._flushing is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._begin)

    async def flushed(self) -> None:
        """Wait until all that was added is written; those who wait meanwhile wait together.

        Raises ``transient`` where that fails for :data:`FAILING_S_MAX`.
        """
        if not self._queue and self._flushing is None:
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        if self._flushing is None:
            self._begin()
        await waiting

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._flushing = asyncio.create_task(self._flush())

    async def _flush(self) -> None:
        """Write what waits, again and again while somebody waits for it."""
        try:
            while self._waiting or self._queue:
                await self._flush_once()
                if not self._waiting:
                    break
        finally:
            self._flushing = None
            if self._queue:
                self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._begin)

    async def _flush_once(self) -> None:
        rows, self._queue = self._queue, []
        waiting, self._waiting = self._waiting, []
        try:
            with pymongo.timeout(FAILING_S_MAX):
                await self._written(rows)
        except Exception as error:  # the rows stay in the queue, and in the end reads are refused
            self._queue = rows + self._queue
            self._failing_since = self._failing_since or time.monotonic()
            if not isinstance(error, PyMongoError | FhirError):
                _tell(waiting, error)
                raise
            if time.monotonic() - self._failing_since < FAILING_S_MAX:
                self._waiting = waiting + self._waiting
            else:
                _tell(waiting, unrecorded())
            await asyncio.sleep(_RETRY_S)
        else:
            self._failing_since = None
            _tell(waiting, None)

    async def _written(self, rows: Sequence[Row]) -> None:
        if not rows:
            return
        async with self.lane() as lane:

            async def work(session: AsyncClientSession) -> None:
                await lane.append(rows, session)

            end = time.monotonic() + FAILING_S_MAX
            await transacted(self.database.client, work, end)

    @asynccontextmanager
    async def lane(self) -> AsyncIterator[Lane]:
        """Lend a chain for the time of one transaction, which appends to it or not.

        Where it is unknown whether the block was written, the chain is not used again: it ends
        there.
        """
        lane = self._free.pop() if self._free else await self._opened()
        try:
            yield lane
        except BaseException as error:
            known = lane.pending is None or (
                isinstance(error, PyMongoError)
                and error.has_error_label("TransientTransactionError")
            )
            lane.pending = None
            if known:
                self._free.append(lane)
            else:
                self._lanes.remove(lane)
            raise
        if lane.pending is not None:
            lane.head, lane.pending, lane.seen = lane.pending, None, ()
        self._free.append(lane)

    async def _opened(self) -> Lane:
        """Return a new chain. Its first block names the last blocks of others: of those in the
        database for the first chain of a process, of this process's own for another."""
        async with self._opening:
            seen = [one.head for one in self._lanes if one.head.sequence >= 0]
            if not self._lanes:
                seen = await self.last_blocks()
        lane = Lane(Head(self.new_id(), -1, b""), self.key, self.database, seen)
        self._lanes.append(lane)
        return lane

    async def last_blocks(self) -> list[Head]:
        """Return the last block of each chain that has one of the newest rows."""
        rows = self.database[AUDIT]
        newest = await rows.find({}, {"_id": 1}).sort(_AT).limit(_NEWEST).to_list()
        last: dict[str, int] = {}
        for one in newest:
            if found := placed(one["_id"]):
                last[found[0]] = max(found[1], last.get(found[0], 0))
        places = [place(chain, sequence, 0) for chain, sequence in last.items()]
        firsts = await rows.find({"_id": {"$in": places}}, {BLOCK: 1}).to_list()
        return [head for one in firsts if (head := block_head(one))]

    @property
    def heads(self) -> list[Head]:
        """The last blocks of the chains of this process."""
        return [one.head for one in self._lanes if one.head.sequence >= 0]

    async def close(self) -> None:
        """Write what waits, and leave; a database that is gone is not waited for."""
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self.flushed()
        except (TimeoutError, FhirError, PyMongoError):
            pass
        if self._flushing is not None:
            self._flushing.cancel()
            await asyncio.gather(self._flushing, return_exceptions=True)
        if self._timer is not None:  # which may have been set once more
            self._timer.cancel()


def block_head(row: Document) -> Head | None:
    """Return the block that ``row`` is the first of."""
    found = placed(str(row["_id"]))
    if found is None or found[2] or BLOCK not in row:
        return None
    return Head(found[0], found[1], block_hash(found[0], found[1], row[BLOCK]))


def unrecorded() -> FhirError:
    """Return the refusal of what cannot be recorded."""
    text = "The audit record cannot be written at the moment, so nothing is answered. Try again."
    return FhirError(Issue("transient", text), headers=(("Retry-After", "2"),))


def _tell(waiting: Iterable[asyncio.Future[None]], error: Exception | None) -> None:
    for one in waiting:
        if one.done():
            continue
        if error is None:
            one.set_result(None)
        else:
            one.set_exception(error)
