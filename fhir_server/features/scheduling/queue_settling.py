"""Takes out of a queue whose visit was ended by another way than ``$finish``.

A clinic's own programs may end an Encounter by a plain write. Who waited is then passed over when
its turn comes (``queue_calling.py``); whoever looks at a queue has it settled before.
"""

from collections.abc import Sequence

from fhir_server.context import Context
from fhir_server.features.scheduling.queue import is_open
from fhir_server.r4.json import decode_stored
from fhir_server.store.documents import Stored
from fhir_server.store.queues import CALLED, CALLING, DONE, Entry


async def settled(entries: Sequence[Entry], context: Context) -> tuple[list[Entry], frozenset[str]]:
    """Return those of ``entries`` whose visit goes on, and the ids of the visits that who asks may
    see. The others leave the queue; a visit that is not seen is taken to go on.
    """
    found = await context.store.read_all("Encounter", [one.id for one in entries])
    ended = {one.id: one for one in found if _has_ended(one)}
    for one in entries:
        if one.id in ended and one.state != CALLING:  # who is just called is seen to there
            await _leaves(one, ended[one.id], context)
    going_on = [one for one in entries if one.id not in ended]
    return going_on, frozenset(one.id for one in found)


def _has_ended(visit: Stored) -> bool:
    return visit.deleted or not is_open(decode_stored(visit.json))


async def _leaves(entry: Entry, visit: Stored, context: Context) -> None:
    changes: dict[str, object] = {"state": DONE}
    is_finished = not visit.deleted and decode_stored(visit.json).get("status") == "finished"
    if entry.state == CALLED and is_finished:
        changes["finished"] = visit.last_updated  # it counts as a service time
    await context.store.queues.change(entry, (entry.state,), changes)
