"""Takes in the body of one request: within its pace, and within what this process can hold.

design/security.md, section 5. What waits for its answer stays in memory, so that all bodies
together have a limit: beyond it a client is asked to come again, and nobody else is harmed.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fhir_server.http.body import Receive, read_body
from fhir_server.outcome import FhirError, Issue

QUIET_S = 5.0
"""So long a client may send nothing; then it has to be faster than :data:`BYTES_A_SECOND_MIN`."""
BYTES_A_SECOND_MIN = 1024


@dataclass(slots=True)
class Bodies:
    """The bodies that one process holds: ``held`` bytes of at most ``bytes_max``."""

    bytes_max: int = 134_217_728
    held: int = 0


class Intake:
    """One request's ``receive``, and what was taken of ``bodies`` for it."""

    __slots__ = ("_began", "_bodies", "_patience_s", "_receive", "_size", "_timer")

    def __init__(self, receive: Receive, bodies: Bodies) -> None:
        """Read from ``receive``; nothing is taken before there is something."""
        self._receive = receive
        self._bodies = bodies
        self._size = 0

    async def __call__(self) -> Any:
        """Return the next event, whose bytes go on and are not held."""
        return await self._receive()

    async def body(
        self, headers: Mapping[bytes, bytes], bytes_max: int, patience_s: float
    ) -> bytes:
        """Return the whole body, held until :meth:`release`.

        Raises what :func:`read_body` does, status 408 for a client that is slower than it may be,
        and 503 where this process holds too much already.
        """
        self._began = time.monotonic()
        self._patience_s = patience_s
        try:
            async with asyncio.timeout(min(patience_s, QUIET_S)) as self._timer:
                body = await read_body(self._counted, headers, bytes_max)
        except TimeoutError as error:
            seconds = time.monotonic() - self._began
            text = f"The body was not there after {seconds:.2g} s."
            raise FhirError(Issue("timeout", text), status=408) from error
        if len(body) > self._size:  # it was compressed
            self._hold(len(body) - self._size)
        return body

    def release(self) -> None:
        """Give back what was taken; the request has its answer."""
        self._bodies.held -= self._size
        self._size = 0

    async def _counted(self) -> Any:
        message = await self._receive()
        self._hold(len(message.get("body", b"")))
        if message.get("more_body"):
            allowed = min(self._patience_s, QUIET_S + self._size / BYTES_A_SECOND_MIN)
            left = self._began + allowed - time.monotonic()
            self._timer.reschedule(asyncio.get_running_loop().time() + left)
        return message

    def _hold(self, size: int) -> None:
        self._size += size
        self._bodies.held += size
        if self._bodies.held > self._bodies.bytes_max:
            text = "The server holds too many bodies at the moment; send this one again."
            raise FhirError(Issue("transient", text), headers=(("Retry-After", "2"),))
