"""Who works off the rows that wait: one process at a time, in the order of arrival per patient.

design/hl7v2.md, section 7. The lead is a lease in the database; a row is taken by a lease of its
own, so that it is applied once even while the lead changes hands.
"""

import asyncio
import logging
from contextlib import suppress
from datetime import datetime, timedelta

from adapters.hl7v2.chains import Place
from adapters.hl7v2.failures import log_failure
from adapters.hl7v2.inbox import LEASE_S, Intake
from fhir_server.ending import end_of
from fhir_server.outcome import FhirError
from fhir_server.store.inbox import Row

_LEAD_S = 6.0
_BEAT_S = 1.0
_KNOWN_MAX = 2000
_AGAIN_S = 1.0

_log = logging.getLogger("fhir_server.hl7v2")


class Workers:
    """Applies rows in the background. ``available`` says whether the database answers."""

    def __init__(self, intake: Intake) -> None:
        """Begin without the lead."""
        self.intake = intake
        self.available = asyncio.Event()
        self.available.set()
        self._known: dict[str, asyncio.Task[None]] = {}
        self._leads = False
        self._complete = False  # whether every row that waits is known here
        self._refused = False  # whether one was not taken since the last look began
        self._wake = asyncio.Event()
        intake.offer = self.offer

    def offer(self, row: Row, place: Place) -> bool:
        """Take ``row``, which stands at ``place``, to be applied; return whether it is taken.

        One that is not is found in the database, when its time has come.
        """
        if row.id in self._known:
            return False
        if not (self._leads and self._complete) or len(self._known) >= _KNOWN_MAX:
            self._complete, self._refused = False, True
            self._look_soon()
            return False
        self._begin(row, place)
        return True

    def look(self) -> None:
        """Look at the database now: at what waits there, and whether it answers at all."""
        self._wake.set()

    def _look_soon(self) -> None:
        """Look when many of the rows that are known are done: a look reads all of them, and with
        one for each row a backlog would cost its own length for each."""
        if len(self._known) <= _KNOWN_MAX // 2:
            self._wake.set()

    async def run(self) -> None:
        """Keep the lead where it is free, look for rows, apply them; until cancelled."""
        context = self.intake.context
        try:
            while True:
                try:
                    now = context.now()
                    until = now + timedelta(seconds=_LEAD_S)
                    inbox = context.store.inbox
                    self._leads = await inbox.lead(self.intake.owner, now, until)
                    self.available.set()
                    if self._leads:
                        await self._look()
                    else:
                        self._complete = False
                except FhirError:
                    self._leads = self._complete = False
                    self.available.clear()
                except Exception as error:  # noqa: BLE001 - rows stay in the database; the next look finds them
                    log_failure(error)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_BEAT_S):
                        await self._wake.wait()
                self._wake.clear()
        finally:
            await self._end()

    async def _end(self) -> None:
        led, self._leads = self._leads, False  # and no row is taken any more
        try:
            await end_of(self._known.values())
        finally:
            if led:
                with suppress(FhirError):
                    await self.intake.context.store.inbox.leave(self.intake.owner)

    async def _look(self) -> None:
        """Begin with the rows that are not known yet, oldest first."""
        self._refused = False
        rows = await self.intake.context.store.inbox.waiting(0, _KNOWN_MAX)
        for row in rows:
            if row.id not in self._known and len(self._known) < _KNOWN_MAX:
                self._begin(row, self.intake.chains.enter(row.patients, row.sequence))
        # One that came meanwhile is not among the rows: whoever comes next must not overtake it.
        self._complete = len(rows) < _KNOWN_MAX and not self._refused
        if self._refused:
            self._look_soon()

    def _begin(self, row: Row, place: Place) -> None:
        task = asyncio.create_task(self._worked(row, place), name=f"hl7v2 {row.id}")
        self._known[row.id] = task

    async def _worked(self, row: Row, place: Place) -> None:
        """Apply ``row`` until it is finished, and keep its place so long."""
        try:
            await _until(row.next, self.intake.context.now())
            await place.turn()
            while await self._tried(row.id):
                pass
        finally:
            self._known.pop(row.id, None)
            place.leave()
            if not self._complete:
                self._look_soon()

    async def _tried(self, id: str) -> bool:
        """Try the row once; return whether it is to be tried again, when its time has come."""
        inbox = self.intake.context.store.inbox
        try:
            async with self.intake.workers:
                state = await self.intake.work(id)
            if state not in ("", "retry"):
                return False
            row = await inbox.row(id)
        except FhirError:
            await asyncio.sleep(_AGAIN_S)
            return True
        except Exception as error:  # noqa: BLE001 - this row waits for its lease to end; others go on
            log_failure(error)
            await asyncio.sleep(LEASE_S)
            return True
        if row is None or row.state not in ("received", "retry", "applying"):
            if row is not None:
                self.intake.outcomes.announce(row)
            return False
        await _until(row.next or row.lease, self.intake.context.now(), _AGAIN_S)
        return True


async def _until(when: datetime | None, now: datetime, least: float = 0.0) -> None:
    seconds = (when - now).total_seconds() if when else least
    if seconds > 0:
        await asyncio.sleep(seconds)
