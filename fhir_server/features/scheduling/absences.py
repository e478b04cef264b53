"""Who is ``booked`` and does not come is noted as ``noshow``, some minutes after the start; where
``FHIR_SCHEDULING_NO_SHOW_MINUTES`` says how many, and nowhere else.

Section 5 of design/scheduling.md. Several servers may look at once: a version is written over once.
"""

import asyncio
import json
import logging
from datetime import timedelta

from fhir_server.context import Context
from fhir_server.features.scheduling.waitlist import put
from fhir_server.features.scheduling.writing import search
from fhir_server.outcome import FhirError
from fhir_server.registry import Registry, Task
from fhir_server.store.documents import instant

_LOOK_EVERY_S = 30.0
_AT_ONCE = 200
_LOOKED_BACK = timedelta(days=1)  # what is older was left open by people, and is for them to end
_OVERTAKEN = (404, 409, 410, 412)
_TYPES = ("Appointment",)
_LOG = logging.getLogger("fhir_server.scheduling")


def register(registry: Registry) -> None:
    """Add the task."""
    registry.task(Task("absences", run))


async def run(context: Context) -> None:
    """Note who did not come, until cancelled."""
    if not context.settings.scheduling_no_show_minutes:
        return
    await context.store.indexes.ensure(_TYPES)
    while True:
        try:
            while await noted(context) == _AT_ONCE:
                pass
        except Exception as error:  # noqa: BLE001 - outermost shell: it is looked at again
            _LOG.error("%s", json.dumps(f"absences are not noted: {type(error).__name__}"))
        await asyncio.sleep(_LOOK_EVERY_S)


async def noted(context: Context) -> int:
    """Note who should have come and did not, 200 at most; return how many there were."""
    context = context.under("scheduling")
    last = context.now() - timedelta(minutes=context.settings.scheduling_no_show_minutes)
    asked = (
        ("status", "booked"),
        ("date", f"ge{instant(last - _LOOKED_BACK)}"),
        ("date", f"le{instant(last)}"),
        ("_sort", "date"),
        ("_count", str(_AT_ONCE)),
    )
    count = 0
    for one in await search("Appointment", asked, context):
        try:
            await put({**one, "status": "noshow"}, context)
            count += 1
        except FhirError as error:
            if error.status not in _OVERTAKEN:
                raise
    return count
