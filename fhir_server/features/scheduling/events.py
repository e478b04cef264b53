"""What writes have left to be done after them, worked off by whichever process is free.

Rules leave events in the transaction of a write (``freeing.py``, ``conflicts.py``). A task takes
them one after the other; each has a lease, so that another process goes on where this one ends.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta

from fhir_server.context import Context
from fhir_server.features.scheduling.conflict_notices import Blocks, Hours, second_look, told
from fhir_server.features.scheduling.conflicts import BLOCKED, RULES, TAKEN_UP, Conflicts
from fhir_server.features.scheduling.freeing import Freeing
from fhir_server.features.scheduling.taking_up import take_up
from fhir_server.features.scheduling.waitlist import TYPES, lapse, offer
from fhir_server.registry import Registry, Task
from fhir_server.store.offers import Freed

_LEASE = timedelta(seconds=60)
_TRIES_MAX = 10
_LOOK_EVERY_S = 0.5
_LOG = logging.getLogger("fhir_server.scheduling")

_WORK: Mapping[str, Callable[[Freed, Context], Awaitable[None]]] = {
    "freed": offer,
    "hold": lapse,
    BLOCKED: told,
    RULES: second_look,
    TAKEN_UP: take_up,
}


def register(registry: Registry) -> None:
    """Add the rules that leave events, what tells of conflicts, and the task."""
    registry.rule("freed", Freeing())
    registry.rule("conflicts", Conflicts())
    registry.guard("blocks", Blocks())
    registry.guard("hours", Hours())
    registry.task(Task("scheduling events", run))


async def run(context: Context) -> None:
    """Work off events, until cancelled."""
    await context.store.indexes.ensure(TYPES)
    while True:
        try:
            while await work(context):
                pass
        except Exception as error:  # noqa: BLE001 - outermost shell: events stay, and are taken later
            _LOG.error("%s", json.dumps(f"an event is not worked off: {type(error).__name__}"))
        await asyncio.sleep(_LOOK_EVERY_S)


async def work(context: Context) -> bool:
    """Take one event that is due, and work it off; return whether there was one."""
    context, now = context.under("scheduling"), context.now()
    events = context.store.offers
    event = await events.take(context.new_id(), now, now + _LEASE)
    if event is None:
        return False
    if event.tried > _TRIES_MAX:  # whoever took it has died of it, time and again
        _LOG.error("%s", json.dumps(f"an event was given up: {event.id}"))
    else:
        await _WORK[event.kind](event, context)
    await events.drop(event)
    return True
