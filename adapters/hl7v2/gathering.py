"""Rows that arrive together, written together, and in the order in which they came."""

import asyncio

from fhir_server.context import Context
from fhir_server.store.inbox import RAW_BYTES_MAX, KeyTakenError, Row

_ROWS_MAX = 128


class GroupInsert:
    """Writes rows that arrive together with one command and one flush of the journal.

    One whose bytes are kept beside it is written alone, and those behind it after it: who looks
    for rows never finds one without those that came before.
    """

    def __init__(self, context: Context) -> None:
        """Begin with nobody waiting."""
        self._context = context
        self._waiting: list[tuple[Row, asyncio.Future[bool]]] = []
        self._running: asyncio.Task[None] | None = None

    async def insert(self, row: Row) -> None:
        """Write ``row``; raises :class:`KeyTakenError` where another has its key."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((row, future))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        if not await future:
            raise KeyTakenError(row.key)

    async def _run(self) -> None:
        try:
            while self._waiting:
                count = _together(self._waiting)
                batch, self._waiting = self._waiting[:count], self._waiting[count:]
                try:
                    taken = await self._written([row for row, _ in batch])
                except Exception as error:  # noqa: BLE001 - each who waits is told, the next batch goes on
                    for _, future in batch:
                        if not future.done():
                            future.set_exception(error)
                    continue
                for place, (_, future) in enumerate(batch):
                    if not future.done():
                        future.set_result(place not in taken)
        finally:
            self._running = None

    async def _written(self, rows: list[Row]) -> set[int]:
        """Write ``rows``; return the places of those whose key another row has."""
        inbox = self._context.store.inbox
        if len(rows[0].raw) <= RAW_BYTES_MAX:
            return await inbox.insert_all(rows)
        try:
            await inbox.insert(rows[0])
        except KeyTakenError:
            return {0}
        return set()


def _together(waiting: list[tuple[Row, asyncio.Future[bool]]]) -> int:
    """Return how many of those that wait are written by the next command."""
    for count, (row, _) in enumerate(waiting[:_ROWS_MAX]):
        if len(row.raw) > RAW_BYTES_MAX:
            return count or 1
    return _ROWS_MAX
