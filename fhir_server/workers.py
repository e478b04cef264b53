"""The parent of the worker processes: begins them, keeps as many as are set, replaces them all.

What it is told, it does:

===============  ==================================================================================
SIGTERM, SIGINT  workers answer what is under way, for ``FHIR_SHUTDOWN_S`` at most, and end
again            they end at once
SIGHUP           workers with the settings as they are now begin; when all of them take connections
                 the old ones take no more, answer what is under way, and end. Where one cannot
                 begin it says why, and the old ones stay. At a terminal, that this was closed: ends
===============  ==================================================================================

A worker that ends by itself is begun again, later and later where that goes on.
"""

import asyncio
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any

from fhir_server.listening import Sockets, addresses, bound
from fhir_server.settings import Settings
from fhir_server.starting import console
from fhir_server.store.client import UnfitDatabaseError
from fhir_server.told import READY, RETIRE, UNFIT, Told

_PAUSE_S, _PAUSE_S_MAX = 0.1, 30.0  # before a worker is begun again: doubled each time
_CALM_S = 60.0  # a worker that lived so long begins with the shortest pause
_MARGIN_S = 10.0  # beyond the time of its requests, for a worker to close what is open
ENDINGS = {signal.SIGTERM: 0, signal.SIGINT: 130}
"""The signals that end the server, and the exit code then."""

_log = logging.getLogger("fhir_server.workers")


class Unbegun(Exception):
    """A worker could not begin, and has said why; ``code`` is its exit code."""

    def __init__(self, code: int) -> None:
        """Take the exit code."""
        super().__init__(code)
        self.code = code


@dataclass(slots=True, eq=False)
class Worker:
    """A process that was begun, and our end of what connects us."""

    process: asyncio.subprocess.Process
    control: socket.socket
    is_ready: bool = False

    @classmethod
    async def begun(cls, sockets: Sequence[int]) -> "Worker":
        """Start a process that inherits ``sockets``; it waits until it is told more.

        Raises ``OSError`` that says why none can be started: too many of them, no memory.
        """
        with ExitStack() as opened:
            try:
                ours, theirs = map(opened.enter_context, socket.socketpair())
                process = await asyncio.create_subprocess_exec(
                    # -P: from where it is installed, whatever is in the working directory
                    *(sys.executable, "-P", "-m", "fhir_server.worker", str(theirs.fileno())),
                    pass_fds=(*sockets, theirs.fileno()),
                    stdin=asyncio.subprocess.DEVNULL,
                    process_group=0,  # Ctrl-C at a terminal is for us: requests are answered first
                )
            except (OSError, RuntimeError) as error:  # RuntimeError: no thread to await its end
                raise OSError(f"A worker cannot be started: {error}.") from error
            opened.pop_all()
        theirs.close()
        ours.setblocking(False)
        return cls(process, ours)

    async def ready(self, told: Told) -> None:
        """Tell it, and wait until it takes connections. Raises :class:`Unbegun`."""
        loop = asyncio.get_running_loop()
        with suppress(OSError):  # it has ended
            await loop.sock_sendall(self.control, told.line())
            self.is_ready = await loop.sock_recv(self.control, len(READY)) == READY
        if not self.is_ready:
            raise Unbegun(await self.process.wait() or UNFIT)

    def retire(self) -> None:
        """Have it take no more connections, answer what is under way, and end."""
        if not self.is_ready:
            self.end()
            return
        with suppress(OSError):
            self.control.send(RETIRE)

    def end(self, *, at_once: bool = False) -> None:
        """End it when its requests are answered, or ``at_once``: it has none before it begins."""
        with suppress(ProcessLookupError):
            if at_once or not self.is_ready:
                self.process.kill()
            else:
                self.process.terminate()

    async def gone(self) -> int:
        """Wait for its end and return its exit code."""
        code = await self.process.wait()
        self.control.close()
        return code


