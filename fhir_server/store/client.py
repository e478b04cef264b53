"""Connect to MongoDB, check that it can keep our promises, and translate its errors into ours.

Every write is acknowledged by a majority that has it in its journal; reads see what a majority has.
https://www.mongodb.com/docs/manual/reference/write-concern/
"""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any

import pymongo
from bson import Decimal128
from bson.codec_options import CodecOptions, TypeEncoder, TypeRegistry
from pymongo import AsyncMongoClient
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import (
    CollectionInvalid,
    ConnectionFailure,
    DocumentTooLarge,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
)
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from fhir_server.outcome import FhirError, Issue
from fhir_server.r4.json import WrittenDecimal

Document = dict[str, Any]
Client = AsyncMongoClient[Document]
Database = AsyncDatabase[Document]

MAJORITY = WriteConcern(w="majority", j=True)
PROGRAM = "fhir-server"
"""What this program is called to MongoDB, before what each process is."""
SERVER_SELECTION_TIMEOUT_MS = 5000  # an election takes up to 2 s with the settings of compose.yaml
CLOCKS_APART_MAX = timedelta(seconds=2)
"""How far the clocks of a server and of its database may be apart."""

_log = logging.getLogger("fhir_server.database")
_NO_REPLICATION = 76  # error code NoReplicationEnabled
# What ends the sentence when a write that is part of a transaction runs out of time.
NOTHING_WRITTEN = "Nothing was written; try again."
_TRANSACTION_TOO_LARGE = 388  # TransactionTooLargeForCache
_TOO_LARGE = {10334, 17419, 17420}  # BSONObjectTooLarge, and how updates say it
_NOT_INITIALISED = 94  # error code NotYetInitialized
_NAMESPACE_EXISTS = 48  # error code NamespaceExists


class _DecimalEncoder(TypeEncoder):
    """Decimal -> Decimal128, which keeps its digits."""

    python_type = Decimal

    def transform_python(self, value: Decimal) -> Decimal128:
        return _decimal128(str(value))


@lru_cache(maxsize=8192)
def _decimal128(text: str) -> Decimal128:
    """Of a resource and its keys the same number is wanted several times, at 5 µs each.

    By its text, since ``1.0`` and ``1.00`` are equal as numbers and not the same.
    """
    return Decimal128(text)


class _WrittenDecimalEncoder(_DecimalEncoder):
    python_type = WrittenDecimal


CODEC: CodecOptions[Document] = CodecOptions(
    type_registry=TypeRegistry([_DecimalEncoder(), _WrittenDecimalEncoder()]), tz_aware=True
)


class UnfitDatabaseError(Exception):
    """The database cannot keep our promises; the message says what to do about it."""


def connect(uri: str, *, connections_max: int, name: str = "") -> Client:
    """Return a client for ``uri``. Nothing is sent before the first command.

    ``name`` is that of nobody else: MongoDB then tells what is whose (``abandoned.py``).
    """
    return AsyncMongoClient(
        uri,
        maxPoolSize=connections_max,
        serverSelectionTimeoutMS=SERVER_SELECTION_TIMEOUT_MS,
        w="majority",
        journal=True,
        readConcernLevel="majority",
        retryWrites=True,
        retryReads=True,
        tz_aware=True,
        appname=f"{PROGRAM} {name}".rstrip(),
    )


async def close(client: Client) -> None:
    """Close ``client``. A database that is gone is not waited for, to be told of it."""
    with pymongo.timeout(1.0):
        await client.close()


class _Database(AsyncDatabase[Document]):
    """A database that makes each of its collections once, at 8 µs. There are some four hundred."""

    def __getitem__(self, name: str) -> AsyncCollection[Document]:
        made: dict[str, AsyncCollection[Document]] = self.__dict__.setdefault("_made", {})
        found = made.get(name)
        if found is None:
            found = made[name] = super().__getitem__(name)
        return found


def database_of(client: Client, name: str) -> Database:
    """Return the database ``name`` with our codec and our concerns."""
    return _Database(
        *(client, name),
        codec_options=CODEC,
        write_concern=MAJORITY,
        read_concern=ReadConcern("majority"),
    )


