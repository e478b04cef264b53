"""Ends the transactions that killed processes have left in MongoDB.

MongoDB ends by itself what a process that is gone was just having done, but not a transaction that
waits for its next command: that keeps what it has written from everybody else until
``transactionLifetimeLimitSeconds`` are over, a minute and up to half of one more. A server that
begins again after two seconds could not change the very patients that were being written.

Each process has a name of its own for MongoDB. The name of one that is gone is on a transaction and
on no connection: those end with the process. Those of a machine without power stay until they are
given up, and its transactions with them, for that minute.

https://www.mongodb.com/docs/manual/reference/operator/aggregation/currentOp/
https://www.mongodb.com/docs/manual/reference/command/killSessions/
"""

import logging

import pymongo
from pymongo import ReadPreference
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern

from fhir_server.store.client import PROGRAM, Client, Document

_LOOK_TIMEOUT_S = 5.0
_WAITS = {"$eq": ["$type", "idleSession"]}
_LEFT: list[Document] = [
    {"$currentOp": {"idleConnections": True, "idleSessions": True}},
    {"$match": {"appName": {"$regex": f"^{PROGRAM} ."}}},
    {
        "$group": {
            "_id": "$appName",
            "connected": {"$max": {"$not": _WAITS}},
            "sessions": {"$addToSet": {"$cond": [_WAITS, "$lsid.id", "$$REMOVE"]}},
        }
    },
    {"$match": {"connected": False}},
]

_log = logging.getLogger("fhir_server.database")


async def end_abandoned(client: Client) -> int:
    """End the transactions of processes that are gone; return how many.

    To be called before the first write. Behind a ``mongos``, whose shards do not tell whose a
    connection is, and where MongoDB does not answer, what was left ends later, by itself. One that
    is ended wrongly is made again, as one that met another (``transactions.py``).
    """
    admin = client.get_database(
        "admin", read_preference=ReadPreference.PRIMARY, read_concern=ReadConcern("local")
    )
    try:
        with pymongo.timeout(_LOOK_TIMEOUT_S):
            if await client.is_mongos:
                return 0
            rows = await (await admin.aggregate(_LEFT)).to_list()
            left = [{"id": id} for row in rows for id in row["sessions"]]
            if left:
                await admin.command("killSessions", left)
    except PyMongoError as error:
        _log.info('"open transactions were not looked at: %s"', error.__class__.__name__)
        return 0
    if left:
        _log.warning('"ended %d transactions of processes that are gone"', len(left))
    return len(left)
