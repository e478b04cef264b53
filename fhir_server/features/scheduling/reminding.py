"""Reminders: what is written of appointments and medicines makes messages, and a task sends them.

Section 8 of design/scheduling.md. Two rules (``store/rules.py``) leave a row in the outbox in the
transaction of each write that matters, and take back what waits; so nothing is forgotten, and
nothing is sent that is over, whichever way it was written.
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack

from fhir_server.context import Context
from fhir_server.features.scheduling.delivering import Deliveries
from fhir_server.features.scheduling.inbound import PATH, application
from fhir_server.features.scheduling.outbox_operations import OPERATIONS
from fhir_server.features.scheduling.planning import MEDICATION, TYPES, plan_row
from fhir_server.features.scheduling.reminder_policy import desk_of
from fhir_server.features.scheduling.reminders import Json, changed, local
from fhir_server.r4.references import target
from fhir_server.registry import Channel, Registry, Send, Task
from fhir_server.settings import Settings
from fhir_server.store.rules import NOTHING_SAID, Inside, Seen, Verdict

_log = logging.getLogger("fhir_server.reminders")


class AppointmentReminders:
    """The rule that whoever changes an Appointment has its reminders planned again."""

    types = frozenset(("Appointment",))
    refuses = False

    async def __call__(self, seen: Sequence[Seen], inside: Inside) -> Verdict:
        """Leave a row for each that matters; refuse nothing."""
        if inside.settings.reminder_channels:
            bases = inside.table.base_urls
            subjects = [
                f"Appointment/{one.change.id}"
                for one in seen
                if changed(
                    *(local(one.before or {}, bases), local(one.after or {}, bases)),
                    inside.now,
                )
            ]
            await _planned_again(subjects, subjects, inside)
        return NOTHING_SAID


class MedicationReminders:
    """The rule that whoever changes an order has its patient's doses planned again."""

    types = frozenset(("MedicationRequest",))
    refuses = False

    async def __call__(self, seen: Sequence[Seen], inside: Inside) -> Verdict:
        """Leave a row for each patient; refuse nothing."""
        settings = inside.settings
        if settings.reminder_channels and settings.reminder_medication:
            orders = [f"MedicationRequest/{one.change.id}" for one in seen]
            patients = {
                found
                for one in seen
                for found in (_patient(one.before, inside), _patient(one.after, inside))
                if found
            }
            await _planned_again([MEDICATION + one for one in sorted(patients)], orders, inside)
        return NOTHING_SAID


async def _planned_again(subjects: Iterable[str], watched: Sequence[str], inside: Inside) -> None:
    rows = [plan_row(one, inside.now) for one in subjects]
    if rows:
        # The row of the plan first: whoever is planning the same is seen there.
        await inside.outbox.put(rows)
        await inside.outbox.withdraw(watched, inside.now)


def _patient(order: Json | None, inside: Inside) -> str:
    subject = order.get("subject") if order else None
    reference = subject.get("reference", "") if isinstance(subject, dict) else ""
    found = target(str(reference), inside.table.base_urls)
    return f"Patient/{found.id}" if found.type == "Patient" and found.id else ""


class Sending:
    """The task that plans and sends. ``channels`` may grow until the server starts."""

    def __init__(self, channels: Mapping[str, Channel]) -> None:
        """Send by those of ``channels`` that the settings name."""
        self._channels = channels

    async def run(self, context: Context) -> None:
        """Work until cancelled; without a channel there is nothing to do."""
        context = context.under("reminders")
        names = used(context.settings)
        if not names:
            return
        try:
            desk = desk_of(context.settings)
            async with AsyncExitStack() as open:
                sends: dict[str, Send] = {}
                for name in names:
                    if name not in self._channels:
                        raise ValueError(f"no feature has the channel {name}; load adapters.notify")
                    way = self._channels[name].opened(context)
                    sends[name] = await open.enter_async_context(way)
                await context.store.indexes.ensure(TYPES)
                await Deliveries(context, desk, sends).run()
        except (OSError, ValueError) as error:
            _log.critical("%s", json.dumps(f"No message is sent: {error}"))
            raise


def used(settings: Settings) -> tuple[str, ...]:
    """Return the channels that are to be open: those of reminders, and mail for who is told of
    emergencies."""
    more = ("email",) if settings.smtp_url and settings.privacy_officer else ()
    return tuple(dict.fromkeys((*settings.reminder_channels, *more)))


def register(registry: Registry) -> None:
    """Add the rules, the task, the place for answers, and what administrators have."""
    registry.rule("appointment-reminders", AppointmentReminders())
    registry.rule("medication-reminders", MedicationReminders())
    registry.task(Task("reminders", Sending(registry.channels).run))
    registry.route(PATH, application)
    for operation in OPERATIONS:
        registry.operation(operation)
