"""MLLP: frames on a TCP connection, with and without TLS.

design/hl7v2.md, section 3. Frames of one connection are taken in order and answered in order; while
one waits for its commit, the next are read ahead up to a limit, and then the socket is not read.
"""

import asyncio
import hashlib
import ipaddress
import ssl
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

from adapters.hl7v2.batches import is_batch
from adapters.hl7v2.failures import log_failure
from adapters.hl7v2.frame import Frame, FrameError, Framer, framed
from adapters.hl7v2.inbox import Intake, UnavailableError
from adapters.hl7v2.outcomes import Taken
from adapters.hl7v2.reading import Arrival
from adapters.hl7v2.workers import Workers
from fhir_server.ending import end_of
from fhir_server.listening import inherited

_READ_BYTES = 65_536
_PACE_BYTES_S = 1024
_END_S = 0.8  # for answers that are under way when the listener ends

TakeBatch = Callable[[Arrival], Awaitable[bytes]]


class Listener:
    """The MLLP listeners of one process."""

    def __init__(self, intake: Intake, workers: Workers, take_batch: TakeBatch) -> None:
        """Prepare; :meth:`run` begins to listen."""
        self.intake = intake
        self.workers = workers
        self.take_batch = take_batch
        self.settings = intake.context.settings
        self.ports: dict[str, int] = {}
        self.connections: set[Connection] = set()
        self.started = asyncio.Event()
        self.bytes_in_flight = 0
        self._moved = asyncio.Event()
        self._first: Connection | None = None
        self._first_is_whole = False
        self._by_address: Counter[str] = Counter()
        self._networks = [ipaddress.ip_network(one) for one in self.settings.mllp_peers]

    async def run(self) -> None:
        """Listen until cancelled; connections that are open then are closed."""
        servers = [server for one in self._wanted() for server in await self._listen(*one)]
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            for server in servers:
                server.close()
            for connection in list(self.connections):
                connection.end()
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_END_S):
                        while self.connections:
                            await asyncio.sleep(0.01)
            finally:
                for connection in list(self.connections):
                    connection.abort()

    def _wanted(self) -> Iterable[tuple[str, int, ssl.SSLContext | None]]:
        if self.settings.mllp_port:
            yield "mllp", self.settings.mllp_port, None
        if self.settings.mllp_tls_port:
            yield "mllps", self.settings.mllp_tls_port, tls_context(self.settings)

    async def _listen(
        self, transport: str, port: int, tls: ssl.SSLContext | None
    ) -> list[asyncio.Server]:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._connected(transport, reader, writer)

        # Several processes of one server share the sockets that their parent has bound.
        shared = inherited(transport)
        places: list[dict[str, Any]] = [{"sock": one.dup()} for one in shared]
        named = {"host": self.settings.mllp_address, "port": port}
        patience: dict[str, Any] = {"ssl_handshake_timeout": 10.0} if tls else {}
        servers = [
            await asyncio.start_server(connected, limit=_READ_BYTES, ssl=tls, **place, **patience)
            for place in places or [named]
        ]
        self.ports[transport] = servers[0].sockets[0].getsockname()[1]
        return servers

    async def _connected(
        self, transport: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        address = str((writer.get_extra_info("peername") or ("",))[0])
        if not self._may_connect(address):
            self.intake.counts["connections refused"] += 1
            writer.transport.abort()
            return
        connection = Connection(self, transport, address, reader, writer)
        self.connections.add(connection)
        self._by_address[address] += 1
        try:
            await connection.run()
        except Exception as error:  # noqa: BLE001 - outermost shell: the other connections go on
            log_failure(error)
        finally:
            self.connections.discard(connection)
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]
            writer.transport.abort()

    def _may_connect(self, address: str) -> bool:
        if not self.workers.available.is_set():
            return False
        if len(self.connections) >= self.settings.hl7_connections_max:
            return False
        if self._by_address[address] >= self.settings.hl7_connections_per_address_max:
            return False
        if not self._networks:
            return True
        with suppress(ValueError):
            peer = ipaddress.ip_address(address)
            return any(peer in network for network in self._networks)
        return False

    def held(self, count: int) -> None:
        """Count bytes of messages under way; beyond the limit sockets are not read."""
        self.bytes_in_flight += count
        if count < 0:
            self._moved.set()

    async def room_for(self, connection: "Connection") -> None:
        """Wait until ``connection`` may read on.

        Halves of messages alone may fill all room there is: one at a time is read to its end
        beyond the limit, so that they cannot wait for each other. The next one is, when that was
        answered.
        """
        while self.bytes_in_flight >= self.settings.hl7_bytes_in_flight_max:
            if self._first is None and connection.is_in_frame:
                self._first = connection
            if self._first is connection and not self._first_is_whole:
                return
            self._moved.clear()
            await self._moved.wait()

    def whole(self, connection: "Connection") -> None:
        """Let ``connection`` read no further beyond the limit: its message is there."""
        self._first_is_whole = self._first_is_whole or self._first is connection

    def answered(self, connection: "Connection") -> None:
        """Let another one read beyond the limit: all that this one sent is answered."""
        if self._first_is_whole:
            self.passed(connection)

    def passed(self, connection: "Connection") -> None:
        """Let another one read beyond the limit: this one has ended, or waits for nothing."""
        if self._first is connection:
            self._first, self._first_is_whole = None, False
            self._moved.set()


