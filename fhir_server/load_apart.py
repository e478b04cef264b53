"""``fhir-server load`` over several processes: one reads files, the others decode, judge and write.

Each is a whole server on the same MongoDB, as the workers of ``serve`` are; they share nothing.
What is read goes out in parts, in the order of the files: a Bundle, or a megabyte of NDJSON. The
processes work on several parts at once, so that a file whose turn is after another's waits until
they have said of every part that it is written.
"""

import asyncio
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import Queue
from pathlib import Path

from fhir_server.app import opened
from fhir_server.load import Part, Report, load_parts, parts_in, runs_of
from fhir_server.settings import Settings

_UNDER_WAY = 8  # parts that a process is given before one of them is written
_LOOK_S = 0.5
_END_S = 60.0
_STOPPED = "The load was stopped; load again."


class Ended(Exception):
    """The load has ended before it was done: a process was killed, or it was stopped."""


@dataclass(frozen=True, slots=True)
class _Channels:
    """``parts`` go to the processes, ``None`` for the end; ``results`` come back: counts of
    resources, ``None`` for each part that is written, and a report at the end."""

    parts: "Queue[Part | None]"
    results: "Queue[int | Report | None]"


@dataclass(frozen=True, slots=True)
class _Room:
    """How many parts may be handed out that are not written yet: so many ``places`` are ``free``
    at first. Who waits for one gives up when the load is ``stopped``."""

    places: int
    free: threading.Semaphore
    stopped: threading.Event

    def take(self) -> None:
        """Take a place once one is free. Raises :class:`Ended`."""
        while not self.free.acquire(timeout=_LOOK_S):
            if self.stopped.is_set():
                raise Ended(_STOPPED)

    def empty(self) -> None:
        """Wait until every part is written. Raises :class:`Ended`."""
        for _ in range(self.places):
            self.take()
        self.free.release(self.places)


async def load_apart(
    files: Sequence[Path],
    settings: Settings,
    uri: str,
    processes: int,
    done: Callable[[int], None] = lambda _: None,
    *,
    deferring: bool = False,
) -> Report:
    """Load ``files`` by so many ``processes`` into the MongoDB at ``uri``, as ``load`` does.

    ``done`` is called from another thread. ``deferring`` says that whoever calls makes the indexes
    once all is loaded. Where this is cancelled, the processes are gone when it ends.

    Raises :class:`Ended` where one of them was killed: what is loaded is loaded, and loading again
    goes on from there. What reading raises beyond ``UNREADABLE`` is raised when the rest is loaded.
    """
    stopped = threading.Event()
    run = partial(_load_apart, files, settings, uri, processes, done, stopped, deferring=deferring)
    loading = asyncio.ensure_future(asyncio.to_thread(run))
    try:
        return await asyncio.shield(loading)
    except asyncio.CancelledError:
        stopped.set()
        with suppress(Ended):
            await loading
        raise


def _load_apart(
    files: Sequence[Path],
    settings: Settings,
    uri: str,
    processes: int,
    done: Callable[[int], None],
    stopped: threading.Event,
    *,
    deferring: bool,
) -> Report:
    context = get_context("spawn")
    channels = _Channels(context.Queue(), context.Queue())
    channels.parts.cancel_join_thread()  # what nobody has taken when this ends is not waited for
    places = processes * _UNDER_WAY
    room = _Room(places, threading.Semaphore(places), stopped)
    running = [
        context.Process(target=_run, args=(settings, uri, channels, deferring), daemon=True)
        for _ in range(processes)
    ]
    for one in running:
        one.start()
    report, ended = Report(files=len(files)), 0
    with ThreadPoolExecutor(1) as reader:
        reading = reader.submit(_feed, files, channels, processes, settings.body_bytes_max, room)
        try:
            for found in _results(channels, running, stopped):
                if found is None:
                    room.free.release()
                elif isinstance(found, int):
                    done(found)
                else:
                    report.add(found)
                    ended += 1
            report.errors += reading.result()
        finally:
            stopped.set()
            for process in running:
                process.join(_END_S if ended == processes else 0)
                process.terminate()
                process.join()
    return report


def _feed(
    files: Iterable[Path], channels: _Channels, processes: int, bytes_max: int, room: _Room
) -> list[tuple[str, str]]:
    """Read ``files``, and hand out what is in them; ``None`` to each process at the end. Return
    which cannot be read, and why."""
    unread: list[tuple[str, str]] = []
    try:
        for run in runs_of(files):
            for part in parts_in(run, bytes_max, unread):
                room.take()
                channels.parts.put(part)
            room.empty()
    finally:
        for _ in range(processes):
            channels.parts.put(None)
    return unread


def _results(
    channels: _Channels, running: Sequence[SpawnProcess], stopped: threading.Event
) -> Iterator[int | Report | None]:
    """Yield what the processes say, until each has said its report. Raises :class:`Ended`."""
    waiting = len(running)
    while waiting:
        if stopped.is_set():
            raise Ended(_STOPPED)
        try:
            found = channels.results.get(timeout=_LOOK_S)
        except queue.Empty:
            if any(one.exitcode for one in running):
                raise Ended("A process of the load has ended; load again.") from None
            continue
        waiting -= isinstance(found, Report)
        yield found


def _run(settings: Settings, uri: str, channels: _Channels, deferring: bool) -> None:
    """Be one of the processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who has started this one ends it
    asyncio.run(_loaded(settings, uri, channels, deferring))
    channels.results.close()
    channels.results.join_thread()
    sys.stdout.flush()


async def _loaded(settings: Settings, uri: str, channels: _Channels, deferring: bool) -> None:
    report = Report()
    async with opened(settings, uri, deferring=deferring) as server:
        await load_parts(
            lambda: asyncio.to_thread(_taken, channels),
            server.perform,
            report,
            xml=server.xml,
            bytes_max=settings.body_bytes_max,
            done=channels.results.put,
            part_done=lambda: channels.results.put(None),
        )
    channels.results.put(report)


def _taken(channels: _Channels) -> Part | None:
    """Wait for a part; ``None`` at the end, and when whoever reads the files was killed."""
    parent = parent_process()
    while parent is None or parent.is_alive():
        with suppress(queue.Empty):
            return channels.parts.get(timeout=_LOOK_S)
    return None
