"""Run work in a MongoDB transaction, and run work again that met another write.

https://www.mongodb.com/docs/manual/core/transactions-in-applications/
"""

import asyncio
import contextvars
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from fhir_server.outcome import FhirError, Issue
from fhir_server.store.client import MAJORITY, Client, OutcomeUnknownError, codes_of, is_lost

T = TypeVar("T")

_BACKOFF_FIRST_S = 0.002
_BACKOFF_FACTOR = 1.6
_BACKOFF_MAX_S = 0.25
_DUPLICATE_KEY = 11000
_TOO_LARGE_FOR_CACHE = 388
_INTERRUPTED = 11601  # an operator, or another process of ours, has ended it
_MET_ANOTHER = "TransientTransactionError"
_REPEATABLE = {"errorLabels": [_MET_ANOTHER]}
_ABORT_TIMEOUT_S = 2.0


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
        except BaseException as error:
            await _abort(session)
            if _is_interrupted(error):
                # MongoDB leaves it open; of a transaction nothing was written.
                raise OperationFailure(str(error), _INTERRUPTED, _REPEATABLE) from error
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
    if error.has_error_label(_MET_ANOTHER):
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
            if not _is_unknown(error):
                raise
            if time.monotonic() > end or error.timeout:
                raise OutcomeUnknownError() from error
        await asyncio.sleep(_BACKOFF_MAX_S)


def _is_unknown(error: PyMongoError) -> bool:
    """Whether ``error``, of a commit, leaves it open whether it happened."""
    is_told = error.has_error_label("UnknownTransactionCommitResult")
    return is_told or is_lost(error) or _is_interrupted(error)


def _is_interrupted(error: BaseException) -> bool:
    return isinstance(error, PyMongoError) and _INTERRUPTED in codes_of(error)
