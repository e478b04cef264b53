"""Application acknowledgements that go to another address than the one the message came from.

design/hl7v2.md, sections 5 and 18: ``ack.to`` of the sender's profile. The address is never taken
from a message. What cannot be delivered is tried again for as long as a message would be; a sender
that repeats its message gets it anew.
"""

import asyncio
import logging
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from adapters.hl7v2.ack import asked, header_of
from adapters.hl7v2.failures import log_failure
from adapters.hl7v2.frame import FrameError, Framer, framed
from adapters.hl7v2.outcomes import Taken
from adapters.hl7v2.permissions import SAME, address_of
from adapters.hl7v2.reading import Arrival, Readers

_AGAIN_S, _AGAIN_S_MAX = 1.0, 60.0
_WAIT_S = 10.0
_READ_BYTES = 65_536
_UNDER_WAY_MAX = 1000

_log = logging.getLogger("fhir_server.hl7v2")


class Elsewhere:
    """Delivers for one process. ``counts`` are those of the intake."""

    def __init__(self, settings: Any, readers: Readers, counts: Counter[str]) -> None:
        """Begin with nothing under way."""
        self._settings = settings
        self._readers = readers
        self._counts = counts
        self._under_way: set[asyncio.Task[None]] = set()

    def redirected(self, arrival: Arrival, taken: Taken) -> Taken:
        """Return what of ``taken`` is answered where ``arrival`` came from; send the rest.

        In enhanced mode only: what the original mode answers belongs to the connection.
        """
        to = self._address(arrival)
        if to == SAME:
            return taken
        later = taken.later
        if later is not None:
            self._send(to, later)
            return replace(taken, later=None)
        if taken.code[:1] == "A" and taken.answer:
            answer = taken.answer

            async def given() -> bytes:
                return answer

            self._send(to, given)
            return replace(taken, answer=b"")
        return taken

    def close(self) -> None:
        """End what is under way."""
        for task in self._under_way:
            task.cancel()

    def _address(self, arrival: Arrival) -> str:
        if not any("to" in one.ack for one in self._readers.profiles):
            return SAME
        header = header_of(arrival.data)
        profile = self._readers.profile_of(header) if header else None
        if header is None or profile is None or not asked(header).enhanced:
            return SAME
        # Who may not use the profile learns so where it has asked, and nobody else does.
        return profile.ack.get("to", SAME) if self._readers.is_of_peer(arrival, profile) else SAME

    def _send(self, to: str, answer: Callable[[], Awaitable[bytes]]) -> None:
        if len(self._under_way) >= _UNDER_WAY_MAX:
            self._counts["ack.to:left out"] += 1
            return
        task = asyncio.create_task(self._delivered(to, answer), name="hl7v2 acknowledgement")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _delivered(self, to: str, answer: Callable[[], Awaitable[bytes]]) -> None:
        try:
            data = await answer()
            if not data:
                return
            seconds, waited = _AGAIN_S, 0.0
            while not await self._is_taken(to, data):
                if waited >= self._settings.hl7_retry_s_max:
                    self._counts["ack.to:failed"] += 1
                    _log.error('"hl7v2: an acknowledgement could not be delivered to %s"', to)
                    return
                await asyncio.sleep(seconds)
                waited += seconds
                seconds = min(seconds * 2, _AGAIN_S_MAX)
            self._counts["ack.to:delivered"] += 1
        except Exception as error:  # noqa: BLE001 - nobody waits for this task; the sender repeats
            log_failure(error)

    async def _is_taken(self, to: str, data: bytes) -> bool:
        """Send ``data`` on a connection of its own; return whether any answer came."""
        found = address_of(to)
        assert found is not None
        transport, host, port = found
        writer = None
        try:
            async with asyncio.timeout(_WAIT_S):
                tls = client_tls(self._settings) if transport == "mllps" else None
                reader, writer = await asyncio.open_connection(host, port, ssl=tls)
                writer.write(framed(data))
                await writer.drain()
                framer = Framer()
                while piece := await reader.read(_READ_BYTES):
                    if framer.receive(piece):
                        return True
        except (OSError, TimeoutError, ssl.SSLError, FrameError):
            return False
        finally:
            if writer is not None:
                writer.transport.abort()
        return False


def client_tls(settings: Any) -> ssl.SSLContext:
    """Return the TLS of a connection that we open: the authorities of this machine, and those of
    our listener's clients; our certificate is the listener's."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.mllp_tls_client_ca is not None:
        context.load_verify_locations(settings.mllp_tls_client_ca)
    if settings.mllp_tls_cert and settings.mllp_tls_key:
        context.load_cert_chain(settings.mllp_tls_cert, settings.mllp_tls_key)
    return context