async def check_replica_set(client: Client) -> None:
    """Raise :class:`UnfitDatabaseError` unless ``client`` reaches a writable replica set."""
    try:
        hello = await client.admin.command("hello")
        if "setName" not in hello and hello.get("msg") != "isdbgrid":
            await client.admin.command("replSetGetStatus")
    except OperationFailure as error:
        raise UnfitDatabaseError(_remedy(error.code)) from error
    except PyMongoError as error:
        raise UnfitDatabaseError(
            f"MongoDB does not answer: {error.__class__.__name__}. Check FHIR_MONGODB_URI, that "
            "mongod runs, and that its host names resolve from here."
        ) from error
    if "setName" not in hello and hello.get("msg") != "isdbgrid":
        raise UnfitDatabaseError(_remedy(_NO_REPLICATION))


async def make_collection(database: Database, name: str) -> None:
    """Make the collection ``name``, unless it is there: transactions write to it, and make none."""
    try:
        await database.create_collection(name)
    except CollectionInvalid:
        pass  # the driver has seen it
    except OperationFailure as error:
        if error.code != _NAMESPACE_EXISTS:  # another process was faster
            raise


async def is_ready(database: Database, now: Callable[[], datetime] | None = None) -> bool:
    """Whether the database answers a command within a second, and goes by the same time as this
    server, whose clock is ``now``: what expires is judged by one clock of several servers."""
    try:
        with pymongo.timeout(1.0):
            answered = await database.command("hello")
    except PyMongoError:
        return False
    if now is None:
        return True
    apart: timedelta = abs(now() - answered["localTime"].replace(tzinfo=UTC))
    if apart > CLOCKS_APART_MAX:
        _log.error('"the clocks of this server and of its database are %s apart"', apart)
    return apart <= CLOCKS_APART_MAX


def _remedy(code: int | None) -> str:
    if code == _NOT_INITIALISED:
        return (
            "This mongod was started with --replSet, but the set is not initiated. Run once: "
            "mongosh --eval 'rs.initiate()'"
        )
    return (
        "This MongoDB is not a replica set, so it has no transactions. Start mongod with "
        "--replSet rs0, then run once: mongosh --eval 'rs.initiate()'"
    )


@asynccontextmanager
async def deadline(seconds: float, advice: str) -> AsyncIterator[None]:
    """Bound what is done inside by ``seconds``, and turn the driver's failures into refusals.

    ``advice`` ends the sentence of a time-out. Inside another deadline the earlier end counts.
    """
    try:
        with pymongo.timeout(seconds):
            yield
    except PyMongoError as error:
        refusal = _refusal(error, seconds, advice)
        if refusal is None:
            raise
        raise refusal from error


def _refusal(error: PyMongoError, seconds: float, advice: str) -> FhirError | None:
    """Return what the client is told of ``error``; ``None`` for what should not have happened."""
    if isinstance(error, ExecutionTimeout) or error.timeout:
        text = f"This took more than the {seconds:g} s allowed. {advice}"
        return FhirError(Issue("timeout", text), headers=(("Retry-After", "2"),))
    if isinstance(error, DocumentTooLarge) or bool(codes_of(error) & _TOO_LARGE):
        text = "The resource, with what is searched in it, is over MongoDB's limit of 16 MiB."
        return FhirError(Issue("too-long", text))
    if _TRANSACTION_TOO_LARGE in codes_of(error):
        text = "The bundle is too large for one transaction of the database; split it."
        return FhirError(Issue("too-costly", text), status=413)
    if isinstance(error, ConnectionFailure):
        text = f"The database cannot be reached at the moment. {advice}"
        return FhirError(Issue("transient", text), headers=(("Retry-After", "2"),))
    return None


class OutcomeUnknownError(FhirError):
    """The answer to a write whose own answer was lost: the database may have made it."""

    def __init__(self) -> None:
        text = "It is unknown whether this was written: it may be. Read before you repeat it."
        super().__init__(Issue("transient", text), headers=(("Retry-After", "2"),))


def is_lost(error: PyMongoError) -> bool:
    """Whether ``error`` leaves it open whether the command was carried out."""
    return error.timeout or isinstance(error, ConnectionFailure)


def codes_of(error: PyMongoError) -> set[int]:
    """Return the codes of ``error``, also those of the single writes of a bulk."""
    details = getattr(error, "details", None) or {}
    failed = {one.get("code") for one in details.get("writeErrors", ())}
    return {code for code in (getattr(error, "code", None), *failed) if code is not None}
