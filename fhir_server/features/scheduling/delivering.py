"""Rows of the outbox -> messages that were sent, each at least once, and what became of them.

Section 8 of design/scheduling.md. A row is taken by one process for :data:`LEASE`; the message is
handed over outside of any transaction; then one transaction writes the Communication, ends the
CommunicationRequest and settles the row. Whoever dies between sends it again, under the same key.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from zlib import crc32
from zoneinfo import ZoneInfo

from fhir_server.context import Context
from fhir_server.ending import end_of
from fhir_server.features.scheduling.communications import (
    channel_of,
    communication_of,
    ended,
    objects,
)
from fhir_server.features.scheduling.planning import (
    TYPES,
    Superseded,
    objections,
    planned,
    resource,
    written,
)
from fhir_server.features.scheduling.reminder_policy import Desk
from fhir_server.features.scheduling.reminders import LIVE, Person, reachable, started, ways
from fhir_server.features.scheduling.sms_replies import mark
from fhir_server.features.scheduling.sms_segments import segments
from fhir_server.messages import Resource
from fhir_server.outcome import FhirError
from fhir_server.registry import Outgoing, Send, Unsent
from fhir_server.store.outbox import DEAD, NOT_DONE, SENT, WITHDRAWN, Row
from fhir_server.store.resources import ResourceStore

LEASE = timedelta(seconds=60)
TRIES_MAX = 8
_WAIT_FIRST_S = 30.0
_IDLE_S = 1.0
_HELD = timedelta(minutes=5)
_REFUSED = (400, 403, 404, 422)  # the same at each try
_ENDING_S = 0.8  # after a second the task is cancelled again

_log = logging.getLogger("fhir_server.reminders")


def wait_after(tried: int, id: str) -> timedelta:
    """Return how long a row waits that was ``tried`` so often: twice as long each time, and by up
    to a quarter more or less, so that those that failed together do not come together again.

    >>> wait_after(1, "a") < wait_after(3, "a") < wait_after(5, "a")
    True
    """
    spread = 0.75 + (crc32(f"{id}/{tried}".encode()) % 1000) / 2000
    return timedelta(seconds=_WAIT_FIRST_S * 2 ** (tried - 1) * spread)


class _NotDone(Exception):
    """Nothing is sent: ``code`` of communication-not-done-reason, ``text`` for those who look."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass(slots=True)