@dataclass(slots=True, eq=False)
class Generation:
    """Workers with the same settings. Each that ends is replaced until they are all to end."""

    settings: Settings
    told: Told
    _workers: list[Worker] = field(default_factory=list)
    _keeping: list[asyncio.Task[None]] = field(default_factory=list)
    lost: asyncio.Future[int] = field(default_factory=asyncio.Future)
    """The exit code of the last worker, where none is left and none can begin."""

    async def begin(self, uri_of: Callable[[Settings], Awaitable[str]]) -> None:
        """Begin all workers, on the MongoDB that ``uri_of`` gives. They have much to load, which
        they do while it is waited for; then one goes before the others, so that what is wrong is
        said once.

        Raises :class:`Unbegun`, and ``OSError`` where none can be started.
        """
        try:
            for _ in range(self.settings.workers):
                self._workers.append(await Worker.begun(self._numbers))
            self.told = replace(self.told, uri=await uri_of(self.settings))
            first, *others = self._workers
            await first.ready(self.told)
            usual = replace(self.told, sample=False)
            await asyncio.gather(*(one.ready(usual) for one in others))
        except BaseException:
            await self.end(at_once=True)
            raise
        self._keeping = [asyncio.create_task(self._keep(one)) for one in self._workers]

    def retire(self) -> None:
        """Leave new connections to others, and end when the answers are sent."""
        self._leave()
        for worker in self._workers:
            worker.retire()

    async def end(self, *, at_once: bool = False) -> None:
        """End all workers and wait until they have ended."""
        self._leave()
        for worker in self._workers:
            worker.end(at_once=at_once)
        await self.ended()

    async def ended(self) -> None:
        """Wait until the workers have ended, as long as they may take; then they are killed."""
        ending = [asyncio.create_task(worker.gone()) for worker in self._workers]
        if ending:
            patience = self.settings.shutdown_s + _MARGIN_S
            await asyncio.wait(ending, timeout=patience)
            for worker in self._workers:
                worker.end(at_once=True)
            await asyncio.wait(ending)
        self._workers.clear()

    def kill(self) -> None:
        """End all workers at once; whoever waits for them goes on."""
        for worker in self._workers:
            worker.end(at_once=True)

    @property
    def _numbers(self) -> list[int]:
        return [one for some in self.told.sockets.values() for one in some]

    def _leave(self) -> None:
        for task in self._keeping:
            task.cancel()
        self._keeping = []

    async def _keep(self, worker: Worker) -> None:
        """Wait for the end of ``worker`` and begin another, for ever."""
        usual = replace(self.told, sample=False, is_checked=False)
        pause = _PAUSE_S
        while True:
            since = monotonic()
            code = await worker.gone()
            self._workers.remove(worker)
            if monotonic() - since > _CALM_S:
                pause = _PAUSE_S
            said = {"pid": worker.process.pid, "exit code": code, "again in s": pause}
            _log.error("%s", json.dumps({"a worker has ended": said}))
            if not (worker.is_ready or any(one.is_ready for one in self._workers)):
                # It could not begin, and nobody is there who could answer.
                if not self.lost.done():
                    self.lost.set_result(code or UNFIT)
                return
            worker, pause = await self._another(pause)
            with suppress(Unbegun):  # its end is seen above
                await worker.ready(usual)

    async def _another(self, pause: float) -> tuple[Worker, float]:
        """Begin a worker when ``pause`` is over, and as soon as the system can; return it and the
        next pause."""
        while True:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _PAUSE_S_MAX)
            try:
                worker = await Worker.begun(self._numbers)
            except OSError as error:
                _log.error("%s", json.dumps({str(error): {"again in s": pause}}))
                continue
            self._workers.append(worker)
            return worker, pause


