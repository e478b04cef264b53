"""The concepts of large code systems: one document each. Section 16.8 of ARCHITECTURE.md.

A *shelf* is one version of one code system, loaded at one time. Its row in ``shelves``:

=============  ===================================================================================
``_id``        the number of the shelf
``system``     the url of the code system; ``version`` as it says itself, or ``""``
``state``      ``loading``, then ``ready``, or ``replaced`` by a later one of the same version
``position``   where its loader is, in its own words, so that it can go on after an interruption
``count``      how many concepts there are, once it is ready
=============  ===================================================================================

A concept, in ``concepts``, is the FHIR object (``code``, ``display``, ``definition``,
``designation``, ``property``) and beside it:

=============  ===================================================================================
``_id``        ``shelf US code``: one read, and pages in the order of codes
``shelf``      the number again, to begin the indexes with
``ancestors``  all that it is a kind of, itself among them: is-a is one equality
``keys``       ``property US value`` for each property; what it is directly below as ``parent``
``words``      the folded words of its displays, for filters
``inactive``   true for one that is not to be used any more
=============  ===================================================================================

Nobody sees a shelf that is not ready, and one that is ready never changes: what was read of it may
be kept for ever.
"""

import asyncio
import sys
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import pymongo
from pymongo import IndexModel, ReplaceOne, ReturnDocument, UpdateOne
from pymongo.errors import PyMongoError

from fhir_server.r4.codes import property_text
from fhir_server.r4.selections import (
    SEPARATOR,
    Below,
    Codes,
    Either,
    Every,
    Having,
    Without,
    key,
    leaves,
)
from fhir_server.search.string import fold
from fhir_server.store.client import Database, deadline
from fhir_server.store.concept_filters import (
    all_of,
    codes_filter,
    concept_id,
    met_words_filter,
    words_filter,
)
from fhir_server.store.conformance import TYPES, Conformance
from fhir_server.store.fetch import Fetch

CONCEPTS = "concepts"
SHELVES = "shelves"
ANCESTORS_MAX = 2000
"""What one concept can be a kind of; SNOMED CT has up to some 150."""
_PARENT = "parent"
_PARENTS = (_PARENT, "subsumedBy")
_RETIRED = ("retired", "inactive")
_FHIR = ("code", "display", "definition", "designation", "property")
_REPLACED_MS = 120_000
_BATCH = 1000
_KNOWN_MAX = 20_000  # concepts that are kept after they were read; some 2 kB each
_TOTALS_MAX = 500
_GATHERED = 4  # more of them are a read of their own
_COUNTING_S = 1.0
_FEW = 2000  # so many are put in order in a few milliseconds
_BY_CODE = "_id_"
_INDEXES = [
    IndexModel([("shelf", 1), (field, 1), ("_id", 1)], name=field)
    for field in ("ancestors", "keys", "words")
]

Document = dict[str, Any]
Concept = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Shelf:
    """The concepts of one version of a code system, all of them there."""

    number: int
    system: str
    version: str
    count: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """A page of a shelf: those of ``codes`` with words that begin like ``words``, by code."""

    shelf: Shelf
    codes: Codes
    words: tuple[str, ...] = ()

    @property
    def filter(self) -> Document:
        """What finds them."""
        codes = codes_filter(self.codes, self.shelf.number)
        parts = [codes, {} if isinstance(self.codes, frozenset) else all_of(self.shelf.number)]
        if self.index != _BY_CODE or self.words:
            parts.append({"shelf": self.shelf.number})
        parts.append(words_filter(self.words))
        return {"$and": [one for one in parts if one] or [{}]}

    @property
    def index(self) -> str:
        """The index that has them in the order of their codes."""
        found = next((one for one in leaves(self.codes) if isinstance(one, Below | Having)), None)
        if found is None or isinstance(self.codes, Either | Without):
            return _BY_CODE
        return "ancestors" if isinstance(found, Below) else "keys"