class Deliveries:
    """Sends what is due by ``channels``. ``context.now`` is the clock that counts."""

    context: Context
    desk: Desk
    channels: Mapping[str, Send]
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Take rows and send them, several at a time, until cancelled."""
        places = asyncio.Semaphore(self.context.settings.reminder_senders)
        running: set[asyncio.Task[None]] = set()
        try:
            while True:
                await places.acquire()
                row = await self._next()
                if row is None:
                    places.release()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_IDLE_S):
                            await self._wake.wait()
                    self._wake.clear()
                    continue
                task = asyncio.create_task(self.worked(row), name=f"outbox {row.id}")
                running.add(task)
                task.add_done_callback(running.discard)
                task.add_done_callback(lambda _: places.release())
        finally:
            try:
                if running:  # what is handed over now would be handed over again by the next server
                    await asyncio.wait(running, timeout=_ENDING_S)
            finally:
                await end_of(running)

    async def one(self) -> bool:
        """Take a row and work it off; return whether there was one."""
        row = await self.take()
        if row is not None:
            await self.worked(row)
        return row is not None

    async def _next(self) -> Row | None:
        try:
            return await self.take()
        except FhirError:
            return None  # the database does not answer; it is asked again
        except Exception as error:  # noqa: BLE001 - rows stay in the database, and are taken later
            _log.error('"the outbox cannot be read: %s"', type(error).__name__)
            return None

    async def take(self) -> Row | None:
        """Take the row that is due longest."""
        now = self.context.now()
        kinds = ["plan", *(["message"] if self.channels else [])]
        kinds += ["break-glass"] if "email" in self.channels else []
        return await self.context.store.outbox.take(self.context.new_id(), now, now + LEASE, kinds)

    async def worked(self, row: Row) -> None:
        """Work off ``row``, which was taken. Whatever happens, others go on."""
        try:
            if row.tried > TRIES_MAX:  # whoever took it has died of it, time and again
                await self._dead(row, "It was begun too often and never ended.")
            else:
                await _KINDS[row.kind](self, row)
        except Superseded:
            pass
        except Unsent as error:
            await self._failed(row, str(error), is_final=error.is_final)
        except Exception as error:  # noqa: BLE001 - this row is tried again; others go on
            await self._failed(row, f"It ended with {type(error).__name__}.")

    async def _planned(self, row: Row) -> None:
        await planned(row, self.desk, self.context)
        self._wake.set()

    async def _failed(self, row: Row, why: str, *, is_final: bool = False) -> None:
        """Have ``row`` tried again later, or give it up."""
        _log.warning("%s", json.dumps(f"outbox {row.id}, try {row.tried}: {why}"))
        try:
            if is_final or row.tried >= TRIES_MAX:
                await self._dead(row, why, "invalid-phone-number" if is_final else "system-error")
            else:
                due = self.context.now() + wait_after(row.tried, row.id)
                await self.context.store.outbox.again(row, due, why)
        except Superseded:
            pass
        except Exception as error:  # noqa: BLE001 - nothing was written: its lease ends by itself
            _log.error("%s", json.dumps(f"outbox {row.id}: {type(error).__name__}"))

    async def _dead(self, row: Row, why: str, code: str = "system-error") -> None:
        """Give ``row`` up; who runs the server sees it, and may have it tried again."""
        _log.error("%s", json.dumps(f"outbox {row.id} was given up: {why}"))
        request = None
        if row.kind == "message":
            request = await resource(f"CommunicationRequest/{row.id}", self.context)
        if request is None:
            await self.context.store.outbox.settle(row, DEAD, self.context.now(), reason=why)
            return
        said = communication_of(request, self.context.now(), not_done=code, note=why)
        await self._settled(row, DEAD, [said, ended(request, "on-hold", why)], reason=why)

    async def _message(self, row: Row) -> None:
        """Send the message of ``row``, where that is still to be. Raises :class:`Unsent`."""
        context = self.context
        request = await resource(f"CommunicationRequest/{row.id}", context)
        if request is None or request.get("status") not in ("active", "on-hold"):
            await context.store.outbox.settle(row, WITHDRAWN, context.now(), reason="revoked")
            return
        is_held = request["status"] == "on-hold" and not row.content.get("repeated")
        if is_held and context.now() < row.content["until"]:
            later = context.now() + _HELD  # by a client: it is expected to go on
            await context.store.outbox.again(row, later, "on hold", tried=row.tried - 1)
            return
        if not await self._still_so(row):
            gone = ended(request, "revoked", "It is not so any more.")
            await self._settled(row, WITHDRAWN, [gone], reason="revoked")
            return
        if (morning := self._morning(row)) is not None:
            await context.store.outbox.again(row, morning, "", tried=row.tried - 1)
            return
        try:
            to = await self._address(row, request)
        except _NotDone as error:
            said = communication_of(request, context.now(), not_done=error.code, note=error.text)
            gone = ended(request, "revoked", error.text)
            await self._settled(row, NOT_DONE, [said, gone], reason=error.text)
            return
        channel = channel_of(request)
        outgoing = _outgoing(row, request, to)
        await self._sent(channel, outgoing)
        note = ""
        if channel == "sms":
            found = segments(outgoing.text)
            note = f"Sent as {found.count} SMS ({found.alphabet})."
        said = communication_of(request, context.now(), note=note)
        answerable = mark(to) if channel == "sms" else ""
        await self._settled(row, SENT, [said, ended(request, "completed")], to=answerable)

    def _morning(self, row: Row) -> datetime | None:
        """Return when the message of ``row`` goes out, which is due in quiet hours: tried again, or
        left by a server that was down. ``None``: now, which may be the last moment."""
        quiet, zone = self.desk.policy.quiet, row.content.get("zone")
        end = quiet.end_of(self.context.now(), ZoneInfo(zone)) if quiet and zone else None
        return end if end is not None and end < row.content["until"] else None

    async def _still_so(self, row: Row) -> bool:
        """Whether what the message says is still so: an appointment that was cancelled a moment ago
        is not reminded of, nor a medicine that was stopped."""
        said = row.content
        if said["kind"] == "medication":
            orders = [one for one in row.watched if one.startswith("MedicationRequest/")]
            found = [await resource(one, self.context) for one in orders]
            return all(one is not None and one.get("status") == "active" for one in found)
        if said["kind"] not in ("reminder", "moved"):
            return True
        appointment = await resource(row.subject, self.context)
        if appointment is None or appointment.get("status") not in LIVE:
            return False
        return bool(started(appointment) == said["start"])

    async def _address(self, row: Row, request: Resource) -> str:
        """Return where the message goes, as the record says now. Raises :class:`_NotDone`."""
        now, said = self.context.now(), row.content
        if said["until"] <= now:
            raise _NotDone("unknown", "It was too late to send it.")
        patient = await resource(said["patient"], self.context)
        if patient is None or not reachable(patient):
            raise _NotDone("recipient-unavailable", "The patient is not to be written to.")
        channel = channel_of(request)
        if objects(await objections(said["patient"], self.context), channel, now):
            raise _NotDone("patient-objection", "The patient wants no messages.")
        person = Person(patient, (channel,))
        way = next(iter(ways(person.patient, person.channels, now)), None)
        if way is None:
            raise _NotDone("recipient-unavailable", f"The record has no address for {channel}.")
        return way.to

    async def _sent(self, channel: str, outgoing: Outgoing) -> None:
        send = self.channels.get(channel)
        if send is None:
            raise Unsent(f"The channel {channel} is not set up.")
        try:
            async with asyncio.timeout(self.context.settings.reminder_timeout_s):
                await send(outgoing)
        except TimeoutError:
            raise Unsent("It was not taken in time.") from None

    async def _settled(
        self, row: Row, state: str, resources: list[Resource], *, to: str = "", reason: str = ""
    ) -> None:
        """Write what became of ``row``, in one transaction. Raises :class:`Superseded`.

        What this server refuses to write, such as a reference to a patient who is gone, is left
        out: else what was sent would be sent again and again.
        """

        async def within(store: ResourceStore) -> None:
            inside = replace(self.context, store=store)
            if not await store.outbox.settle(row, state, inside.now(), to=to, reason=reason):
                raise Superseded
            for one in resources:
                await written(one, inside)

        try:
            await self.context.store.in_transaction(within, TYPES)
        except FhirError as error:
            if error.status not in _REFUSED:
                raise
            why = f"{reason} It was not recorded: {error.issues[0].code}.".strip()
            _log.error("%s", json.dumps(f"outbox {row.id}: {why}"))
            await self.context.store.outbox.settle(
                row, state, self.context.now(), to=to, reason=why
            )

    async def _break_glass(self, row: Row) -> None:
        """Tell the officer that a record was opened: by whom and why, and of no name."""
        said = row.content
        text = (
            f"The record of Patient/{said['patient']} was opened in an emergency by "
            f"{said['account']} ({said['fhir_user'] or 'no Practitioner'}) at "
            f"{said['at']:%Y-%m-%d %H:%M} UTC.\nReason given: {said['reason']}\n"
        )
        subject = "A record was opened in an emergency"
        await self._sent("email", Outgoing(row.id, row.to, text, subject, "en"))
        await self.context.store.outbox.settle(row, SENT, self.context.now())


def _outgoing(row: Row, request: Resource, to: str) -> Outgoing:
    payload = [one.get("contentString", "") for one in request.get("payload", ())]
    subject = payload[0] if len(payload) > 1 else ""
    about = {
        "kind": row.content["kind"],
        "patient": row.content["patient"],
        "about": row.subject,
        "start": _text(row.content["start"]),
    }
    text = payload[-1] if payload else ""
    return Outgoing(row.id, to, text, subject, row.content["language"], about)


def _text(moment: datetime) -> str:
    return moment.isoformat()


_KINDS: Mapping[str, Callable[[Deliveries, Row], Coroutine[Any, Any, None]]] = {
    "plan": Deliveries._planned,
    "message": Deliveries._message,
    "break-glass": Deliveries._break_glass,
}
