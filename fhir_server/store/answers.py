"""First answers to requests with an Idempotency-Key, kept for those who ask again.

An answer is written in the transaction of what it tells of: there is never one without the other.
A request takes its key before anything else, so that of two at once the second meets the first;
when it begins again, it finds the answer.
"""

import asyncio
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from pymongo import IndexModel, ReturnDocument
from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.messages import Response
from fhir_server.outcome import FhirError, Issue
from fhir_server.store.client import Database, Document

ANSWERS = "idempotency"
_COMPRESSED_FROM = 1024
_APART_FROM = 262_144  # some milliseconds of packing: more of it does not hold up others
_PART_BYTES = 8_388_608  # a document has a limit of 16 MiB
_LEVEL = 1


@dataclass(frozen=True, slots=True)
class Asked:
    """A request with a key. ``id`` stands for the key and ``fingerprint`` for what is asked; the
    answer to it is kept from ``now`` until ``until``, both UTC."""

    id: str
    fingerprint: bytes
    now: datetime
    until: datetime


async def ensure_answers(database: Database) -> None:
    """Make the index that removes answers when their time is over, and with it the collection."""
    index = IndexModel([("until", 1)], expireAfterSeconds=0)
    await database[ANSWERS].create_indexes([index])


async def first_answer(
    database: Database, asked: Asked, session: AsyncClientSession
) -> Response | None:
    """Return what was answered under this key, or take the key and return ``None``.

    Raises ``business-rule`` where the key was used for another request. Of two transactions that
    take one key, one fails as transient and is to be repeated.
    """
    found = await database[ANSWERS].find_one_and_update(
        {"_id": asked.id},
        {"$setOnInsert": {"fingerprint": asked.fingerprint, "until": asked.until}},
        upsert=True,
        return_document=ReturnDocument.BEFORE,
        session=session,
    )
    # MongoDB removes what is over once a minute.
    if found is None or found["until"] <= asked.now:
        return None
    if found["fingerprint"] != asked.fingerprint:
        text = "This Idempotency-Key was used for another request; a new request needs a new key."
        raise FhirError(Issue("business-rule", text))
    body = await _body(database, found, session)
    return Response(
        found["status"],
        body,
        found["version"],
        found["last_updated"],
        found["location"],
        tuple((name, value) for name, value in found["headers"]),
    )


async def keep_answer(
    database: Database, asked: Asked, answer: Response, session: AsyncClientSession
) -> None:
    """Write ``answer`` under the key that :func:`first_answer` took in the same transaction."""
    packed = len(answer.body) >= _COMPRESSED_FROM
    body = await _aside(zlib.compress, answer.body, _LEVEL) if packed else answer.body
    first, *parts = [
        body[begin : begin + _PART_BYTES] for begin in range(0, len(body) or 1, _PART_BYTES)
    ]
    document: Document = {
        "fingerprint": asked.fingerprint,
        "until": asked.until,
        "status": answer.status,
        "version": answer.version,
        "last_updated": answer.last_updated,
        "location": answer.location,
        "headers": [list(one) for one in answer.headers],
        "packed": packed,
        "parts": len(parts),
        "body": first,
    }
    await database[ANSWERS].replace_one({"_id": asked.id}, document, session=session)
    for number, part in enumerate(parts, 1):
        await database[ANSWERS].replace_one(
            {"_id": _part(asked.id, number)},
            # They outlive their answer: one that is still there is never without them.
            {"until": asked.until + timedelta(hours=1), "body": part},
            upsert=True,
            session=session,
        )


async def _body(database: Database, found: Document, session: AsyncClientSession) -> bytes:
    parts = [bytes(found["body"])]
    for number in range(1, found["parts"] + 1):
        part = await database[ANSWERS].find_one(
            {"_id": _part(found["_id"], number)}, session=session
        )
        assert part is not None, "parts are written with their answer and end with it"
        parts.append(bytes(part["body"]))
    body = b"".join(parts)
    return await _aside(zlib.decompress, body) if found["packed"] else body


def _part(id: str, number: int) -> str:
    return f"{id}/{number}"


async def _aside(work: Callable[..., bytes], body: bytes, *more: int) -> bytes:
    """Return ``work(body, *more)``, done in a thread where it takes long."""
    if len(body) < _APART_FROM:
        return work(body, *more)
    return await asyncio.to_thread(work, body, *more)