@dataclass(slots=True)
class Loading:
    """A shelf while it is being filled. ``position`` is what the last :meth:`add` was told."""

    concepts: "Concepts"
    number: int
    system: str
    version: str
    position: str = ""

    async def add(self, batch: Sequence[Concept], position: str = "") -> None:
        """Add concepts as FHIR objects, none inside another; what they are kinds of is in their
        properties ``parent``. Adding one again replaces it. ``position`` is kept with them.
        """
        database = self.concepts.database
        for start in range(0, len(batch), _BATCH):
            writes = [
                ReplaceOne({"_id": one["_id"]}, one, upsert=True)
                for one in (concept_document(self.number, c) for c in batch[start : start + _BATCH])
            ]
            await database[CONCEPTS].bulk_write(writes, ordered=False)
            await asyncio.sleep(0)
        self.position = position
        await database[SHELVES].update_one(
            {"_id": self.number}, {"$set": {"position": position}, "$currentDate": {"seen": True}}
        )

    async def finish(self) -> Shelf:
        """Write who is a kind of whom, and let everybody see the shelf.

        Raises ``ValueError`` that names a concept with more than :data:`ANCESTORS_MAX` ancestors.
        """
        return await self.concepts.finish(self)

    async def abandon(self) -> None:
        """Remove what was added."""
        await self.concepts.remove(self.number)


