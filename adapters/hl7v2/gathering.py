"""Rows that arrive together, written together."""

import asyncio

from fhir_server.context import Context
from fhir_server.store.inbox import KeyTakenError, Row

_ROWS_MAX = 128


class GroupInsert:
    """Writes rows that arrive together with one command and one flush of the journal."""

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
                batch, self._waiting = self._waiting[:_ROWS_MAX], self._waiting[_ROWS_MAX:]
                try:
                    rows = [row for row, _ in batch]
                    taken = await self._context.store.inbox.insert_all(rows)
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
