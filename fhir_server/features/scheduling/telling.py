"""Messages about one appointment that are due at once: an offer, a time that cannot be kept.

Where channels are set up, a message is one of those of reminders (``planning.py``): in the language
of its patient, by the way that the record has, outside quiet hours. Where nothing is, the
CommunicationRequest alone is written, for whoever carries it out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from fhir_server.context import Context
from fhir_server.features.scheduling.communications import MESSAGE
from fhir_server.features.scheduling.planning import person, put, written
from fhir_server.features.scheduling.reminder_policy import Desk, desk_of
from fhir_server.features.scheduling.reminders import (
    Reminder,
    displays,
    local,
    name_of,
    notice,
    patients_of,
    started,
)
from fhir_server.features.scheduling.zones import zone_at
from fhir_server.messages import Resource
from fhir_server.store.documents import instant


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be told ``patient``, and how, by which ``desk``."""

    reminder: Reminder
    patient: Mapping[str, Any]
    desk: Desk


async def messages(kind: str, appointment: Resource, context: Context) -> list[Message]:
    """Return what tells the patients of ``appointment``, as far as there is a way to them."""
    if not context.settings.reminder_channels:
        return []
    zone = await zone_at(appointment, context)
    desk = desk_of(context.settings).on_clocks_of(zone)
    appointment = local(appointment, context.parameters.base_urls)
    found = []
    for reference in patients_of(appointment):
        who = await person(reference, desk, context)
        if who is None:
            continue
        made = notice(kind, appointment, (reference, who), desk.policy, context.now())
        if made is not None:
            found.append(Message(made, who.patient, desk))
    return found


async def tell(
    some: Sequence[Message],
    appointment: Resource,
    plain: Resource,
    values: Mapping[str, str],
    context: Context,
) -> None:
    """Write ``some`` with what has them sent; without any ``plain``. Only inside a transaction.
    ``values`` are what the texts may name of ``appointment`` beside what it says itself."""
    for one in some:
        said = {**displays(appointment), **values}
        await put(one.reminder, one.patient, said, one.desk, context)
    if not some:
        await written(plain, context)


def until(some: Sequence[Message], end: datetime) -> list[Message]:
    """Return ``some``, which are of no use after ``end``."""
    return [replace(one, reminder=replace(one.reminder, until=end)) for one in some]


async def plain_message(kind: str, appointment: Resource, text: str, context: Context) -> Resource:
    """Return the CommunicationRequest that says ``text`` to the patients of ``appointment``; in it
    ``{start}`` is its local time. It has the same id whenever it is made."""
    zone, start = await zone_at(appointment, context), started(appointment)
    shown = f"{start.astimezone(zone):%Y-%m-%d %H:%M}" if start is not None else ""
    about = f"Appointment/{appointment['id']}"
    people = patients_of(local(appointment, context.parameters.base_urls))
    patients = [{"reference": one} for one in people]
    return {
        "resourceType": "CommunicationRequest",
        "id": name_of([kind, about, shown]),
        "status": "active",
        "category": [{"coding": [MESSAGE], "text": kind}],
        "priority": "asap",
        **({"subject": patients[0], "recipient": patients} if patients else {}),
        "about": [{"reference": about}],
        "payload": [{"contentString": text.replace("{start}", shown)}],
        "occurrenceDateTime": instant(context.now()),
    }
