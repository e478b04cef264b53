"""First answers to requests with an Idempotency-Key, kept for those who ask again.

An answer is written in the transaction of what it tells of: there is never one without the other.
Where several steps follow each other in that transaction, its first is to take the key
(:func:`first_answer`), so that of two at once the second meets the first. A single change
(``Change.once``) writes key and answer in one (:func:`keep_answers`). Either way the second begins
again, and finds the answer.

An answer that has the version in its body, as it was written, does not repeat it but names it: it
is told again as far as the version may still be seen. Another body is told again to whoever has the
same rights as then.
"""

import asyncio
import zlib
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

from pymongo import IndexModel, ReplaceOne, ReturnDocument
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import PyMongoError

from fhir_server.messages import Response
from fhir_server.outcome import FhirError, Issue, operation_outcome
from fhir_server.r4.json import encode
from fhir_server.store.changes import Asked
from fhir_server.store.client import Database, Document
from fhir_server.store.documents import HISTORY_SUFFIX
from fhir_server.store.transactions import StaleRead, met_another

ANSWERS = "idempotency"
_COMPRESSED_FROM = 1024
_APART_FROM = 262_144  # some milliseconds of packing: more of it does not hold up others
_PART_BYTES = 8_388_608  # a document has a limit of 16 MiB
_LEVEL = 1


class KeyTaken(StaleRead):
    """A key is taken, by a request that is answered already or that is being performed."""


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
    return None if found is None else await told(database, found, asked, session)


async def found_answers(database: Database, asked: Sequence[Asked]) -> dict[str, Document]:
    """Return what is kept under the keys of ``asked``, by their ids, also what is over."""
    cursor = database[ANSWERS].find({"_id": {"$in": [one.id for one in asked]}})
    return {one["_id"]: one for one in await cursor.to_list()}


async def told(
    database: Database, found: Document, asked: Asked, session: AsyncClientSession | None = None
) -> Response | None:
    """Return the answer that is ``found``, or ``None`` for one whose time is over.

    Raises ``business-rule`` where it answered another request than ``asked``.
    """
    # MongoDB removes what is over once a minute.
    if found["until"] <= asked.now:
        return None
    if found["fingerprint"] != asked.fingerprint:
        text = "This Idempotency-Key was used for another request; a new request needs a new key."
        raise FhirError(Issue("business-rule", text))
    body = await _body(database, found, session)
    if body and not found.get("named") and found.get("rights", b"") != asked.rights:
        text = "This was done when it was first asked for. What you may see has changed since, so "
        text += "the answer is not repeated."
        body = encode(operation_outcome([Issue("informational", text, severity="information")]))
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
    first, *parts = await kept(asked, answer)
    await database[ANSWERS].replace_one({"_id": asked.id}, first, session=session)
    await _write_parts(database, parts, session)


async def keep_answers(
    database: Database,
    answers: Sequence[Sequence[Document]],
    over: Mapping[str, Document],
    session: AsyncClientSession,
) -> None:
    """Write ``answers``, as :func:`kept` made them, in the place of those that are ``over``.

    Raises :class:`KeyTaken` where one of the keys is taken, whoever has it.
    """
    firsts = [first for first, *_ in answers]
    new = [one for one in firsts if one["_id"] not in over]
    old = [one for one in firsts if one["_id"] in over]
    try:
        if new:
            await database[ANSWERS].insert_many(new, session=session)
        if old:
            places = [{"_id": one["_id"], "until": over[one["_id"]]["until"]} for one in old]
            replaced = await database[ANSWERS].bulk_write(
                [ReplaceOne(*pair) for pair in zip(places, old, strict=True)], session=session
            )
            if replaced.matched_count != len(old):
                raise KeyTaken
    except PyMongoError as error:
        if met_another(error):
            raise KeyTaken from error
        raise
    await _write_parts(database, [part for _, *parts in answers for part in parts], session)


async def kept(asked: Asked, answer: Response) -> list[Document]:
    """Return the documents of ``answer``: its first, and further parts where one is too small."""
    named = asked.by_version and bool(answer.body and answer.location)
    whole = b"" if named else answer.body
    packed = len(whole) >= _COMPRESSED_FROM
    body = await _aside(zlib.compress, whole, _LEVEL) if packed else whole
    first, *parts = [
        body[begin : begin + _PART_BYTES] for begin in range(0, len(body) or 1, _PART_BYTES)
    ]
    document: Document = {
        "_id": asked.id,
        "fingerprint": asked.fingerprint,
        "until": asked.until,
        "status": answer.status,
        "version": answer.version,
        "last_updated": answer.last_updated,
        "location": answer.location,
        "headers": [list(one) for one in answer.headers],
        "named": named,
        "packed": packed,
        "rights": asked.rights,
        "parts": len(parts),
        "body": first,
    }
    # Parts outlive their answer: one that is still there is never without them.
    until = asked.until + timedelta(hours=1)
    return [
        document,
        *(
            {"_id": _part(asked.id, number), "until": until, "body": part}
            for number, part in enumerate(parts, 1)
        ),
    ]


async def _write_parts(
    database: Database, parts: Sequence[Document], session: AsyncClientSession
) -> None:
    for part in parts:
        await database[ANSWERS].replace_one(
            {"_id": part["_id"]}, part, upsert=True, session=session
        )


async def _body(database: Database, found: Document, session: AsyncClientSession | None) -> bytes:
    if found.get("named"):
        return await _version(database, found, session)
    parts = [bytes(found["body"])]
    for number in range(1, found["parts"] + 1):
        part = await database[ANSWERS].find_one(
            {"_id": _part(found["_id"], number)}, session=session
        )
        assert part is not None, "parts are written with their answer and end with it"
        parts.append(bytes(part["body"]))
    body = b"".join(parts)
    return await _aside(zlib.decompress, body) if found["packed"] else body


async def _version(
    database: Database, found: Document, session: AsyncClientSession | None
) -> bytes:
    """Return the version that the answer ``found`` names; nothing where it was expunged.

    It is looked for in history last: there it goes when it is replaced.
    """
    type, id, *_ = found["location"].split("/")
    number = found["version"]
    # An id whose versions were expunged may have another version of this number.
    same = {"last_updated": found["last_updated"]}
    for collection, place in (
        (type, {"_id": id, "version": number}),
        (type + HISTORY_SUFFIX, {"_id": {"id": id, "version": number}}),
    ):
        row = await database[collection].find_one({**place, **same}, {"json": 1}, session=session)
        if row is not None:
            return bytes(row.get("json", b""))
    return b""


def _part(id: str, number: int) -> str:
    return f"{id}/{number}"


async def _aside(work: Callable[..., bytes], body: bytes, *more: int) -> bytes:
    """Return ``work(body, *more)``, done in a thread where it takes long."""
    if len(body) < _APART_FROM:
        return work(body, *more)
    return await asyncio.to_thread(work, body, *more)
