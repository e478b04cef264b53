"""Run work in a MongoDB transaction, and run work again that met another write. End what was left.

https://www.mongodb.com/docs/manual/core/transactions-in-applications/
"""

import asyncio
import contextvars
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import pymongo
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern

from fhir_server.outcome import FhirError, Issue
from fhir_server.store.client import (
    MAJORITY,
    Client,
    Document,
    OutcomeUnknownError,
    codes_of,
    is_lost,
)
from fhir_server.store.processes import is_gone

T = TypeVar("T")

_BACKOFF_FIRST_S = 0.002
_BACKOFF_FACTOR = 1.6
_BACKOFF_MAX_S = 0.25
_DUPLICATE_KEY = 11000
_TOO_LARGE_FOR_CACHE = 388
_ABORT_TIMEOUT_S = 2.0
_LOOK_TIMEOUT_S = 5.0
# Those that wait for their next command, too.
_OPEN: list[Document] = [
    {"$currentOp": {"idleSessions": True}},
    {"$match": {"transaction": {"$exists": True}}},
    {"$project": {"appName": 1, "lsid": 1}},
]

_log = logging.getLogger("fhir_server.database")


class StaleRead(Exception):
    """What was read has been replaced since; the work is to be done again from the start."""


async def transacted(
    client: Client, work: Callable[[AsyncClientSession], Awaitable[T]], end: float
) -> T:
    """Run ``work`` with a session, once; all that it writes with it happens, or nothing.

    What it raises ends the transaction and is raised. ``end``, on the monotonic clock, bounds how
    long a commit of unknown outcome is asked for again.
    """
    async with client.start_session() as session:
        await session.start_transaction(ReadConcern("snapshot"), MAJORITY)
        try:
            result = await work(session)
        except BaseException:
            await _abort(session)
            raise
        await _commit(session, end)
        return result


async def repeated(attempt: Callable[[], Awaitable[T]], end: float) -> T:
    """Await ``attempt`` until it is not in the way of another write, at most until ``end``.

    ``end`` is on the monotonic clock. Between tries it waits a little longer each time, at random,
    so that contenders do not meet again. A try whose outcome is unknown is not repeated.
    """
    wait = _BACKOFF_FIRST_S
    while True:
        try:
            return await attempt()
        except (StaleRead, PyMongoError) as error:
            if not met_another(error):
                raise
        if time.monotonic() + wait > end:
            raise FhirError(
                Issue("transient", "Others keep changing the same resources; nothing was written."),
                headers=(("Retry-After", "1"),),
            )
        await asyncio.sleep(wait * random.uniform(0.5, 1.0))
        wait = min(wait * _BACKOFF_FACTOR, _BACKOFF_MAX_S)


def met_another(error: Exception) -> bool:
    """Whether nothing was written since another write was in the way: a further try may succeed."""
    if isinstance(error, StaleRead):
        return True
    if not isinstance(error, PyMongoError):
        return False
    if error.timeout or _TOO_LARGE_FOR_CACHE in codes_of(error):
        return False
    if error.has_error_label("TransientTransactionError"):
        return True
    return _DUPLICATE_KEY in codes_of(error)


async def _abort(session: AsyncClientSession) -> None:
    """Free what the transaction has locked, also when its deadline is over.

    In a context of its own: the driver sends nothing in one whose deadline has passed, and the
    documents would stay locked for everybody for a minute.
    """
    aborting = asyncio.create_task(session.abort_transaction(), context=contextvars.Context())
    with suppress(TimeoutError, PyMongoError):
        async with asyncio.timeout(_ABORT_TIMEOUT_S):
            await asyncio.shield(aborting)


async def _commit(session: AsyncClientSession, end: float) -> None:
    """Commit, and ask again as long as it is unknown whether the commit happened."""
    while True:
        try:
            await session.commit_transaction()
            return
        except PyMongoError as error:
            if not (is_lost(error) or error.has_error_label("UnknownTransactionCommitResult")):
                raise
            if time.monotonic() > end or error.timeout:
                raise OutcomeUnknownError() from error
        await asyncio.sleep(_BACKOFF_MAX_S)


async def end_abandoned(client: Client) -> int:
    """End the transactions that killed processes of this host have left; return how many.

    MongoDB is told of no death. It keeps what such a transaction has written from everybody else
    until ``transactionLifetimeLimitSeconds`` are over, a minute and up to half of one more: a
    server that begins again could not change the very patients that were being written. So this is
    to be called before the first write. Where MongoDB does not answer, what was left ends later, by
    itself; one that is ended wrongly is repeated by whose it is, as one that met another.

    https://www.mongodb.com/docs/manual/reference/operator/aggregation/currentOp/
    https://www.mongodb.com/docs/manual/reference/command/killSessions/
    """
    admin = client.get_database("admin", read_concern=ReadConcern("local"))
    try:
        with pymongo.timeout(_LOOK_TIMEOUT_S):
            rows = await (await admin.aggregate(_OPEN)).to_list()
            left = [one["lsid"]["id"] for one in rows if is_gone(one.get("appName", ""))]
            if left:
                await admin.command("killSessions", [{"id": id} for id in left])
    except PyMongoError as error:
        _log.info('"open transactions were not looked at: %s"', error.__class__.__name__)
        return 0
    if left:
        _log.warning('"ended %d transactions of processes that were killed"', len(left))
    return len(left)
