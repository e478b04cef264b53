"""Keeps what was answered, after the answer and in batches; a full queue drops and counts.

design/cds.md, section 11.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from typing import Any

from fhir_server.context import Context
from fhir_server.features.cds.request import HookRequest
from fhir_server.features.cds.services import Answer
from fhir_server.store.cds import ensure_cds, keep_calls

QUEUE_MAX = 1_000
_BATCH = 100
_LOG = logging.getLogger("fhir_server.cds")


class Recorder:
    """Writes rows without making an answer wait."""

    def __init__(self) -> None:
        """Begin with nothing to write."""
        self._rows: deque[Mapping[str, Any]] = deque()
        self._writing: asyncio.Task[None] | None = None
        self._is_ready = False
        self.dropped = 0

    def add(self, row: Mapping[str, Any], context: Context) -> None:
        """Have ``row`` written soon; one that finds a full queue is dropped, and counted."""
        if len(self._rows) >= QUEUE_MAX:
            self.dropped += 1
            return
        self._rows.append(row)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(context), name="cds record")

    async def ready(self, context: Context) -> None:
        """Make the collections, once a process."""
        if not self._is_ready:
            await ensure_cds(context.store.database, context.settings.cds_keep_days)
            self._is_ready = True

    async def written(self) -> None:
        """Wait until everything is written, or given up."""
        if self._writing is not None:
            await asyncio.wait([self._writing])

    async def _write(self, context: Context) -> None:
        while self._rows:
            rows = [self._rows.popleft() for _ in range(min(len(self._rows), _BATCH))]
            for last in (False, True):
                try:
                    await self.ready(context)
                    await keep_calls(context.store.database, rows)
                    break
                except Exception as error:  # noqa: BLE001 - statistics never fail an answer
                    if last:
                        self.dropped += len(rows)
                        said = '"%d records were not kept: %s"'
                        _LOG.warning(said, len(rows), type(error).__name__)


def row_of(
    service: str, request: HookRequest, answer: Answer, context: Context, **more: Any
) -> dict[str, Any]:
    """Return what is kept of a call: no resource, no text, no token."""
    return {
        "_id": context.new_id(),
        "at": context.now(),
        "service": service,
        "hook": request.hook,
        "hookInstance": request.instance,
        "user": request.user,
        "patient": request.patient,
        "states": dict(answer.states),
        "cards": [
            {
                "uuid": card.json["uuid"],
                "key": card.key,
                "kind": card.kind,
                "severity": card.severity,
                "indicator": card.json["indicator"],
                "rules": list(card.rules),
                "suggestions": list(card.suggestions),
            }
            for card in answer.cards
        ],
        **more,
    }
