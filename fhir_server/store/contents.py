"""What is too large for a document: bytes in GridFS, taken in and given out piece by piece.

https://github.com/mongodb/specifications/blob/master/source/gridfs/gridfs-spec.md

The collections are those of a GridFS bucket ``contents``, which its tools can read. They are
written here and not by the driver's bucket, since that holds 48 MB before it sends the first.

A content is written before the document that refers to it, and ``contents.uploads`` knows of it
before its first piece: what is there without a document, after a crash or a refusal, is found by it
and removed. A content never changes; a new version has a new one.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pymongo import IndexModel
from pymongo.errors import PyMongoError

from fhir_server.messages import Content, Pieces
from fhir_server.outcome import FhirError
from fhir_server.store.client import NOTHING_WRITTEN, Database, deadline
from fhir_server.store.documents import HISTORY_SUFFIX

FILES, CHUNKS, UPLOADS = "contents.files", "contents.chunks", "contents.uploads"
REFERRED_BY = "Binary"

_CHUNK_BYTES = 261_120  # GridFS's own: a chunk with its fields stays below 256 KiB
_CHUNKS_AT_ONCE = 8  # 2 MB: what an upload or a download holds in memory
_UNUSED_FOR_MS = 24 * 3600 * 1000  # longer than any request: what nobody refers to then stays so
_LOOKED_AT_AGAIN_MS = 30 * 24 * 3600 * 1000  # versions may have been removed
_SWEPT_AT_ONCE = 20
_SWEEP_S = 600.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Contents:
    """Large contents. ``seconds`` bound each command; ``new_id`` makes the id of a content."""

    database: Database
    seconds: float
    new_id: Callable[[], str]

    async def ensure(self) -> None:
        """Make the indexes, and with them the collections."""
        chunks = IndexModel([("files_id", 1), ("n", 1)], unique=True)
        await self.database[CHUNKS].create_indexes([chunks])
        await self.database[UPLOADS].create_indexes([IndexModel([("due", 1)])])

    async def take(self, pieces: Pieces) -> Content:
        """Store ``pieces`` as a content of its own, and return it.

        Nothing is left of it where ``pieces`` raises, as it does for a client that goes away. What
        of it is written late, after a failure, is found by the sweep: it stays known until then.
        """
        id = self.new_id()
        try:
            await self._due(id, _UNUSED_FOR_MS)
            return await self._written(id, pieces)
        except Exception as error:
            refused = isinstance(error, FhirError) and error.status < 500
            with suppress(PyMongoError, FhirError):
                await (self.discard(id) if refused else self._emptied(id))
            raise

    async def _written(self, id: str, pieces: Pieces) -> Content:
        digest = hashlib.sha256()
        size = count = 0
        held = bytearray()
        async for piece in pieces:
            digest.update(piece)
            size += len(piece)
            held += piece
            if len(held) >= _CHUNKS_AT_ONCE * _CHUNK_BYTES:
                whole = len(held) // _CHUNK_BYTES * _CHUNK_BYTES
                count += await self._chunks(id, count, held[:whole])
                del held[:whole]
        if held:
            await self._chunks(id, count, held)
        said = {"length": size, "chunkSize": _CHUNK_BYTES, "uploadDate": "$$NOW"}
        async with deadline(self.seconds, NOTHING_WRITTEN):
            await self.database[FILES].update_one({"_id": id}, [{"$set": said}], upsert=True)
        return Content(id, size, digest.digest())

    async def _chunks(self, id: str, first: int, held: bytearray) -> int:
        """Write ``held`` as chunks from number ``first`` on, and return how many they are."""
        starts = range(0, len(held), _CHUNK_BYTES)
        rows = [
            {"files_id": id, "n": n, "data": bytes(held[start : start + _CHUNK_BYTES])}
            for n, start in enumerate(starts, first)
        ]
        async with deadline(self.seconds, NOTHING_WRITTEN):
            await self.database[CHUNKS].insert_many(rows)
        return len(rows)

    async def pieces(self, content: Content, start: int, end: int) -> Pieces:
        """Yield the bytes of ``content`` from ``start`` to before ``end``, some chunks at a time.

        Raises ``RuntimeError`` where some are missing, which nothing in this server brings about.
        """
        place = start
        while place < end:
            first = place // _CHUNK_BYTES
            last = min(first + _CHUNKS_AT_ONCE - 1, (end - 1) // _CHUNK_BYTES)
            async with deadline(self.seconds, "Try again."):
                rows = await self._between(content.id, first, last)
            for n, row in enumerate(rows, first):
                data = row["data"] if row["n"] == n else b""
                piece = data[place - n * _CHUNK_BYTES : end - n * _CHUNK_BYTES]
                if not piece:
                    break
                place += len(piece)
                yield piece
            if place < min((last + 1) * _CHUNK_BYTES, end):
                raise RuntimeError(f"Content {content.id} lacks bytes from {place} on.")

    async def _between(self, id: str, first: int, last: int) -> list[dict[str, Any]]:
        cursor = self.database[CHUNKS].find({"files_id": id, "n": {"$gte": first, "$lte": last}})
        return await cursor.sort("n", 1).to_list()

    async def discard(self, id: str) -> None:
        """Remove the content ``id``, to which nothing refers."""
        await self._emptied(id)
        async with deadline(self.seconds, NOTHING_WRITTEN):
            await self.database[UPLOADS].delete_one({"_id": id})

    async def _emptied(self, id: str) -> None:
        async with deadline(self.seconds, NOTHING_WRITTEN):
            await self.database[FILES].delete_one({"_id": id})
            await self.database[CHUNKS].delete_many({"files_id": id})

    async def discard_unused(self, id: str) -> None:
        """Remove the content ``id`` if nothing refers to it."""
        if not await self._is_referred_to(id):
            await self.discard(id)

    async def run(self) -> None:
        """Remove what nobody refers to, for as long as the server runs."""
        while True:
            more = False
            try:
                more = await self.sweep()
            except (PyMongoError, FhirError) as error:
                _log.warning('"contents were not swept: %s"', error.__class__.__name__)
            await asyncio.sleep(1.0 if more else _SWEEP_S)

    async def sweep(self) -> bool:
        """Look at some contents that are due; remove those that nobody refers to.

        Return whether there may be more. Several servers may do it at once.
        """
        async with deadline(self.seconds, "Try again."):
            cursor = self.database[UPLOADS].find({"$expr": {"$lt": ["$due", "$$NOW"]}})
            due = [
                row["_id"] for row in await cursor.sort("due", 1).limit(_SWEPT_AT_ONCE).to_list()
            ]
        for id in due:
            if await self._is_referred_to(id):
                await self._due(id, _LOOKED_AT_AGAIN_MS)
            else:
                await self.discard(id)
        return len(due) == _SWEPT_AT_ONCE

    async def _is_referred_to(self, id: str) -> bool:
        """The current versions first: one that becomes historical meanwhile is then seen there."""
        async with deadline(self.seconds, "Try again."):
            for name in (REFERRED_BY, REFERRED_BY + HISTORY_SUFFIX):
                if await self.database[name].find_one({"content.id": id}, projection={"_id": 1}):
                    return True
        return False

    async def _due(self, id: str, milliseconds: int) -> None:
        """Have ``id`` looked at when ``milliseconds`` have passed, by the database's clock."""
        async with deadline(self.seconds, NOTHING_WRITTEN):
            await self.database[UPLOADS].update_one(
                {"_id": id}, [{"$set": {"due": {"$add": ["$$NOW", milliseconds]}}}], upsert=True
            )