class Connection:
    """One peer: what it sends is read ahead, and answered in order."""

    def __init__(
        self,
        listener: Listener,
        transport: str,
        address: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._listener = listener
        self._intake = listener.intake
        self._settings = listener.settings
        self._transport = transport
        self._address = address
        self._reader = reader
        self._writer = writer
        self._framer = Framer(self._settings.hl7_message_bytes_max)
        self._answers: deque[asyncio.Task[Taken | None]] = deque()
        self._held: deque[int] = deque()
        self._late: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._writing = asyncio.Lock()
        self._ended = False
        self._reading: asyncio.Task[None] | None = None
        self._counted = 0
        self._names = _names(writer)

    @property
    def is_in_frame(self) -> bool:
        """Whether the beginning of a message has come, and not its end."""
        return self._framer.unfinished > 0

    def end(self) -> None:
        """Read no more, answer what has come, and close."""
        if self._reading is not None:
            self._reading.cancel()

    def abort(self) -> None:
        """Close at once; what is not answered is sent again."""
        self._writer.transport.abort()

    async def run(self) -> None:
        """Read and answer until either side ends."""
        answering = asyncio.create_task(self._answer())
        self._reading = reading = asyncio.create_task(self._read())
        try:
            await asyncio.wait([reading, answering], return_when=asyncio.FIRST_COMPLETED)
            if reading.done() and not answering.done():
                # A peer that has ended its side still gets what it waits for.
                self._ended = True
                self._changed.set()
                await asyncio.wait([answering], timeout=self._patience())
            for late in list(self._late):
                if reading.done() and not self._writer.transport.is_closing():
                    await asyncio.wait([late], timeout=self._patience())
        finally:
            try:
                await end_of((reading, answering, *self._late, *self._answers))
            finally:
                self._listener.passed(self)
                self._listener.held(-self._counted)
                self._listener.held(-sum(self._held))

    def _patience(self) -> float:
        return float(self._settings.hl7_apply_s_max + self._settings.hl7_commit_s_max)

    # ------------------------------------------------------------------------------- reading

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            while len(self._answers) >= self._settings.hl7_pipeline_frames_max:
                self._changed.clear()
                await self._changed.wait()
            await self._listener.room_for(self)
            unfinished = self._framer.unfinished
            patience = (
                self._settings.hl7_frame_s_max if unfinished else self._settings.hl7_idle_s_max
            )
            try:
                async with asyncio.timeout(patience):
                    data = await self._reader.read(_READ_BYTES)
            except (TimeoutError, OSError, ssl.SSLError):
                return
            if not data:
                return
            if not unfinished:
                began = loop.time()
            elif self._is_slow(loop.time() - began):
                self._intake.counts["frame:slow"] += 1
                return
            try:
                frames = self._framer.receive(data)
            except FrameError:
                self._intake.counts["frame:junk"] += 1
                return
            if frames:
                began = loop.time()
                self._listener.whole(self)
            for frame in frames:
                self._take(frame)
            self._recount()
            # Bytes that are there already would otherwise be read before anybody is served.
            await asyncio.sleep(0)

    def _is_slow(self, seconds: float) -> bool:
        limit = self._settings.hl7_frame_s_max
        return seconds > limit and self._framer.unfinished < _PACE_BYTES_S * seconds

    def _recount(self) -> None:
        """Count what the framer holds, and what of it has gone on."""
        unfinished = self._framer.unfinished
        self._listener.held(unfinished - self._counted)
        self._counted = unfinished

    def _take(self, frame: Frame) -> None:
        arrival = Arrival(
            frame.data,
            self._address,
            self._transport,
            self._intake.context.now(),
            fault=frame.fault,
            size=frame.size,
            bound=self._names,
        )
        self._held.append(len(frame.data))
        self._listener.held(len(frame.data))
        self._answers.append(asyncio.create_task(self._taken(arrival)))
        self._changed.set()

    async def _taken(self, arrival: Arrival) -> Taken | None:
        """Return what is answered; ``None`` has the connection closed without an answer."""
        try:
            if not arrival.fault and is_batch(arrival.data):
                return Taken("batch", await self._listener.take_batch(arrival))
            return await self._intake.take(arrival)
        except UnavailableError:
            self._listener.workers.look()  # which finds out whether it is the database
            return None
        except Exception as error:  # noqa: BLE001 - no answer is the one signal to send again; others go on
            log_failure(error)
            return None

    # ----------------------------------------------------------------------------- answering

    async def _answer(self) -> None:
        while True:
            while not self._answers:
                if self._ended:
                    return
                self._changed.clear()
                await self._changed.wait()
            taken = await self._answers[0]
            self._answers.popleft()
            self._listener.held(-self._held.popleft())
            if not self._answers:
                self._listener.answered(self)
            self._changed.set()
            if taken is None:
                return
            if taken.answer and not await self._send(taken.answer):
                return
            if taken.later is not None:
                late = asyncio.create_task(self._answer_later(taken.later))
                self._late.add(late)
                late.add_done_callback(self._late.discard)

    async def _answer_later(self, later: Callable[[], Awaitable[bytes]]) -> None:
        answer = await later()
        if answer:
            await self._send(answer)

    async def _send(self, answer: bytes) -> bool:
        """Send one frame; return whether the peer still takes some."""
        try:
            async with self._writing:
                self._writer.write(framed(answer))
                async with asyncio.timeout(self._settings.hl7_frame_s_max):
                    await self._writer.drain()
        except (OSError, TimeoutError, ssl.SSLError):
            return False
        return True


def tls_context(settings: Any) -> ssl.SSLContext:
    """Return the context of the TLS listener: 1.2 or newer, client certificates if there is an
    authority for them. Raises ``ValueError`` where files are not named."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(settings.mllp_tls_cert, settings.mllp_tls_key)
    if settings.mllp_tls_client_ca is not None:
        context.load_verify_locations(settings.mllp_tls_client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _names(writer: asyncio.StreamWriter) -> frozenset[str]:
    """Return what the peer's certificate is known by: its subject alternative names, as
    ``DNS:lis.example``, and its fingerprint, as ``SHA-256:`` and 64 hexadecimal digits."""
    certificate = writer.get_extra_info("peercert") or {}
    found = {f"{kind}:{name}" for kind, name in certificate.get("subjectAltName", ())}
    tls = writer.get_extra_info("ssl_object")
    if tls is not None and (whole := tls.getpeercert(binary_form=True)):
        found.add(f"SHA-256:{hashlib.sha256(whole).hexdigest()}")
    return frozenset(found)
