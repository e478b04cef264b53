"""The parts of the interface in one process: intake, workers, listeners, profiles of senders."""

import asyncio
import logging

from adapters.hl7v2.batches import TooManyError, pieces_of, take_batch
from adapters.hl7v2.failures import log_failure
from adapters.hl7v2.folder import Folder
from adapters.hl7v2.inbox import Intake, UnavailableError
from adapters.hl7v2.reading import Arrival
from adapters.hl7v2.server import Listener, tls_context
from adapters.hl7v2.workers import Workers
from fhir_server.context import Context
from fhir_server.ending import end_of
from fhir_server.outcome import FhirError, Issue

_PROFILES_S = 5.0

_log = logging.getLogger("fhir_server.hl7v2")


class Interface:
    """Made at registration, opened with the first context that it gets."""

    def __init__(self) -> None:
        """Begin without a context."""
        self.listener: Listener | None = None
        self.workers: Workers | None = None
        self._intake: Intake | None = None
        self._opening = asyncio.Lock()

    async def intake(self, context: Context) -> Intake:
        """Return what takes messages, opened if it was not yet."""
        if not self._is_open(context):
            async with self._opening:
                if not self._is_open(context):  # by who was there before, it is one for all
                    intake = Intake(context)
                    await context.store.inbox.ensure()
                    await intake.refresh()
                    self._intake = intake
        assert self._intake is not None
        return self._intake

    def _is_open(self, context: Context) -> bool:
        found = self._intake
        return found is not None and found.context.store.database == context.store.database

    async def check(self, context: Context) -> None:
        """Raise ``FhirError`` where nobody could connect with TLS by the files that are set."""
        try:
            if context.settings.mllp_tls_port:
                tls_context(context.settings)
        except (OSError, ValueError) as error:  # ssl.SSLError is one
            names = "FHIR_MLLP_TLS_CERT, FHIR_MLLP_TLS_KEY, FHIR_MLLP_TLS_CLIENT_CA"
            raise FhirError(Issue("processing", f"{names} cannot be used: {error}")) from error

    async def run(self, context: Context) -> None:
        """Work off rows, listen, take files, until cancelled."""
        intake = await self._opened(context)
        self.workers = Workers(intake)
        self.listener = Listener(intake, self.workers, self._batch)
        listening = asyncio.create_task(self.listener.run(), name="hl7v2 listener")
        tasks = [
            listening,
            asyncio.create_task(self.workers.run(), name="hl7v2 workers"),
            asyncio.create_task(self._profiles(intake), name="hl7v2 profiles"),
        ]
        if context.settings.hl7_folder is not None:
            folder = Folder(context.settings.hl7_folder, intake)
            tasks.append(asyncio.create_task(folder.run(), name="hl7v2 folder"))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for one in done:
                if (error := one.exception()) is not None:
                    # Whoever looks for the reason finds it: a port that is taken, a file not there.
                    _log.critical('"hl7v2: %s has ended: %s"', one.get_name(), error)
                    raise error
        finally:
            intake.elsewhere.close()
            try:
                await end_of([listening])  # what it still answers, the workers apply
            finally:
                await end_of(tasks)

    async def _opened(self, context: Context) -> Intake:
        """Open; a database that does not answer is asked again."""
        while True:
            try:
                return await self.intake(context)
            except FhirError:
                await asyncio.sleep(1.0)

    async def _profiles(self, intake: Intake) -> None:
        """Learn of profiles that another process has written."""
        while True:
            await asyncio.sleep(_PROFILES_S)
            try:
                await intake.refresh()
            except Exception as error:  # noqa: BLE001 - the old profiles stay until the next look
                log_failure(error)

    async def _batch(self, arrival: Arrival) -> bytes:
        assert self._intake is not None
        intake = self._intake
        limit = intake.context.settings.hl7_batch_messages_max
        parts = []
        try:
            pieces = pieces_of(arrival.data)
            async for part in take_batch(pieces, arrival, intake.take, limit):
                parts.append(part)
        except TooManyError as error:
            raise UnavailableError from error
        return b"".join(parts)
