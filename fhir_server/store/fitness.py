"""Whether what is outside of the settings is fit for production: database, accounts, secret files.

design/security.md, section 1. A database is asked what needs no right of its own; all is judged in
``security/production.py``.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pymongo
from pymongo import AsyncMongoClient
from pymongo.errors import ConfigurationError, OperationFailure, PyMongoError
from pymongo.uri_parser import parse_uri

from fhir_server.security.production import (
    SECRET_FILES,
    Database,
    Found,
    mode_is_open,
    reasons,
    tls_unchecked,
)
from fhir_server.settings import Settings
from fhir_server.store.client import Client, UnfitDatabaseError, close, connect, database_of
from fhir_server.store.client import Database as AnyDatabase

_TIMEOUT_S = 10.0
_UNKNOWN_COMMAND = 59
_NO_SUCH_POINT = "fhir-server: is this mongod for tests?"
_UNAUTHORIZED = (13, 18)
_REACHING = ("directconnection", "loadbalanced", "replicaset", "servermonitoringmode")
"""The options by which a database is reached, beside those of TLS."""
_ENVIRONMENT = Path(".env")


async def reasons_against(settings: Settings) -> tuple[str, ...]:
    """Return why a server with ``settings`` may not run in production; none where it may."""
    found = Found(*_secrets(settings))
    if settings.mongodb_uri:
        try:
            database = await fitness(settings.mongodb_uri)
            found = replace(found, database=database)
            found = await _with_accounts(settings, found)
        except UnfitDatabaseError as error:
            return (str(error), *reasons(settings, found))
    return reasons(settings, found)


async def administrators(database: AnyDatabase) -> int:
    """Return how many users may sign in here as administrators."""
    return await database["users"].count_documents(
        {"roles": "administrator", "is_disabled": {"$ne": True}, "demo": {"$ne": True}}
    )


async def demo_users(database: AnyDatabase) -> int:
    """Return how many users were made for trying out."""
    return await database["users"].count_documents({"demo": True})


async def _with_accounts(settings: Settings, found: Found) -> Found:
    client = connect(settings.mongodb_uri, connections_max=2)
    try:
        database = database_of(client, settings.mongodb_database)
        with pymongo.timeout(_TIMEOUT_S):
            return replace(
                found,
                administrators=await administrators(database),
                demo_users=await demo_users(database),
            )
    except PyMongoError as error:
        kind = type(error).__name__
        raise UnfitDatabaseError(f"MongoDB does not tell its users: {kind}.") from error
    finally:
        await close(client)


def _secrets(settings: Settings) -> tuple[str, tuple[Path, ...]]:
    """Return the master key as it is written, and the secret files that others may open."""
    named = (getattr(settings, name) for name in SECRET_FILES)
    files = [path for path in (*named, _ENVIRONMENT) if path is not None and path.is_file()]
    readable = tuple(path for path in files if mode_is_open(path.stat().st_mode))
    try:
        return settings.master_key_text(), readable
    except OSError:
        return "", readable


async def fitness(uri: str) -> Database:
    """Return what the database at ``uri`` says of itself.

    Raises :class:`UnfitDatabaseError` where it does not answer, or ``uri`` is none.
    """
    client = None
    try:
        parsed = await asyncio.to_thread(parse_uri, uri)
        client = connect(uri, connections_max=2)
        with pymongo.timeout(_TIMEOUT_S):
            hello = await client.admin.command("hello")
            return await _described(client, parsed, hello)
    except (ConfigurationError, PyMongoError, ValueError) as error:
        kind = type(error).__name__
        raise UnfitDatabaseError(f"MongoDB at FHIR_MONGODB_URI does not answer: {kind}.") from error
    finally:
        if client is not None:
            await close(client)


async def _described(client: Client, parsed: Mapping[str, Any], hello: dict[str, Any]) -> Database:
    options = {name.lower(): value for name, value in parsed["options"].items()}
    hosts = tuple(hello.get("hosts", ())) + tuple(hello.get("passives", ()))
    named = tuple(f"{host}:{port}" for host, port in parsed["nodelist"])
    smallest = len(hosts)
    if hello.get("msg") == "isdbgrid":
        smallest = await _smallest_shard(client)
    signs_in = bool(parsed.get("username")) or options.get("authmechanism") == "MONGODB-X509"
    return Database(
        hosts=tuple(dict.fromkeys((*named, *hosts))),
        smallest_set=smallest,
        has_credentials=signs_in,
        takes_strangers=await _takes_strangers(parsed, options),
        has_tls=bool(options.get("tls") or options.get("ssl")),
        tls_unchecked=tls_unchecked(dict(parsed["options"])),
        has_test_commands=await _has_test_commands(client),
        write_concern=str(options.get("w", "majority")),
        has_journal=options.get("journal", True) is not False,
    )


async def _smallest_shard(client: Client) -> int:
    """Return the members of the smallest shard; 0 where that is not told."""
    try:
        shards = (await client.admin.command("listShards"))["shards"]
    except OperationFailure:
        return 0
    return min((one["host"].count(",") + 1 for one in shards), default=0)


async def _has_test_commands(client: Client) -> bool:
    """Whether a command is known that only a mongod for tests has. It would change nothing."""
    try:
        await client.admin.command("configureFailPoint", _NO_SUCH_POINT, mode="off")
    except OperationFailure as error:
        return error.code != _UNKNOWN_COMMAND
    return True


async def _takes_strangers(parsed: Mapping[str, Any], options: Mapping[str, Any]) -> bool:
    """Whether the database tells its names to who has not signed in."""
    reached = {
        name: value
        for name, value in options.items()
        if name in _REACHING or name.startswith(("tls", "ssl"))
    }
    stranger: Client = AsyncMongoClient(
        [
            f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
            for name, port in parsed["nodelist"]
        ],
        **reached,
    )
    try:
        await stranger.admin.command("listDatabases", nameOnly=True)
    except OperationFailure as error:
        return error.code not in _UNAUTHORIZED
    finally:
        await close(stranger)
    return True