@dataclass(slots=True, eq=False)
class Parent:
    """Runs generations of workers, one after the other, until it is told to end.

    ``read`` gives the settings as they are now, and what of them ``.env`` said; it raises
    ``ValueError`` that says what is wrong with them. ``uri_of`` gives the URI of MongoDB by the
    settings; ``announce`` is called when the first generation takes connections.
    """

    sample: bool
    read: Callable[[], Awaitable[tuple[Settings, Mapping[str, str]]]]
    uri_of: Callable[[Settings], Awaitable[str]]
    announce: Callable[[Settings], None]
    _sockets: dict[tuple[str, str, int], Sockets] = field(default_factory=dict)
    _current: Generation | None = None
    _retiring: dict[Generation, asyncio.Task[None]] = field(default_factory=dict)
    _ending: asyncio.Event = field(default_factory=asyncio.Event)
    _reloading: asyncio.Event = field(default_factory=asyncio.Event)
    _code: int = 0

    async def run(self) -> int:
        """Serve until told to end; return the exit code. Raises ``OSError`` that names an address
        on which nobody can listen, or why no worker can be started; and ``ValueError``."""
        self._listen_to_signals()
        try:
            await self._unless_ending(self._begin())
            while not self._ending.is_set() and self._current is not None:
                await self._unless_ending(self._next(self._current))
        except Unbegun as error:
            self._code = error.code
        finally:
            await self._end()
        return self._code

    async def _begin(self) -> None:
        settings, file = await self.read()
        told = Told(self._bound(settings), file, sample=self.sample)
        generation = Generation(settings, told)
        await generation.begin(self.uri_of)
        self._current = generation
        self.announce(settings)
        tell_systemd("READY=1")

    async def _next(self, current: Generation) -> None:
        """Do what is told next."""
        told = asyncio.ensure_future(self._reloading.wait())
        waiting: list[asyncio.Future[Any]] = [told, current.lost]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            told.cancel()
        if current.lost.done():
            raise Unbegun(current.lost.result())
        self._reloading.clear()
        tell_systemd(f"RELOADING=1\nMONOTONIC_USEC={int(monotonic() * 1e6)}")
        await self._reload(current)
        tell_systemd("READY=1")

    async def _reload(self, current: Generation) -> None:
        """Have workers with the settings as they are now take the place of ``current``, when those
        before them have ended: there are two generations at a time, not more."""
        if self._retiring:
            await asyncio.wait(self._retiring.values())
        before = set(self._sockets)
        try:
            settings, file = await self.read()
            told = Told(self._bound(settings), file, is_checked=True)
            generation = Generation(settings, told)
            await generation.begin(self.uri_of)
        except (ValueError, OSError, UnfitDatabaseError) as error:
            console.print(str(error), markup=False, soft_wrap=True)
            self._not_reloaded(before)
        except Unbegun:
            self._not_reloaded(before)
        else:
            self._current = generation
            current.retire()
            self._retiring[current] = asyncio.create_task(self._retired(current))
            self._unbind(set(self._sockets) - _keys(settings))
            _log.info("%s", json.dumps({"reloaded": {"workers": settings.workers}}))

    def _not_reloaded(self, before: set[tuple[str, str, int]]) -> None:
        self._unbind(set(self._sockets) - before)
        _log.error('"not reloaded: the workers that were there stay, with their settings"')

    async def _retired(self, generation: Generation) -> None:
        await generation.ended()
        self._retiring.pop(generation, None)

    async def _end(self) -> None:
        """End what runs, when its requests are answered."""
        tell_systemd("STOPPING=1")
        running = [*self._retiring, *([self._current] if self._current is not None else [])]
        await asyncio.gather(*(one.end() for one in running))
        self._unbind(set(self._sockets))

    def _bound(self, settings: Settings) -> dict[str, list[int]]:
        """Return the file descriptors of the sockets by name; bind those that are not there yet."""
        found = {}
        for key in sorted(_keys(settings)):
            if key not in self._sockets:
                self._sockets[key] = bound(*key[1:])
            found[key[0]] = [one.fileno() for one in self._sockets[key]]
        return found

    def _unbind(self, keys: set[tuple[str, str, int]]) -> None:
        for key in keys:
            for one in self._sockets.pop(key):
                one.close()

    async def _unless_ending(self, doing: Coroutine[Any, Any, None]) -> None:
        """Do it; where it is told to end meanwhile, cancel it."""
        task, told = asyncio.create_task(doing), asyncio.create_task(self._ending.wait())
        await asyncio.wait([task, told], return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        if not task.done():
            task.cancel()  # once: it ends by itself then, and what it cleans up is not cut short
        with suppress(asyncio.CancelledError):
            await task

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for one, code in ENDINGS.items():
            loop.add_signal_handler(one, self._told_to_end, code)
        if any(one is not None and one.isatty() for one in (sys.stdin, sys.stdout, sys.stderr)):
            loop.add_signal_handler(signal.SIGHUP, self._told_to_end, 0)
        else:
            loop.add_signal_handler(signal.SIGHUP, self._reloading.set)

    def _told_to_end(self, code: int) -> None:
        if not self._ending.is_set():
            self._code = code
            self._ending.set()
            return
        for generation in (*self._retiring, self._current):
            if generation is not None:
                generation.kill()


def _keys(settings: Settings) -> set[tuple[str, str, int]]:
    return {(name, *address) for name, address in addresses(settings).items()}


def tell_systemd(state: str) -> None:
    """Tell the service manager that started this, if one did and wants to know: sd_notify(3)."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.sendto(state.encode(), "\0" + path[1:] if path.startswith("@") else path)