@dataclass(slots=True)
class Concepts:
    """The shelves of this database. ``timeout_s`` is how long one request may take here."""

    database: Database
    timeout_s: float
    conformance: Conformance
    _fetch: Fetch = field(init=False)
    _known: OrderedDict[str, Concept] = field(default_factory=OrderedDict)
    _few: OrderedDict[tuple[int, str], bool] = field(default_factory=OrderedDict)
    _totals: OrderedDict[Any, int | None] = field(default_factory=OrderedDict)
    _ends: OrderedDict[Any, str] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self._fetch = Fetch(self.database, self._bounded, None)

    async def ensure(self) -> None:
        """Make the indexes."""
        await self.database[CONCEPTS].create_indexes(_INDEXES)
        by_system = IndexModel([("system", 1), ("version", 1), ("state", 1)], name="system")
        await self.database[SHELVES].create_indexes([by_system])

    async def begin(self, system: str, version: str) -> Loading:
        """Begin to load ``version`` of ``system``, or go on where that was interrupted."""
        await self.sweep()
        wanted = {"system": system, "version": version, "state": "loading"}
        found = await self.database[SHELVES].find_one(wanted)
        if found is None:
            # A number is never used twice: what is remembered of a shelf is remembered by it.
            last = await self.database["server"].find_one_and_update(
                {"_id": SHELVES},
                {"$inc": {"last": 1}},
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
            assert last is not None  # an upsert returns what it made
            found = {"_id": last["last"], **wanted, "position": ""}
            await self.database[SHELVES].insert_one(found)
        return Loading(self, found["_id"], system, version, found["position"])

    async def shelf(self, system: str, version: str) -> Shelf | None:
        """Return the shelf that is ready for exactly this version, if there is one."""
        wanted = {"system": system, "version": version, "state": "ready"}
        found = await self.database[SHELVES].find_one(wanted, sort=[("_id", -1)])
        return Shelf(found["_id"], system, version, found["count"]) if found else None

    async def shelves(self) -> list[Shelf]:
        """Return all that are ready."""
        rows = await self.database[SHELVES].find({"state": "ready"}).sort("_id", 1).to_list()
        return [Shelf(one["_id"], one["system"], one["version"], one["count"]) for one in rows]

    async def read(self, wanted: Collection[tuple[int, str]]) -> dict[tuple[int, str], Concept]:
        """Return the concepts there are of ``wanted``: (number of the shelf, code)."""
        ids = {concept_id(*one): one for one in wanted}
        found = {}
        missing = []
        for id, one in ids.items():
            if id in self._known:
                self._known.move_to_end(id)
                found[one] = self._known[id]
            else:
                missing.append(id)
        if missing:
            for row in await self._rows(missing):
                found[ids[row["_id"]]] = _keep(self._known, row["_id"], row, _KNOWN_MAX)
        return found

    async def _rows(self, ids: Sequence[str]) -> list[Document]:
        """Return the documents there are; a few are read with those that others want."""
        if len(ids) <= _GATHERED:
            rows = await asyncio.gather(*(self._fetch.one(CONCEPTS, one) for one in ids))
            return [row for row in rows if row is not None]
        async with self._bounded():
            return await self.database[CONCEPTS].find({"_id": {"$in": [*ids]}}).to_list()

    async def page(self, wanted: Wanted, offset: int, count: int) -> list[Concept]:
        """Return ``count`` concepts from the place ``offset`` on, in the order of their codes."""
        concepts = self.database[CONCEPTS]
        async with self._bounded():
            # First the ids, which an index has; then only the documents of this page.
            index, condition, skip = *await self._way(wanted), offset
            if offset and (end := self._ends.get((wanted, offset))):
                condition, skip = {"$and": [condition, {"_id": {"$gt": end}}]}, 0
            cursor = concepts.find(condition, projection={"_id": 1}).sort("_id", 1).hint(index)
            ids = [one["_id"] for one in await cursor.skip(skip).limit(count).to_list()]
            rows = await concepts.find({"_id": {"$in": ids}}).sort("_id", 1).to_list()
        if len(ids) == count:
            _keep(self._ends, (wanted, offset + count), ids[-1], _TOTALS_MAX)
        return [*rows]

    async def codes(self, wanted: Wanted, most: int) -> list[str]:
        """Return the codes of a part of a shelf, ``most`` at most."""
        async with self._bounded():
            cursor = self.database[CONCEPTS].find(wanted.filter, projection={"_id": 1})
            rows = await cursor.sort("_id", 1).hint(wanted.index).limit(most).to_list()
        return [one["_id"].partition(SEPARATOR)[2] for one in rows]

    async def total(self, wanted: Wanted) -> int | None:
        """Return how many there are; ``None`` where it takes too long to count them."""
        if isinstance(wanted.codes, Every) and not wanted.words:
            return wanted.shelf.count
        if wanted not in self._totals:
            async with self._bounded():
                index, condition = await self._way(wanted)
            found: int | None = None
            with suppress(PyMongoError), pymongo.timeout(_COUNTING_S):
                concepts = self.database[CONCEPTS]
                found = await concepts.count_documents(condition, hint=index)
            _keep(self._totals, wanted, found, _TOTALS_MAX)
        return self._totals[wanted]

    async def _way(self, wanted: Wanted) -> tuple[str, Document]:
        """Return the index to use, and the filter with what it begins with in front.

        It is that of words where few concepts have one of them. Many concepts with a word are soon
        met in the order of codes; few would be looked for long.
        """
        number = wanted.shelf.number
        for word in wanted.words:
            if (number, word) not in self._few:
                few = {"shelf": number, **words_filter((word,))}
                concepts = self.database[CONCEPTS]
                found = await concepts.count_documents(few, hint="words", limit=_FEW)
                _keep(self._few, (number, word), found < _FEW, _TOTALS_MAX)
            if self._few[number, word]:
                others = tuple(one for one in wanted.words if one != word)
                rest = replace(wanted, words=()).filter
                first = {"shelf": number, **words_filter((word,))}
                return "words", {"$and": [first, rest, met_words_filter(others)]}
        return wanted.index, wanted.filter

    async def finish(self, loading: Loading) -> Shelf:
        """See :meth:`Loading.finish`."""
        count = await self._close(loading.number)
        shelves = self.database[SHELVES]
        same = {"system": loading.system, "version": loading.version, "state": "ready"}
        older = [one["_id"] for one in await shelves.find(same, projection={"_id": 1}).to_list()]
        await shelves.update_one(
            {"_id": loading.number},
            {"$set": {"state": "ready", "count": count}, "$currentDate": {"ended": True}},
        )
        await shelves.update_many(
            {"_id": {"$in": older}},
            {"$set": {"state": "replaced"}, "$currentDate": {"ended": True}},
        )
        await self.conformance.changed(TYPES)
        return Shelf(loading.number, loading.system, loading.version, count)

    async def withdraw(self, shelf: Shelf) -> None:
        """Let nobody find ``shelf`` any more. It is removed a while later."""
        await self.database[SHELVES].update_one(
            {"_id": shelf.number},
            {"$set": {"state": "replaced"}, "$currentDate": {"ended": True}},
        )
        await self.conformance.changed(TYPES)

    async def sweep(self) -> None:
        """Remove shelves that were replaced so long ago that nobody reads them any more."""
        old = {"$lt": [{"$add": ["$ended", _REPLACED_MS]}, "$$NOW"]}
        gone = {"state": "replaced", "$expr": old}
        for row in await self.database[SHELVES].find(gone, projection={"_id": 1}).to_list():
            await self.remove(row["_id"])

    async def remove(self, number: int) -> None:
        """Remove the shelf ``number`` and its concepts."""
        await self.database[CONCEPTS].delete_many(all_of(number))
        await self.database[SHELVES].delete_one({"_id": number})

    async def _close(self, number: int) -> int:
        """Write the ancestors of all concepts; return how many concepts there are.

        What is read for that, the parents alone, takes some 100 MB for 350,000 concepts; the
        ancestors of all of them at once would be ten times as much.
        """
        parents: dict[str, tuple[str, ...]] = {}
        cursor = self.database[CONCEPTS].find(
            {"$and": [{"shelf": number}, all_of(number)]},
            projection={"code": 1, "keys": 1, "_id": 0},
        )
        prefix = key(_PARENT, "")
        async for row in cursor.batch_size(_BATCH):  # left alone, 16 MB are decoded at once
            keys = (one for one in row["keys"] if one.startswith(prefix))
            parents[sys.intern(row["code"])] = tuple(
                sys.intern(one.removeprefix(prefix)) for one in keys
            )
        for codes in _batched(parents, _BATCH):
            writes = []
            for code in codes:
                found = {"ancestors": sorted(_ancestors(code, parents))}
                writes.append(UpdateOne({"_id": concept_id(number, code)}, {"$set": found}))
            await self.database[CONCEPTS].bulk_write(writes, ordered=False)
            await asyncio.sleep(0)
        return len(parents)

    def _bounded(self) -> AbstractAsyncContextManager[None]:
        return deadline(self.timeout_s, "Ask for less: a smaller page, another filter.")


def concept_document(shelf: int, concept: Concept) -> Document:
    """Return the document of ``concept``, a FHIR object, but for its ancestors."""
    properties = concept.get("property", ())
    keys = set()
    for one in properties:
        if (text := property_text(one)) is not None:
            name = _PARENT if one["code"] in _PARENTS else one["code"]
            keys.add(key(name, text))
    texts = [concept.get("display", ""), *(one["value"] for one in concept.get("designation", ()))]
    found: Document = {
        "_id": concept_id(shelf, concept["code"]),
        "shelf": shelf,
        **{name: concept[name] for name in _FHIR if name in concept},
        "keys": sorted(keys),
        "words": sorted({word for text in texts for word in fold(text).split()}),
    }
    if key("inactive", "true") in keys or any(key("status", one) in keys for one in _RETIRED):
        found["inactive"] = True
    return found


def _ancestors(code: str, parents: Mapping[str, tuple[str, ...]]) -> set[str]:
    found: set[str] = {code}
    waiting = [code]
    while waiting:
        for one in parents.get(waiting.pop(), ()):
            if one not in found:
                found.add(one)
                waiting.append(one)
        if len(found) > ANCESTORS_MAX:
            raise ValueError(f"{code} is below more than {ANCESTORS_MAX:,} other concepts")
    return found


def _keep(kept: OrderedDict[Any, Any], key: Any, value: Any, most: int) -> Any:
    kept[key] = value
    if len(kept) > most:
        kept.popitem(last=False)
    return value


def _batched(codes: Iterable[str], size: int) -> Iterator[list[str]]:
    waiting = iter(codes)
    while batch := list(islice(waiting, size)):
        yield batch
