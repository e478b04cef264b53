"""A server with the interface, in a process that kills itself with -9 at a chosen point.

What is killed from outside dies where it happens to be; here every point has its turn. The leases
are short: a new process waits for the end of those of the one before.
"""

import asyncio
import os
import signal
from collections.abc import Callable
from multiprocessing import get_context
from typing import Any

from adapters.hl7v2 import apply, inbox, server, workers
from adapters.hl7v2.ack import acknowledgement
from adapters.hl7v2.inbox import Intake
from adapters.hl7v2.interface import Interface
from adapters.hl7v2.outcomes import Taken
from fhir_server.app import opened
from fhir_server.settings import Settings
from fhir_server.store.inbox import Inbox

Hit = Callable[[], None]

PROCESSES = get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__])
"""Forked from a process that has imported this module: a start takes no second."""


def receive(hit: Hit) -> None:
    """The message has arrived, and nothing is done with it."""
    _before(Intake, "take", hit)


def look_up(hit: Hit) -> None:
    """The transaction has begun."""
    _before(apply, "looked_up", hit)


def before_commit(hit: Hit) -> None:
    """All is written, the row as well, and nothing is committed."""
    for name in ("insert", "change"):
        _after(Inbox, name, hit, lambda self: self.session is not None)


def after_commit(hit: Hit) -> None:
    """All is committed, and nobody knows."""
    _after(inbox, "applied", hit)


def before_answer(hit: Hit) -> None:
    """The answer is written, and not sent."""
    _before(server.Connection, "_send", hit)


def stored(hit: Hit) -> None:
    """Enhanced mode: the row is stored, and CA not sent."""
    _after(Inbox, "insert_all", hit)


def leased(hit: Hit) -> None:
    """Enhanced mode: a worker has taken the row."""
    _after(Inbox, "lease", hit)


def too_early(hit: Hit) -> None:
    """The control: AA before the commit, as it must not be; and killed before it."""
    at_once = Intake._at_once
    under_way = set()

    async def early(self: Intake, item: Any, place: Any) -> Taken:
        task = asyncio.create_task(at_once(self, item, place))
        under_way.add(task)
        return Taken("AA", acknowledgement(item.header, "AA", self._sent()))

    Intake._at_once = early  # type: ignore[method-assign]
    before_commit(hit)


def _before(owner: Any, name: str, hit: Hit) -> None:
    function = getattr(owner, name)

    async def replaced(*arguments: Any, **named: Any) -> Any:
        hit()
        return await function(*arguments, **named)

    setattr(owner, name, replaced)


def _after(owner: Any, name: str, hit: Hit, where: Callable[[Any], bool] = lambda _: True) -> None:
    function = getattr(owner, name)

    async def replaced(*arguments: Any, **named: Any) -> Any:
        made = await function(*arguments, **named)
        if where(arguments[0]):
            hit()
        return made

    setattr(owner, name, replaced)


def serve(uri: str, database: str, port: int, point: str, count: int) -> None:
    """Serve until ``point``, one of the functions above, is reached for the ``count``-th time;
    without a point for ever."""
    left = [count]

    def hit() -> None:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    workers._LEAD_S, workers._BEAT_S = 0.5, 0.05
    inbox.LEASE_S = 0.5
    if point:
        globals()[point](hit)
    asyncio.run(_serve(uri, Settings(mongodb_database=database, mllp_port=port)))


async def _serve(uri: str, settings: Settings) -> None:
    async with opened(settings, uri) as found:
        await Interface().run(found.context)
