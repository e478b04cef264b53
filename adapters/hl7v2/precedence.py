"""What rows that are there mean for a message: who has its control id, who stands before it.

design/hl7v2.md, sections 6, 7 and 18.
"""

from datetime import timedelta

from adapters.hl7v2.ack import Fault
from adapters.hl7v2.lookups import HeldError
from adapters.hl7v2.reading import Item
from fhir_server.store.inbox import Inbox, Row

_BEHIND = "An earlier message about this patient waits for a person (row {}); this one behind it."


async def gives_up_key(first: Row, item: Item, inbox: Inbox) -> bool:
    """Return whether the row that has the key of ``item`` gives it up; it has done so then.

    It does where it is older than the days for which the sender's control ids are unique.
    """
    days = item.profile.control_id_days
    if not days or item.arrival.received - first.received < timedelta(days=days):
        return False
    return await inbox.change(first.id, [first.state], {"key": ""}) is not None


async def check_order(item: Item, inbox: Inbox) -> None:
    """Raise :class:`HeldError` for a message behind one of the same patient that a person must
    see to, where its sender wants messages of a patient in order at any price."""
    if not item.profile.hold_after_dead:
        return
    before = await inbox.stopped_before(item.sequence, item.profile.name, item.patients)
    if before is not None:
        raise HeldError((Fault("207", _BEHIND.format(before)),))
