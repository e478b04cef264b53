"""Which versions a request sees of those that were replaced, and which deletions.

design/security.md, section 3.2: a version shows when it and the current one do. A version keeps its
own compartments and labels, and no keys: where a predicate asks for keys, they are made again of
the version. Of a deletion nothing was kept that had keys; it is judged by the version before.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fhir_server.messages import Resource
from fhir_server.r4.json import decode_stored
from fhir_server.search.index import Indexed
from fhir_server.security.plan import Filter, both
from fhir_server.security.predicates import allows
from fhir_server.store.documents import HISTORY_SUFFIX, PRESENT, Document

_KEYS = "keys"
_LOGICAL = ("$and", "$or", "$nor")
_AT_ONCE = 100  # versions that are looked at between two answers of the database
_JUDGED_BY = {"json": 1, "compartments": 1, "labels": 1, "last_updated": 1}
_NOW, _BEFORE = "_now", "_before"


@dataclass(frozen=True, slots=True)
class Sight:
    """What of a type may be seen. ``index`` returns the keys of a resource."""

    predicate: Filter
    index: Callable[[Resource], Indexed]

    @property
    def by_keys(self) -> bool:
        """Whether keys decide, which versions do not have."""
        return asks_keys(self.predicate)

    def shows(self, version: Mapping[str, Any]) -> bool:
        """Whether ``version``, historical, with what it is judged by, may be seen."""
        if "json" not in version:
            return False
        keys = self.index(decode_stored(version["json"])).keys
        kept = {name: version[name] for name in _JUDGED_BY if name in version}
        return allows(self.predicate, {**kept, "_id": version["_id"]["id"], "keys": keys})


@dataclass(frozen=True, slots=True)
class Versions:
    """The collection ``whole`` of the versions of ``type`` that were replaced, as far as ``sight``
    goes. It has what reading uses."""

    whole: Any
    type: str
    sight: Sight

    def find(
        self,
        filter: Document | None = None,
        projection: Document | None = None,
        session: Any = None,
        limit: int = 0,
    ) -> Any:
        """Find among the versions that show."""
        if not self.sight.predicate:  # the current version shows, whatever it is
            return self.whole.find(filter or {}, projection, session=session, limit=limit)
        return _Cursor(self, filter or {}, projection, session, most=limit)

    async def find_one(
        self,
        filter: Document,
        projection: Document | None = None,
        session: Any = None,
        sort: Sequence[tuple[str, int]] = (),
    ) -> Document | None:
        """Find one among the versions that show."""
        cursor = self.find(filter, projection, session=session)
        found = await (cursor.sort(list(sort)) if sort else cursor).limit(1).to_list()
        return found[0] if found else None

    async def count_documents(self, filter: Document, session: Any = None) -> int:
        """Count the versions that show."""
        if not self.sight.predicate:
            return int(await self.whole.count_documents(filter, session=session))
        return len(await self.find(filter, {"_id": 1}, session=session).to_list())


@dataclass(frozen=True, slots=True)
class _Cursor:
    """Versions that show, found as a cursor of the driver finds documents."""

    versions: Versions
    filter: Document
    projection: Document | None
    session: Any
    order: Sequence[tuple[str, int]] = ()
    most: int = 0

    def sort(self, order: Sequence[tuple[str, int]]) -> "_Cursor":
        return replace(self, order=order)

    def limit(self, most: int) -> "_Cursor":
        return replace(self, most=most)

    async def to_list(self) -> list[Document]:
        sight = self.versions.sight
        judged = sight.by_keys
        cursor = await self.versions.whole.aggregate(self._stages(judged), session=self.session)
        if not judged:
            found: list[Document] = await cursor.to_list()
            return found
        shown: list[Document] = []
        while batch := await cursor.to_list(_AT_ONCE):
            shown += (self._projected(one) for one in batch if sight.shows(one))
            if self.most and len(shown) >= self.most:
                await cursor.close()
                return shown[: self.most]
        return shown

    def _stages(self, judged: bool) -> list[Document]:
        predicate = self.versions.sight.predicate
        own = {} if judged else of_version(predicate)
        wanted = self.projection
        if judged and wanted is not None:
            wanted = {**wanted, **_JUDGED_BY}
        now = {"$match": of_current(predicate)}, {"$project": {"_id": 1}}
        stages: list[Document] = [
            {"$match": both(own, self.filter)},
            *([{"$sort": dict(self.order)}] if self.order else []),
            _current(self.versions.type, list(now)),
            {"$match": {f"{_NOW}.0": {"$exists": True}}},
            {"$unset": _NOW},
            *([{"$project": wanted}] if wanted else []),
        ]
        return [*stages, {"$limit": self.most}] if self.most and not judged else stages

    def _projected(self, version: Document) -> Document:
        if self.projection is None:
            return version
        return {name: one for name, one in version.items() if name in {"_id", *self.projection}}


def _current(type: str, pipeline: list[Document]) -> Document:
    joined = {"from": type, "localField": "_id.id", "foreignField": "_id", "as": _NOW}
    return {"$lookup": {**joined, "pipeline": pipeline}}


async def last_seen(
    collection: Any, id: str, sight: Sight, projection: Document, session: Any
) -> Document | None:
    """Return the deletion ``id`` in ``collection`` if what was deleted could be seen by its keys.

    One question, whether there is something or not.
    """
    before = {"id": "$_id", "version": {"$subtract": ["$version", 1]}}
    joined = {"localField": _BEFORE, "foreignField": "_id", "as": _BEFORE}
    stages: list[Document] = [
        {"$match": {"_id": id, "deleted": True}},
        {"$project": projection},
        {"$set": {_BEFORE: before}},
        {"$lookup": {"from": collection.name + HISTORY_SUFFIX, **joined}},
    ]
    found = await (await collection.aggregate(stages, session=session)).to_list()
    for deletion in found:
        [*versions] = deletion.pop(_BEFORE)
        if any(sight.shows(one) for one in versions):
            return dict(deletion)
    return None


def asks_keys(predicate: Filter) -> bool:
    """Whether ``predicate`` says something of keys."""
    return any(
        any(map(asks_keys, value)) if name in _LOGICAL else name.partition(".")[0] == _KEYS
        for name, value in predicate.items()
    )


def of_current(predicate: Filter) -> Filter:
    """Return ``predicate`` for current documents. A deletion has no keys: what is denied by keys
    would let it through, and what is allowed by them would not; :func:`last_seen` judges it."""
    return both(predicate, PRESENT) if asks_keys(predicate) else predicate


def of_version(predicate: Filter) -> Filter:
    """Return ``predicate``, which says nothing of keys, for the documents of history: their
    ``_id`` is id and version."""
    return {
        "_id.id" if name == "_id" else name: [of_version(one) for one in value]
        if name in _LOGICAL
        else value
        for name, value in predicate.items()
    }
