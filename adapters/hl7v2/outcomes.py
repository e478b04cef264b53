"""What became of a message, in words; and who waits for it, wherever it is applied."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from adapters.hl7v2.ack import Fault
from adapters.hl7v2.issues import MessageFault
from fhir_server.context import Context
from fhir_server.outcome import FhirError
from fhir_server.store.inbox import Row, Selection

FINISHED = ("done", "ignored", "held", "dead", "rejected")
_LOOK_S, _LOOK_S_MAX = 0.5, 15.0
_WARNED_MAX = 50
_INVALID_MAX = 20
_CONFLICT = 409
_RULED_OUT = ("conflict", "business-rule")


@dataclass(frozen=True, slots=True)
class Taken:
    """What is answered to a message: now, ``b""`` for nothing, and perhaps ``later`` once more."""

    code: str = ""
    answer: bytes = b""
    later: Callable[[], Awaitable[bytes]] | None = None


class Outcomes:
    """Those of one process that wait, by the id of the row."""

    def __init__(self, context: Context) -> None:
        """Begin with nobody waiting."""
        self._context = context
        self._waiting: dict[str, list[asyncio.Future[Row]]] = defaultdict(list)

    def is_awaited(self, id: str) -> bool:
        """Whether somebody waits for the row ``id``."""
        return bool(self._waiting.get(id))

    def expect(self, id: str) -> "asyncio.Future[Row]":
        """Return what will be the row ``id`` when it is finished; to be given to :meth:`of`."""
        future: asyncio.Future[Row] = asyncio.get_running_loop().create_future()
        self._waiting[id].append(future)
        return future

    def announce(self, row: Row) -> None:
        """Tell those who wait for ``row``; one that is tried again has no outcome yet."""
        if row.state not in FINISHED:
            return
        for future in self._waiting.pop(row.id, ()):
            if not future.done():
                future.set_result(row)

    async def of(self, id: str, future: "asyncio.Future[Row]", seconds: float) -> Row | None:
        """Return the row ``id`` when it is finished; ``None`` when ``seconds`` are over, or it is
        gone. Of what another process does one learns by looking: ever more rarely, since as many
        may wait as messages do, and without the bytes."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        end = began + seconds
        try:
            while (now := loop.time()) < end:
                wait = min(max(_LOOK_S, (now - began) / 4), _LOOK_S_MAX, end - now)
                done, _ = await asyncio.wait([future], timeout=wait)
                if done:
                    return future.result()
                with suppress(FhirError):
                    found = await self._context.store.inbox.select(Selection(ids=(id,)))
                    row = found[0] if found else None
                    if row is None or row.state in FINISHED:
                        return row
            return None
        finally:
            waiting = self._waiting.get(id, [])
            if future in waiting:
                waiting.remove(future)
            if not waiting:
                self._waiting.pop(id, None)


def given(row: Row) -> Callable[[], Awaitable[bytes]]:
    """Return what gives the late answer of ``row``, which is finished."""

    async def answer() -> bytes:
        return row.late_answer

    return answer


def waiting_state(row: Row) -> str:
    """Return the state in which ``row`` waits again: ``retry`` if it was tried before."""
    return "retry" if row.attempts else "received"


def as_fault(fault: MessageFault) -> Fault:
    """Return ``fault`` as an acknowledgement tells it."""
    return Fault(str(fault.error_code), fault.text, fault.where)


def is_ruled_out(error: FhirError) -> bool:
    """Whether ``error`` is what anybody would be told who writes the same: a time is taken."""
    return error.status == _CONFLICT and error.issues[0].code in _RULED_OUT


def refused(error: FhirError) -> tuple[Fault, ...]:
    """Return what a sender is told whose resources were refused."""
    if is_ruled_out(error):
        return tuple(Fault("207", one.diagnostics) for one in error.issues[:_WARNED_MAX])
    text = "The server made of this message what it cannot store itself; it is kept."
    return (Fault("207", text),)


def invalid(error: FhirError) -> tuple[dict[str, str], ...]:
    """Return the issues of a row whose resources were refused: ``mapping-invalid`` where what our
    mapping made of them is at fault."""
    return tuple(
        {
            "severity": "error",
            "code": one.code if is_ruled_out(error) else "mapping-invalid",
            "where": one.expression,
            "text": one.diagnostics,
        }
        for one in error.issues[:_INVALID_MAX]
    )


def warnings(issues: Sequence[Mapping[str, Any]]) -> list[Fault]:
    """Return what is worth a warning in the acknowledgement of a message that was applied."""
    found = [one for one in issues if one["severity"] == "warning"]
    return [Fault("0", one["text"], one["where"], "W") for one in found[:_WARNED_MAX]]
