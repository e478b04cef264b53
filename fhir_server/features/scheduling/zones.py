"""On which clocks an appointment, a practitioner or a place is: what people are shown, and which
day it is there.

Section 2 of design/scheduling.md: a zone stands in the rules of a Schedule, on its actor or place,
or in the settings. A time that is shown to a patient in another zone is a wrong time.
"""

from collections.abc import Iterable, Sequence
from zoneinfo import ZoneInfo

from fhir_server.context import Context
from fhir_server.features.scheduling.governing import governed, read_all
from fhir_server.features.scheduling.queue import zone_of
from fhir_server.features.scheduling.subjects import ids_of, keys_of, participants, schedules_of
from fhir_server.features.scheduling.writing import search
from fhir_server.messages import Resource
from fhir_server.outcome import FhirError

_SCHEDULES_MAX = 20


async def zone_at(appointment: Resource, context: Context) -> ZoneInfo:
    """Return the zone of the hours in which ``appointment`` lies: of the Schedules of its Slots, or
    else of those who take part; that of the settings where none of them says."""
    bases = context.parameters.base_urls
    slots = ids_of("Slot", keys_of(appointment.get("slot", ()), bases, {"Slot"}))
    found = schedules_of((await read_all("Slot", slots, context)).values(), bases)
    if found:
        schedules = [f"Schedule/{one}" for one in sorted(found)]
        return await _zone_of(schedules, appointment, context)
    return await zone_with(participants(appointment, bases), context, appointment)


async def zone_with(
    actors: Iterable[str], context: Context, appointment: Resource | None = None
) -> ZoneInfo:
    """Return the zone of the Schedules of ``actors`` (``Practitioner/1``), for ``appointment``
    where there is one; that of the settings where none of them says."""
    named = sorted(one for one in actors if not one.startswith("Patient/"))
    asked = (("actor", ",".join(named)), ("_count", str(_SCHEDULES_MAX)))
    some = await search("Schedule", asked, context) if named else []
    schedules = sorted(f"Schedule/{one['id']}" for one in some if one.get("active") is not False)
    return await _zone_of(schedules, appointment or {}, context)


async def zone_of_place(location: Resource, context: Context) -> ZoneInfo:
    """Return the zone of ``location``: its own, else that of the Schedules which are there; that of
    the settings where none of them says."""
    return zone_of(location) or await zone_with((f"Location/{location['id']}",), context)


async def _zone_of(schedules: Sequence[str], appointment: Resource, context: Context) -> ZoneInfo:
    """Return the zone of the first of ``schedules`` that says one. Rules that cannot be read offer
    no times, and say why where they are asked; a message about a time does not wait for them."""
    default = ZoneInfo(context.settings.scheduling_timezone)
    for one in schedules:
        try:
            [found] = (await governed([one], appointment, context)).values()
        except FhirError as error:
            if error.status >= 500:
                raise
            continue
        if found.rules.zone != default:
            return found.rules.zone
    return default
