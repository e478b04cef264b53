"""Removes versions and deleted resources for good, in portions. See ``operations/expunge.py``.

Nothing is kept about how far it is: what is gone is gone, and whoever asks again goes on with what
is left. Old versions go before newer ones, so that those that stay are numbered without a gap. The
last portion of a resource is one transaction with the resource itself.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bson import MaxKey, MinKey
from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.store.client import Database
from fhir_server.store.contents import REFERRED_BY, UPLOADS
from fhir_server.store.denials import CONSENT, drop_row
from fhir_server.store.documents import HISTORY_SUFFIX
from fhir_server.store.granules import HOLDERS, Granules
from fhir_server.store.transactions import repeated, transacted

_PORTION = 100  # versions that one command removes; between two others get their turn


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to go, of ``types`` or of one ``id`` in one of them.

    ``previous`` are the versions that are not current, ``deleted`` the resources that are deleted,
    with all their versions, ``everything`` resources with all their versions whatever they are.
    ``most`` is how many versions may go.
    """

    types: tuple[str, ...]
    id: str
    most: int
    previous: bool = False
    deleted: bool = False
    everything: bool = False


@dataclass(slots=True)
class Expunging:
    """One call: how many versions have gone (``count``), of ``wanted.most``, until ``end``."""

    database: Database
    wanted: Wanted
    end: float
    count: int = 0

    @property
    def may_go_on(self) -> bool:
        """Whether there is time and number left for another portion."""
        return self.count < self.wanted.most and time.monotonic() < self.end

    async def run(self) -> bool:
        """Remove what is wanted. Return whether nothing of it is left."""
        for type in self.wanted.types:
            if not await self._of_type(type):
                return False
        return True

    async def _of_type(self, type: str) -> bool:
        if self.wanted.everything or self.wanted.deleted:
            filter: dict[str, Any] = {} if self.wanted.everything else {"deleted": True}
            if self.wanted.id:
                filter["_id"] = self.wanted.id
            while rows := await self._rows(type, filter):
                for row in rows:
                    await self._resource(type, row)
                    if not self.may_go_on:  # whoever asks again for the last one would get 404
                        return bool(self.wanted.id) and not await self._rows(type, filter)
        if self.wanted.previous or self.wanted.everything:
            return await self._versions(type, self.wanted.id)
        return True

    async def _rows(self, type: str, filter: dict[str, Any]) -> list[dict[str, Any]]:
        cursor = self.database[type].find(filter, {"version": 1}).limit(_PORTION)
        return list(await cursor.to_list())

    async def _resource(self, type: str, row: dict[str, Any]) -> None:
        """Remove a resource: all but its last portion of versions first, then all that is left.

        One that has been written meanwhile stays.
        """
        while self.may_go_on:
            left = await self._old(type, row["_id"], _PORTION + 1)
            if len(left) <= _PORTION:
                break
            if not await self._remove_behind(type, row, left[:_PORTION]):
                return
        else:
            return
        contents = await self._contents(type, _of_id(row["_id"]), {"_id": row["_id"]})

        async def work(session: AsyncClientSession) -> int:
            current = {"_id": row["_id"], "version": row["version"]}
            if (await self.database[type].delete_one(current, session=session)).deleted_count != 1:
                return 0
            if type == CONSENT:
                await drop_row(self.database, row["_id"], session)
            if type in HOLDERS:
                await Granules(self.database, session).release(f"{type}/{row['_id']}")
            gone = await self.database[type + HISTORY_SUFFIX].delete_many(
                _of_id(row["_id"]), session=session
            )
            return 1 + int(gone.deleted_count)

        self.count += await repeated(
            lambda: transacted(self.database.client, work, self.end), self.end
        )
        await self._look_at(contents)

    async def _remove_behind(self, type: str, row: dict[str, Any], keys: list[Any]) -> bool:
        """Remove versions of a resource that is still what it was when it was chosen.

        Return whether it is: one that somebody has written meanwhile keeps its versions.
        """
        filter = {"_id": {"$in": keys}}
        contents = await self._contents(type, filter, None)

        async def work(session: AsyncClientSession) -> int | None:
            # A real write: MongoDB sees no conflict between a look and somebody's update.
            current = {"_id": row["_id"], "version": row["version"]}
            touched = await self.database[type].update_one(
                current, {"$inc": {"touched": 1}}, session=session
            )
            if touched.matched_count != 1:
                return None
            history = self.database[type + HISTORY_SUFFIX]
            return int((await history.delete_many(filter, session=session)).deleted_count)

        gone = await repeated(lambda: transacted(self.database.client, work, self.end), self.end)
        self.count += gone or 0
        await self._look_at(contents)
        return gone is not None

    async def _contents(
        self, type: str, old: dict[str, Any], current: dict[str, Any] | None
    ) -> list[str]:
        """Return the ids of the large contents of the versions ``old`` and of ``current``."""
        if type != REFERRED_BY:
            return []
        found = [
            one["content"]["id"]
            for name, filter in ((type + HISTORY_SUFFIX, old), (type, current))
            if filter is not None
            for one in await self.database[name]
            .find({**filter, "content.id": {"$exists": True}}, {"content.id": 1})
            .to_list()
        ]
        return list(dict.fromkeys(found))

    async def _look_at(self, contents: list[str]) -> None:
        """Have the contents removed at the next sweep, unless another version has them."""
        if contents:
            await self.database[UPLOADS].update_many(
                {"_id": {"$in": contents}}, [{"$set": {"due": "$$NOW"}}]
            )

    async def _versions(self, type: str, id: str) -> bool:
        while self.may_go_on:
            left = await self._old(type, id, min(_PORTION, self.wanted.most - self.count))
            if not left:
                return True
            await self._remove(type, left)
        return False

    async def _old(self, type: str, id: str, most: int) -> list[Any]:
        """Return the keys of the oldest versions of ``id``, or of the first resources."""
        cursor = self.database[type + HISTORY_SUFFIX].find(_of_id(id) if id else {}, {"_id": 1})
        return [one["_id"] for one in await cursor.sort("_id", 1).limit(most).to_list()]

    async def _remove(self, type: str, keys: Iterable[Any]) -> None:
        filter = {"_id": {"$in": list(keys)}}
        contents = await self._contents(type, filter, None)
        gone = await self.database[type + HISTORY_SUFFIX].delete_many(filter)
        self.count += gone.deleted_count
        await self._look_at(contents)


def _of_id(id: str) -> dict[str, Any]:
    return {"_id": {"$gt": {"id": id, "version": MinKey()}, "$lt": {"id": id, "version": MaxKey()}}}
