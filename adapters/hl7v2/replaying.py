"""What a person does with rows: replay, replace, release, discard.

design/hl7v2.md, section 6. A replay is a row of its own, applied from the bytes with the rules of
today. Keys are the same, so that nothing doubles; what comes out equal writes no version. A row
that was not applied gives its key to its replay: the sender's repetition then finds what became of
it.
"""

import base64
from collections import Counter
from dataclasses import replace
from datetime import timedelta

from adapters.hl7v2.ack import header_of
from adapters.hl7v2.apply import tried
from adapters.hl7v2.inbox import Intake
from adapters.hl7v2.issues import MessageFault
from adapters.hl7v2.lookups import HeldError
from adapters.hl7v2.outcomes import FINISHED
from adapters.hl7v2.reading import Arrival, Item, digest_of, key_of
from fhir_server.messages import Request
from fhir_server.outcome import FhirError, Issue
from fhir_server.r4.json import decode_stored
from fhir_server.store.inbox import Row

_UNDER_WAY = ("received", "applying")


async def raw_of(row: Row, intake: Intake) -> bytes:
    """Return the message of ``row`` as it arrived, wherever it is kept now."""
    found = row if row.raw else await intake.context.store.inbox.row(row.id)
    if found is not None and found.raw:
        return found.raw
    if not row.binary:
        return b""
    response = await intake.context.perform(Request("read", "Binary", row.binary), intake.context)
    if response.content is not None and response.pieces is not None:
        pieces = response.pieces(0, response.content.size)
        return b"".join([piece async for piece in pieces])
    return base64.b64decode(decode_stored(response.body).get("data", ""))


async def item_of(row: Row, intake: Intake) -> Item:
    """Return ``row`` read and mapped with the rules of today. Raises :class:`MessageFault`."""
    data = await raw_of(row, intake)
    arrival = Arrival(data, row.peer, row.transport, row.received, charset=row.charset)
    item = intake.readers.item(arrival, header_of(data), judged=False)
    return replace(item, id=row.id, sequence=row.sequence, key=row.key)


async def replay(row: Row, intake: Intake, *, force: bool = False, text: bytes = b"") -> str:
    """Have ``row`` applied again, or ``text`` in its place; return the id of the new row.

    Raises ``conflict`` for a row that is under way, ``not-found`` where nothing is left of it.
    """
    inbox = intake.context.store.inbox
    if row.state in _UNDER_WAY:
        raise FhirError(Issue("conflict", f"Row {row.id} is being applied; wait for its outcome."))
    data = text or await raw_of(row, intake)
    header = header_of(data)
    if not data or header is None:
        raise FhirError(Issue("not-found", f"Row {row.id} has no message that could be applied."))
    arrival = Arrival(data, row.peer, row.transport, row.received)
    try:
        patients = tuple(intake.readers.item(arrival, header, judged=False).patients)
    except MessageFault:
        patients = row.patients
    now = intake.context.now()
    new = Row(
        id=intake.context.new_id(),
        sequence=intake.next_place(now),
        state="received",
        received=now,
        digest=digest_of(data),
        sender=row.sender,
        peer=row.peer,
        transport=row.transport,
        type=row.type,
        version=row.version,
        control_id=header.control_id,
        size=len(data),
        patients=patients,
        raw=data,
        replay_of=row.id,
        force=force,
    )
    if row.state != "done":
        reason = {"reason": "Replaced." if text else "Replayed.", "replaced_by": new.id}
        until = now + timedelta(days=intake.context.settings.hl7_done_days)
        left = ("retry", "held", "dead", "ignored", "rejected")
        gone = {"state": "ignored", "key": "", "until": until, "next": None, **reason}
        if await inbox.change(row.id, left, gone) is None:
            raise FhirError(Issue("conflict", f"Row {row.id} has changed meanwhile."))
        new = replace(new, key=row.key or key_of(header))
    await intake.put(new)
    return new.id


async def rehearsed(row: Row, intake: Intake) -> Counter[str]:
    """Return what a replay of ``row`` would do, as counts of created, updated and unchanged; or of
    ``held`` and ``dead``. Writes nothing."""
    try:
        item = await item_of(row, intake)
        _, writes = await tried(item, intake.context)
    except HeldError:
        return Counter({"held": 1})
    except MessageFault:
        return Counter({"dead": 1})
    return Counter(one.outcome for one in writes)


async def discard(row: Row, intake: Intake, reason: str) -> None:
    """Leave ``row`` out, for a ``reason``. Raises ``conflict`` for one that is applied."""
    until = intake.context.now() + timedelta(days=intake.context.settings.hl7_done_days)
    changed = await intake.context.store.inbox.change(
        row.id,
        ["retry", "held", "dead", "rejected"],
        {"state": "ignored", "reason": reason[:500], "until": until, "next": None},
    )
    if changed is None:
        raise FhirError(
            Issue("conflict", f"Row {row.id} is {row.state}; it is not to be left out.")
        )


async def release(row: Row, intake: Intake) -> None:
    """Have a held row tried again. Raises ``conflict`` for another one."""
    changed = await intake.context.store.inbox.change(row.id, ["held"], {"state": "received"})
    if changed is None:
        raise FhirError(
            Issue("conflict", f"Row {row.id} is {row.state}; only held ones are released.")
        )
    intake.resume(changed)


async def outcomes(ids: list[str], intake: Intake, seconds: float) -> Counter[str]:
    """Return the states of the rows ``ids``, waited for as long as ``seconds``."""
    counts: Counter[str] = Counter()
    end = intake.context.now() + timedelta(seconds=seconds)
    for id in ids:
        left = (end - intake.context.now()).total_seconds()
        row = await intake.finished(id, max(left, 0.01))
        counts[row.state if row is not None and row.state in FINISHED else "under way"] += 1
    return counts
