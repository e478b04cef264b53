"""Gives numbers: 001, 002 and so on by place, letters and local day, and none that is in use there.

design/scheduling.md, section 7. A number is taken outside of any transaction: whoever dies then
leaves a gap, never a number twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from fhir_server.context import Context
from fhir_server.features.scheduling import queue
from fhir_server.features.scheduling.queue_resources import base_of
from fhir_server.features.scheduling.zones import zone_of_place
from fhir_server.messages import Resource

_COUNTERS_KEPT = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Number:
    """A number: ``date`` is the local day on which it was given, ``token`` as it is called out."""

    location: str
    date: str
    number: int
    token: str

    @property
    def members(self) -> Mapping[str, Any]:
        """What it changes of an entry."""
        return {"date": self.date, "number": self.number, "token": self.token}

    def identifier(self, context: Context) -> Resource:
        """Return it as an Identifier of the Encounter."""
        system = f"{base_of(context)}/queue-token/{self.location}/{self.date}"
        return {"system": system, "value": self.token}


async def given(location: Resource, service: Resource, context: Context) -> Number:
    """Return the next number at ``location`` for ``service``. One that somebody has there who was
    sent on from another place is passed over."""
    now, queues = context.now(), context.store.queues
    day = queue.local_day(now, await zone_of_place(location, context)).isoformat()
    letters, id = queue.prefix(service, location), location["id"]
    while True:
        number = await queues.number(f"token|{id}|{letters}|{day}", now + _COUNTERS_KEPT)
        if number == 1:
            await queues.forget(id, now)
        token = queue.token(letters, number)
        if not await queues.is_in_use(id, day, token):
            return Number(id, day, number, token)
